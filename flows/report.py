"""`occfactory report`: a finished build -> DIR/report/index.html, from its manifest, files and notes alone.

The report tells of times and machines, so it is none of the manifest's files; it can be written again at any moment.
What only the work folder knows (times, the SSC step's table) is kept beside the page, and found there later on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flows.image_checks import STATISTICS as IMAGE_STATISTICS
from flows.report_images import photograph_table, shown_scenes
from flows.report_pictures import Album, evenly
from flows.report_samples import Measured, measured, worst
from flows.report_ssc import read_ssc, ssc_section
from flows.report_tables import (
    class_table,
    disk_table,
    duration,
    image_section,
    percent,
    real_statistics,
    scene_section,
    size,
    stage_table,
)
from flows.shards import WORK
from flows.timing import LOG_NAME, Timing, read_timing
from pipeline.datasets.checked_files import read_json
from pipeline.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from pipeline.datasets.semantic_kitti import KittiRoot, open_root
from pipeline.report.evaluation import Table
from pipeline.report.report import FOLDER, PAGE, VIEWER, Report, Section, write_report_page
from pipeline.scene.files import write_json

SHOWN = 8  # samples on the page, unless the recipe says otherwise
WORST = 4  # samples a check
TABLES = "report.json"
SSC_TABLE, SSC_FOLDER = "ssc.json", f"{WORK}/ssc"


def write_report(
    directory: Path,
    real: Path | None = None,
    scenes: Path | None = None,
    ssc: Path | None = None,
    shown: int = SHOWN,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write a finished build's report, whole; its page.

    real: a root to hold the classes against; scenes: an evaluate-scenes table.json; ssc: an `ssc protocols` one; shown:
    samples on the page, evenly spaced. Raises InputError.
    """
    directory = Path(directory)
    manifest, root = read_manifest(directory), open_root(directory)
    found = measured(root, manifest, progress)
    with _new_folder(directory) as folder:
        timing = _kept_timing(directory, folder)
        table = _kept_ssc(directory, folder)
        album = Album(root, folder, _rendered(manifest))
        scenes_shown = shown_scenes(found)
        names = evenly(list(scenes_shown), shown)
        if names:
            album.write_viewer(names, str(manifest.recipe.get("name", directory.name)))
        told = {sample.name: _sample_note(sample) for sample in found}
        sections = [
            None if scenes is None else scene_section(scenes),
            _images(directory, root, manifest, found, real),
            ssc_section(table, folder, ssc),
        ]
        page = Report(
            title=f"{manifest.recipe.get('name', directory.name)}: {len(found)} samples",
            subtitle=str(manifest.recipe.get("description") or SUBTITLE),
            tiles=_tiles(manifest, found, timing, table),
            facts=_facts(manifest, root, found),
            built=[*([stage_table(timing, len(found))] if timing else []), disk_table(manifest)],
            sample_note=f"{len(names)} of {len(found)}, evenly spaced, uncurated. A picture opens the file itself.",
            samples=[album.shown(name, number, told[name], scenes_shown[name]) for number, name in enumerate(names)],
            classes=class_table(
                root.taxonomy, found, None if real is None else (real.resolve().name, *real_statistics(real))
            ),
            sections=[section for section in sections if section is not None],
            worst_note=f"Of all {len(found)}, by each check that the build has figures for.",
            worst=[
                album.worst(check.title, [(s.name, check.told(check.value(s) or 0.0)) for s in members])
                for check, members in worst(found, WORST)
            ],
            links=_links(directory, folder, manifest, timing, table),
        )
        write_report_page(folder, page)
        write_json(folder / TABLES, _tables(page, str(manifest.recipe.get("name", directory.name))))
    return directory / FOLDER / PAGE


SUBTITLE = "Semantic voxel scenes with their views, as a SemanticKITTI-layout dataset."


@contextmanager
def _new_folder(directory: Path) -> Iterator[Path]:
    """A folder that takes the report's place once it is whole."""
    new, old = directory / WORK / "report.new", directory / WORK / "report.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    if (directory / FOLDER).exists():
        os.replace(directory / FOLDER, old)
    os.replace(new, directory / FOLDER)
    shutil.rmtree(old, ignore_errors=True)


def _kept_timing(directory: Path, folder: Path) -> Timing | None:
    """The work folder's notes of times, or those that lay beside the last report; copied beside the new one."""
    for path in (directory / WORK / LOG_NAME, directory / FOLDER / LOG_NAME):
        if (found := read_timing(path)) is not None:
            shutil.copyfile(path, folder / LOG_NAME)
            return found
    return None


def _kept_ssc(directory: Path, folder: Path) -> dict[str, Any] | None:
    """The SSC step's table and pictures, copied beside the page."""
    for place in (directory / SSC_FOLDER, directory / FOLDER):
        table = read_ssc(place / SSC_TABLE)
        if table is not None:
            table["pictures"] = [row for row in table.get("pictures", []) if (place / str(row["file"])).is_file()]
            for row in table["pictures"]:
                (folder / row["file"]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / row["file"], folder / row["file"])
            write_json(folder / SSC_TABLE, table)
            return table
    return None


def _images(
    directory: Path, root: KittiRoot, manifest: Manifest, found: Sequence[Measured], real: Path | None
) -> Section | None:
    """How images kept to their voxels, and how near they are to a real root's photographs. Raises InputError."""
    section = image_section(found, len(manifest.dropped), _image_rates(directory))
    names = [sample.name for sample in found]
    beside = None if real is None else photograph_table(root, names, _rendered(manifest), real)
    if beside is None:
        return section
    section = section or Section("images", "Images", "")
    return replace(section, tables=[*section.tables, beside])


