"""Split and merge are inverse; what each part holds, by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.scene.split import foreground_table, merge, split
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
LABELS = arrays(np.uint8, (4, 3, 2), elements=st.sampled_from([*range(20), IGNORE]))


def test_by_hand() -> None:
    labels = np.array([0, 1, 9, 18, 255], np.uint8)  # empty, car, road, pole, not known
    foreground, background = split(labels, TAXONOMY.is_foreground())
    assert foreground.tolist() == [0, 1, 0, 18, 255]
    assert background.tolist() == [0, 255, 9, 255, 255]  # what is behind a car or a pole isn't known
    assert foreground.dtype == background.dtype == np.uint8


@given(LABELS, st.frozensets(st.integers(1, 19)))
def test_merge_is_the_inverse_for_any_set(labels: np.ndarray, things: frozenset[int]) -> None:
    before, table = labels.copy(), foreground_table(things)
    foreground, background = split(labels, table)
    assert np.array_equal(merge(foreground, background), labels)
    assert np.array_equal(labels, before)
    assert set(np.unique(foreground)) <= {0, IGNORE, *things}
    assert not np.isin(background, list(things)).any()
    assert np.array_equal(foreground == IGNORE, labels == IGNORE)


def test_foreground_wins_where_both_say_something() -> None:
    assert merge(np.array([1, 0, 255], np.uint8), np.array([9, 9, 9], np.uint8)).tolist() == [1, 9, 9]


def test_the_papers_set_and_the_ablations() -> None:
    names = {TAXONOMY.classes[k] for k in np.flatnonzero(TAXONOMY.is_foreground())}
    assert names == {*TAXONOMY.classes[1:9], "fence", "trunk", "pole", "traffic-sign"}
    assert np.flatnonzero(foreground_table(set(range(1, 9)))).tolist() == list(range(1, 9))
