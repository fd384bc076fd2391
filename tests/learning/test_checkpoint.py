"""Weights on disk: round trips, and one readable line for whatever is wrong with them."""

import json
import pickle

import pytest
import torch
from torch import nn

from pipeline.learning.checkpoint import (
    check_whole,
    halve,
    load_model,
    load_part,
    read_card,
    save_model,
    save_parts,
)
from pipeline.scene.errors import InputError


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    save_model(tmp_path / "w", model, {"classes": 4})
    return model, tmp_path / "w"


def refusal(folder, model):
    with pytest.raises(InputError) as caught:
        load_model(folder, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_is_exact_and_saving_again_replaces(saved) -> None:
    model, folder = saved
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert load_model(folder, other)["classes"] == 4
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    save_model(folder, other, {"classes": 5})
    assert read_card(folder)["classes"] == 5
    assert sorted(p.name for p in folder.parent.iterdir()) == ["w"]


def test_bfloat16_and_tied_weights_survive(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(torch.bfloat16)
    model[1].weight = model[0].weight
    save_model(tmp_path / "w", model, {})
    other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(torch.bfloat16)
    other[1].weight = other[0].weight
    load_model(tmp_path / "w", other)
    assert torch.equal(other[1].weight, model[0].weight)


def test_the_average_is_preferred_where_there_is_one(tmp_path) -> None:
    model = nn.Linear(1, 1, bias=False)
    save_parts(tmp_path / "w", {"model": {"weight": torch.ones(1, 1)}, "ema": {"weight": torch.zeros(1, 1)}}, {})
    load_model(tmp_path / "w", model)
    assert model.weight.item() == 0
    load_model(tmp_path / "w", model, part="model")
    assert model.weight.item() == 1


def test_halved_weights_are_half_as_large_and_load_as_before(saved, tmp_path) -> None:
    model, folder = saved
    halve(folder, tmp_path / "h", {"training": "none"})
    card = check_whole(tmp_path / "h")
    assert (card["classes"], card["stored"], card["training"]) == (4, "float16", "none")
    stored = load_part(tmp_path / "h", "model")
    assert {name: value.dtype for name, value in stored.items() if value.dtype != torch.float16} == {
        "1.num_batches_tracked": torch.int64
    }
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_model(tmp_path / "h", other)
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[0].weight, model[0].weight.half().float())
    halve(folder, tmp_path / "h", {})  # replaced
    assert "training" not in read_card(tmp_path / "h")


def test_weights_too_large_for_float16_and_strangers_are_refused(saved, tmp_path) -> None:
    model, folder = saved
    with torch.no_grad():
        model[0].weight[0, 0] = 7e4
    save_model(folder, model, {})
    with pytest.raises(InputError, match=r"that the card hasn't yet, found files"):
        halve(folder, tmp_path / "h", {"files": "mine"})
    with pytest.raises(InputError, match=r"0\.weight of model: expected finite weights below 65,504"):
        halve(folder, tmp_path / "h", {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"card\.json"):
        halve(folder, tmp_path / "mine", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "w"]


def test_a_foreign_folder_is_not_replaced(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"card\.json"):
        save_model(tmp_path, nn.Linear(1, 1), {})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_stranger_among_saved_weights_is_kept(saved) -> None:
    model, folder = saved
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"found notes\.txt"):
        save_model(folder, model, {})
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failed_write_leaves_the_old_weights_and_nothing_else(saved) -> None:
    model, folder = saved
    with pytest.raises(TypeError):
        save_model(folder, model, {"not JSON": object()})
    assert check_whole(folder)["classes"] == 4
    assert [p.name for p in folder.parent.iterdir()] == ["w"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), r"shape \(5, 3\) for '0.weight', found \(4, 3\)"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)), "named '2.weight', found none"),
        (nn.Sequential(nn.Linear(3, 4)), r"only weights that the network has, found '1\."),
    ],
)
def test_weights_of_another_network(saved, other, words) -> None:
    with pytest.raises(InputError, match=words):
        load_model(saved[1], other)


def test_missing_and_damaged_files(saved) -> None:
    model, folder = saved
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        weights.write_bytes(damaged)
        assert "the file is damaged" in refusal(folder, model)
    weights.unlink()
    assert "found nothing" in refusal(folder, model)
    (folder / "card.json").write_text('{"format": ')
    assert "card of saved weights" in refusal(folder, model)
    (folder / "card.json").write_text("[]")
    assert "occfactory-weights-1" in refusal(folder, model)
    assert "card" in refusal(folder / "nowhere", model)


def test_a_pickle_is_never_opened(saved, tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'exploded')!r}, 'w')",)

    _, folder = saved
    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="safetensors"):
        load_part(folder, "model")
    assert not (tmp_path / "exploded").exists()


def test_a_card_cannot_name_files_elsewhere(saved) -> None:
    _, folder = saved
    card = json.loads((folder / "card.json").read_text())
    card["files"] = {"../../etc/passwd": "0"}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="passwd"):
        check_whole(folder)
    assert (folder / "passwd").exists() is False
