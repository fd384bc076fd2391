"""Weights on disk: a folder of safetensors files and card.json, which names them with their SHA-256.

Nothing is ever pickled or unpickled. A folder appears whole or not at all, so one that has its card and whose digests
agree is sound. Generators save into the same form (generators/protocol.py), so their loaders read a training
checkpoint too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, sha256_file, write_json

CARD_NAME = "card.json"
FORMAT = "occfactory-weights-1"
MODEL, EMA, OPTIMIZER = "model", "ema", "optimizer"  # usual parts; a part is one file of named tensors


def save_parts(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], card: Mapping[str, Any]) -> None:
    """Write each part as `<part>.safetensors` and the card, replacing what stands at `folder`, atomically.

    card: anything JSON can hold; `format` and `files` are added.
    """
    with atomic_folder(Path(folder)) as temporary:
        files = {}
        for part, tensors in parts.items():
            path = temporary / f"{part}.safetensors"
            save_file({name: _stored(value) for name, value in tensors.items()}, path)
            files[path.name] = sha256_file(path)
        write_json(temporary / CARD_NAME, {**card, "format": FORMAT, "files": files})


def _stored(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()  # a copy: tied weights share memory, the format can't


def save_model(folder: Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write a network's weights and buffers with their card. Raises InputError.

    What stands at `folder` is replaced only if it holds saved weights and nothing else.
    """
    _check_ours(folder)
    save_parts(folder, {MODEL: model.state_dict()}, card)


def halve(folder: Path, out: Path, notes: Mapping[str, str]) -> None:
    """Write saved weights again in float16, half as large; networks compute as before. notes: added to their card.

    What stands at `out` is replaced only if it holds saved weights and nothing else. Raises InputError; a weight that
    float16 can't hold is one.
    """
    _check_ours(out)
    theirs = check_whole(folder)
    if "digest" in theirs:  # figures name such weights by it: others would be another encoder
        raise InputError(folder, "a generator or a completion network", "an encoder, frozen by its digest")
    if taken := sorted(set(notes) & set(theirs)):
        raise InputError("note", "a name that the card hasn't yet", taken[0])
    parts = {name: _halved(load_part(folder, name), name) for name in (Path(file).stem for file in theirs["files"])}
    save_parts(out, parts, {**theirs, "stored": "float16", **notes})


def _halved(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    found = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{name} of {part}", "finite weights below 65,504, float16's largest", "others")
    return found


def _check_ours(folder: Path) -> None:
    folder = Path(folder)
    if folder.exists() and (held := {path.name for path in folder.iterdir()}):
        foreign = sorted(held - {CARD_NAME, *read_card(folder)["files"]})
        if foreign:
            raise InputError(folder, "a new folder, or one of saved weights alone", foreign[0], "choose another")


def read_card(folder: Path) -> dict[str, Any]:
    """The card beside the weights. Raises InputError."""
    path = Path(folder) / CARD_NAME
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(path, "the card of saved weights", "nothing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(path, "the card of saved weights (JSON)", str(error)) from None
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("files"), dict):
        raise InputError(path, f"a card of format {FORMAT}", "something else")
    return card


def check_whole(folder: Path) -> dict[str, Any]:
    """The card, after every file it names has been found with its SHA-256. Raises InputError."""
    card = read_card(folder)
    for name, digest in card["files"].items():
        path = Path(folder) / Path(name).name
        if not path.is_file():
            raise InputError(path, "a file named by its card", "nothing")
        if sha256_file(path) != digest:
            raise InputError(path, f"SHA-256 {digest[:12]}...", "other content", "the file is damaged")
    return card


def load_part(folder: Path, part: str) -> dict[str, Tensor]:
    """The tensors of one part, on the CPU. Raises InputError."""
    path = Path(folder) / f"{part}.safetensors"
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(path, "weights", "nothing") from None
    except (SafetensorError, OSError) as error:
        raise InputError(path, "a whole safetensors file", str(error)) from None


def load_model(folder: Path, model: nn.Module, part: str | None = None) -> dict[str, Any]:
    """Fill `model` with the saved weights and return their card.

    part: `model` or `ema`; None takes the average where there is one. Names and shapes must agree exactly; device and
    dtype stay the model's. Raises InputError.
    """
    card = check_whole(folder)
    part = part or (EMA if f"{EMA}.safetensors" in card["files"] else MODEL)
    fill(model, load_part(folder, part), Path(folder) / f"{part}.safetensors")
    return card


def fill(model: nn.Module, tensors: Mapping[str, Tensor], subject: str | Path) -> None:
    """Copy named tensors into a network. Raises InputError that names the first missing, unexpected or unlike one."""
    check_same(model.state_dict(), tensors, subject)
    with torch.no_grad():
        model.load_state_dict(dict(tensors))


def check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], subject: str | Path) -> None:
    """Both must hold the same names and shapes. Raises InputError."""
    remedy = "the network was built with another config than these weights"
    for name, value in expected.items():
        if name not in found:
            raise InputError(subject, f"weights named {name!r}", "none of that name", remedy)
        if found[name].shape != value.shape:
            shapes = f"shape {tuple(value.shape)} for {name!r}", str(tuple(found[name].shape))
            raise InputError(subject, *shapes, remedy)
    unexpected = next((name for name in found if name not in expected), None)
    if unexpected is not None:
        raise InputError(subject, "only weights that the network has", repr(unexpected), remedy)
