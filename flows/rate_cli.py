"""The command `rate`: a blinded page of generated and real scenes for people to score, and the scores they give."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.scene.errors import InputError

if TYPE_CHECKING:
    from flows.scene_sets import SceneSet

KEY_NAME, PAGE_NAME = "key.json", "rate.html"
PICTURE_PX = 320  # a picture's height


def register(app: typer.Typer) -> None:
    """Give `app` the command."""
    app.command("rate")(rate)


def rate(  # a command has as many parameters as options
    ratings: Annotated[list[Path] | None, typer.Argument(help="Files that raters sent back, to score.")] = None,
    *,
    generated: Annotated[list[Path] | None, typer.Option("--generated", help="A root of scenes; repeatable.")] = None,
    name: Annotated[list[str] | None, typer.Option("--name", help="What to call it, one a folder.")] = None,
    real: Annotated[Path | None, typer.Option("--real", help="A root whose val split is rated along.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Scenes of each folder.")] = 30,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; new or empty.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="The key of the page that was rated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of the scenes drawn.")] = 0,
) -> None:
    """Make a blinded rating page (OUT/rate.html; keep OUT/key.json to yourself), or score the ratings it brought.

    \b
    Examples:
      occfactory rate --generated A --generated B --real data/runs/town_small --out runs/rating
      occfactory rate anna.json ben.json --key runs/rating/key.json
    """
    if ratings:
        _score(ratings, key)
    elif generated and out is not None:
        count = make_page(tuple(generated), tuple(name or ()), real, each, out, seed)
        print(f"{out / PAGE_NAME}: {count} pictures; {out / KEY_NAME} says whose they are")
    else:
        raise InputError("rate", "--generated and --out to make a page, or ratings and --key", "neither")


def make_page(
    folders: tuple[Path, ...], names: tuple[str, ...], real: Path | None, each: int, out: Path, seed: int
) -> int:
    """Write page and key of seeded draws from every folder; how many pictures. Raises InputError."""
    from flows.scene_sets import check_alike, drawn, folder_set, split_set
    from pipeline.report.rating import write_rating_page
    from pipeline.scene.files import require_empty

    require_empty(out)
    if names and len(names) != len(folders):
        raise InputError("--name", f"{len(folders)}, one a folder", str(len(names)))
    given = names or tuple(folder.resolve().name for folder in folders)
    if len({*given, "real"}) != len(given) + 1:
        raise InputError("--name", "different names, none of them real", ", ".join(given), "give --name")
    sets = [folder_set(folder, label) for folder, label in zip(folders, given, strict=True)]
    sets += [] if real is None else [split_set(real, "val", "real")]
    for scenes in sets[1:]:
        check_alike(scenes, sets[0])
    with tempfile.TemporaryDirectory() as folder:
        files = {scenes.name: _pictures(drawn(scenes, each, seed), Path(folder), k) for k, scenes in enumerate(sets)}
        write_rating_page(out / PAGE_NAME, out / KEY_NAME, files, seed)
    return sum(len(paths) for paths in files.values())


def _pictures(scenes: SceneSet, folder: Path, number: int) -> list[Path]:
    """From above and oblique, side by side, of each scene: pictures of one size."""
    from flows.scene_pictures import above_image, beside, fitted
    from pipeline.datasets.image_files import write_image
    from renderers.bird_eye import oblique_image

    paths = []
    for index, (sequence, frame) in enumerate(scenes.keys):
        scene = scenes.scene(index)
        paths.append(folder / str(number) / f"{sequence}_{frame}.png")
        views = [above_image(scene), oblique_image(scene, (1024, 576))]
        write_image(paths[-1], beside([fitted(view, PICTURE_PX) for view in views]))
    return paths


def _score(ratings: list[Path], key: Path | None) -> None:
    from pipeline.report.rating import score_ratings

    if key is None:
        raise InputError("--key", "the key of the page that was rated", "none")
    for row in score_ratings(key, ratings):
        print(
            f"{row.method}: mean {row.mean:.2f}, variance {row.variance:.2f} ({row.n} ratings, {row.raters} raters, "
            f"variance of their means {row.rater_variance:.2f})"
        )
