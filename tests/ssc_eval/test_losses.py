"""MonoScene's losses: equal to plain loops over the formulas, and finite where the public code isn't."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from ssc_eval import losses
from ssc_eval.lifting import mirrored, projection

torch.set_num_threads(1)
K, SHAPE, TILES = 5, (2, 4, 6, 2), 9
WEIGHTS = torch.tensor([0.05, 0.2, 0.3, 0.5, 0.9])


def batch(seed: int, ignored: float = 0.2, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and tiles; class 4 is absent, tile 3 is empty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K - 1, SHAPE).astype(np.uint8)
    labels[rng.random(SHAPE) < ignored] = 255
    tiles = rng.integers(-1, TILES, SHAPE).astype(np.int16)
    tiles[tiles == 3] = 4
    logits = rng.normal(0, scale, (SHAPE[0], K, *SHAPE[1:])).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(tiles)


def voxels(logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[list[float], int]]:
    """(probabilities, label) of every voxel, in float64."""
    p = logits.double().softmax(1).movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    return list(zip(p, labels.flatten().tolist(), strict=True))


# twins: the formulas, one voxel at a time


def slow_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> float:
    above = below = 0.0
    for p, y in voxels(logits, labels):
        if y != 255:
            above -= float(weights[y]) * math.log(p[y])
            below += float(weights[y])
    return above / below


def slow_affinity(pairs: list[tuple[float, bool]]) -> float:
    """-ln P - ln R - ln S of (p_i, t_i); terms without voxels left out."""
    hit = sum(p for p, t in pairs if t)
    negatives = [1 - p for p, t in pairs if not t]
    total = -math.log(sum(negatives) / len(negatives)) if negatives else 0.0
    if len(negatives) < len(pairs):
        total -= math.log(hit / sum(p for p, _ in pairs)) + math.log(hit / (len(pairs) - len(negatives)))
    return total


def slow_semantic(logits: torch.Tensor, labels: torch.Tensor) -> float:
    scored = [(p, y) for p, y in voxels(logits, labels) if y != 255]
    present = sorted({y for _, y in scored})
    return sum(slow_affinity([(p[k], y == k) for p, y in scored]) for k in present) / len(present)


def slow_geometric(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return slow_affinity([(1 - p[0], y > 0) for p, y in voxels(logits, labels) if y != 255])


def slow_frustum(logits: torch.Tensor, labels: torch.Tensor, tiles: torch.Tensor) -> float:
    found = []
    for tile in range(TILES):
        inside = [v for v, t in zip(voxels(logits, labels), tiles.flatten().tolist(), strict=True) if t == tile]
        scored = [y for _, y in inside if y != 255]
        if scored:
            shares = [scored.count(k) / len(scored) for k in range(K)]
            means = [sum(p[k] for p, _ in inside) / len(inside) for k in range(K)]
            found.append(sum(s * math.log(s / m) for s, m in zip(shares, means, strict=True) if s > 0))
    return sum(found) / len(found)


def slow_relation(logits: torch.Tensor, targets: torch.Tensor) -> float:
    total = 0.0
    for r in range(targets.shape[1]):
        flags = targets[:, r].flatten().tolist()
        weight = (len(flags) - sum(flags)) / max(sum(flags), 1)
        for x, t in zip(logits[:, r].flatten().double().tolist(), flags, strict=True):
            total += weight * math.log1p(math.exp(-x)) if t else math.log1p(math.exp(x))
    return total / targets.numel()


def slow_relations(labels: np.ndarray) -> np.ndarray:
    """(4, M, N) of one sample's coarse labels."""
    x, y, z = labels.shape
    flat, rows = labels.ravel().tolist(), []
    for i in range(0, x, 2):
        for j in range(0, y, 2):
            for k in range(0, z, 2):
                children = labels[i : i + 2, j : j + 2, k : k + 2].ravel().tolist()
                rows.append([relations_of(a, children) for a in flat])
    return np.array(rows).transpose(2, 0, 1)


def relations_of(a: int, children: list[int]) -> list[bool]:
    known = [c for c in children if c != 255 and a != 255]
    return [
        any(c == a != 0 for c in known),
        any(c != a and c != 0 and a != 0 for c in known),
        any(c == a == 0 for c in known),
        any((c == 0) != (a == 0) for c in known),
    ]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.95])
