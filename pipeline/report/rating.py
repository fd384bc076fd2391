"""The papers' human score as a blinded page: people give pictures of scenes 0 to 10 without knowing the method.

The page is one HTML file with everything in it: it opens from disk and asks nothing of any network. Pictures stand in
seeded random order under numbers; which is whose lies in a key file, which raters must not get. Each rater sends back
the JSON file that the page writes. `score_ratings` joins key and ratings (five raters and 300 pictures in Comp-D3PM).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, write_atomic, write_json
from pipeline.scene.seeds import rng

KEY_FORMAT, RATINGS_FORMAT = "occfactory-rating-key-1", "occfactory-ratings-1"
QUESTION = (
    "How whole are the objects (cars, people, poles, trees) in this scene? 10: as in a real street; "
    "0: eaten away by what surrounds them, or gone."
)
LARGEST_FILE = 1 << 24  # bytes of a key or ratings file


@dataclass(frozen=True)
class MethodRating:
    """A method's ratings: their mean and (unbiased) variance, how many there are, and from how many raters.

    rater_variance: variance of the raters' own means; both variances are nan where there is one only.
    """

    method: str
    mean: float
    variance: float
    n: int
    raters: int
    rater_variance: float


def write_rating_page(
    page: Path,
    key: Path,
    methods: Mapping[str, Sequence[Path]],
    seed: int,
    title: str = "Rating of street scenes",
    question: str = QUESTION,
) -> None:
    """Write the page and its key from each method's picture files.

    Pictures are written anew as PNG, so that no name, date or comment in a file gives its method away. Raises
    InputError on a file that is no picture, or pictures of differing size, which would.
    """
    from jinja2 import Environment, StrictUndefined

    entries = [(method, Path(path)) for method, paths in sorted(methods.items()) for path in paths]
    if not entries:
        raise InputError("rating page", "pictures", "none")
    order = rng(seed, "rating", 0).permutation(len(entries))
    pictures, sizes = zip(*(_plain_png(entries[n][1]) for n in order), strict=True)
    if len(set(sizes)) > 1:
        found = " and ".join(f"{w}x{h}" for w, h in sorted(set(sizes))[:3])
        raise InputError("rating page", "pictures of one size, so that size tells nothing", found)
    names = [f"{n:04d}" for n in range(1, len(entries) + 1)]
    items = {
        name: {"method": entries[n][0], "picture": entries[n][1].name} for name, n in zip(names, order, strict=True)
    }
    identity = digest_of({"seed": seed, "items": items, "pictures": pictures})[:16]
    template = (Path(__file__).parent / "rating.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    shown = [{"name": name, "src": f"data:image/png;base64,{data}"} for name, data in zip(names, pictures, strict=True)]
    config = {"format": RATINGS_FORMAT, "page": identity, "items": shown}
    text = environment.from_string(template).render(title=title, question=question, config=config)
    write_atomic(page, text + "\n")
    write_json(key, {"format": KEY_FORMAT, "page": identity, "seed": seed, "items": items})


def _plain_png(path: Path) -> tuple[str, tuple[int, int]]:
    """A picture's pixels alone as PNG in base64, and its (width, height)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = Image.fromarray(np.asarray(image.convert("RGB")))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(path, "a picture", str(error)) from None
    buffer = io.BytesIO()
    pixels.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii"), pixels.size


def score_ratings(key: Path, ratings: Sequence[Path]) -> tuple[MethodRating, ...]:
    """Mean and variance a method, in alphabetical order, from the raters' files; unrated pictures are left out.

    Raises InputError on files of another page or form, and on a rater who comes twice.
    """
    table = _read(key, KEY_FORMAT)
    items = table.get("items")
    if not isinstance(items, dict) or not all(
        isinstance(i, dict) and isinstance(i.get("method"), str) for i in items.values()
    ):
        raise InputError(key, "items with their methods", "others")
    given: dict[str, dict[str, int]] = {}
    for path in ratings:
        rater, scores = _ratings(path, table["page"], set(items))
        if rater in given:
            raise InputError(path, "one file a rater", f"a second one of {rater!r}", "keep the later one")
        given[rater] = scores
    methods = sorted({item["method"] for item in items.values()})
    return tuple(
        _rating(m, [[s for name, s in scores.items() if items[name]["method"] == m] for scores in given.values()])
        for m in methods
    )


def _ratings(path: Path, page: str, names: set[str]) -> tuple[str, dict[str, int]]:
    table = _read(path, RATINGS_FORMAT)
    rater, scores = table.get("rater"), table.get("ratings")
    if table["page"] != page:
        raise InputError(path, f"ratings of page {page}", f"of {table['page']!r}", "give the key of the same page")
    if not isinstance(rater, str) or not rater.strip() or not isinstance(scores, dict) or set(scores) - names:
        raise InputError(path, "a rater's name and ratings of the page's pictures", "others")
    if not all(type(score) is int and 0 <= score <= 10 for score in scores.values()):
        raise InputError(path, "ratings in whole numbers, 0 to 10", "others")
    return rater.strip(), scores


def _read(path: Path, form: str) -> dict[str, Any]:
    try:
        text = Path(path).read_bytes()[: LARGEST_FILE + 1]
        table = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"a file of {form}", str(error)) from None
    if not isinstance(table, dict) or table.get("format") != form or not isinstance(table.get("page"), str):
        raise InputError(path, f"a file of {form}", "another")
    return table


def _rating(method: str, by_rater: Sequence[Sequence[int]]) -> MethodRating:
    scores = np.array([score for rater in by_rater for score in rater], float)
    means = np.array([np.mean(rater) for rater in by_rater if rater])
    return MethodRating(
        method=method,
        mean=float(scores.mean()) if len(scores) else float("nan"),
        variance=float(scores.var(ddof=1)) if len(scores) > 1 else float("nan"),
        n=len(scores),
        raters=len(means),
        rater_variance=float(means.var(ddof=1)) if len(means) > 1 else float("nan"),
    )
