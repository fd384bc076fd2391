import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.learning.config import Schedule, TrainConfig
from pipeline.metrics.distances import frechet_distance
from pipeline.metrics.encoder3d import EncoderConfig, SceneAutoencoder, SceneEncoder, columns, pooled
from pipeline.metrics.encoder3d_training import (
    class_weights,
    fit_encoder,
    initial_network,
    principal_axes,
    reconstruction,
)
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import Taxonomy
from tests.metrics.corruptions import CORRUPTIONS

SHAPE, CLASSES = (32, 24, 4), 5  # empty, road, house, person, pole
TOY = Taxonomy("toy", tuple("erhpo"), tuple("erhpo"), ((0, 0, 0),) * 5, (0, 1, 2, 3, 4), (), (), frozenset({3, 4}))


def toy_config(**fields):
    training = TrainConfig(
        steps=180,
        batch_size=4,
        learning_rate=1e-2,
        schedule=Schedule(kind="cosine", warmup_steps=10),
        ema_decay=0.95,
        torch_threads=1,
        log_every=100,
        device="cpu",
    )
    small = {"shape": SHAPE, "classes": CLASSES, "width": 16, "channels": 6, "embedding": 4, "features": 12}
    return EncoderConfig(**{**small, "train": training, **fields})


def toy_scenes(n, seed):
    """A road between houses of random depth, with persons and poles on it, and an unseen corner."""
    rng = np.random.default_rng(seed)
    scenes = np.zeros((n, *SHAPE), np.uint8)
    for scene in scenes:
        scene[:, :, 0] = 1
        left, right = rng.integers(2, 8, 2)
        scene[:, :left, :3] = scene[:, SHAPE[1] - right :, :3] = 2
        for k in rng.integers(3, 5, rng.integers(3, 12)):
            x, y = rng.integers(0, SHAPE[0] - 1), rng.integers(left, SHAPE[1] - right - 1)
            scene[x : x + 2, y : y + 2, 1 : 3 if k == 3 else 4] = k
        scene[: rng.integers(0, 4), : rng.integers(0, 4)] = 255
    return scenes


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("encoder")
    return fit_encoder(toy_scenes(120, 0), toy_config(), out, toy_scenes(40, 1)), out


def test_columns_keep_their_voxels_together() -> None:
    labels = torch.arange(4 * 6 * 3).view(1, 4, 6, 3)
    cells = columns(labels)
    assert cells.shape == (1, 2, 3, 12)
    assert torch.equal(cells[0, 1, 2], labels[0, 2:4, 4:6].flatten())


def test_reconstruction_puts_voxels_back_in_their_place() -> None:
    """A network whose logits are the input itself."""
    config = toy_config()

    class Mirror(SceneAutoencoder):
        def forward(self, labels):
            return torch.nn.functional.one_hot(columns(labels).long(), CLASSES).float()

    encoder = SceneEncoder(config, Mirror(config), np.zeros(12), np.zeros((12, 12)), {})
    scenes = np.random.default_rng(0).integers(0, CLASSES, (3, *SHAPE), dtype=np.uint8)
    assert np.array_equal(encoder.reconstruct(scenes), scenes)
    perfect = reconstruction(encoder, scenes)
    assert (perfect["miou"], perfect["classes"], perfect["scenes"]) == (1.0, 4, 3)


def test_held_out_reconstruction_counts_valid_voxels_of_classes_that_occur() -> None:
    class AllRoad(SceneAutoencoder):
        def forward(self, labels):
            return torch.nn.functional.one_hot(torch.ones_like(columns(labels)).long(), CLASSES).float()

    config = toy_config()
    encoder = SceneEncoder(config, AllRoad(config), np.zeros(12), np.zeros((12, 12)), {})
    scene = np.full((1, *SHAPE), 255, np.uint8)
    scene[0, 0, 0, :4] = [1, 1, 1, 3]
    found = reconstruction(encoder, scene)
    assert found["class_iou"][1] == pytest.approx(3 / 4)
    assert found["miou"] == pytest.approx((3 / 4 + 0) / 2)  # road and person


def test_the_toy_is_learned_and_its_card_says_so(fitted) -> None:
    encoder, out = fitted
    card = json.loads((out / "weights" / "card.json").read_text())
    assert card["held_out"]["miou"] > 0.8
    assert card["held_out"] == encoder.card["held_out"]
    assert card["held_out"]["scenes"] == 40
    assert card["digest"] == encoder.digest
    assert {"versions", "hardware", "command"} <= set(card)
    assert card["data"]["scenes"] == 120
    assert card["config"] == encoder.config.model_dump(mode="json")


def test_saved_and_loaded_it_is_the_same_encoder(fitted) -> None:
    encoder, out = fitted
    again = SceneEncoder.load(out / "weights")
    scenes = toy_scenes(5, 3)
    assert again.digest == encoder.digest
    assert again.name == encoder.name
    assert np.array_equal(again.features(scenes), encoder.features(scenes))


def test_a_finished_run_is_resumed_to_the_same_encoder_and_other_data_is_refused(fitted) -> None:
    encoder, out = fitted
    assert fit_encoder(toy_scenes(120, 0), toy_config(), out, toy_scenes(40, 1)).digest == encoder.digest
    with pytest.raises(InputError, match="data_digest"):
        fit_encoder(toy_scenes(120, 9), toy_config(), out)