def test_each_loss_equals_its_plain_loop(seed: int, ignored: float) -> None:
    logits, labels, tiles = batch(seed, ignored)
    close = {"rel": 1e-5, "abs": 1e-6}
    expected = {
        "cross_entropy": slow_cross_entropy(logits, labels, WEIGHTS),
        "semantic_affinity": slow_semantic(logits, labels),
        "geometric_affinity": slow_geometric(logits, labels),
        "frustum": slow_frustum(logits, labels, tiles),
    }
    found = {
        "cross_entropy": losses.cross_entropy(logits, labels, WEIGHTS),
        "semantic_affinity": losses.semantic_affinity(logits, labels),
        "geometric_affinity": losses.geometric_affinity(logits, labels),
        "frustum": losses.frustum_proportion(logits, labels, tiles, TILES),
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, **close)


def test_all_terms_together_are_each_term_alone() -> None:
    logits, labels, tiles = batch(3)
    relations = losses.relation_targets(labels)
    guessed = torch.randn(relations.shape, generator=torch.Generator().manual_seed(0))
    found = losses.monoscene_losses(logits, labels, WEIGHTS, tiles, guessed, relations)
    alone = {
        "cross_entropy": losses.cross_entropy(logits, labels, WEIGHTS),
        "semantic_affinity": losses.semantic_affinity(logits, labels),
        "geometric_affinity": losses.geometric_affinity(logits, labels),
        "frustum": losses.frustum_proportion(logits, labels, tiles),
        "relation": losses.relation_loss(guessed, relations),
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx({k: float(v) for k, v in alone.items()})
    assert set(losses.monoscene_losses(logits, labels, WEIGHTS)) == set(alone) - {"frustum", "relation"}


def test_weights_count_each_term_by_its_name() -> None:
    terms = {"cross_entropy": torch.tensor(2.0), "semantic_affinity": torch.tensor(3.0), "relation": torch.tensor(5.0)}
    assert float(losses.LossWeights().total(terms)) == 10.0
    shares = losses.LossWeights(cross_entropy=4.0, semantic_affinity=0.0, relation=0.5, frustum=9.0)
    assert float(shares.total(terms)) == 4 * 2 + 0.5 * 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relation_targets_and_loss_equal_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 1, 2, 3, 255], (2, 4, 2, 4)).astype(np.uint8)
    targets = losses.relation_targets(torch.from_numpy(labels))
    assert np.array_equal(targets.numpy(), np.stack([slow_relations(sample) for sample in labels]))
    logits = torch.from_numpy(rng.normal(0, 2, targets.shape).astype(np.float32))
    assert float(losses.relation_loss(logits, targets)) == pytest.approx(slow_relation(logits, targets), rel=1e-5)


def test_relations_by_hand() -> None:
    labels = torch.full((1, 2, 2, 2), 255, dtype=torch.uint8)
    labels.view(-1)[:4] = torch.tensor([0, 1, 1, 2])  # one mega-voxel that holds empty, two of class 1, one of class 2
    same, different, both, one = losses.relation_targets(labels)[0, :, 0].int().tolist()
    assert same[:4] == [0, 1, 1, 1]
    assert different[:4] == [0, 1, 1, 1]
    assert both[:4] == [1, 0, 0, 0]
    assert one[:4] == [1, 1, 1, 1]
    assert not any(same[4:] + different[4:] + both[4:] + one[4:])  # 255 has no relation


def test_a_perfect_prediction_costs_nothing() -> None:
    _, labels, tiles = batch(0, ignored=0.0)
    logits = 200.0 * torch.nn.functional.one_hot(labels.long(), K).movedim(-1, 1).float()
    found = losses.monoscene_losses(logits, labels, WEIGHTS, tiles)
    assert {name: float(term) for name, term in found.items()} == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-6)


