"""Training of the SSC network: resumed to the same weights, cards, adaptation, predictions, the one-frame check."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.datasets.semantic_kitti import open_root
from pipeline.datasets.statistics import class_weights
from pipeline.datasets.voxel_files import read_raw_labels
from pipeline.learning.checkpoint import load_part
from pipeline.learning.config import TrainConfig
from pipeline.learning.journal import read_losses
from pipeline.learning.loop import Loss
from pipeline.scene.errors import InputError
from ssc_eval import training as module
from ssc_eval.batch_norm import reestimate_batch_norm
from ssc_eval.inference import evaluate_network, labels_of, opened, predict, predicted, tally_network
from ssc_eval.losses import LossWeights, monoscene_losses, relation_targets
from ssc_eval.metrics import ALL, IN_VIEW, OUT_OF_VIEW
from ssc_eval.monoscene import LOGITS, RELATION_LOGITS, MonoSceneConfig, build
from ssc_eval.prior import drawn_location_logits, location_counts, location_logits
from ssc_eval.samples import SampleConfig, Source, SscDataset
from ssc_eval.training import SscConfig, overfit_frame, ssc_loss, train_ssc
from ssc_eval.weights import load_ssc
from tests.ssc_eval.toy_root import GRID, SIZE, write_toy_root

NETWORK = MonoSceneConfig(encoder="tiny", decoder=32, feature=8, depth=1, dilations=(1,), scales=(2, 4))
SAMPLES = SampleConfig(width_px=SIZE[0], height_px=SIZE[1])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": ["00"], "val": ["08"], "test": ["11"]}
    return write_toy_root(tmp_path_factory.mktemp("toy"), {"00": 6, "08": 2, "11": 3}, splits)


def config(root: Path, **changes: object) -> SscConfig:
    training = TrainConfig(
        steps=4, batch_size=2, learning_rate=3e-3, torch_threads=1, device="cpu", log_every=1, checkpoint_every=2
    )
    fields = {"network": NETWORK, "samples": SAMPLES, "training": training, "sources": (Source(root=root),), "seed": 0}
    return SscConfig.model_validate(fields | changes)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of four uninterrupted steps with an average, validated twice."""
    out = tmp_path_factory.mktemp("trained")
    train_ssc(validated(root), out)
    return out


def validated(root: Path) -> SscConfig:
    base = config(root, validation=Source(root=root, split="val", frames=1))
    return base.model_copy(
        update={"training": base.training.model_copy(update={"ema_decay": 0.5, "validate_every": 2})}
    )


class KilledError(Exception):
    pass


