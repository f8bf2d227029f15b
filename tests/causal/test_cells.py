"""The public layout: indexing, and what happens to cells that are too small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.causal import build_cells

layouts = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 6)), min_size=1, max_size=60).map(
    lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
)


@given(layouts)
def test_sizes_count_every_unit_once_in_its_own_cell(layout):
    z, clusters = layout
    z, clusters = np.tile([0, 1], len(z)), np.repeat(clusters, 2)  # both arms everywhere
    cells = build_cells(z, clusters, min_cell=1)
    assert cells.sizes.sum() == len(z)
    assert (cells.arms == z).all()
    for number, members in enumerate(cells.members):
        assert set(clusters[cells.clusters == number]) == set(members)


@given(layouts, st.integers(1, 5))
def test_merging_keeps_every_unit_and_leaves_no_cell_below_the_minimum(layout, least):
    z, clusters = layout
    if min(np.bincount(z, minlength=2)) < least:
        with pytest.raises(ValueError, match="fewer than min_cell"):
            build_cells(z, clusters, min_cell=least, small="merge")
        return
    cells = build_cells(z, clusters, min_cell=least, small="merge")
    assert cells.sizes.min() >= least
    assert cells.n == len(z)
    assert sorted(label for m in cells.members for label in m) == sorted(set(clusters.tolist()))
    np.testing.assert_array_equal(
        np.bincount(cells.codes, minlength=2 * cells.n_clusters).reshape(-1, 2), cells.sizes
    )
    for number, members in enumerate(cells.members):
        assert set(clusters[cells.clusters == number]) == set(members)


def test_large_clusters_stay_alone_when_small_ones_are_merged():
    z = np.tile([0, 1], 15)
    clusters = np.repeat(["big", "s1", "s2"], [20, 4, 6])
    cells = build_cells(z, clusters, min_cell=5, small="merge")
    assert cells.members == (("big",), ("s1", "s2"))


def test_what_is_left_over_joins_the_last_group_or_the_smallest_other():
    z = np.tile([0, 1], 10)
    clusters = np.repeat([1, 2, 3], [8, 10, 2])
    cells = build_cells(z, clusters, min_cell=2, small="merge")
    assert cells.members == ((1, 3), (2,))


def test_dropped_units_are_named_by_their_position():
    z = np.array([0, 1, 0, 1, 0])
    cells = build_cells(z, [5, 5, 5, 5, 9], small="drop")
    assert cells.kept.tolist() == [0, 1, 2, 3]
    assert cells.sizes.tolist() == [[2, 2]]


@pytest.mark.parametrize(
    "clusters",
    [
        np.array([7, 7, -2, -2], np.int8),
        np.array([2**62, 2**62, 5, 5]),
        ["x", "x", "a", "a"],
        np.array(["x", "x", "a", "a"], object),
        np.array([200, 200, 3, 3], np.uint8),
    ],
)
def test_labels_of_any_kind_are_sorted(clusters):
    cells = build_cells([0, 1, 0, 1], clusters, min_cell=1)
    assert cells.clusters.tolist() == [1, 1, 0, 0]
    assert cells.members == tuple((x,) for x in sorted(set(np.asarray(clusters).tolist())))


@pytest.mark.parametrize(
    ("z", "clusters", "options", "error", "match"),
    [
        ([0, 1], [1], {}, ValueError, "as long"),
        ([0, 2], [1, 1], {}, ValueError, "0 .control. or 1"),
        (["a", "b"], [1, 1], {}, TypeError, "z must be 0 or 1"),
        ([0.0, np.nan], [1, 1], {}, ValueError, "0 .control. or 1"),
        ([], [], {}, ValueError, "at least one unit"),
        ([[0, 1]], [1, 1], {}, ValueError, "one axis"),
        ([0, 1], [1.5, 2.5], {}, TypeError, "integers or strings"),
        ([0, 1], [1, None], {}, TypeError, "missing"),
        ([0, 0, 1, 0], [1, 1, 2, 2], {}, ValueError, "lack an arm; the first is 1"),
        ([0, 0, 1, 1], [1, 1, 1, 1], {"min_cell": 0}, ValueError, "min_cell"),
        ([0, 0, 1, 1], [1, 1, 1, 1], {"small": "ignore"}, ValueError, "'raise', 'merge' or 'drop'"),
        ([0, 1], [1, 1], {"small": "drop"}, ValueError, "none is large enough"),
        ([0, 1], [1, 1], {"small": "merge"}, ValueError, "fewer than min_cell"),
    ],
)
def test_bad_layouts_are_refused_by_name(z, clusters, options, error, match):
    with pytest.raises(error, match=match):
        build_cells(z, clusters, **options)
