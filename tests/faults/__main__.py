"""Run the faults and print what became of each: python -m tests.faults [--seed N] [--kills N] [--prefect-kills N]."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.building import PLAIN, street, undisturbed, whole_road
from tests.faults.scenarios import SkippedError, flipped_byte, full_disk, kills, lost_dask_worker, moments


def main() -> int:
    """0 if every build that went on ended as the undisturbed one."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--kills", type=int, default=50, help="of a build with every stage on, without Prefect")
    arguments.add_argument("--prefect-kills", type=int, default=5)
    arguments.add_argument(
        "--in-a-row", type=int, default=5, help="kills of one folder before it is brought to its end"
    )
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="occfactory-faults-") as folder:
        for scenario in _scenarios(Path(folder), asked):
            try:
                for line in scenario:
                    print(line, flush=True)
            except SkippedError as reason:
                print(f"SKIPPED: {reason}", flush=True)
            except RuntimeError as fault:
                print(f"FAILED: {fault}", flush=True)
                return 1
    return 0


def _scenarios(folder: Path, asked: argparse.Namespace) -> Iterator[Iterator[str]]:
    whole = undisturbed(folder, whole_road(folder))
    print(f"every stage on, undisturbed: {len(whole.expected)} files in {whole.seconds:.1f} s", flush=True)
    yield kills(whole, folder / "whole", moments(asked.seed, asked.kills, whole.seconds), asked.in_a_row)
    plain = undisturbed(folder, street(folder))
    yield flipped_byte(plain, folder / "flipped")
    yield full_disk(plain, folder / "small")
    if importlib.util.find_spec("distributed") is None:
        print("SKIPPED: a lost Dask worker, as dask is not installed", flush=True)
    else:
        dask = undisturbed(folder, street(folder), *PLAIN, "--runner", "dask")
        yield lost_dask_worker(dask, folder / "lost")
    if not asked.prefect_kills:
        return
    flow = undisturbed(folder, street(folder), "--engine", "prefect", "--workers", "2")
    print(f"undisturbed as a Prefect flow: {flow.seconds:.1f} s", flush=True)
    yield kills(flow, folder / "flow", moments(asked.seed + 1, asked.prefect_kills, flow.seconds), 1)


if __name__ == "__main__":
    sys.exit(main())
