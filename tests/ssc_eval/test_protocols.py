"""The matrix: cells against a hand-written list, runs shared and told apart, nested subsets, equal iterations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.changes import apply_changes, table_of
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError
from ssc_eval.losses import LossWeights
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.protocols import (
    Cell,
    Data,
    Datasets,
    ProtocolRecipe,
    Run,
    Switches,
    cells,
    nested_counts,
    planned,
)
from ssc_eval.samples import SampleConfig, Source, SscDataset, chosen_frames
from ssc_eval.views import open_scenes
from tests.ssc_eval.toy_root import write_toy_root

REAL = Data(root=Path("real"), digest="r", frames=100)
MADE = Data(root=Path("made"), digest="m", frames=40, renders="beside")
OTHER = Data(root=Path("other"), digest="o", frames=20, renders="beside")
DATA = Datasets(real=REAL, synthetic=(MADE,))


def recipe(**fields: Any) -> ProtocolRecipe:
    training = TrainConfig(steps=7, batch_size=2)
    given_ = {"network": MonoSceneConfig(), "samples": SampleConfig(), "training": training, **fields}
    return ProtocolRecipe(**{"fractions": (0.05, 1.0), "counts": (10, 1000), "seeds": (0, 1), **given_})


def names(found: ProtocolRecipe, data: Datasets = DATA) -> list[str]:
    return [cell.name for cell in cells(found, data)]


def runnable(found: ProtocolRecipe, data: Datasets = DATA) -> list[Cell]:
    return [cell for cell in cells(found, data) if not cell.obstacle]


def digests(found: ProtocolRecipe, data: Datasets = DATA) -> dict[str, str]:
    return {cell.name: planned(found, data, cell.run).digest for cell in runnable(found, data)}


def test_the_whole_matrix_by_hand() -> None:
    expected = [
        ("real/real_100", (0, 1)),
        ("zero-shot/synthetic", (0, 1)),
        ("fractions/real_5", (0, 1)),
        ("fractions/real_5+synthetic", (0, 1)),
        ("fractions/real_100", (0, 1)),
        ("fractions/real_100+synthetic", (0, 1)),
        ("finetune/synthetic_then_real_5", (0, 1)),
        ("finetune/synthetic_then_real_100", (0, 1)),
        ("counts/synthetic_10", (0, 1)),
        ("counts/synthetic_40", (0, 1)),
        ("floors/constant_prior_of_real", (0,)),
        ("floors/constant_prior_of_synthetic", (0,)),
        ("floors/renders", (0, 1)),
        ("switches/synthetic+balanced", (0, 1)),
        ("switches/synthetic+accepted", (0, 1)),
        ("switches/synthetic+adapt", (0, 1)),
        ("switches/real_100+adapt", (0, 1)),
    ]
    assert names(recipe()) == [f"{name}/{seed}" for name, seeds in expected for seed in seeds]


def test_what_cannot_run_is_listed_with_its_obstacle() -> None:
    data = Datasets(real=REAL, synthetic=(MADE.model_copy(update={"renders": ""}),))
    found = {cell.name: cell.obstacle for cell in cells(recipe(seeds=(3,)), data)}
    assert found["floors/renders/3"] == "no renders beside the images"
    assert found["switches/synthetic+accepted/3"] == "no frame is marked by the structure check"
    assert {obstacle for name, obstacle in found.items() if name[-10:] not in ("/renders/3", "accepted/3")} == {""}
    with pytest.raises(InputError, match="marked as accepted"):
        cells(recipe(switches=Switches(accepted=True)), data)


def test_work_that_is_the_same_is_one_run() -> None:
    found = digests(recipe())
    assert found["real/real_100/0"] == found["fractions/real_100/0"]
    assert found["zero-shot/synthetic/1"] == found["counts/synthetic_40/1"]
    assert len(set(found.values())) == len(found) - 4  # both, for two seeds
    renders = Datasets(real=REAL, synthetic=(MADE.model_copy(update={"renders": "images"}),))
    same = digests(recipe(), renders)
    assert same["floors/renders/0"] == same["zero-shot/synthetic/0"]


def test_a_digest_follows_what_weights_and_scores_follow_from_and_nothing_else() -> None:
    before = digests(recipe())
    moved = Datasets(real=REAL.model_copy(update={"root": Path("/elsewhere")}), synthetic=(MADE,))
    quick = TrainConfig(steps=7, batch_size=2, log_every=1, checkpoint_every=3, workers=2, device="cpu", keep=1)
    assert before == digests(recipe(), moved) == digests(recipe(training=quick))
    wider = digests(recipe(fractions=(0.05, 0.5, 1.0), seeds=(0, 1, 2)))
    assert before.items() <= wider.items()  # a larger matrix finds the smaller one's cells
    other_made = digests(recipe(), Datasets(real=REAL, synthetic=(MADE.model_copy(update={"digest": "new"}),)))
    for name, digest in before.items():
        alone = ("real/", "fractions/real_5/", "fractions/real_100/", "switches/real_100")
        real_alone = name.startswith(alone) or "prior_of_real" in name
        assert (digest == other_made[name]) == real_alone
    for change in ({"training": TrainConfig(steps=8, batch_size=2)}, {"split": "test"}, {"frames": 3}):
        assert not set(digests(recipe(**change)).values()) & set(before.values())
    tuned = digests(recipe(finetune=TrainConfig(steps=3, batch_size=2)))
    assert {name for name in before if before[name] != tuned[name]} == {n for n in before if n.startswith("finetune")}


def test_surfaces_are_learnt_before_completion_but_not_again_before_finetuning() -> None:
    before, surfaces = digests(recipe()), TrainConfig(steps=5, batch_size=2)
    with_surfaces = recipe(surfaces=surfaces)
    assert not set(digests(with_surfaces).values()) & set(before.values())
    assert digests(with_surfaces) == digests(recipe(surfaces=surfaces.model_copy(update={"log_every": 1})))
    for cell in runnable(with_surfaces):
        found = planned(with_surfaces, DATA, cell.run).config.surfaces
        assert found == (None if cell.run.how == "finetuned" else surfaces)
    with pytest.raises(ValidationError, match="must be in steps"):
        recipe(surfaces=TrainConfig(epochs=1, batch_size=2))


def test_runs_begin_with_what_they_build_on() -> None:
    zero = Run(synthetic=40, seed=1)
    assert Run(how="finetuned", real=0.05, synthetic=40, seed=1).parent == zero
    assert Run(synthetic=40, switches=Switches(adapt=True), seed=1).parent == zero
    assert zero.parent is None
    found = planned(recipe(), DATA, Run(how="finetuned", real=0.05, synthetic=40, seed=1))
    assert found.parent == planned(recipe(), DATA, zero).digest
    assert found.config.sources == (Source(root=Path("real"), fraction=0.05),)


def test_all_arms_have_equal_iterations_and_alike_training() -> None:
    found = recipe()
    for cell in runnable(found):
        training = planned(found, DATA, cell.run).config.training
        assert training == found.training.model_copy(update={"seed": cell.run.seed})
        assert training.total_steps(5) == training.total_steps(5000) == 7
    in_epochs = TrainConfig(epochs=2, batch_size=2)
    milestones = TrainConfig(steps=9, batch_size=2, schedule=Schedule(kind="multistep", milestones=(1,), unit="epoch"))
    for training in (in_epochs, milestones):
        with pytest.raises(ValidationError, match="must be in steps"):
            recipe(training=training)


def test_real_and_synthetic_share_a_batch_as_the_recipe_says() -> None:
    data = Datasets(real=REAL, synthetic=(MADE, OTHER))
    found = planned(recipe(real_share=0.25), data, Run(real=0.5, synthetic=30)).config.sources
    assert [(str(s.root), s.frames, s.fraction) for s in found] == [
        ("real", None, 0.5),
        ("made", 20, 1.0),
        ("other", 10, 1.0),
    ]
    assert [s.weight for s in found] == pytest.approx([0.25, 0.5, 0.25])


def test_switches_reach_the_sources() -> None:
    marked = MADE.model_copy(update={"accepted": 12, "accepted_root": Path("kept")})
    data = Datasets(real=REAL, synthetic=(marked, OTHER))
    found = planned(recipe(), data, Run(synthetic=12, switches=Switches(accepted=True, balanced=True)))
    assert found.config.sources == (Source(root=Path("kept"), frames=12, balanced=True),)
    arms = {cell.arm: cell for cell in cells(recipe(), data)}
    assert arms["synthetic, accepted"].run.synthetic == 12
    assert not arms["synthetic, accepted"].obstacle
    adapted = planned(recipe(adapt_frames=5), data, Run(synthetic=60, switches=Switches(adapt=True)))
    assert adapted.adapt == Source(root=Path("real"), frames=5)
    assert planned(recipe(), data, Run(synthetic=60, image="render")).config.sources[0].image == "render"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_synthetic_subsets_are_nested_and_in_proportion(available: list[int]) -> None:
    before = (0,) * len(available)
    for wanted in range(sum(available) + 1):
        taken = nested_counts(available, wanted)
        assert sum(taken) == wanted
        assert all(b <= t <= a for b, t, a in zip(before, taken, available, strict=True))
        assert all(abs(t - a * wanted / max(sum(available), 1)) < 2 for t, a in zip(taken, available, strict=True))
        before = taken
    with pytest.raises(InputError):
        nested_counts(available, sum(available) + 1)


def test_real_subsets_are_nested_and_their_own_a_seed(tmp_path: Path) -> None:
    root = write_toy_root(tmp_path, {"00": 20, "01": 20, "08": 1}, {"train": ["00", "01"], "val": ["08"]})
    opened, _ = open_scenes(root)
    data = Datasets(real=REAL.model_copy(update={"root": root}), synthetic=(MADE,))
    subsets = {}
    for seed in (0, 1):
        before: set[tuple[str, str]] = set()
        for fraction in (0.05, 0.1, 0.25, 0.5, 1.0):
            (source,) = planned(recipe(), data, Run(real=fraction, seed=seed)).config.sources
            frames = set(chosen_frames(opened, source, seed))
            assert before <= frames
            assert len(frames) == round(40 * fraction)
            before = subsets[seed, fraction] = frames
    assert subsets[0, 0.25] != subsets[1, 0.25]


def test_a_mixed_run_draws_real_frames_as_often_as_asked(tmp_path: Path) -> None:
    splits = {"train": ["00"], "val": ["08"]}
    real = write_toy_root(tmp_path / "real", {"00": 4, "08": 1}, splits)
    made = write_toy_root(tmp_path / "made", {"00": 10, "08": 1}, splits, seed=1)
    data = Datasets(
        real=Data(root=real, digest="r", frames=4), synthetic=(MADE.model_copy(update={"root": made, "frames": 10}),)
    )
    config = planned(recipe(real_share=0.75), data, Run(real=0.5, synthetic=10)).config
    dataset = SscDataset(config.sources, SampleConfig(width_px=64, height_px=32), 0, config.network)
    assert dataset.slots.tolist() == [9, 3]  # of 2 + 10 slots


def test_variants_stand_in_for_the_synthetic_datasets_at_as_many_frames() -> None:
    more = MADE.model_copy(update={"root": Path("far"), "digest": "f", "frames": 90})
    few = MADE.model_copy(update={"root": Path("few"), "digest": "w", "frames": 30, "accepted": 0})
    data = Datasets(real=REAL, synthetic=(MADE,), variants={"far": more, "few": few})
    found = {cell.name: cell for cell in cells(recipe(), data)}
    assert list(found)[-4:] == [f"switches/synthetic_{name}/{seed}" for name in ("far", "few") for seed in (0, 1)]
    runs = [found[f"switches/synthetic_{name}/1"].run for name in ("far", "few")]
    (far,), (less,) = (planned(recipe(), data, run).config.sources for run in runs)
    assert (far, less) == (Source(root=Path("far"), frames=40), Source(root=Path("few"), frames=30))
    before, after = digests(recipe()), digests(recipe(), data)
    assert before.items() <= after.items()
    assert len({after[f"switches/synthetic_{name}/0"] for name in ("far", "few")} - set(before.values())) == 2
    adapted = Run(synthetic=40, variant="far", switches=Switches(adapt=True))
    assert adapted.parent == Run(synthetic=40, variant="far")
    kept = {c.name: c.obstacle for c in cells(recipe(switches=Switches(accepted=True)), _accepted(data))}
    assert kept["switches/synthetic_few,_accepted/0".replace(",_", "+")] == "no frame is marked by the structure check"


def _accepted(data: Datasets) -> Datasets:
    marked = MADE.model_copy(update={"accepted": 12, "accepted_root": Path("kept")})
    return data.model_copy(update={"synthetic": (marked,)})


def test_norms_are_settled_as_the_training_recipe_says() -> None:
    plain, settled = recipe(), recipe(norm_frames=5)
    assert planned(settled, DATA, Run(real=1.0)).config.norm_frames == 5
    assert not set(digests(plain).values()) & {d for n, d in digests(settled).items() if "prior" not in n}


def test_what_is_as_published_is_not_written_down() -> None:
    """Fields that came later keep the digests of runs that don't use them, and can be set all the same."""
    plain = recipe()
    assert "losses" not in plain.model_dump(mode="json")
    assert "occupied_above" not in plain.model_dump(mode="json")["network"]
    other = plain.model_copy(update={"losses": LossWeights(frustum=0.0)})
    assert ProtocolRecipe.model_validate(other.model_dump(mode="json")) == other
    table = table_of(plain)
    assert table["losses"] == table_of(LossWeights())
    apply_changes(table, ("losses.frustum=0", "network.occupied_above=0.4"))
    changed = ProtocolRecipe.model_validate(table)
    assert changed.losses == LossWeights(frustum=0.0)
    assert changed.network.occupied_above == 0.4
