"""A critic out of two models of others: a transformers segmentation and a transformers depth model, in local folders.

    segmentation's label --by name--> class of the taxonomy; a label without one counts as nothing of the grid (0)
    depth's output       metres, or inverse depth up to a factor, as many relative models give

Nothing is downloaded and only safetensors files are read. Names are compared without case, hyphens and underscores,
against a class's name and plain words; `mapping` adds what differs (label -> class name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch.nn.functional import interpolate

from pipeline.images.base import quiet
from pipeline.images.critic import Prediction, check_image
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, Taxonomy

DepthKind = Literal["metric", "inverse"]


@dataclass(frozen=True, eq=False)
class ForeignCritic:
    """Two models with their image processors. class_of: taxonomy's id by the segmentation's label id.

    unmapped: labels that no class has, so that a user can see what counts as nothing.
    """

    classes: tuple[str, ...]
    segmentation: tuple[Any, Any]
    depth: tuple[Any, Any]
    depth_kind: DepthKind
    class_of: UInt8[np.ndarray, "l"]
    unmapped: tuple[str, ...] = field(default=())

    @property
    def multiple(self) -> int:
        """1: their image processors resize."""
        return 1

    @torch.no_grad()
    def predict(self, image: UInt8[np.ndarray, "h w 3"]) -> Prediction:
        """What one image shows, at its size. Raises InputError."""
        check_image(image)
        model, processor = self.segmentation
        logits = model(**_inputs(model, processor, image)).logits  # (1, L, h, w), mostly coarser
        labels = interpolate(logits.float(), image.shape[:2], mode="bilinear")[0].argmax(0)
        return Prediction(self.class_of[labels.cpu().numpy()], self._log_depth(image))

    def _log_depth(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        model, processor = self.depth
        found = model(**_inputs(model, processor, image)).predicted_depth.float()  # (1, h, w)
        full = interpolate(found[None], image.shape[:2], mode="bilinear")[0, 0]
        log = full.clamp(min=1e-3).log().cpu().numpy()
        return -log if self.depth_kind == "inverse" else log


def load_foreign_critic(
    segmentation: Path,
    depth: Path,
    taxonomy: Taxonomy,
    *,
    mapping: Mapping[str, str] | None = None,
    depth_kind: DepthKind | None = None,
) -> ForeignCritic:
    """Two local folders as `save_pretrained` writes them, model and image processor.

    depth_kind: what the depth model gives; None reads it from its config where that says. Raises InputError.
    """
    from transformers import AutoModelForDepthEstimation, AutoModelForSemanticSegmentation

    segments = _load(Path(segmentation), AutoModelForSemanticSegmentation, "a segmentation model")
    depths = _load(Path(depth), AutoModelForDepthEstimation, "a depth model")
    names = {int(k): str(name) for k, name in segments[0].config.id2label.items()}
    class_of = classes_by_name(names, taxonomy, mapping or {}, segmentation)
    unmapped = tuple(name for k, name in sorted(names.items()) if class_of[k] == EMPTY)
    kind = depth_kind or _kind(depths[0].config, depth)
    return ForeignCritic(taxonomy.classes, segments, depths, kind, class_of, unmapped)


def classes_by_name(
    names: Mapping[int, str], taxonomy: Taxonomy, mapping: Mapping[str, str], subject: str | Path
) -> UInt8[np.ndarray, "l"]:
    """The taxonomy's class id for each of a model's labels, 0 where none fits. Raises InputError.

    mapping: class name by label, before what is found by name.
    """
    known = {_plain(name): k for k, name in enumerate(taxonomy.plain)}
    known |= {_plain(name): k for k, name in enumerate(taxonomy.classes)}
    given = {_plain(label): taxonomy.id_of(name) for label, name in mapping.items()}
    if unknown := sorted(set(given) - {_plain(name) for name in names.values()}):
        raise InputError(f"label map of {subject}", "labels that the model has", repr(unknown[0]))
    table = np.zeros(max(names) + 1, np.uint8)
    for k, name in names.items():
        table[k] = given.get(_plain(name), known.get(_plain(name), EMPTY))
    if not table.any():
        what = f"labels named as classes of {taxonomy.name}"
        raise InputError(subject, what, ", ".join(list(names.values())[:4]), "give a map from its labels to classes")
    return table


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _kind(config: Any, folder: Path) -> DepthKind:
    stated = getattr(config, "depth_estimation_type", None)  # Depth Anything says it; others don't
    if stated not in ("metric", "relative"):
        raise InputError(folder, "a config that says whether depth is metric or relative", "none", "give depth_kind")
    return "metric" if stated == "metric" else "inverse"


def _load(folder: Path, kind: Any, what: str) -> tuple[Any, Any]:
    """(model, processor); missing weights are a fault, not a warning."""
    from transformers import AutoImageProcessor

    if not (folder / "config.json").is_file():
        raise InputError(folder, f"{what}'s folder with config.json", "none")
    options: dict[str, Any] = {"local_files_only": True}
    with quiet():
        try:
            processor = AutoImageProcessor.from_pretrained(folder, **options)
            options |= {"use_safetensors": True, "output_loading_info": True}
            model, info = kind.from_pretrained(folder, **options)
        except Exception as error:  # transformers raises OSError, ValueError, KeyError, SafetensorError...
            raise InputError(folder, what, f"{type(error).__name__}: {str(error)[:200]}") from None
    if missing := sorted(map(str, info.get("missing_keys") or ())):
        raise InputError(folder, f"{what}'s weights, all of them", f"none for {missing[0]}")
    return model.float().eval(), processor


def _inputs(model: Any, processor: Any, image: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    inputs = processor(images=[image], return_tensors="pt")
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}
