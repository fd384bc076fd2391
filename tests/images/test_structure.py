"""What a critic misses in the predicted image: by hand, and as a part of the ControlNet's training."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.images.controlnet import LEARNED, Denoiser, _Task, train_control
from pipeline.images.critic import Critic, CriticConfig, SegmentationAndDepth
from pipeline.images.pairs import Pairs
from pipeline.images.structure import Structure, clean
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from tests.images.test_training import Labelled, control
from tests.images.toy_pairs import Boxes, tiny

PIXELS = (40, 10, 5, 1, 0, 200)


def critic(seed: int = 0) -> Critic:
    train = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3)
    config = CriticConfig(classes=tuple("abcdef"), widths=(8, 16), train=train)
    torch.manual_seed(seed)
    return Critic(config, SegmentationAndDepth(config), {"data": {"pixels": list(PIXELS)}})


@pytest.mark.parametrize("velocity", [True, False])
def test_the_clean_latent_comes_back_from_a_right_prediction(velocity) -> None:
    draws = torch.Generator().manual_seed(2)
    latent, eps = torch.randn((5, 3, 4, 6), generator=draws), torch.randn((5, 3, 4, 6), generator=draws)
    signal = torch.tensor([0.99, 0.7, 0.4, 0.1, 0.02], dtype=torch.float64).view(-1, 1, 1, 1)
    kept, noise = signal.sqrt().float(), (1 - signal).sqrt().float()
    right = kept * eps - noise * latent if velocity else eps
    found = clean(kept * latent + noise * eps, right, signal, velocity)
    torch.testing.assert_close(found, latent, atol=1e-5, rtol=1e-4)


def test_pixels_count_by_their_classs_weight_and_those_without_a_label_not_at_all() -> None:
    images, labels = torch.rand((3, 3, 8, 12)) * 2 - 1, torch.randint(0, 6, (3, 8, 12)).to(torch.uint8)
    labels[0, :3], labels[2] = 255, 255
    judge = critic()
    found = Structure(judge).distance(images, labels)
    logits, _ = judge.network(images)
    weights = (200 / torch.tensor(PIXELS).clamp(min=1)) ** judge.config.weight_power
    for k in range(2):
        known = labels[k] != 255
        each = cross_entropy(logits[k : k + 1], labels[k : k + 1].long().clamp(max=5), reduction="none")[0, known]
        share = weights[labels[k][known].long()]
        assert found[k].item() == pytest.approx(((each * share).sum() / share.sum()).item(), rel=1e-5)
    assert found[2].item() == 0
    assert not any(parameter.requires_grad for parameter in judge.network.parameters())


def test_nothing_is_missing_where_an_image_shows_as_much_as_its_photograph() -> None:
    draws = torch.Generator().manual_seed(3)
    images, photographs = (torch.rand((6, 3, 8, 12), generator=draws) * 2 - 1 for _ in range(2))
    labels = torch.randint(0, 6, (6, 8, 12), generator=draws).to(torch.uint8)
    structure = Structure(critic())
    more = structure.distance(images, labels) - structure.distance(photographs, labels)
    assert (more > 0).any()
    assert (more < 0).any()
    found = structure.missing(images, photographs, labels)
    assert found.item() == pytest.approx(sum(max(0.0, value) for value in more.tolist()) / 6, rel=1e-5)
    assert structure.missing(photographs, photographs, labels).item() == 0


@pytest.mark.parametrize(("share", "prediction"), [(1.0, "v_prediction"), (0.5, "v_prediction"), (1.0, "epsilon")])
def test_the_loss_has_what_the_critic_misses_in_the_first_of_a_batch(share, prediction) -> None:
    pipeline, judge = tiny(), critic()
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    pairs = Pairs(Labelled(), pipeline, mirror=False)
    items = [pairs[index] for index in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in ("image", "control", "tokens", "labels")}
    config = control(4, structure_weight=0.3, structure_share=share, prompt_dropout=0.0)
    denoiser, seen = Denoiser(pipeline, LEARNED["joint"]), []
    denoiser.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], inputs[1], output)))
    task = _Task(pipeline, config, None, Structure(judge))
    total, parts = task.loss(denoiser, batch, torch.Generator().manual_seed(1))
    noisy, t, output = seen[0]
    rows = [k for k in range(round(4 * share)) if prediction == "v_prediction" or t[k] < 200]
    assert rows
    signal = task.alpha_bar[t].view(-1, 1, 1, 1)
    images = denoiser.decode(clean(noisy, output, signal, prediction == "v_prediction")[rows])
    photographs = denoiser.decode(task._latent(denoiser, batch, torch.Generator().manual_seed(1))[rows])
    expected = Structure(judge).missing(images, photographs, batch["labels"][rows])
    assert expected.item() > 0
    assert parts["structure"].item() == pytest.approx(expected.item(), rel=1e-4)
    bare = _Task(pipeline, control(4, prompt_dropout=0.0))
    plain, _ = bare.loss(denoiser, batch, torch.Generator().manual_seed(1))
    assert total.item() == pytest.approx(plain.item() + 0.3 * expected.item(), rel=1e-4)
    total.backward()
    assert float(denoiser.controlnet.controlnet_mid_block.weight.grad.abs().sum()) > 0
    assert not any(value.grad is not None for value in judge.network.parameters())


def test_noise_predicted_early_tells_the_critic_nothing() -> None:
    pipeline = tiny()
    pipeline.scheduler.register_to_config(prediction_type="epsilon")
    task = _Task(pipeline, control(4, structure_weight=1.0), None, Structure(critic()))
    noisy, t = torch.randn(2, 4, 4, 8), torch.tensor([200, 999])
    denoiser, labels = Denoiser(pipeline, LEARNED["joint"]), torch.zeros(2, 8, 16, dtype=torch.uint8)
    assert task._missing(denoiser, (noisy, noisy, noisy), t, labels).item() == 0


def test_training_with_a_critic_leaves_it_as_it_is_and_is_continued_only_with_it(tmp_path) -> None:
    judge, config = critic(), control(4, structure_weight=0.5)
    before = {name: value.clone() for name, value in judge.network.state_dict().items()}
    trained = train_control(tiny(), Labelled(), config, tmp_path, critic=judge)
    assert all(torch.equal(value, before[name]) for name, value in judge.network.state_dict().items())
    assert trained.losses[-1]["structure"] > 0
    again = train_control(tiny(), Labelled(), config, tmp_path, critic=critic())
    assert again.losses[-1] == trained.losses[-1]
    with pytest.raises(InputError):
        train_control(tiny(), Labelled(), config, tmp_path, critic=critic(seed=1))
    with pytest.raises(InputError, match="structure_weight: expected a critic"):
        train_control(tiny(), Labelled(), config, tmp_path / "other")
    with pytest.raises(InputError, match="structure_weight: expected pairs with labels"):
        train_control(tiny(), Boxes(), config, tmp_path / "other", critic=judge)