def killed_at(step: int, loss: Loss) -> Loss:
    """The loss, until it is asked for the step number `step`."""
    done = iter(range(step))

    def wrapped(
        model: nn.Module, batch: object, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        if next(done, None) is None:
            raise KilledError
        return loss(model, batch, generator)

    return wrapped


def test_a_killed_run_ends_with_the_same_weights(
    root: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in step 4, it goes on from the checkpoint after step 2; augmentation, average and moments included."""
    original: Callable[..., Loss] = module.ssc_loss
    monkeypatch.setattr(module, "ssc_loss", lambda *given: killed_at(3, original(*given)))
    with pytest.raises(KilledError):
        train_ssc(validated(root), tmp_path)
    assert not (tmp_path / "weights").exists()
    monkeypatch.undo()
    train_ssc(validated(root), tmp_path)
    for folder, part in (("weights", "model"), ("checkpoints/step_00000004", "optimizer")):
        whole, again = (load_part(out / folder, part) for out in (trained, tmp_path))
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert read_losses(trained) == read_losses(tmp_path)


def test_losses_and_held_out_scores_are_logged(trained: Path) -> None:
    rows = read_losses(trained)
    terms = {"cross_entropy", "semantic_affinity", "geometric_affinity", "frustum", "relation"}
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(terms <= row.keys() for row in rows)
    assert rows[0]["loss"] == pytest.approx(sum(rows[0][term] for term in terms))
    assert {"validate/iou", "validate/miou"} <= rows[1].keys()
    assert next((trained / "tensorboard").iterdir()).stat().st_size > 0


def test_the_card_tells_how_to_feed_the_network_and_holds_no_path(root: Path, trained: Path) -> None:
    model, card = load_ssc(trained / "weights")
    assert (model.config, model.grid, model.training) == (NETWORK, GRID, False)
    assert SampleConfig.model_validate(card["samples"]) == SAMPLES
    counts = SscDataset((Source(root=root),), SAMPLES, 0, NETWORK).class_voxels()
    assert card["class_voxels"] == counts.tolist()
    assert card["sources"][0]["name"] == root.name
    assert str(root.parent) not in (trained / "weights/card.json").read_text()
    average = load_part(trained / "checkpoints/step_00000004", "ema")
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_the_loss_is_the_sum_of_monoscenes_with_the_sources_class_weights(root: Path) -> None:
    dataset = SscDataset((Source(root=root),), SAMPLES, 0, NETWORK)
    model = build(NETWORK, GRID, 20, 0)
    sample = dataset[0]
    batch = {name: value[None] for name, value in sample.items()}
    weights = torch.from_numpy(class_weights(dataset.class_voxels())).float()
    total, terms = ssc_loss(weights)(model, batch, torch.Generator())
    with torch.no_grad():
        found = model(batch["image"], batch["pixels"])
    expected = monoscene_losses(
        found[LOGITS],
        batch["labels"],
        weights,
        batch["tiles"],
        found[RELATION_LOGITS],
        relation_targets(batch["coarse"]),
    )
    assert terms.keys() == expected.keys()
    assert all(torch.allclose(torch.as_tensor(terms[name]), expected[name]) for name in expected)
    assert torch.allclose(total.detach(), torch.stack(list(expected.values())).sum())


def test_shares_of_the_loss_are_the_configs(root: Path) -> None:
    dataset = SscDataset((Source(root=root),), SAMPLES, 0, NETWORK)
    model = build(NETWORK, GRID, 20, 0)
    batch = {name: value[None] for name, value in dataset[0].items()}
    weights = torch.from_numpy(class_weights(dataset.class_voxels())).float()
    shares = LossWeights(semantic_affinity=0.0, geometric_affinity=0.0, relation=0.0, frustum=0.0, balanced=False)
    total, _ = ssc_loss(weights, shares)(model, batch, torch.Generator())
    with torch.no_grad():
        logits = model(batch["image"], batch["pixels"])[LOGITS]
    plain = torch.nn.functional.cross_entropy(logits, batch["labels"].long(), ignore_index=255)
    assert float(total.detach()) == pytest.approx(float(plain), rel=1e-5)


def test_a_run_with_other_shares_is_refused(root: Path, trained: Path) -> None:
    with pytest.raises(InputError, match="expected data_digest"):
        train_ssc(validated(root).model_copy(update={"losses": LossWeights(frustum=0.0)}), trained)


def test_a_voxel_is_occupied_where_it_is_more_likely_so_than_asked() -> None:
    p = torch.tensor([[0.55, 0.25, 0.20], [0.65, 0.05, 0.30], [0.4, 0.3, 0.3], [0.2, 0.7, 0.1]])  # empty, two classes
    logits = p.log().T[None, :, :, None, None]  # 1 3 4 1 1
    assert labels_of(logits, None).flatten().tolist() == [0, 0, 0, 1]
    assert labels_of(logits, 0.4).flatten().tolist() == [1, 0, 1, 1]
    assert labels_of(logits, 0.3).flatten().tolist() == [1, 2, 1, 1]
    assert labels_of(logits, 0.7).flatten().tolist() == [0, 0, 0, 1]


def test_training_goes_on_from_other_weights(root: Path, trained: Path, tmp_path: Path) -> None:
    begun = config(root, start=trained / "weights")
    slow = begun.training.model_copy(update={"steps": 1, "learning_rate": 1e-9})
    weights = train_ssc(begun.model_copy(update={"training": slow}), tmp_path)
    before, after = (load_part(folder, "model") for folder in (trained / "weights", weights))
    learned = {name for name, _ in build(NETWORK, GRID, 20, 0).named_parameters()}
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in learned)
    assert load_ssc(weights)[1]["start"]


def test_another_run_in_the_same_folder_is_refused(root: Path, trained: Path) -> None:
    with pytest.raises(InputError, match="expected data_digest"):
        train_ssc(validated(root).model_copy(update={"sources": (Source(root=root, fraction=0.5),)}), trained)


def test_predictions_are_raw_ids_of_every_frame(root: Path, trained: Path, tmp_path: Path) -> None:
    weights = trained / "weights"
    assert predict(weights, root, "test", tmp_path / "out", batch=2) == tmp_path / "out"
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == [f"sequences/11/predictions/{n:06d}.label" for n in range(3)]
    model, dataset = opened(weights, root, "test", labelled=False)
    view = dataset.view(2, None)
    labels = predicted(model, view["image"][None], view["pixels"][None])[0]
    raw = read_raw_labels(tmp_path / "out" / files[2], GRID)
    assert np.array_equal(dataset.taxonomy.from_raw(raw, "prediction"), labels)
    with pytest.raises(InputError, match="new or empty folder"):
        predict(weights, root, "test", tmp_path / "out")


def test_a_lower_bar_finds_more_occupied_voxels(root: Path, trained: Path, tmp_path: Path) -> None:
    found = {}
    for bar in (0.05, 0.95):
        predict(trained / "weights", root, "test", tmp_path / str(bar), occupied_above=bar)
        found[bar] = read_raw_labels(tmp_path / str(bar) / "sequences/11/predictions/000000.label", GRID) > 0
    assert (found[0.05] >= found[0.95]).all()
    assert found[0.05].sum() > found[0.95].sum()
    with pytest.raises(InputError, match="a probability between 0 and 1"):
        predict(trained / "weights", root, "test", tmp_path / "out", occupied_above=1.5)


def test_evaluation_counts_every_scored_voxel_once(root: Path, trained: Path) -> None:
    tally = evaluate_network(trained / "weights", root, "val", batch=3)
    scored = sum(int((open_root(root).scene("08", f"{n:06d}").labels != 255).sum()) for n in range(2))
    assert tally.frames == 2
    assert tally.of(ALL).sum() == scored == tally.of(IN_VIEW).sum() + tally.of(OUT_OF_VIEW).sum()
    model, dataset = opened(trained / "weights", root, "val", labelled=True)
    assert np.array_equal(tally_network(model, dataset, 1).confusions, tally.confusions)


def test_weights_of_another_grid_are_refused(trained: Path, tmp_path: Path) -> None:
    from pipeline.scene.grid import VoxelGrid

    other = write_toy_root(tmp_path, {"08": 1}, {"val": ["08"]}, grid=VoxelGrid((16, 16, 8), 0.2, (0.0, -1.6, -2.0)))
    with pytest.raises(InputError, match="expected the grid of"):
        evaluate_network(trained / "weights", other, "val")


def test_batch_norms_take_the_plain_average_of_the_views_statistics() -> None:
    """By hand on one norm: means and unbiased variances of two batches, averaged."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3, momentum=0.1)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, image: Tensor, pixels: Tensor) -> Tensor:
            return self.norm(image * self.scale)

    net = Net().eval()
    images = [torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(n)) * (n + 1) for n in range(2)]
    assert reestimate_batch_norm(net, ((image, torch.zeros(1)) for image in images)) == 2
    mean = torch.stack([image.mean((0, 2, 3)) for image in images]).mean(0)
    variance = torch.stack([image.var((0, 2, 3)) for image in images]).mean(0)
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    assert torch.allclose(net.norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(net.norm.running_var, variance, atol=1e-5)
    assert (net.norm.momentum, net.norm.training, net.training) == (0.1, False, False)
    kept = net.norm.running_mean.clone()
    assert reestimate_batch_norm(net, ()) == 0
    assert torch.equal(net.norm.running_mean, kept)


def test_adaptation_changes_statistics_and_no_weight(root: Path, trained: Path, tmp_path: Path) -> None:
    """The test split has no labels at all."""
    plain = config(root)
    weights = train_ssc(plain.model_copy(update={"adapt": Source(root=root, split="test")}), tmp_path / "adapted")
    adapted = load_part(weights, "model")
    before = load_part(tmp_path / "adapted/checkpoints/step_00000004", "model")
    learned = {name for name, _ in build(NETWORK, GRID, 20, 0).named_parameters()}
    assert all(torch.equal(before[name], adapted[name]) for name in learned)
    moved = [name for name in before if name.endswith("running_mean") and not torch.equal(before[name], adapted[name])]
    assert moved
    assert load_ssc(weights)[1]["adapted"]


def test_batch_norms_are_settled_on_draws_of_the_sources(root: Path, trained: Path, tmp_path: Path) -> None:
    """One step from other weights: whatever the running statistics were, those of three frames replace them."""
    plain = config(root, start=trained / "weights", norm_frames=3)
    weights = train_ssc(
        plain.model_copy(update={"training": plain.training.model_copy(update={"steps": 1, "batch_size": 1})}), tmp_path
    )
    settled = load_part(weights, "model")
    name = next(name for name in settled if name.endswith("running_mean"))
    assert settled[name.replace("running_mean", "num_batches_tracked")] == 3
    assert load_part(tmp_path / "checkpoints/step_00000001", "model")[name].ne(settled[name]).any()


def test_a_network_with_a_location_prior_begins_at_the_constant_prior(root: Path, tmp_path: Path) -> None:
    network = NETWORK.model_copy(update={"location_prior": True})
    base = config(root, network=network)
    idle = base.model_copy(update={"training": base.training.model_copy(update={"steps": 1, "learning_rate": 1e-12})})
    model, _ = load_ssc(train_ssc(idle, tmp_path))
    dataset = SscDataset(idle.sources, SAMPLES, 0, network)
    with torch.no_grad():
        logits = model(dataset[0]["image"][None], dataset[0]["pixels"][None])[LOGITS][0]
    where = location_logits(location_counts((dataset.labels(n) for n in range(len(dataset.keys))), 20))
    spread = (logits - torch.from_numpy(where)).flatten(1)
    assert float(spread.std(dim=1).max()) < 1e-4  # a bias a class beside it, no more
    assert spread.abs().max() < 1


def test_a_location_prior_follows_the_sources_weights(root: Path) -> None:
    network = NETWORK.model_copy(update={"location_prior": True})

    def logits(*weights: float) -> np.ndarray:
        sources = [Source(root=root, split=s, weight=w) for s, w in zip(("train", "val"), weights, strict=False)]
        return drawn_location_logits(SscDataset(sources, SAMPLES, 0, network))

    one, mostly_one, half = logits(1.0), logits(7.0, 1.0), logits(1.0, 1.0)
    assert np.abs(mostly_one - one).mean() < np.abs(half - one).mean()


def test_memory_and_precision_options_train(root: Path, tmp_path: Path) -> None:
    """bf16, checkpointed gradients, an average, clipped gradients and synchronised norms (of one process), together."""
    base = config(root, network=NETWORK.model_copy(update={"recompute": True, "location_prior": True}))
    options = {"precision": "bf16", "ema_decay": 0.5, "clip_norm": 1.0, "sync_batch_norm": True}
    whole = base.model_copy(update={"training": base.training.model_copy(update=options)})
    weights = load_part(train_ssc(whole, tmp_path / "out"), "model")
    assert {value.dtype for name, value in weights.items() if name.endswith("weight")} == {torch.float32}
    assert all(np.isfinite(row["loss"]) for row in read_losses(tmp_path / "out"))
    plain = base.model_copy(update={"training": base.training.model_copy(update={**options, "precision": "no"})})
    exact = load_part(train_ssc(plain, tmp_path / "plain"), "model")
    name = "volume.head.first.weight"
    assert not torch.equal(weights[name], exact[name])
    assert torch.allclose(weights[name], exact[name], atol=2e-2)


def test_one_frame_is_learnt_by_heart(root: Path) -> None:
    """About 50 steps on the toy frame."""
    base = config(root)
    long = base.model_copy(update={"training": base.training.model_copy(update={"steps": 150})})
    found = overfit_frame(long, root, "train", "00/000001", check_every=10)
    assert found["reached"]
    assert min(found["iou"], found["miou"]) > 0.95
    assert found["steps"] < 150
    assert found["steps"] % 10 == 0
    assert {"road", "sidewalk"} <= set(found["classes"])


def test_a_frame_that_cannot_be_learnt_is_told(root: Path) -> None:
    base = config(root)
    short = base.model_copy(update={"training": base.training.model_copy(update={"steps": 2})})
    found = overfit_frame(short, root, "train", "00/000001", check_every=10)
    assert (found["reached"], found["steps"]) == (False, 2)
    with pytest.raises(InputError, match=r"a labelled frame of split train, such as 00/000000.*found '00/9'"):
        overfit_frame(short, root, "train", "00/9")
