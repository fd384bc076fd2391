"""A stage's loss and its sampler: what counts, what is held, and that the sampler draws what the model says."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from pipeline.diffusion import d3pm
from pipeline.diffusion.bedit import fold
from pipeline.diffusion.sampling import generators
from pipeline.diffusion.stage import Draws, Held, Stage, StageConfig, StageData
from pipeline.learning.checkpoint import load_model
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE
from tests.diffusion import dense

K, SHAPE, COARSE = 4, (4, 6, 2), (2, 3, 1)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**fields: object) -> StageConfig:
    training = TrainConfig(steps=2, batch_size=2, learning_rate=2e-3, torch_threads=1, device="cpu")
    settings = {"width": 32, "depth": 1, "channels": 4, "patch": 2, "steps": 8, "training": training} | fields
    return StageConfig(**settings)  # type: ignore[arg-type]


def stage_of(seed: int = 0, **fields: object) -> Stage:
    """A stage with one coarse condition whose weights are far from the zero start."""
    stage = Stage(config(**fields), SHAPE, K, (COARSE,), seed)
    with torch.no_grad():
        for weights in stage.network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.1)
    return stage


def batch_of(count: int = 3, seed: int = 0) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    filled = torch.randint(K, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    unknown = torch.rand(filled.shape, generator=generator) < 0.3
    target = torch.where(unknown, torch.tensor(IGNORE, dtype=torch.uint8), filled)
    condition = torch.randint(K, (count, *COARSE), generator=generator, dtype=torch.uint8)
    return {"target": target, "filled": filled, "conditions": [condition]}


def streams(*seeds: int) -> list[torch.Generator]:
    return generators(seeds, CPU)


def condition(count: int, seed: int = 0) -> Tensor:
    return torch.randint(K, (1, *COARSE), generator=torch.Generator().manual_seed(seed)).expand(count, -1, -1, -1)


class Recorder(nn.Module):
    """Passes calls on and keeps what went in and what came out."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.calls: list[tuple[tuple[Tensor, ...], Tensor]] = []

    def forward(self, *inputs: Tensor, chosen: Tensor | None = None) -> Tensor:
        logits = self.network(*inputs, chosen=chosen)
        if logits.requires_grad:
            logits.retain_grad()
        self.calls.append((inputs, logits))
        return logits


# the loss


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_invalid_voxels_take_no_part_in_the_loss(process: str) -> None:
    stage, batch = stage_of(process=process), batch_of()
    model = Recorder(stage.network)
    value, _ = stage.loss(model, batch, torch.Generator().manual_seed(3))
    value.backward()  # type: ignore[no-untyped-call]
    (_, logits), valid = model.calls[-1], fold(batch["target"], stage.patch) != IGNORE  # type: ignore[arg-type]
    reached = logits.grad.abs().sum(-1) > 0  # type: ignore[union-attr]
    assert not reached[~valid].any()
    assert reached[valid].all()


def test_filled_voxels_are_learnt_where_the_config_says_so() -> None:
    """The loss is then that of the filled labels as if they had been known."""
    batch = batch_of()
    known = {**batch, "target": batch["filled"]}

    def loss_of(batch: dict[str, object], **fields: object) -> float:
        stage = stage_of(**fields)
        return stage.loss(stage.network, batch, torch.Generator().manual_seed(3))[0].item()

    assert loss_of(batch, learn_filled=True) == loss_of(known)
    assert loss_of(batch, learn_filled=True) != loss_of(batch)


def test_the_label_filled_in_for_an_unknown_voxel_is_no_target() -> None:
    """Where logits don't depend on what goes in, it doesn't change the loss; a known voxel's label does."""
    stage, batch = Stage(config(), SHAPE, K, (COARSE,)), batch_of()
    target, filled = batch["target"], batch["filled"]
    with torch.no_grad():
        stage.network.leave.bias.uniform_(-2, 2, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]

    def loss(labels: Tensor) -> float:
        return stage.loss(stage.network, batch | {"filled": labels}, torch.Generator().manual_seed(3))[0].item()

    unknown = target == IGNORE  # type: ignore[comparison-overlap]
    assert loss(torch.where(unknown, (filled + 1) % K, filled)) == loss(filled)  # type: ignore[operator,arg-type]
    assert loss(torch.where(unknown, filled, (filled + 1) % K)) != loss(filled)  # type: ignore[operator,arg-type]


