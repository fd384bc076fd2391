"""Both stages learn, resume to equal weights, and refuse pairs that don't fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from pipeline.images.autoencoder import (
    VaeTraining,
    cropped,
    fit_encoder,
    gradient_distance,
    opponent_axes,
    scale_latents,
    train_vae,
)
from pipeline.images.base import BaseConfig, new_pipeline
from pipeline.images.config import SynthesisConfig
from pipeline.images.controlnet import LEARNED, ControlTraining, Denoiser, _class_weights, _Task, train_control
from pipeline.images.latents import means
from pipeline.images.pairs import Images, Pairs
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from tests.images.stock import stock_pipeline
from tests.images.toy_pairs import HEIGHT, WIDTH, Boxes, tiny


def steps(count: int, **fields) -> TrainConfig:
    base = {"batch_size": 4, "learning_rate": 2e-3, "ema_decay": 0.9, "torch_threads": 1, "device": "cpu"}
    return TrainConfig(**{**base, "steps": count, "checkpoint_every": 4, "log_every": 4, **fields})


def control(count: int, **fields) -> ControlTraining:
    training = {name: fields.pop(name) for name in list(fields) if name in TrainConfig.model_fields}
    synthesis = SynthesisConfig(steps=2, batch_size=2, device="cpu")
    return ControlTraining(train=steps(count, **training), synthesis=synthesis, pictures=2, **fields)


def weights(pipeline, *names: str) -> dict[str, torch.Tensor]:
    names = names or ("vae", "unet", "controlnet", "text_encoder")
    return {f"{n}.{k}": v.clone() for n in names for k, v in getattr(pipeline, n).state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_vae_learns_and_its_latents_have_unit_variance(tmp_path) -> None:
    pipeline = tiny()
    trained = train_vae(pipeline, Boxes(), VaeTraining(train=steps(25, checkpoint_every=25)), tmp_path)
    assert trained.losses[-1]["pixels"] < 0.7 * trained.losses[0]["pixels"]
    pairs = Pairs(Boxes(), pipeline, mirror=False)
    images = torch.stack([pairs[i]["image"] for i in range(6)])
    with torch.no_grad():
        found = means(pipeline.vae, images) * pipeline.vae.config.scaling_factor
    assert float(found.var(correction=0)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_the_encoder_gives_principal_components_of_patches(halvings) -> None:
    size, count = 2**halvings, 5
    draws = torch.Generator().manual_seed(halvings)
    images = [{"image": torch.rand((3, 16, 24), generator=draws) * 2 - 1} for _ in range(4)]
    config = BaseConfig(
        vae_blocks=(1,) * (halvings + 1), latent_channels=count, unet_channels=(8,), unet_attention=(True,)
    )
    vae = new_pipeline(config, ("car",), 5).vae
    fit_encoder(vae, images)
    patches = torch.cat(
        [
            i["image"]
            .double()
            .unfold(1, size, size)
            .unfold(2, size, size)
            .permute(1, 2, 0, 3, 4)
            .reshape(-1, 3, size**2)
            for i in images
        ]
    )  # (n, 3, f^2) by loops over no convolution
    rows = torch.einsum("kc,ncp->nkp", opponent_axes().double(), patches / 2).flatten(1)
    rows = (rows - rows.mean(0)).numpy()
    scores = rows @ np.linalg.svd(rows, full_matrices=False)[2][:count].T  # (n, count), a column a component
    deviations = scores.std(0)
    expected = scores / np.sqrt(deviations * deviations[0])
    found = torch.cat([means(vae, i["image"][None])[0].flatten(1).T for i in images]).detach().double().numpy()
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-4)


def test_parts_of_images_lie_anywhere_alike_and_stay_whole() -> None:
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    images, draws = torch.stack([rows, columns])[None].repeat(1500, 1, 1, 1), torch.Generator().manual_seed(3)
    parts = cropped(images, (4, 3), draws)
    assert parts.shape == (1500, 2, 3, 4)
    corners = parts[:, :, 0, 0]
    torch.testing.assert_close(parts - corners[:, :, None, None], images[:, :, :3, :4])
    counts = np.bincount((corners[:, 0] * 4 + corners[:, 1]).int().numpy(), minlength=12)
    assert chisquare(counts).pvalue > 0.001  # 3 x 4 places
    torch.testing.assert_close(cropped(images, (9, 9), draws), images)


def test_a_vae_learns_from_parts_mirrored_at_times(tmp_path) -> None:
    config = VaeTraining(train=steps(25, checkpoint_every=25), crop_px=(16, 8))
    trained = train_vae(tiny(), Boxes(), config, tmp_path)
    assert trained.losses[-1]["pixels"] < 0.8 * trained.losses[0]["pixels"]
    images, rng = Images(Pairs(Boxes(), tiny(), mirror=True)), np.random.default_rng(0)
    plain = images[2]["image"]
    drawn = [images.draw(2, rng)["image"] for _ in range(40)]
    flipped = sum(torch.equal(image, plain.flip(-1)) for image in drawn)
    assert 8 < flipped < 32
    assert flipped + sum(torch.equal(image, plain) for image in drawn) == 40


def test_colours_and_features_of_another_network_take_part(tmp_path) -> None:
    seen = []

    def features(image):
        seen.append(image.requires_grad)
        return [image.mean(dim=(2, 3))]

    config = VaeTraining(train=steps(1), feature_weight=1.0, colour_weight=2.0)
    row = train_vae(tiny(), Boxes(), config, tmp_path, features=features).losses[-1]
    assert sorted(seen) == [False, True]
    expected = row["pixels"] + row["gradients"] + row["features"] + 2 * row["colours"]
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_gradient_term_by_hand() -> None:
    flat, ramp = torch.zeros(1, 1, 8, 8), torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(gradient_distance(flat, flat + 3)) == 0  # brightness alone costs nothing
    assert float(gradient_distance(ramp, flat)) == pytest.approx((1 + 2 + 4) / 3)


def test_joint_training_learns_and_moves_all_but_the_vae(tmp_path) -> None:
    pipeline = tiny()
    images = Images(Pairs(Boxes(), pipeline, mirror=False))
    fit_encoder(pipeline.vae, images)
    scale_latents(pipeline, images)
    before = weights(pipeline)
    config = control(30, learning_rate=5e-3, checkpoint_every=30, log_every=10)
    trained = train_control(pipeline, Boxes(), config, tmp_path)
    after = weights(pipeline)
    assert trained.losses[-1]["squared_error"] < 0.8 * trained.losses[0]["squared_error"]
    for name in ("unet.conv_in.weight", "controlnet.controlnet_mid_block.weight", "controlnet.conv_in.weight"):
        assert not torch.equal(before[name], after[name])
    assert not same(weights(pipeline, "text_encoder"), before)
    assert same(weights(pipeline, "vae"), before)


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_the_noisiest_steps_come_as_often_as_said(power) -> None:
    task = _Task(tiny(), control(1, time_power=power))
    draws = torch.Generator().manual_seed(4)
    times = task._times(torch.rand(40_000, generator=draws, dtype=torch.float64))
    last = len(task.alpha_bar)
    edges = np.linspace(0, last, 11)  # P(t >= k) = (1 - k / T)^(1/n)
    expected = -np.diff((1 - edges / last) ** (1 / power)) * len(times)
    counts = np.histogram(times.numpy(), bins=edges)[0]
    assert chisquare(counts, expected).pvalue > 0.001
    assert int(task._times(torch.zeros(1, dtype=torch.float64))) == last - 1


class Labelled(Boxes):
    """The box is a car or a building, the rest ground."""

    def __getitem__(self, index: int) -> dict:
        pair = super().__getitem__(index)
        box = 1 if pair["prompt"].endswith("car") else 2
        return pair | {"labels": np.where(pair["control"][0] > 0, box, 5).astype(np.uint8)}


def test_places_of_rare_classes_count_more_by_hand() -> None:
    pipeline, boxes = tiny(), Labelled()
    weights = _class_weights(boxes, 0.5)
    pixels = np.concatenate([boxes[index]["labels"].ravel() for index in range(len(boxes))])
    raw = np.array([np.sqrt((pixels == 5).sum() / max(1, (pixels == k).sum())) for k in range(6)])
    np.testing.assert_allclose(weights[:6], raw / raw[pixels].mean(), rtol=1e-5)
    pairs = Pairs(boxes, pipeline, mirror=True)
    rng = np.random.default_rng(3)
    drawn = [pairs.draw(index, rng) for index in (0, 1, 2, 3)]
    assert {item["mirrored"] for item in drawn} == {True, False}
    batch = {name: torch.stack([item[name] for item in drawn]) for name in ("image", "control", "tokens", "labels")}
    assert torch.equal(batch["labels"] == 5, batch["control"][:, 0] == 0)  # mirrored with it
    task = _Task(pipeline, control(1, rare_power=0.5, prompt_dropout=0.0), weights)
    denoiser = Denoiser(pipeline, LEARNED["joint"])
    with torch.no_grad():
        loss, told = task.loss(denoiser, batch, torch.Generator().manual_seed(5))

    class Recorder(torch.nn.Module):
        scale, encode = denoiser.scale, staticmethod(denoiser.encode)

        def forward(self, *inputs):
            self.seen = inputs, denoiser(*inputs)
            return self.seen[1]

    recorder = Recorder()
    plain = _Task(pipeline, control(1, prompt_dropout=0.0))
    with torch.no_grad():
        same, _ = plain.loss(recorder, batch, torch.Generator().manual_seed(5))
    assert float(told["squared_error"]) == pytest.approx(float(same), rel=1e-5)
    (noisy, t, _, _), output = recorder.seen
    latent = denoiser.scale * means(pipeline.vae, batch["image"])
    signal = plain.alpha_bar[t].float().view(-1, 1, 1, 1)
    eps = (noisy - signal.sqrt() * latent) / (1 - signal).sqrt()
    errors = (output - (signal.sqrt() * eps - (1 - signal).sqrt() * latent)).square().mean(1)  # (b, i, j)
    squares = weights[batch["labels"].long()].unfold(1, 2, 2).unfold(2, 2, 2).mean((-1, -2))  # of 2 x 2 pixels
    assert float(loss) == pytest.approx(float((errors * squares).mean()), rel=1e-3)
    with pytest.raises(InputError, match="rare_power: expected pairs with labels"):
        _class_weights(Boxes(), 0.5)


def test_alone_on_a_frozen_base_only_the_controlnet_moves(tmp_path) -> None:
    pipeline = stock_pipeline(tmp_path / "letters", control_channels=5)
    before = weights(pipeline)
    config = control(3, learn="controlnet", keep_latents=False, gradient_checkpointing=True, snr_gamma=5.0)
    trained = train_control(pipeline, Boxes(), config, tmp_path / "run")
    assert same(weights(pipeline, "unet", "vae", "text_encoder"), before)
    assert not same(weights(pipeline, "controlnet"), before)
    saved = (trained.checkpoint / "model.safetensors").stat().st_size
    held = sum(p.numel() * 4 for p in pipeline.controlnet.parameters())
    assert held < saved < 1.3 * held  # the base is not in the checkpoint


def test_resumed_runs_end_with_equal_weights(tmp_path) -> None:
    ends = []
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for count in stops:
            pipeline = tiny()
            train_vae(pipeline, Boxes(), VaeTraining(train=steps(count, checkpoint_every=2)), tmp_path / name / "vae")
        for count in stops:
            for network in ("unet", "controlnet", "text_encoder"):  # as a new process would begin
                getattr(pipeline, network).load_state_dict(getattr(tiny(), network).state_dict())
            train_control(pipeline, Boxes(), control(count, checkpoint_every=2), tmp_path / name / "control")
        ends.append(weights(pipeline) | {"scale": torch.tensor(pipeline.vae.config.scaling_factor)})
    assert same(*ends)


def test_a_run_is_not_continued_with_another_vae_or_other_settings(tmp_path) -> None:
    train_control(tiny(), Boxes(), control(1), tmp_path)
    for pipeline, config in ((tiny(seed=3), control(2)), (tiny(), control(2, prompt_dropout=0.5))):
        with pytest.raises(InputError, match="data_digest"):
            train_control(pipeline, Boxes(), config, tmp_path)
    train_control(tiny(), Boxes(), control(2), tmp_path)


def test_validation_draws_the_same_pictures_and_its_loss_is_of_the_average(tmp_path) -> None:
    config = control(3, validate_every=2, learning_rate=1e-12, ema_decay=None)
    trained = train_control(tiny(), Boxes(), config, tmp_path, held_out=Boxes(3))
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["step_00000002.png", "step_00000003.png"]
    pictures = [np.asarray(Image.open(tmp_path / "pictures" / name)) for name in names]
    assert pictures[0].shape == (2 * (HEIGHT + 4), 3 * (WIDTH + 4), 3)
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1  # nothing was learned, the noise is the same
    assert np.array_equal(pictures[0][:HEIGHT, 2 * (WIDTH + 4) :][:, :WIDTH], Boxes()[0]["image"])
    losses = [row["validate/squared_error"] for row in trained.losses if "validate/squared_error" in row]
    assert losses == pytest.approx([losses[0]] * 2, rel=1e-4)


def test_mirroring_turns_image_and_control_together() -> None:
    pairs, rng = Pairs(Boxes(), tiny(), mirror=True), np.random.default_rng(0)
    drawn = [pairs.draw(1, rng) for _ in range(12)]
    plain = pairs[1]
    assert {item["mirrored"] for item in drawn} == {False, True}
    for item in drawn:
        turn = (lambda x: x.flip(-1)) if item["mirrored"] else (lambda x: x)
        assert torch.equal(item["image"], turn(plain["image"]))
        assert torch.equal(item["control"], turn(plain["control"]))


class Wrong(Boxes):
    """Pair 2 has one thing otherwise."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __getitem__(self, index):
        pair = super().__getitem__(index)
        return pair | (self.change if index == 2 else {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((HEIGHT, WIDTH, 3), np.float32)}, "training pair 2: expected an image .* uint8"),
        ({"image": np.zeros((HEIGHT, WIDTH + 4, 3), np.uint8)}, "as pair 0"),
        ({"control": np.zeros((3, HEIGHT, WIDTH), np.float32)}, "a control image"),
        ({"control": np.full((5, HEIGHT, WIDTH), -1, np.float32)}, r"0\.\.1"),
        ({"prompt": "a unicorn"}, "'unicorn'"),
    ],
)
def test_wrong_pairs_fail_in_one_line(tmp_path: Path, change, words) -> None:
    with pytest.raises(InputError, match=words) as fault:
        train_control(tiny(), Wrong(change), control(2), tmp_path)
    assert "\n" not in str(fault.value)


def test_no_pairs_and_a_size_that_does_not_divide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        train_vae(tiny(), Boxes(0), VaeTraining(train=steps(1)), tmp_path)
    with pytest.raises(InputError, match="image height: expected a multiple of 16 px"):
        train_control(stock_pipeline(tmp_path / "letters"), _Odd(), control(1), tmp_path)


class _Odd(Boxes):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"image": np.zeros((24, 48, 3), np.uint8)}