def test_a_feature_depends_on_its_own_scene_alone(fitted) -> None:
    encoder, _ = fitted
    scenes = toy_scenes(6, 4)
    together = encoder.features(scenes)
    assert together.shape == (6, 12)
    assert together.dtype == np.float64
    assert np.array_equal(together[[4]], encoder.features(scenes[4:5]))
    assert np.array_equal(together[::-1], encoder.features(scenes[::-1]))
    assert encoder.features(scenes[:0]).shape == (0, 12)


def test_training_scenes_have_uncorrelated_features_of_mean_zero_and_mean_variance_one(fitted) -> None:
    encoder, _ = fitted
    rows = encoder.features(toy_scenes(120, 0))
    variances = np.diag(np.cov(rows.T))
    assert rows.mean(0) == pytest.approx(np.zeros(12), abs=1e-6)
    assert np.cov(rows.T) == pytest.approx(np.diag(variances), abs=1e-3)
    assert variances.mean() == pytest.approx(1, abs=1e-3)
    assert (np.diff(variances) < 0).all()


def test_what_is_invalid_is_seen_but_not_scored() -> None:
    from pipeline.metrics.encoder3d_training import _loss

    config = toy_config()
    network, scene = initial_network(config).eval(), torch.from_numpy(toy_scenes(1, 5))
    loss = _loss(config, np.ones(CLASSES, np.int64))
    hidden = scene.clone()
    hidden[:, 10:] = 255
    assert not torch.equal(network.encode(scene), network.encode(hidden))
    spoiled = network(hidden).detach().clone().requires_grad_()
    loss(lambda batch: spoiled, hidden, torch.Generator())[0].backward()
    assert not spoiled.grad[:, 5:].any()
    assert spoiled.grad[:, :5].any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_distance_rises_with_every_corruption(fitted, name) -> None:
    encoder, _ = fitted
    real, held_out = encoder.features(toy_scenes(120, 0)), toy_scenes(100, 6)
    spoiled = [CORRUPTIONS[name](held_out, TOY, share, np.random.default_rng(0)) for share in (0, 0.3, 0.6, 0.9)]
    assert np.array_equal(spoiled[0], held_out)
    found = [frechet_distance(real, encoder.features(scenes)) for scenes in spoiled]
    assert found == sorted(found)
    assert found[3] > 1.5 * found[0]


def test_training_repeats_bit_for_bit(tmp_path) -> None:
    config = toy_config()
    short = config.model_copy(update={"train": config.train.model_copy(update={"steps": 3})})
    digests = {fit_encoder(toy_scenes(20, 0), short, tmp_path / side).digest for side in "ab"}
    assert len(digests) == 1


def test_class_weights_by_hand() -> None:
    assert class_weights(np.array([16, 1, 0, 4]), 0.5) == pytest.approx([1, 4, 4, 2])
    assert class_weights(np.array([16, 1, 0, 4]), 0.0) == pytest.approx([1, 1, 1, 1])


def test_principal_axes_find_the_largest_directions_and_leave_flat_ones_out() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(50, 3))
    white = np.linalg.qr(drawn - drawn.mean(0))[0] * 7  # sample covariance: the identity
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    rows = white @ np.diag([5.0, 3.0, 1.0]) @ turn[:3] + [1, 2, 3, 4]
    mean, axes = principal_axes(rows, 4)
    assert mean == pytest.approx([1, 2, 3, 4])
    assert np.abs(turn @ axes)[:3] == pytest.approx(np.diag([15**-0.5, 9**-0.5, 3**-0.5, 0])[:3], abs=1e-9)
    assert (axes[np.abs(axes).argmax(0), range(4)] >= 0).all()


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.zeros((2, 8, 8, 4), np.uint8), "(2, 8, 8, 4)"),
        (np.zeros((2, *SHAPE), np.int64), "int64"),
        (np.full((1, *SHAPE), 5, np.uint8), "found 5"),
    ],
)
def test_scenes_of_another_kind_are_refused(fitted, labels, found) -> None:
    with pytest.raises(InputError) as caught:
        fitted[0].features(labels)
    assert found in str(caught.value)


def test_refusals(fitted, tmp_path) -> None:
    with pytest.raises(InputError, match="more than 12 scenes"):
        fit_encoder(toy_scenes(12, 0), toy_config(), tmp_path)
    for bad in ({"shape": (31, 24, 4)}, {"features": 13}, {"classes": 1}):
        with pytest.raises(ValidationError):
            toy_config(**bad)
    with pytest.raises(InputError, match="nothing"):
        SceneEncoder.load(tmp_path)
    weights = fitted[1] / "weights"
    card = json.loads((weights / "card.json").read_text())
    for name in card["files"]:
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({**card, "config": {"classes": 3}}))
    with pytest.raises(InputError, match="card of a scene encoder"):
        SceneEncoder.load(tmp_path)


def test_pooled_is_mean_and_spread_of_the_latent() -> None:
    network, scenes = initial_network(toy_config()).eval(), toy_scenes(2, 7)
    with torch.no_grad():
        latent = network.encode(torch.from_numpy(scenes[1:])).double().numpy()[0].reshape(6, -1)
    expected = np.concatenate([latent.mean(1), latent.std(1)])
    assert pooled(network, scenes)[1] == pytest.approx(expected)
