"""The critic learns toy photographs, comes back from disk to the bit, and models of others map onto the taxonomy."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.images.critic import Critic, CriticConfig, SegmentationAndDepth, check_classes, small, tiny
from pipeline.images.critic_training import (
    Photographs,
    class_weights,
    fit_critic,
    initial_network,
    scale_invariant_loss,
)
from pipeline.images.foreign_critic import classes_by_name, load_foreign_critic
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import load_taxonomy
from tests.images.foreign import write_foreign_models
from tests.images.toy_photographs import BUILDING, CAR, HEIGHT, KITTI, ROAD, WIDTH, ToyPhotographs


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(critic, its run's folder)."""
    out = tmp_path_factory.mktemp("critic")
    return fit_critic(ToyPhotographs(), KITTI, tiny(KITTI), out, held_out=ToyPhotographs(8, first=100)), out


def changed(pair, name, value):
    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return ToyPhotographs(1)[0] | {name: value}

    return One()


def test_learns_labels_and_depth(trained):
    critic, _ = trained
    pairs = ToyPhotographs(6, first=100)
    rows = [(pairs[i], critic.predict(pairs[i]["image"])) for i in range(6)]
    right = np.mean([found.labels == pair["labels"] for pair, found in rows])
    errors = [np.abs(found.log_depth - np.log(np.maximum(p["depth"], 1)))[p["depth"] > 0].mean() for p, found in rows]
    assert right > 0.9
    assert np.mean(errors) < 0.35  # of log depths that spread by 0.6


def test_card_names_data_and_held_out(trained):
    critic, _ = trained
    assert critic.card["data"]["pairs"] == 24
    assert critic.card["data"]["digest"] == Photographs(ToyPhotographs(), critic.config).survey()[1]
    assert critic.card["data"]["digest"] != Photographs(ToyPhotographs(first=1), critic.config).survey()[1]
    assert critic.card["held_out"]["miou"] > 0.6
    assert set(critic.card["held_out"]["recall"]) == {"car"}


def test_loads_to_the_bit(trained, tmp_path):
    critic, out = trained
    image = ToyPhotographs()[0]["image"]
    for folder in (out / "weights", tmp_path / "copy"):
        if folder != out / "weights":
            critic.save(folder)
        loaded = Critic.load(folder)
        assert loaded.config == critic.config
        for a, b in zip(loaded.predict(image), critic.predict(image), strict=True):
            np.testing.assert_array_equal(a, b)


def test_read_only_images(trained):
    image = ToyPhotographs()[0]["image"]
    image.flags.writeable = False
    assert trained[0].predict(image).labels.shape == (HEIGHT, WIDTH)


