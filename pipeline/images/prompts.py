"""Labels in view -> text: "a traffic scene with: road, building, car", with weather, time of day and camera words.

Words come from data/prompts/*.toml and, for classes, from the taxonomy's plain words. A prompt is a function of its
view, config and seed: every draw is made whatever the config asks for, so one switch doesn't change another's words.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path
from pipeline.scene.records import View
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

LISTS = ("weather", "time_of_day", "camera")  # in the order they are drawn and said
Extra = Literal["weather", "time_of_day", "camera"]


class Prompt(NamedTuple):
    """text: what the image shows; negative: what it must not look like."""

    text: str
    negative: str


class PromptConfig(BaseModel):
    """How prompts are made; part of a recipe and of its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: str = "traffic"  # a shipped word file (data/prompts), or the path of another .toml of its form
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.002  # classes that cover less of the image aren't named
    max_classes: Annotated[int, Field(ge=1)] = 12  # at most so many are named, the largest
    order: Literal["area", "taxonomy"] = "area"  # of the named ones: largest first, or by class id
    extras: tuple[Extra, ...] = ()  # lists of which a word is drawn
    negative: bool = True  # whether there is a negative prompt
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of empty texts, for training with guidance


@dataclass(frozen=True)
class Words:
    """A word file. template holds {classes}; nothing: said where no class is large enough."""

    template: str
    nothing: str
    negative: str
    lists: Mapping[str, tuple[str, ...]]


def prompt(
    view: View, taxonomy: Taxonomy, config: PromptConfig, seed: int, given: Mapping[str, str] | None = None
) -> Prompt:
    """The view's prompt. given: words by list instead of drawn ones, as the photograph's own weather.

    Raises InputError.
    """
    words = load_words(config.words)
    names = [taxonomy.plain[k] for k in named_classes(view, taxonomy, config)]
    text = words.template.replace("{classes}", ", ".join(names) or words.nothing)
    draw = rng(seed, "prompt", 0)
    drawn = {name: words.lists[name][int(draw.integers(len(words.lists[name])))] for name in LISTS}
    dropped = bool(draw.random() < config.dropout)
    drawn |= _known(given or {}, words)
    said = ", ".join([text, *(drawn[name] for name in LISTS if name in config.extras)])
    return Prompt("" if dropped else said, words.negative if config.negative else "")


def named_classes(view: View, taxonomy: Taxonomy, config: PromptConfig) -> list[int]:
    """Class ids that cover enough of the image, in the order they are named. Raises InputError."""
    counts = np.bincount(view.semantics.ravel(), minlength=256)
    counts[[EMPTY, IGNORE]] = 0
    if counts[len(taxonomy.classes) :].any():
        found = len(taxonomy.classes) + int(np.flatnonzero(counts[len(taxonomy.classes) :])[0])
        raise InputError("prompt", f"labels of {taxonomy.name}", str(found))
    large = np.flatnonzero((counts > 0) & (counts >= config.min_share * view.semantics.size))
    by_area = sorted(large.tolist(), key=lambda k: (-counts[k], k))[: config.max_classes]
    return sorted(by_area) if config.order == "taxonomy" else by_area


def vocabulary(config: PromptConfig, taxonomy: Taxonomy) -> tuple[str, ...]:
    """Every word a prompt or its negative may hold, lower case, without punctuation, each once."""
    words = load_words(config.words)
    lists = [entry for name in LISTS for entry in words.lists[name]]
    template = words.template.replace("{classes}", " ")
    texts = [template, words.nothing, *taxonomy.plain[1:], *lists, words.negative]
    return tuple(dict.fromkeys(word for text in texts for word in re.findall(r"[\w\-]+", text.lower())))


def _known(given: Mapping[str, str], words: Words) -> Mapping[str, str]:
    for name, word in given.items():
        if word not in words.lists.get(name, ()):
            allowed = ", ".join(words.lists[name]) if name in words.lists else f"a list of {', '.join(LISTS)}"
            raise InputError(f"prompt's {name}", f"one of {allowed}", repr(word))
    return given


@functools.cache
def load_words(name_or_path: str) -> Words:
    """A shipped word file by name, or any .toml of the same form. Raises InputError."""
    is_file = name_or_path.endswith(".toml")
    path = Path(name_or_path) if is_file else data_path(f"prompts/{name_or_path}.toml")
    try:
        return _parse(tomllib.loads(path.read_text(encoding="utf-8")), path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, "words for prompts in TOML", str(error)) from None


def _parse(table: Mapping[str, Any], path: Path) -> Words:
    texts, lists = ("template", "nothing", "negative"), {name: table.get(name) for name in LISTS}
    for name in texts:
        if not isinstance(table.get(name), str):
            raise InputError(path, f"a text {name!r}", repr(table.get(name)))
    for name, entries in lists.items():
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
            raise InputError(path, f"a list of texts {name!r}", repr(entries))
    if unknown := sorted(set(table) - {*texts, *LISTS}):
        raise InputError(path, f"only {', '.join((*texts, *LISTS))}", repr(unknown[0]))
    if "{classes}" not in table["template"]:
        raise InputError(path, "a template with {classes}", repr(table["template"]))
    entries_of = {name: tuple(entries or ()) for name, entries in lists.items()}
    return Words(table["template"], table["nothing"], table["negative"], entries_of)