def _rendered(manifest: Manifest) -> bool:
    """Whether images are renders already."""
    return (manifest.recipe.get("images") or {}).get("kind", "render") == "render"


def _image_rates(directory: Path) -> dict[str, Any] | None:
    """What the build counted of its draws; None where it judged none. Raises InputError."""
    path = directory / IMAGE_STATISTICS
    return dict(read_json(path, "counts of draws by class")) if path.exists() else None


def _tables(page: Report, name: str) -> dict[str, Any]:
    """The page's words and figures, for programs."""
    heads = ["class", *page.classes.heads]
    classes = Table("Classes", page.classes.note, heads, [[row.name, *row.cells] for row in page.classes.rows])
    worst_rows = [[check.title, sample.name, sample.value] for check in page.worst for sample in check.samples]
    worst_table = Table("Worst samples", page.worst_note, ["check", "sample", "value"], worst_rows)
    tables = [*page.built, classes, *(table for section in page.sections for table in section.tables), worst_table]
    return {
        "name": name,
        "title": page.title,
        "subtitle": page.subtitle,
        "tiles": page.tiles,
        "facts": page.facts,
        "tables": [asdict(table) for table in tables if table.rows],
    }


def _tiles(
    manifest: Manifest, found: Sequence[Measured], timing: Timing | None, table: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """The figures that one asks for first."""
    tiles = [(f"{len(found)}", "samples"), (size(sum(record.bytes for record in manifest.files)), "on disk")]
    if timing is not None:
        tiles += [
            (duration(timing.elapsed_s), "from first to last"),
            (duration(timing.core_s / max(len(found), 1)), "of one core a sample"),
        ]
    marks = [sample.image["accepted"] for sample in found if isinstance(sample.image.get("accepted"), bool)]
    marks += [False for _ in manifest.dropped]
    if marks:
        tiles.append((f"{100 * sum(marks) / len(marks):.0f} %", "accepted by the structure check"))
    for test in (table or {}).get("tests", [])[:1]:
        scored = test["network"]["regions"]["all"]
        tiles.append((f"{100 * scored['iou']:.1f} / {100 * scored['miou']:.1f}", f"IoU / mIoU, {test['short']}"))
    return tiles


def _facts(manifest: Manifest, root: KittiRoot, found: Sequence[Measured]) -> list[tuple[str, str]]:
    x, y, z = root.grid.shape
    recipe = manifest.recipe
    splits = ", ".join(f"{name} {len(root.frames(name))}" for name in root.splits)
    source = recipe.get("source") or {}
    weights = str(source.get("weights_digest", ""))[:16]
    views = recipe.get("views") or {}
    facts = [
        ("recipe", f"{recipe.get('name', '')}, digest {manifest.recipe_digest[:16]}, seed {manifest.build_seed}"),
        ("scenes from", str(source.get("kind", "")) + (f", weights {weights}" if weights else "")),
        ("samples", f"{len(found)} in {len(root.sequences)} sequences: {splits}"),
        ("grid", f"{x} x {y} x {z} voxels of {root.grid.voxel_size_m} m, classes of {root.taxonomy.name}"),
    ]
    if views:
        facts.append(("views", _views_told(views, source)))
    if "masks" in recipe:
        facts.append(("masks", str(recipe["masks"])))
    facts.append(("images", str((recipe.get("images") or {}).get("kind", ""))))
    facts.append(("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())))
    return [(name, value) for name, value in facts if value]


def _views_told(views: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    real = views.get("real", ())
    sizes = [f"{view['width_px']} x {view['height_px']} px" for view in (real or [views])]
    told = f"{', '.join(views['cameras'])}; {', '.join(dict.fromkeys(sizes))}"
    told += f"; {len(real)} cameras of a real dataset" if real else ""
    return told + (f"; scenes go on for {source['extend_m']:g} m beyond the grid" if source.get("extend_m") else "")


def _sample_note(sample: Measured) -> str:
    """Prompt, scores and counts of one sample, in a line."""
    note = [f"{percent(sample.occupied_share)} of the valid voxels occupied", f"{sample.classes} classes"]
    if (miou := sample.figure("miou")) is not None:
        note.append(f"critic's mIoU {100 * miou:.1f} %")
    if isinstance(sample.image.get("accepted"), bool):
        note.append("accepted" if sample.image["accepted"] else "not accepted")
    if isinstance(sample.image.get("prompt"), str):
        note.append(f"“{sample.image['prompt']}”")
    return " · ".join(note)


def _links(
    directory: Path, folder: Path, manifest: Manifest, timing: Timing | None, table: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """Files beside the page, and folders of the dataset."""
    sequences = sorted({sample.name.partition("/")[0] for sample in manifest.samples})
    links = [(MANIFEST_NAME, f"../{MANIFEST_NAME}", f"recipe, samples and SHA-256 of {len(manifest.files)} files")]
    known = {"splits.json": "which sequences are for what", "statistics.json": "class counts of the training split"}
    links += [(name, f"../{name}", what) for name, what in known.items() if (directory / name).exists()]
    links += [
        (f"sequences/{name}", f"../sequences/{name}/", "voxels, images, depth, calibration") for name in sequences
    ]
    links += [(VIEWER, VIEWER, "the 3D viewer, a page of its own")] * (folder / VIEWER).exists()
    links += [(TABLES, TABLES, "this page's tables, for programs")]
    links += [(LOG_NAME, LOG_NAME, "every job's time")] * (timing is not None)
    links += [(SSC_TABLE, SSC_TABLE, "scores and confusions of scene completion")] * (table is not None)
    return links