def test_loss_is_steps_times_kl_and_cross_entropy_weighted() -> None:
    stage, batch = stage_of(ce_weight=0.5), batch_of()
    value, logged = stage.loss(stage.network, batch, torch.Generator().manual_seed(1))
    assert set(logged) == {"kl", "ce"}
    assert value.item() == pytest.approx((logged["kl"] + 8 * 0.5 * logged["ce"]).item())
    repeated, _ = stage.loss(stage.network, batch, torch.Generator().manual_seed(1))
    assert repeated.item() == value.item()  # all noise comes from the generator


def test_a_share_of_the_voxels_is_unbiased() -> None:
    """At the same times and noise, means over every choice of voxels are the whole loss."""
    whole, part = stage_of(loss_share=1.0), stage_of(loss_share=0.25)
    batch = batch_of()
    batch["target"] = batch["filled"]  # all valid: else the mean of ratios is biased a little
    exact = whole.loss(whole.network, batch, torch.Generator().manual_seed(5))[0].item()
    voxels, found, counts = 8, [], []  # 2 x 2 x 2 voxels a token
    for pair in itertools.combinations(range(voxels), 2):
        part._chosen = lambda *_, pair=pair: torch.tensor(pair)  # type: ignore[method-assign,misc]
        found.append(part.loss(part.network, batch, torch.Generator().manual_seed(5))[0].item())
    assert np.std(found) > 0.01 * exact
    assert np.mean(found) == pytest.approx(exact, rel=1e-4)
    generator, fresh = torch.Generator().manual_seed(0), stage_of(loss_share=0.25)
    for _ in range(2000):
        chosen = fresh._chosen(voxels, generator).tolist()
        assert len(set(chosen)) == 2
        counts += chosen
    assert dense.p_value(np.bincount(counts, minlength=voxels), np.full(voxels, 1 / voxels)) > 1e-3


def test_every_time_is_trained_evenly_over_a_batch() -> None:
    stage, generator = stage_of(), torch.Generator().manual_seed(0)
    rows = torch.stack([stage._times(4, generator) for _ in range(3000)])
    assert dense.p_value(np.bincount(rows.flatten().numpy(), minlength=9), np.r_[0, np.full(8, 1 / 8)]) > 1e-3
    assert ((rows.sort().values - 1) // 2 == torch.arange(4)).all()  # each row of a batch has its own quarter
    assert set(torch.cat([stage._times(1, generator) for _ in range(200)]).tolist()) == set(range(1, 9))


def test_self_conditioning_in_training() -> None:
    """Half of the time nothing, else the estimate of a first pass that has no gradient."""
    stage, batch = stage_of(self_condition=True), batch_of(1)
    model, passes = Recorder(stage.network), []
    for seed in range(40):
        model.calls.clear()
        stage.loss(model, batch, torch.Generator().manual_seed(seed))
        passes.append(len(model.calls))
        given = model.calls[-1][0][2]
        if len(model.calls) == 1:
            assert (given == K).all()
        else:
            first_inputs, first = model.calls[0]
            assert not first.requires_grad
            assert (first_inputs[2] == K).all()
            assert torch.equal(given, first.argmax(-1))
            assert torch.equal(first_inputs[1], model.calls[1][0][1])  # the same x_t
    assert 10 <= passes.count(2) <= 30


# the sampler


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
@pytest.mark.parametrize("self_condition", [False, True])
@pytest.mark.parametrize("steps", [None, 3, 1])
def test_known_voxels_survive_exactly_and_others_take_allowed_classes(
    process: str, self_condition: bool, steps: int | None
) -> None:
    stage = stage_of(process=process, self_condition=self_condition, own_evidence=self_condition)
    known = torch.randint(K, (2, *SHAPE), generator=torch.Generator().manual_seed(0))
    free = torch.rand(known.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    allowed = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1]]).bool()
    held = Held(torch.where(free, IGNORE, known), allowed)
    drawn = stage.sample(streams(1, 2), (condition(2),), held, steps)
    assert drawn.shape == (2, *SHAPE)
    assert torch.equal(drawn[~free], known[~free])
    assert set(drawn[0][free[0]].unique().tolist()) == {0, 2}
    assert set(drawn[1][free[1]].unique().tolist()) == set(range(K))


