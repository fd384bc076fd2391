"""Damage healthy files of every format and read them.

    python -m tests.fuzz --mutations 10000 --seed 0

A reader may accept a damaged file or refuse it with one InputError of one line. Anything else is a finding: another
exception or a warning (traceback), a read of more than five seconds (hang), more than 600 MB beyond what the process
has after its imports (over memory). Readers run in processes of their own, whose memory the system limits as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.fuzz.workers import OUTCOMES, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    start = time.perf_counter()
    findings = fuzz(options.mutations, options.seed, options.workers)
    print(f"{'file':24s}" + "".join(f"{outcome:>13s}" for outcome in OUTCOMES))
    names = sorted({name for name, _ in findings.outcomes})
    for name in names:
        print(f"{name:24s}" + "".join(f"{findings.outcomes[name, outcome]:13d}" for outcome in OUTCOMES))
    totals = [sum(findings.outcomes[name, outcome] for name in names) for outcome in OUTCOMES]
    print(f"{'all':24s}" + "".join(f"{total:13d}" for total in totals))
    print(
        f"{options.mutations} mutations, seed {options.seed}, {time.perf_counter() - start:.0f} s; "
        f"slowest read {findings.slowest_s:.2f} s, largest growth {findings.growth_mb:.0f} MB"
    )
    for case in findings.faults[:40]:
        print(f"{case.target} #{case.number}: {case.outcome}: {case.detail}")
    return bool(findings.faults)


if __name__ == "__main__":
    sys.exit(main())
