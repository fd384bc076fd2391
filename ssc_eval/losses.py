"""MonoScene's losses and the targets they need (Cao and de Charette, CVPR 2022, section 3.4), in plain torch.

total = cross_entropy + semantic_affinity + geometric_affinity + relation + frustum, each with weight 1 in the paper
(see LossWeights). Axes: B samples, K classes (0 empty), X, Y, Z voxels; labels are uint8, 255 = ignored. Logits may be
half precision: everything is computed in float32, scalars a class or tile in float64. Every term and its gradient stay
finite: where the public code divides by nothing (a relation without a positive, an empty tile, no occupied voxel,
everything ignored), the term is left out, and a loss with no term is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, IGNORE

TILES = 8  # the image is cut into TILES x TILES tiles
OUTSIDE = -1  # tile of a voxel out of view
_TINY = 1e-30  # -ln of it is 69: what a ratio of 0 costs
Weight = Annotated[float, Field(ge=0)]


class LossWeights(BaseModel):
    """What each term counts; the paper's are all 1, and `balanced`.

    The affinities ask for every class's recall as much as for its precision, and balancing for that of rare classes:
    where little can be seen from an image they make a network guess, and its probabilities are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    cross_entropy: Weight = 1.0
    semantic_affinity: Weight = 1.0
    geometric_affinity: Weight = 1.0
    relation: Weight = 1.0
    frustum: Weight = 1.0
    depth: Weight = unwritten(1.0, ge=0)  # of surface.surface_losses, where the network predicts surfaces
    surface: Weight = unwritten(1.0, ge=0)
    balanced: bool = True  # cross-entropy weighs classes by 1 / ln(frequency); else all alike

    def total(self, terms: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum; terms are named as the fields."""
        return torch.stack([getattr(self, name) * term for name, term in terms.items()]).sum()


def monoscene_losses(
    logits: Float[Tensor, "b k x y z"],
    labels: UInt8[Tensor, "b x y z"],
    weights: Float[Tensor, "k"],
    tiles: Int16[Tensor, "b x y z"] | None = None,
    relation_logits: Float[Tensor, "b 4 m n"] | None = None,
    relations: Bool[Tensor, "b 4 m n"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """All terms by name; their sum is trained on. Without tiles or relation logits those terms are not there.

    weights: of the cross-entropy by class (pipeline.datasets.statistics.class_weights); tiles: `frustum_tiles`;
    relations: `relation_targets`. One softmax serves every term. Raises InputError.
    """
    check_labels(logits, labels)
    log_p = logits.float().log_softmax(1)
    p = log_p.exp()
    terms = {
        "cross_entropy": _cross_entropy(log_p, labels, weights),
        "semantic_affinity": _semantic_affinity(p, labels),
        "geometric_affinity": _geometric_affinity(p, labels),
    }
    if tiles is not None:
        terms["frustum"] = _frustum_proportion(p, labels, tiles, TILES * TILES)
    if relation_logits is not None:
        if relations is None:
            raise InputError("relation loss", "targets beside the logits", "none", "relation_targets makes them")
        terms["relation"] = relation_loss(relation_logits, relations)
    return terms


def check_labels(logits: Float[Tensor, "b k x y z"], labels: UInt8[Tensor, "b x y z"]) -> None:
    """Raises InputError on shapes or types that don't fit; on a CPU (elsewhere it would wait) on labels not below K."""
    if labels.dtype != torch.uint8 or logits.ndim != 5 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        expected = f"uint8 (B,X,Y,Z) for logits (B,K,X,Y,Z) {tuple(logits.shape)}"
        raise InputError("labels", expected, f"{labels.dtype} {tuple(labels.shape)}")
    if labels.device.type == "cpu":
        wrong = labels[(labels >= logits.shape[1]) & (labels != IGNORE)]
        if wrong.numel():
            expected = f"class ids below {logits.shape[1]}, or 255"
            raise InputError("labels", expected, str(int(wrong[0])), "convert raw ids with the taxonomy")


def cross_entropy(
    logits: Float[Tensor, "b k x y z"], labels: UInt8[Tensor, "b x y z"], weights: Float[Tensor, "k"]
) -> Float[Tensor, ""]:
    """sum_i w_(y_i) -ln p_i(y_i) / sum_i w_(y_i) over voxels that aren't 255. Raises InputError."""
    check_labels(logits, labels)
    return _cross_entropy(logits.float().log_softmax(1), labels, weights)


def semantic_affinity(logits: Float[Tensor, "b k x y z"], labels: UInt8[Tensor, "b x y z"]) -> Float[Tensor, ""]:
    """Scene-class affinity of every class: the mean over present classes k (empty too) of -ln P_k - ln R_k - ln S_k.

    With i over scored voxels of the whole batch and t_i = [y_i = k]: precision P = sum p_i t_i / sum p_i, recall
    R = sum p_i t_i / sum t_i, specificity S = sum (1-p_i)(1-t_i) / sum (1-t_i). Raises InputError.
    """
    check_labels(logits, labels)
    return _semantic_affinity(logits.float().softmax(1), labels)


def geometric_affinity(logits: Float[Tensor, "b k x y z"], labels: UInt8[Tensor, "b x y z"]) -> Float[Tensor, ""]:
    """The same of occupied voxels: p = 1 - p_0, t = [y > 0]; where there are none, S alone. Raises InputError."""
    check_labels(logits, labels)
    return _geometric_affinity(logits.float().softmax(1), labels)


def frustum_proportion(
    logits: Float[Tensor, "b k x y z"],
    labels: UInt8[Tensor, "b x y z"],
    tiles: Int16[Tensor, "b x y z"],
    count: int = TILES * TILES,
) -> Float[Tensor, ""]:
    """Mean over tiles with a scored voxel of KL(class shares of the labels || mean prediction), batch-wise.

    As in the public code the labels' shares leave 255 out, while the mean prediction takes all voxels of the frustum.
    tiles: a voxel's tile, 0..count-1, or -1 (`frustum_tiles`). Raises InputError.
    """
    check_labels(logits, labels)
    return _frustum_proportion(logits.float().softmax(1), labels, tiles, count)


def relation_loss(logits: Float[Tensor, "b 4 m n"], targets: Bool[Tensor, "b 4 m n"]) -> Float[Tensor, ""]:
    """Mean binary cross-entropy over pairs; a relation's positives weigh negatives / max(positives, 1) of the batch."""
    if logits.shape != targets.shape:
        raise InputError("relation targets", f"shape {tuple(logits.shape)}", str(tuple(targets.shape)))
    positives = targets.sum((0, 2, 3))
    negatives = targets.numel() // targets.shape[1] - positives
    weight = (negatives / positives.clamp(min=1))[:, None, None]
    return binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=weight.float())


