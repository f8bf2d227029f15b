import os
import struct
import time
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privlearn.simulate.cache import CacheWarning, Store, decode, encode

KEY = "ab" * 32
NUMBERS = st.floats() | st.integers() | st.booleans() | st.text() | st.none()
ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", ">f8"]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0),
)


def bits(value):
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value), struct.pack("<d", value) if isinstance(value, float) else value


@given(st.dictionaries(st.text(), NUMBERS | ARRAYS, max_size=4))
def test_every_bit_of_a_result_comes_back(result):
    back = decode(encode(result))
    assert list(back) == list(result)
    for name in result:
        assert bits(back[name]) == bits(result[name])


def test_numpy_and_jax_scalars_come_back_as_python_numbers():
    scalars = {"a": np.float32(0.1), "b": np.int16(3), "c": jnp.float32(2.5), "d": np.bool_(True)}
    back = decode(encode(scalars))
    assert [bits(v) for v in back.values()] == [
        bits(v) for v in (float(np.float32(0.1)), 3, 2.5, True)
    ]


@pytest.mark.parametrize(
    ("result", "match"),
    [
        ([1.0], "mapping from names to numbers, got list"),
        ({1: 2.0}, "named by strings, got 1"),
        ({"z": 1j}, "'z' must be a number.*complex"),
        ({"z": [1.0]}, "'z' must be a number.*list"),
        ({"z": np.array([object()])}, "'z' must be real, got an array of object"),
        ({"z": jnp.ones(2, jnp.bfloat16)}, "'z' must be real, got an array of bfloat16"),
    ],
)
def test_results_that_cannot_be_kept_exactly_are_refused(result, match):
    with pytest.raises(TypeError, match=match):
        encode(result)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store.open(tmp_path_factory.mktemp("cache"), "module.cell")


TEXT = encode({"x": 0.1, "y": float("-inf"), "z": np.arange(3.0)})


def written(store):
    assert store.save(KEY, TEXT, {"seed": 1, "params": "n=3"})
    return store.path(KEY).read_bytes()


def test_an_entry_that_was_written_is_read(store):
    written(store)
    assert store.load(KEY) == TEXT
    assert store.load("cd" * 32) is None


@given(data=st.data())
def test_no_damaged_entry_is_believed(store, data):
    whole = written(store)
    damage = data.draw(st.sampled_from(["flip", "cut", "extend", "replace", "swap"]))
    if damage == "flip":
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
    elif damage == "cut":
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif damage == "extend":
        broken = whole + data.draw(st.binary(min_size=1))
    elif damage == "replace":
        broken = data.draw(st.binary().filter(lambda content: content != whole))
    else:
        middle = data.draw(st.integers(1, len(whole) - 1))
        broken = whole[middle:] + whole[:middle]
    store.path(KEY).write_bytes(bytes(broken))
    with pytest.warns(CacheWarning, match="computing it again"):
        assert store.load(KEY) is None


def test_a_sound_entry_of_another_cell_is_not_believed(store):
    other = "cd" * 32
    store.path(other).write_bytes(written(store))
    with pytest.warns(CacheWarning, match="belongs to another cell"):
        assert store.load(other) is None
    store.path(other).unlink()


def test_an_entry_that_cannot_be_read_is_not_believed(store):
    odd = "ef" * 32
    store.path(odd).mkdir()
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert store.load(odd) is None


# fsync: the content did not reach the disk. replace: the writer got no further than its own file.
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_stops_halfway_leaves_the_old_entry_and_nothing_else(store, monkeypatch, step):
    whole = written(store)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert not store.save(KEY, encode({"x": 2.0}), {})
    assert store.path(KEY).read_bytes() == whole
    assert not list(store.folder.glob(".*"))


def test_leftovers_of_killed_writers_are_swept_away_after_a_day(tmp_path):
    folder = Store.open(tmp_path, "cell").folder
    old, young = folder / ".a.tmp", folder / ".b.tmp"
    for path in (old, young):
        path.write_text("half an entry")
    os.utime(old, (time.time() - 90_000,) * 2)
    Store.open(tmp_path, "cell")
    assert not old.exists()
    assert young.exists()


def test_a_cache_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cache_dir must be a folder that can be written to"):
        Store.open(tmp_path / "file", "cell")


def test_reading_a_sound_entry_warns_of_nothing(store):
    written(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load(KEY) == TEXT
