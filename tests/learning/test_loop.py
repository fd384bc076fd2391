"""One process: parts equal the whole, resume, damage, refusals, logs."""

import json
import math

import pytest
import torch
from torch import nn

from pipeline.learning.checkpoint import load_model, read_card
from pipeline.learning.loop import train
from pipeline.learning.resume import checkpoints
from pipeline.scene.errors import InputError
from tests.learning.toy_run import SAMPLES, Points, config, network, noisy_loss, plain_loss, run


def last(out):
    return checkpoints(out)[-1]


def same_end(a, b):
    """Weights, averages, moments, and all logged values, to the byte."""
    assert last(a).name == last(b).name
    names = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
    return all((last(a) / n).read_bytes() == (last(b) / n).read_bytes() for n in names) and (
        (a / "losses.jsonl").read_bytes() == (b / "losses.jsonl").read_bytes()
    )


def test_it_learns(tmp_path) -> None:
    _, trained = run(tmp_path, plain=True, steps=200, log_every=20, checkpoint_every=200)
    assert trained.losses[-1]["loss"] < 0.1 * trained.losses[0]["loss"]
    assert [row["step"] for row in trained.losses] == list(range(20, 201, 20))


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_equals_the_large_batch(tmp_path, parts) -> None:
    whole, one = run(tmp_path / "one", plain=True)
    split, many = run(tmp_path / "many", plain=True, accumulation=parts)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert [r["loss"] for r in one.losses] == pytest.approx([r["loss"] for r in many.losses], rel=1e-4)


def test_the_first_update_is_adamw_on_the_mean_loss(tmp_path) -> None:
    mine, trained = run(tmp_path, plain=True, steps=1, clip_norm=None, weight_decay=0.1)
    theirs = network(dropout=0.0)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    data = Points(0.0)
    from pipeline.learning.order import Order

    rows = [data[index] for index, _ in next(iter(Order(SAMPLES, config(), (0, 1))))]
    batch = {k: torch.stack([torch.as_tensor(row[k]) for row in rows]) for k in ("x", "y", "index")}
    loss, _ = plain_loss(theirs, batch, torch.Generator())
    loss.backward()
    optimizer.step()
    assert trained.losses[0]["loss"] == pytest.approx(loss.item())
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_weight_decay_may_spare_vectors(tmp_path) -> None:
    fields = {"steps": 1, "plain": True, "weight_decay": 0.5}
    (all_, _), (some, _) = run(tmp_path / "a", **fields), run(tmp_path / "b", decay_vectors=False, **fields)
    (none, _) = run(tmp_path / "c", **{**fields, "weight_decay": 0.0})
    assert not torch.equal(all_[0].bias, none[0].bias)
    assert torch.equal(some[0].bias, none[0].bias)
    assert not torch.equal(some[0].weight, none[0].weight)


def test_stopped_and_continued_in_one_process_is_the_same_run(tmp_path) -> None:
    run(tmp_path / "whole", log_every=4)
    run(tmp_path / "parts", steps=6, checkpoint_every=3, log_every=4)
    (tmp_path / "parts" / "checkpoints" / "step_00000006").rename(tmp_path / "dropped")  # as if killed after step 3
    model, _ = run(tmp_path / "parts", log_every=4)
    assert same_end(tmp_path / "whole", tmp_path / "parts")
    own = network()
    load_model(last(tmp_path / "whole"), own, part="model")
    assert torch.equal(own[0].weight, model[0].weight)


def test_fp32_wrapping_and_the_callers_random_stream_are_given_back(tmp_path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    model = network()
    forward = model.forward
    torch.manual_seed(9)
    train(model, noisy_loss, Points(), config(precision="bf16", steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert model.forward == forward
    run(tmp_path / "next", precision="no", steps=1)  # another precision in the same process


def test_a_finished_run_is_only_loaded(tmp_path) -> None:
    first, _ = run(tmp_path)
    before = (last(tmp_path) / "card.json").stat().st_mtime_ns
    again, trained = run(tmp_path)
    assert torch.equal(first[0].weight, again[0].weight)
    assert trained.steps == 12
    assert trained.checkpoint == last(tmp_path)
    assert (last(tmp_path) / "card.json").stat().st_mtime_ns == before


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "hurt")
    path = last(tmp_path / "hurt") / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    capsys.readouterr()
    run(tmp_path / "hurt")
    said = capsys.readouterr().out.splitlines()
    assert "optimizer.safetensors" in said[0]
    assert "continuing after step 9" in said[1]
    assert same_end(tmp_path / "whole", tmp_path / "hurt")
    for folder in checkpoints(tmp_path / "hurt"):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="3 damaged"):
        run(tmp_path / "hurt")


def test_old_checkpoints_and_half_written_ones_go(tmp_path) -> None:
    half = tmp_path / "checkpoints" / ".step_00000007.abc.part"
    half.mkdir(parents=True)
    run(tmp_path, keep=2)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step_00000009", "step_00000012"]


def test_another_config_is_refused_by_its_first_field(tmp_path) -> None:
    run(tmp_path, steps=3)
    with pytest.raises(InputError, match=r"batch_size 4 as the run there was started with, found 2"):
        run(tmp_path, batch_size=2, learning_rate=1.0)
    with pytest.raises(InputError, match="data_digest"):
        train(network(), noisy_loss, Points(), config(), tmp_path, data_digest="other")
    run(tmp_path, steps=4, log_every=2, checkpoint_every=1, keep=1)  # these may change


def test_steps_may_not_change_under_a_cosine(tmp_path) -> None:
    run(tmp_path, steps=3, schedule={"kind": "cosine"})
    with pytest.raises(InputError, match="steps 3 as"):
        run(tmp_path, steps=4, schedule={"kind": "cosine"})


def test_another_network_is_refused(tmp_path) -> None:
    run(tmp_path, steps=3)
    with pytest.raises(InputError, match=r"shape \(8, 6\) for '0.weight'"):
        train(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 1)), noisy_loss, Points(), config(), tmp_path)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, poison) -> None:
    calls = []

    def bad(model, batch, generator):
        loss, logged = noisy_loss(model, batch, generator)
        calls.append(loss)
        if len(calls) < 8:
            return loss, logged
        # the root of zero is finite, its slope is not
        return (loss * math.inf if poison == "loss" else loss + (model[4].bias * 0).sqrt().sum()), logged

    with pytest.raises(InputError, match=f"training step 8: expected a finite {poison}") as caught:
        train(network(), bad, Points(), config(), tmp_path)
    assert "\n" not in str(caught.value)
    assert last(tmp_path).name == "step_00000006"
    load_model(last(tmp_path), network())