def relation_targets(labels: UInt8[Tensor, "b x y z"]) -> Bool[Tensor, "b 4 m n"]:
    """Which relations hold between the M = N/8 mega-voxels (2x2x2 voxels) and the N voxels, both in C order.

    0: same class, 1: different classes (neither empty), 2: both empty, 3: exactly one empty. A relation holds if it
    does for any of the mega-voxel's children; 255 has no relation to anything, which trains as a negative, as in the
    public code. labels: coarse ones, as wide as the relation prior's voxels (MonoScene: 1/8, `downsample_majority` of
    pipeline.datasets.monoscene_labels). Raises InputError on odd sizes.
    """
    if labels.dtype != torch.uint8 or labels.ndim != 4 or any(n % 2 for n in labels.shape[1:]):
        raise InputError("coarse labels", "uint8 (B,X,Y,Z), even sizes", f"{labels.dtype} {tuple(labels.shape)}")
    has = _classes_in_megavoxels(labels)  # (B, M, 256)
    y = labels.flatten(1).long()[:, None]  # (B, 1, N)
    has_empty, solid = has[..., EMPTY : EMPTY + 1], has[..., 1:IGNORE]
    kinds = solid.sum(-1, keepdim=True)  # (B, M, 1) different classes among the children
    empty, full = y == EMPTY, (y != EMPTY) & (y != IGNORE)
    same = has.gather(2, y.expand(-1, has.shape[1], -1)) & full  # (B, M, N)
    different = full & (kinds - same.to(kinds.dtype) > 0)
    return torch.stack([same, different, empty & has_empty, (empty & (kinds > 0)) | (full & has_empty)], dim=1)


