import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privlearn.simulate.estimate import Moments

VALUES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 60), st.integers(1, 3)),
    elements=st.floats(-1e3, 1e3),
)


def moments_of(values, cuts=(), block=None):
    moments = Moments(values.shape[1:])
    if block is not None:
        moments.block = block
    for part in np.split(values, sorted(cuts)):
        moments.add(part)
    return moments.finish()


@given(VALUES, st.integers(1, 70))
def test_merging_blocks_gives_the_two_pass_mean_and_stderr(values, block):
    mean, stderr = moments_of(values, block=block)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(
        stderr, values.std(axis=0, ddof=1) / np.sqrt(len(values)), rtol=1e-9, atol=1e-10
    )


@given(VALUES, st.lists(st.integers(0, 60), max_size=5), st.integers(1, 16))
def test_every_bit_is_the_same_however_the_trials_arrive(values, cuts, block):
    whole = moments_of(values, block=block)
    parts = moments_of(values, cuts=[min(cut, len(values)) for cut in cuts], block=block)
    assert [a.tobytes() for a in whole] == [b.tobytes() for b in parts]


def test_a_large_offset_does_not_cancel_the_variance():
    values = 1e9 + np.arange(5_000.0) % 2
    mean, stderr = moments_of(values)
    assert mean == 1e9 + 0.5
    assert stderr == pytest.approx(0.5 / np.sqrt(4_999), rel=1e-6)


def test_a_large_output_is_not_kept_for_a_thousand_trials():
    assert Moments((1_000, 1_000)).block == 1
    assert Moments(()).block == 1024