def hard_cases() -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    logits, labels, tiles = batch(5)
    wrong = (labels.long() + 1) % K
    nowhere = torch.full_like(tiles, -1)
    return {
        "everything ignored": (logits, torch.full_like(labels, 255), tiles),
        "all empty": (logits, torch.zeros_like(labels), tiles),
        "no empty": (logits, labels.clamp(min=1), tiles),
        "one scored voxel": (logits, torch.where(torch.arange(labels.numel()).view(SHAPE) == 7, labels, 255), tiles),
        "nothing in view": (logits, labels, nowhere),
        "certain and wrong": (1e4 * torch.nn.functional.one_hot(wrong, K).movedim(-1, 1).float(), labels, tiles),
        "certain and empty": (
            1e4 * (torch.arange(K) == 0).float().view(1, K, 1, 1, 1).expand_as(logits),
            labels,
            tiles,
        ),
        "tiny but not zero": (logits - 93.0 * (torch.arange(K) == 1).view(1, K, 1, 1, 1), labels, tiles),
        "tinier": (logits - 68.0 * (torch.arange(K) > 0).view(1, K, 1, 1, 1), labels, tiles),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", list(hard_cases()))
def test_values_and_gradients_are_finite_in_hard_cases(case: str, dtype: torch.dtype) -> None:
    logits, labels, tiles = hard_cases()[case]
    logits = logits.to(dtype).clone().requires_grad_()
    found = losses.monoscene_losses(logits, labels, WEIGHTS, tiles)
    for name, term in found.items():
        (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
        assert term.dtype == torch.float32, name
        assert term.isfinite(), name
        assert gradient.isfinite().all(), name
        assert term.item() >= -1e-6, name
    if case == "everything ignored":
        assert all(term.item() == 0 for term in found.values())
    if case == "certain and wrong":
        assert found["semantic_affinity"].item() > 10


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, labels, tiles = batch(2)
    half = logits.bfloat16()
    found = losses.monoscene_losses(half, labels, WEIGHTS, tiles)
    same = losses.monoscene_losses(half.float(), labels, WEIGHTS, tiles)
    assert all(torch.equal(found[name], same[name]) for name in same)


def test_an_absent_class_costs_and_changes_nothing_in_the_semantic_affinity() -> None:
    logits, labels, _ = batch(4)
    logits.requires_grad_()
    more = torch.cat([logits, torch.full_like(logits[:, :1], -1e4)], dim=1)
    assert losses.semantic_affinity(more, labels).item() == pytest.approx(
        losses.semantic_affinity(logits, labels).item()
    )


@pytest.mark.parametrize("positive", [False, True])
def test_a_relation_without_positives_or_negatives_is_finite(positive: bool) -> None:
    targets = torch.full((1, 4, 2, 16), positive)
    targets[:, 1, 0] = True
    logits = torch.full(targets.shape, 50.0, dtype=torch.float16, requires_grad=True)
    loss = losses.relation_loss(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert loss.item() == pytest.approx(slow_relation(logits.detach(), targets), rel=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    logits, labels, tiles = batch(7)
    logits = logits[:, :, :2, :2].double()

    def total(x: torch.Tensor) -> torch.Tensor:
        return sum(losses.monoscene_losses(x, labels[:, :2, :2], WEIGHTS, tiles[:, :2, :2]).values(), torch.zeros(()))

    x = logits.float().requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-2
    slope = (total(logits + step * direction) - total(logits - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-3)


def test_tiles_of_pixels_by_hand() -> None:
    pixels = torch.tensor([[0, 0], [152, 46], [153, 46], [1219, 369], [-1, -1], [1067, 0]])
    assert losses.frustum_tiles(pixels, 1220, 370).tolist() == [0, 0, 9 - 8, 63, -1, 6]
    assert losses.frustum_tiles(pixels, 1220, 370).dtype == torch.int16


def test_tiles_are_the_cameras_frustums() -> None:
    grid = VoxelGrid((8, 8, 4), 0.4, (0.0, -1.6, -0.8))
    pose = look_at(np.array([-1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    camera = Camera(np.array([[30.0, 0, 19.5], [0, 30.0, 11.5], [0, 0, 1]]), pose, 40, 24)
    seen = projection(camera, grid)
    pixels = torch.from_numpy(seen.pixels)
    tiles = losses.frustum_tiles(pixels, 40, 24)
    assert torch.equal(tiles >= 0, torch.from_numpy(seen.in_view))
    for row in range(8):
        for column in range(8):
            inside = (pixels[..., 0] // 5 == column) & (pixels[..., 1] // 3 == row) & (pixels[..., 0] >= 0)
            assert torch.equal(tiles == row * 8 + column, inside)
    flipped = losses.frustum_tiles(mirrored(pixels, 40), 40, 24)
    assert torch.equal(torch.where(tiles >= 0, tiles // 8 * 8 + 7 - tiles % 8, -1), flipped.long())


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    logits, labels, tiles = batch(0)
    with pytest.raises(InputError, match="class ids below 5, or 255"):
        losses.semantic_affinity(logits, torch.full_like(labels, K))
    with pytest.raises(InputError, match="uint8"):
        losses.cross_entropy(logits, labels.long(), WEIGHTS)
    with pytest.raises(InputError, match="uint8"):
        losses.geometric_affinity(logits, labels[:, 1:])
    with pytest.raises(InputError, match="frustum tiles"):
        losses.frustum_proportion(logits, labels, tiles[:, 1:])
    with pytest.raises(InputError, match="even sizes"):
        losses.relation_targets(labels[:, 1:])
    with pytest.raises(InputError, match="relation targets"):
        losses.relation_loss(torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 8, 1, dtype=torch.bool))
    with pytest.raises(InputError, match="relation_targets makes them"):
        losses.monoscene_losses(logits, labels, WEIGHTS, relation_logits=torch.zeros(1, 4, 1, 8))