def frustum_tiles(
    pixels: Int[Tensor, "*n 2"], width_px: int, height_px: int, tiles: int = TILES
) -> Int16[Tensor, "*n"]:
    """The image tile each voxel projects into: row * tiles + column, or -1 out of view.

    pixels: column and row [px] of the labels' own voxels (lifting.projection at scale 1), -1 out of view; the flipped
    image's need lifting.mirrored pixels. Depends on the calibration alone: 2 bytes a voxel, worth keeping.
    """
    u, v = pixels.unbind(-1)
    tile = (v.long() * tiles // height_px) * tiles + u.long() * tiles // width_px
    return torch.where(u >= 0, tile, OUTSIDE).to(torch.int16)


def _cross_entropy(log_p: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(log_p)
    y = labels.long()
    total = nll_loss(log_p, y, weights, ignore_index=IGNORE, reduction="sum")
    mass = torch.bincount(y.flatten(), minlength=256)[: len(weights)] * weights.double()
    return total / mass.sum().clamp(min=_TINY).float()


def _semantic_affinity(p: Tensor, labels: Tensor) -> Tensor:
    classes = p.shape[1]
    scored = (labels != IGNORE)[:, None]  # (B, 1, X, Y, Z)
    own = torch.where(scored, labels[:, None], EMPTY).long()
    p_own = torch.where(scored, p.gather(1, own), 0.0).flatten().double()
    hit = torch.zeros(classes, dtype=torch.float64, device=p.device).index_add(0, own.flatten(), p_own)
    others = scored.expand_as(p).clone().scatter_(1, own, False)  # where a class is scored and isn't the label
    false = torch.where(others, p, 0.0).sum((0, 2, 3, 4)).double()
    count = torch.bincount(labels.flatten().long(), minlength=256)[:classes]
    present = count > 0
    terms = _affinity(hit, false, count, count.sum() - count)
    return (torch.where(present, terms, 0.0).sum() / present.sum().clamp(min=1)).float()


def _geometric_affinity(p: Tensor, labels: Tensor) -> Tensor:
    occupied = p[:, 1:].sum(1)  # 1 - p_0, without its cancellation
    is_full, is_empty = (labels != EMPTY) & (labels != IGNORE), labels == EMPTY
    hit, false = (torch.where(where, occupied, 0.0).sum().double() for where in (is_full, is_empty))
    return _affinity(hit, false, is_full.sum(), is_empty.sum()).float()


def _affinity(hit: Tensor, false: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """-ln P - ln R - ln S in float64, without the terms that have no voxel: hit and false are sums of p."""
    predicted, hit = (hit + false).clamp(min=_TINY), hit.clamp(min=_TINY)  # gradients 1 / hit must fit in float32
    precision = (predicted / hit).log()  # 0 where a class is predicted nowhere
    recall = -(hit / positives.clamp(min=1)).log()
    specificity = -((negatives - false) / negatives.clamp(min=1)).clamp(min=_TINY).log()
    return torch.where(positives > 0, precision + recall, 0.0) + torch.where(negatives > 0, specificity, 0.0)


def _frustum_proportion(p: Tensor, labels: Tensor, tiles: Tensor, count: int) -> Tensor:
    if tiles.shape != labels.shape:
        raise InputError("frustum tiles", f"shape {tuple(labels.shape)}", str(tuple(tiles.shape)))
    classes = p.shape[1]
    tile = torch.where(tiles < 0, count, tiles.long()).flatten()  # one more for what is out of view
    rows = p.permute(0, 2, 3, 4, 1).flatten(0, 3)  # (B*X*Y*Z, K)
    mass = torch.zeros(count + 1, classes, device=p.device).index_add(0, tile, rows)[:count].double()
    counts = torch.bincount(tile * 256 + labels.flatten(), minlength=(count + 1) * 256)
    counts = counts.view(count + 1, 256)[:count, :classes].double()
    target = counts / counts.sum(1, keepdim=True).clamp(min=1)
    predicted = mass / mass.sum(1, keepdim=True).clamp(min=_TINY)
    divergence = (torch.xlogy(target, target) - target * predicted.clamp(min=_TINY).log()).sum(1)
    filled = counts.sum(1) > 0
    return (torch.where(filled, divergence, 0.0).sum() / filled.sum().clamp(min=1)).float()


def _classes_in_megavoxels(labels: Tensor) -> Tensor:
    """Whether any of a mega-voxel's 8 children has a label: (B, X, Y, Z) -> (B, M, 256)."""
    b, x, y, z = labels.shape
    children = labels.view(b, x // 2, 2, y // 2, 2, z // 2, 2).permute(0, 1, 3, 5, 2, 4, 6).reshape(b, -1, 8)
    has = torch.zeros(*children.shape[:2], 256, dtype=torch.bool, device=labels.device)
    return has.scatter_(2, children.long(), True)