@pytest.mark.parametrize("share_of_t", [1.0, 0.5, 0.0])
def test_known_voxels_enter_at_their_noise_level(share_of_t: float) -> None:
    stage = stage_of(steps=50)
    seen: list[tuple[int, float]] = []
    held = Held(torch.full((8, *SHAPE), 3), torch.ones(8, K).bool())
    held.labels[:, 0, 0, 0] = IGNORE
    stage.watch = lambda x, _, times: seen.append((times[0], (x == 3).float().mean().item()))
    stage.sample(streams(*range(8)), (condition(8),), held, draws=Draws(held_at=share_of_t))
    assert [t for t, _ in seen] == list(range(50, 0, -1))
    for t, share in seen:
        kept = float(stage.process.alpha_bar[round(share_of_t * t)])
        assert share == pytest.approx(kept + (1 - kept) / K, abs=0.12)


def test_what_was_unmasked_stays_to_the_end() -> None:
    stage = stage_of(process="absorbing")
    seen: list[Tensor] = []
    stage.watch = lambda x, _logits, _times: seen.append(x.clone())
    final = fold(stage.sample(streams(4, 5), (condition(2),)), stage.patch).flatten(1)
    assert (seen[0] == K).all()
    for before, after in itertools.pairwise([*seen, final]):
        assert torch.equal(before[before < K], after[before < K])
    assert 0.3 < (seen[-1] < K).float().mean() < 1  # most were settled before the last step
    assert (final < K).all()


def test_where_all_is_held_nothing_is_computed() -> None:
    stage = stage_of()
    stage.watch = lambda *_: pytest.fail("a step was taken")
    held = Held(torch.full((2, *SHAPE), 3), torch.ones(2, K).bool())
    assert torch.equal(stage.sample(streams(1, 2), (condition(2),), held), held.labels)


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_draw_depends_on_its_own_stream_and_condition_alone(process: str) -> None:
    stage = stage_of(process=process, self_condition=True)
    both = torch.cat([condition(1, 0), condition(1, 1), condition(1, 2)])
    torch.manual_seed(0)
    drawn = stage.sample(streams(7, 8, 9), (both,))
    torch.manual_seed(99)
    turned = stage.sample(streams(9, 30, 7), (both[[2, 1, 0]],))
    assert torch.equal(turned[[2, 0]], drawn[[0, 2]])
    assert not torch.equal(turned[1], drawn[1])
    held = Held(torch.full((3, *SHAPE), IGNORE), torch.ones(3, K).bool())
    for other in (stage.sample(streams(7, 8, 9), (both.flip(0),)), stage.sample(streams(7, 8, 9), (both,), held)):
        assert other.shape == drawn.shape
    assert not torch.equal(stage.sample(streams(7, 8, 9), (both.flip(0),))[0], drawn[0])


def test_self_conditioning_in_sampling() -> None:
    stage = stage_of(self_condition=True)
    model = Recorder(stage.network)
    stage.network = model
    stage.sample(streams(1), (condition(1),), steps=4)
    given = [inputs[2] for inputs, _ in model.calls]
    assert (given[0] == K).all()
    for (_, logits), after in zip(model.calls, given[1:], strict=False):
        assert torch.equal(after, logits.argmax(-1))
    assert [round(float(inputs[0])) for inputs, _ in model.calls] == [8, 6, 4, 2]
    model.calls.clear()
    held = Held(torch.full((1, *SHAPE), IGNORE), torch.ones(1, K).bool())
    held.labels[..., 0] = 2
    stage.sample(streams(1), (condition(1),), held, steps=4, draws=Draws(self_condition=False))
    assert all((inputs[2] == K).all() for inputs, _ in model.calls)


def test_evidence_and_min_p_are_what_they_say() -> None:
    stage, exact = stage_of(own_evidence=True), stage_of(own_evidence=False)
    found: list[tuple[Tensor, Tensor, int]] = []
    stage.watch = lambda x, logits, times: found.append((x.clone(), logits.clone(), times[0]))
    for share in (1.0, 0.5):
        found.clear()
        stage.sample(streams(3), (condition(1),), steps=4, draws=Draws(evidence=share))
        for x, logits, t in found:
            bare = exact._logits(x, t, exact._folded([condition(1)]), None)
            added = logits - bare
            amount = share * d3pm.own_evidence(stage.process, torch.tensor([t])).item()
            assert torch.allclose(added.gather(-1, x[..., None]), torch.tensor(amount).float(), atol=1e-4)
            assert torch.allclose(added.sum(-1), torch.tensor(amount).float(), atol=1e-4)
    likeliest = exact.sample(streams(3), (condition(1),), steps=1, draws=Draws(min_p=0.999))
    seen: list[Tensor] = []
    exact.watch = lambda x, logits, _: seen.append(logits.argmax(-1))
    exact.sample(streams(3), (condition(1),), steps=1)
    assert torch.equal(fold(likeliest, exact.patch).flatten(1), seen[0])


