"""The released image pipeline and its judge: small, told of; what is drawn of a held-out street shows its voxels."""

import json
from pathlib import Path

import pytest

from flows.image_judge import load_judge
from flows.image_samples import Samples, sample_images, samples_recipe
from flows.image_weights import folder_of
from flows.town import TownRecipe, make_town
from pipeline.images.config import FidelityConfig
from pipeline.images.fidelity import agreements, summed
from pipeline.scene.taxonomy import load_taxonomy

ROOT = Path(__file__).resolve().parents[2] / "data" / "weights" / "images_small"


def test_files_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in ROOT.rglob("*") if path.is_file()]
    assert max(sizes) <= 16e6
    assert sum(sizes) <= 24e6


@pytest.mark.parametrize("field", ["data", "recipe", "training", "hardware", "measured", "licence"])
def test_the_card_tells_where_they_come_from(field: str) -> None:
    assert json.loads((ROOT / "pipeline" / "card.json").read_text())[field]


def test_a_judge_finds_the_voxels_in_what_is_drawn_of_a_held_out_street(tmp_path) -> None:
    street = TownRecipe(frames=4, sequence_frames=2, width_px=384, height_px=128)
    root = make_town(street, tmp_path / "town")
    weights, critic = folder_of("weights", "images_small"), folder_of("critic", "images_small")
    assert weights is not None
    assert critic is not None
    sample_images(samples_recipe(weights, root, "val", frames=2), tmp_path / "drawn")
    taxonomy = load_taxonomy("semantic_kitti")
    samples, judge = Samples(tmp_path / "drawn"), load_judge(critic, taxonomy)
    pairs = [{"labels": one.labels, "depth": one.depth, "images": one.images} for one in samples]
    found = {
        kind: summed(
            agreements(
                judge, [pair | {"image": pair["images"][kind][0]} for pair in pairs], taxonomy, FidelityConfig()
            ),
            taxonomy,
        )
        for kind in ("generated", "render", "photograph")
    }
    assert found["generated"].miou > 0.6 * found["photograph"].miou
    assert found["generated"].miou > 3 * found["render"].miou
    assert found["generated"].depth_error < 1.5 * found["photograph"].depth_error