def test_bad_folders_and_images(trained, tmp_path):
    critic, _ = trained
    with pytest.raises(InputError, match="found nothing"):
        Critic.load(tmp_path)
    critic.save(tmp_path / "other")
    card = json.loads((tmp_path / "other" / "card.json").read_text())
    (tmp_path / "other" / "card.json").write_text(json.dumps(card | {"kind": "scene autoencoder"}))
    with pytest.raises(InputError, match="those of 'scene autoencoder'"):
        Critic.load(tmp_path / "other")
    (tmp_path / "other" / "card.json").write_text(json.dumps(card | {"config": {"widths": [3]}}))
    with pytest.raises(InputError, match="the card of an image critic"):
        Critic.load(tmp_path / "other")
    for image in (np.zeros((15, 32, 3), np.uint8), np.zeros((16, 32, 3)), np.zeros((16, 32), np.uint8)):
        with pytest.raises(InputError, match="image to judge"):
            critic.predict(image)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("labels", np.full((HEIGHT, WIDTH), 20, np.uint8), "uint8 labels below 20, or 255"),
        ("labels", np.zeros((HEIGHT, WIDTH - 1), np.uint8), "image, labels and depth of"),
        ("depth", np.full((HEIGHT, WIDTH), np.nan, np.float32), "finite float32 depth"),
        ("depth", np.zeros((HEIGHT, WIDTH)), "finite float32 depth"),
        ("image", np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8), "sides that divide by 4 px"),
    ],
)
def test_bad_pairs_fail_before_training(tmp_path, name, value, fault):
    with pytest.raises(InputError, match=fault):
        fit_critic(changed(ToyPhotographs(), name, value), KITTI, tiny(KITTI), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_config_of_other_classes(trained, tmp_path):
    carla = load_taxonomy("carla_sc")
    with pytest.raises(InputError, match="a config of carla_sc's classes"):
        fit_critic(ToyPhotographs(), carla, tiny(KITTI), tmp_path)
    with pytest.raises(InputError, match="train one on these"):
        check_classes(trained[0], carla.classes)
    with pytest.raises(ValidationError):
        CriticConfig(classes=KITTI.classes, widths=(6, 8), train=tiny(KITTI).train)


def test_draws_keep_pairs_together():
    """Mirrored, image and labels stay each other's; labels and depth are only ever mirrored."""
    photographs, plain = Photographs(ToyPhotographs(), tiny(KITTI)), ToyPhotographs()[3]
    mirrored = 0
    for seed in range(12):
        drawn = photographs.draw(3, np.random.default_rng(seed))
        flip = not np.array_equal(drawn["labels"], plain["labels"])
        mirrored += flip
        for name in ("labels", "depth"):
            np.testing.assert_array_equal(drawn[name], plain[name][:, ::-1] if flip else plain[name])
        red = drawn["image"][..., 0].astype(int) - drawn["image"][..., 2]
        assert red[drawn["labels"] > ROAD].size == 0 or red[drawn["labels"] == BUILDING].min() > 0
    assert 2 <= mirrored <= 10


def test_small_is_as_large_as_it_says():
    assert sum(p.numel() for p in SegmentationAndDepth(small(KITTI)).parameters()) == 1_169_628


@pytest.mark.parametrize("size", [(128, 384), (64, 192)])
def test_sizes(size):
    network = initial_network(tiny(KITTI)).eval()
    with torch.no_grad():
        logits, log_depth = network(torch.zeros(1, 3, *size))
    assert logits.shape == (1, 20, *size)
    assert log_depth.shape == (1, *size)


def test_class_weights():
    np.testing.assert_allclose(class_weights(np.array([100, 25, 0]), 0.5), [1, 2, 10])


def test_scale_invariant_loss_by_plain_loops():
    rng = np.random.default_rng(0)
    log_depth, depth = rng.normal(2, 1, (2, 3, 4)), rng.uniform(1, 50, (2, 3, 4))
    depth[0, 0] = 0
    total = 0.0
    for b in range(2):
        d = [log_depth[b, v, u] - np.log(depth[b, v, u]) for v in range(3) for u in range(4) if depth[b, v, u] > 0]
        total += sum(x * x for x in d) / len(d) - 0.5 * (sum(d) / len(d)) ** 2
    found = scale_invariant_loss(torch.from_numpy(log_depth), torch.from_numpy(depth))
    assert float(found) == pytest.approx(total / 2)
    nothing = torch.zeros(1, 2, 2, requires_grad=True)
    scale_invariant_loss(nothing, torch.zeros(1, 2, 2)).backward()
    assert torch.isfinite(nothing.grad).all()


def test_labels_by_name():
    names = {0: "Road", 1: "trees-and-bushes", 2: "sky", 3: "traffic_sign", 4: "bus"}
    table = classes_by_name(names, KITTI, {"Bus": "other-vehicle"}, "model")
    assert table.tolist() == [ROAD, KITTI.id_of("vegetation"), 0, KITTI.id_of("traffic-sign"), 5]
    with pytest.raises(InputError, match="label map of model: expected labels that the model has, found 'tram'"):
        classes_by_name(names, KITTI, {"tram": "car"}, "model")
    with pytest.raises(InputError, match="found 'vehicle'"):
        classes_by_name(names, KITTI, {"bus": "vehicle"}, "model")
    with pytest.raises(InputError, match="give a map"):
        classes_by_name({0: "cat", 1: "dog"}, KITTI, {}, "model")


@pytest.fixture(scope="module")
def foreign_folders(tmp_path_factory):
    return write_foreign_models(tmp_path_factory.mktemp("foreign"))


def test_foreign_models(foreign_folders):
    folders = foreign_folders / "segmentation", foreign_folders / "depth"
    critic = load_foreign_critic(*folders, KITTI, depth_kind="metric")
    found = critic.predict(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))
    assert (found.labels == CAR).all()
    assert found.log_depth.shape == (24, 40)
    assert np.isfinite(found.log_depth).all()
    assert critic.unmapped == ("sky",)
    check_classes(critic, KITTI.classes)
    inverse = load_foreign_critic(*folders, KITTI, depth_kind="inverse", mapping={"car": "truck"})
    other = inverse.predict(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))
    np.testing.assert_allclose(other.log_depth, -found.log_depth)
    assert (other.labels == KITTI.id_of("truck")).all()


def test_foreign_faults(foreign_folders, tmp_path):
    folders = foreign_folders / "segmentation", foreign_folders / "depth"
    with pytest.raises(InputError, match="give depth_kind"):
        load_foreign_critic(*folders, KITTI)
    with pytest.raises(InputError, match=r"config\.json"):
        load_foreign_critic(tmp_path, folders[1], KITTI, depth_kind="metric")
    with pytest.raises(InputError, match="a segmentation model"):
        load_foreign_critic(folders[1], folders[1], KITTI, depth_kind="metric")