def bar_of(process: d3pm.Process, told: Tensor) -> float:
    """alpha_bar of the time that a network was told."""
    times = process.told(torch.arange(process.steps + 1))
    return float(process.alpha_bar[(times - told[0]).abs().argmin()])


class Bayes(nn.Module):
    """The exact denoiser of three voxels that hang together, a column each: log p(x_0 = k | x_t) of every voxel.

    `others`: without the voxel's own x_t, which `own_evidence` adds.
    """

    cells = torch.tensor(list(itertools.product(range(3), repeat=3)))

    def __init__(self, process: d3pm.Process, data: Tensor, others: bool):
        super().__init__()
        self.process, self.data, self.others = process, data, others

    def forward(self, t: Tensor, x_t: Tensor, chosen: Tensor | None = None) -> Tensor:
        bar = bar_of(self.process, t)
        matrix = torch.zeros(3, self.process.states, dtype=torch.float64).fill_diagonal_(bar)
        if self.process.kind == "uniform":
            matrix += (1 - bar) / 3
        else:
            matrix[:, 3] = 1 - bar
        likelihood = matrix[self.cells[:, :, None], x_t.flatten(0, 2).T[None]]  # cell, voxel, column
        out = torch.zeros(x_t.shape[:3].numel(), 3, 3, dtype=torch.float64)
        for voxel in range(3):
            factors = [likelihood[:, v] for v in range(3) if not self.others or v != voxel]
            joint = self.data[:, None] * torch.stack(factors).prod(0)
            out[:, voxel] = torch.zeros(3, joint.shape[1]).double().index_add(0, self.cells[:, voxel], joint).T
        return out.log().view(*x_t.shape, 3).float()


@pytest.mark.parametrize(("process", "others"), [("uniform", False), ("uniform", True), ("absorbing", False)])
def test_the_exact_denoiser_gives_the_data_back(process: str, others: bool) -> None:
    """In many small steps, since voxels are drawn independently within one; every column is a draw of its own."""
    data = torch.where((Bayes.cells[:, 0] == Bayes.cells[:, 1]) & (Bayes.cells[:, 2] <= 1), 4.0, 0.7).double()
    data /= data.sum()
    fields = {"patch": 1, "process": process, "steps": 150, "own_evidence": others}
    stage = Stage(config(**fields), (32, 32, 3), 3)
    stage.network = Bayes(stage.process, data, others)
    drawn = stage.sample(streams(1, 2)).flatten(0, 2)  # 2048 columns
    counts = np.bincount((drawn @ torch.tensor([9, 3, 1])).numpy(), minlength=27)
    assert dense.p_value(counts, data.numpy()) > 1e-3


class Alike(nn.Module):
    """The exact denoiser of scenes whose voxels are all of class 1 (a fifth of the scenes), or all of class 0."""

    def __init__(self, process: d3pm.Process):
        super().__init__()
        self.process = process

    def forward(self, t: Tensor, x_t: Tensor, chosen: Tensor | None = None) -> Tensor:
        bar = bar_of(self.process, t)
        evidence = np.log1p(bar * K / (1 - bar))  # of a voxel, for the class that it shows
        odds = evidence * sum((x_t == k).flatten(1).sum(1) * sign for k, sign in ((1, 1), (0, -1))) + np.log(0.2 / 0.8)
        out = torch.full((*x_t.shape, K), -torch.inf)
        out[..., 0], out[..., 1] = (nn.functional.logsigmoid(s * odds)[:, None, None, None] for s in (-1, 1))
        return out


