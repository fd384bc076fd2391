"""A finished build in miniature with all that a report can tell of: scores, times, the SSC step's table."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

from flows.shards import Result
from flows.timing import TimingLog
from pipeline.datasets.manifest import record_files
from pipeline.scene.files import write_json

REGION = {"iou": 0.5, "precision": 0.6, "recall": 0.7, "miou": 0.125, "miou_present": 0.25, "voxels": 9}


class Page(HTMLParser):
    """Links, sources and words of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.alts: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        table = dict(attrs)
        self.links += [value for key in ("src", "href") if (value := table.get(key))]
        if tag == "img":
            self.alts.append(table.get("alt") or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def scored(dataset: Path) -> None:
    """Have a critic's scores in the manifest, falling from sample to sample."""
    table = json.loads((dataset / "manifest.json").read_text())
    for index, row in enumerate(table["samples"]):
        row["provenance"]["image"] |= {"miou": 0.1 * (6 - index), "depth_error": 0.3, "recall": {"car": 0.5}}
    rate = {"attempts": 8, "rejected": 2, "blamed": 1}
    write_json(dataset / "image_statistics.json", {"draws": rate, "classes": {"car": rate}})
    table["files"] += [record.model_dump() for record in record_files(dataset, ["image_statistics.json"])]
    write_json(dataset / "manifest.json", table)


def timed(dataset: Path) -> None:
    log = TimingLog(dataset, workers=2, threads=1)
    (dataset / ".build").mkdir(exist_ok=True)
    for shard in range(3):
        log(Result("views", shard, 1.5, skipped=False))
        log(Result("views", shard, 0.0, skipped=True))
    with log.step("manifest"):
        pass


def ssc_table(dataset: Path) -> None:
    """A table as the SSC step writes it, with one picture."""
    regions = {"all": REGION | {"classes": {"car": 0.25, "road": 0.0}, "present": ["car"]}}
    scores = {"frames": 2, "regions": regions}
    test = {"on": "held-out scenes", "short": "held-out", "frames": 2, "network": scores, "prior": scores}
    step, trained = {"recipe": "tiny"}, {"frames": 4, "steps": 9}
    picture = {"file": "ssc/a.png", "caption": "input, prediction, truth"}
    table = {"step": step, "trained": trained, "tests": [test], "pictures": [picture], "hardware": "a test"}
    table["classes"] = ["car", "road"]
    write_json(dataset / ".build/ssc/ssc.json", table)
    image = dataset / "sequences/00/image_2/000000.png"
    (dataset / ".build/ssc/ssc").mkdir()
    shutil.copyfile(image, dataset / ".build/ssc/ssc/a.png")
