"""The tokenizer loses nothing, and the split of a corpus is by file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.decoding.text import (
    BytePairTokenizer,
    is_held_out,
    load_corpus,
    split_by_file,
    train_tokenizer,
)

TEXT = "def add(a, b):\n    return a + b\n\n\nThe value of the object is 42; café ≥ 3.\n" * 3
TRAINED = train_tokenizer([TEXT], vocab_size=300)


@given(st.text())
def test_any_text_comes_back(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text


@given(st.lists(st.integers(0, 299)))
def test_any_tokens_are_bytes_that_encode_to_no_more_tokens(ids):
    raw = TRAINED.decode_bytes(ids)
    assert len(raw) >= len(ids)


def test_training_shortens_its_text_and_stays_inside_pieces():
    assert len(TRAINED.encode(TEXT)) < 0.5 * len(TEXT.encode())
    for i in range(256, TRAINED.vocab_size):
        piece = TRAINED.decode_bytes([i])
        assert not (b"a" in piece and b"\n" in piece)


def test_merges_are_the_most_frequent_pairs_first():
    # "aa" occurs in three words, and once merged "aab" in two.
    assert train_tokenizer(["aab aac aab"], 258).merges[0] == (97, 97)
    reference = [ord(c) for c in "ab" * 50 + " " + "cd" * 10]
    assert train_tokenizer([bytes(reference).decode()], 257).merges == ((97, 98),)


def test_encoding_applies_merges_in_their_order():
    tokenizer = BytePairTokenizer([(98, 99), (97, 98)])  # bc before ab
    assert tokenizer.encode("abc").tolist() == [97, 256]
    assert tokenizer.encode("ab").tolist() == [257]


def test_without_merges_tokens_are_bytes():
    assert BytePairTokenizer().encode("é").tolist() == list("é".encode())
    assert BytePairTokenizer().decode([0xC3]) == "\ufffd"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TRAINED.save(tmp_path / "t.json")
    assert BytePairTokenizer.load(tmp_path / "t.json").merges == TRAINED.merges


def test_bad_tokens_and_merges_are_refused():
    with pytest.raises(ValueError, match="ids: 300 is outside"):
        TRAINED.decode([1, 300])
    with pytest.raises(ValueError, match="ids: -1"):
        TRAINED.decode([-1])
    with pytest.raises(ValueError, match=r"merges\[0\].*only tokens 0\.\.255"):
        BytePairTokenizer([(256, 97)])
    with pytest.raises(ValueError, match="vocab_size: 200"):
        train_tokenizer([TEXT], 200)


@pytest.mark.parametrize("domain", ["docs", "code"])
def test_the_split_is_by_file_and_reads_everything(domain):
    corpus = load_corpus(domain)
    split = split_by_file(corpus)
    assert split.train | split.held_out == corpus
    assert not set(split.train) & set(split.held_out)
    assert 0.04 < len(split.held_out) / len(corpus) < 0.25
    assert sum(map(len, split.held_out.values())) > 20_000
    # Whatever else a corpus holds, a file stays on its side.
    assert all(is_held_out(name) for name in split.held_out)


def test_about_one_in_eight_names_is_held_out():
    share = np.mean([is_held_out(f"file-{i}") for i in range(8_000)])
    assert abs(share - 1 / 8) < 5 * np.sqrt(7 / 64 / 8_000)  # 5 sigma, and deterministic


def test_another_domain_is_refused():
    with pytest.raises(ValueError, match="domain: 'news'"):
        load_corpus("news")