def test_a_schedule_must_settle_a_layout_slowly() -> None:
    """A few voxels in a hundred tell which scene it is. Where as many come back in one step, as with "cosine", each
    drawn by itself, they tell of the commoner scene; "linear" takes many steps to bring as many."""
    found = {}
    for schedule in ("cosine", "cosine_squared", "linear"):
        stage = Stage(config(patch=1, schedule=schedule, steps=100), (32, 32, 4), K)
        stage.network = Alike(stage.process)
        drawn = stage.sample(streams(*range(200)), steps=50).flatten(1)
        assert (drawn == drawn[:, :1]).all()
        found[schedule] = int(drawn[:, 0].sum())
    assert found["cosine"] < 0.3 * 40  # of 200 scenes 40 should be of class 1
    assert found["cosine"] < found["cosine_squared"]
    assert binomtest(found["linear"], 200, 0.2).pvalue > 0.05


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_what_is_held_at_less_noise_says_more(process: str) -> None:
    """With the exact denoiser: nearer to the distribution given what is held; masks are certain at 0, so exact."""
    data = torch.where((Bayes.cells[:, 0] == Bayes.cells[:, 1]) & (Bayes.cells[:, 2] <= 1), 20.0, 0.3).double()
    given = (data * (Bayes.cells[:, 0] == 2))[18:]
    exact = (given / given.sum()).numpy()
    stage = Stage(config(patch=1, process=process, steps=40), (32, 32, 3), 3)
    stage.network = Bayes(stage.process, data / data.sum(), others=False)
    held = Held(torch.full((2, 32, 32, 3), IGNORE), torch.ones(2, 3).bool())
    held.labels[..., 0] = 2
    distances = []
    for share in (1.0, 0.5, 0.0):
        drawn = stage.sample(streams(1, 2), (), held, draws=Draws(held_at=share)).flatten(0, 2)  # 2048 columns
        counts = np.bincount((drawn @ torch.tensor([9, 3, 1])).numpy(), minlength=27)[18:]
        distances.append(np.abs(counts / counts.sum() - exact).sum() / 2)
    assert distances == sorted(distances, reverse=True)
    assert distances[1] < 0.8 * distances[0]
    if process == "absorbing":
        assert dense.p_value(counts, exact) > 1e-3


# the whole


def test_training_learns_what_the_condition_says_and_keeps_unknown_voxels_out(tmp_path: Path) -> None:
    """Blocks of one label each, given coarse; a wrong label wherever the target is 255 does no harm."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, K, (64, *COARSE)).astype(np.uint8)
    clean = coarse.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    unknown = rng.random(clean.shape) < 0.2
    data = StageData(np.where(unknown, np.uint8(IGNORE), clean), np.where(unknown, np.uint8(3), clean), (coarse,))
    training = TrainConfig(
        steps=100, batch_size=16, learning_rate=5e-3, ema_decay=0.9, torch_threads=1, device="cpu", log_every=25
    )
    stage = Stage(config(training=training), SHAPE, K, (COARSE,))
    done = stage.train(data, tmp_path / "run", "digest")
    assert done.losses[-1]["ce"] < 0.25 * done.losses[0]["ce"]
    load_model(done.checkpoint, stage.network)
    drawn = stage.sample(streams(*range(16)), (torch.from_numpy(coarse[:16]).long(),)).numpy()
    assert (drawn == clean[:16]).mean() > 0.9
    assert (drawn == clean[:16])[unknown[:16] & (clean[:16] != 3)].mean() > 0.9


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, on import of its compiler
def test_compiled_training_leaves_the_same_weights_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler itself stays out (it needs a C++ compiler): its backend is told to run the graph as it is."""
    monkeypatch.setattr(torch._dynamo.config, "disable", True)
    data = StageData(*(np.ones((4, *SHAPE), np.uint8),) * 2, (np.ones((4, *COARSE), np.uint8),))
    found = []
    for compiled in (False, True):
        stage = Stage(config(compile=compiled), SHAPE, K, (COARSE,))
        done = stage.train(data, tmp_path / str(compiled), "")
        load_model(done.checkpoint, stage.network)
        found.append(stage.network.state_dict())
    assert list(found[0]) == list(found[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_initial_weights_are_the_seeds_and_the_global_stream_is_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (Stage(config(), SHAPE, K, (COARSE,), seed).network.enter.weight for seed in (1, 1, 2))  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)  # type: ignore[arg-type]
    assert not torch.equal(first, other)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "coarse"), [((5, 6, 2), COARSE), (SHAPE, (3, 3, 1)), (SHAPE, (1, 3, 1))])
def test_volumes_that_do_not_divide_into_tokens(shape: tuple[int, int, int], coarse: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="BEDiT: expected volumes that divide into tokens of 2x2 voxels"):
        Stage(config(), shape, K, (coarse,))


def test_more_steps_than_the_process_has() -> None:
    with pytest.raises(InputError, match="1 to 8"):
        stage_of().sample(streams(1), (condition(1),), steps=9)


@pytest.mark.parametrize("width", [100, 34, 6])
def test_a_width_that_does_not_split_into_heads_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        StageConfig(width=width, training=TrainConfig(steps=1, batch_size=1))