def test_impossible_batches_and_data(tmp_path) -> None:
    class Nothing(Points):
        def __len__(self):
            return 0

    with pytest.raises(InputError, match="an empty data set"):
        train(network(), noisy_loss, Nothing(), config(), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="a GPU for precision fp16"):
            run(tmp_path, precision="fp16")


def test_validation_sees_the_average_in_eval_mode_and_leaves_no_trace(tmp_path) -> None:
    seen = []

    def validate(model, generator):
        seen.append((model.training, torch.is_grad_enabled(), model[0].weight.clone()))
        torch.rand(5)
        return {"draw": torch.rand((), generator=generator).item()}

    train(network(), noisy_loss, Points(), config(validate_every=4), tmp_path / "a", validate=validate)
    assert [(training, grad) for training, grad, _ in seen] == [(False, False)] * 3
    average = network()
    load_model(last(tmp_path / "a"), average)
    assert torch.equal(seen[-1][2], average[0].weight)
    run(tmp_path / "b")
    weights = [(last(tmp_path / side) / "model.safetensors").read_bytes() for side in "ab"]
    assert weights[0] == weights[1]
    assert set(read_card(last(tmp_path / "a"))["validated"]) == {"validate/draw"}


def test_batch_norm_statistics_travel(tmp_path) -> None:
    model = network(norm=True)
    train(model, noisy_loss, Points(), config(steps=3, sync_batch_norm=True), tmp_path)
    average = network(norm=True)
    load_model(last(tmp_path), average)
    assert int(average[1].num_batches_tracked) == 3
    assert torch.equal(average[1].running_mean, model[1].running_mean)


def test_tensorboard_holds_the_losses_also_across_a_resume(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, steps=5)
    last(tmp_path).rename(tmp_path / "dropped")  # so steps 4 and 5 are made, and written, twice
    _, trained = run(tmp_path, steps=8)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert (
        [event.step for event in board.Scalars("loss")] == [row["step"] for row in trained.losses] == list(range(1, 9))
    )
    assert [event.value for event in board.Scalars("loss")] == pytest.approx([row["loss"] for row in trained.losses])
    assert {"learning_rate", "gradient_norm", "mean_error"} <= set(board.Tags()["scalars"])


def test_plain_lines_when_it_is_no_terminal(tmp_path, capfd) -> None:
    run(tmp_path, steps=4, log_every=2)
    out, err = capfd.readouterr()
    assert err == ""
    assert [line.split(":")[0] for line in out.splitlines()] == ["step 2/4", "step 4/4"]
    assert "left" in out
    assert "\x1b" not in out
    assert "\r" not in out


def test_a_logged_value_that_is_not_a_number_is_null_also_across_a_checkpoint(tmp_path) -> None:
    def loss(model, batch, generator):
        value, _ = plain_loss(model, batch, generator)
        return value, {"iou_of_nothing": math.nan}

    for steps in (1, 3):  # log windows of two: the second begins in one checkpoint and ends after it
        train(network(), loss, Points(), config(steps=steps, log_every=2, checkpoint_every=1), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [row["iou_of_nothing"] for row in rows] == [None] * 3
    assert all(row["loss"] > 0 for row in rows)


class Unreadable(Points):
    def draw(self, index, rng):
        raise InputError("scan.bin", "131072 bytes", "7")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_the_data_arrives_as_it_was_raised(tmp_path, workers) -> None:
    with pytest.raises(InputError, match=r"^scan\.bin: expected 131072 bytes, found 7$"):
        train(network(), noisy_loss, Unreadable(), config(workers=workers), tmp_path)
