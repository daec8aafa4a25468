"""Pseudonyms are others for others, on all of 64 bits, and follow from the key alone."""

import numpy as np
import pyarrow as pa
import pytest

from episodes_assets.lab.pseudonyms import KEY_BYTES, Pseudonyms

KEY, OTHER = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)
EDGES = np.array([0, 1, -1, 2**31, 2**32, -(2**32), 2**63 - 1, -(2**63)], np.int64)


def many(seed: int, count: int = 300_000) -> np.ndarray:
    random = np.random.default_rng(seed)
    wide = random.integers(-(2**63), 2**63 - 1, count, dtype=np.int64)
    return np.unique(np.concatenate([EDGES, np.arange(count), wide]))


def test_no_two_ids_share_a_pseudonym() -> None:
    ids = many(1)
    told = Pseudonyms(KEY).of_ids(ids)
    assert len(np.unique(told)) == len(ids)
    assert (told != ids).mean() > 0.999


def test_they_follow_from_the_key_and_the_id_alone() -> None:
    ids = many(2)
    told = Pseudonyms(KEY).of_ids(ids)
    assert (Pseudonyms(KEY).of_ids(ids[::-1]) == told[::-1]).all()
    assert (Pseudonyms(KEY).of_ids(ids[7:8]) == told[7:8]).all()
    assert (Pseudonyms(OTHER).of_ids(ids) != told).mean() > 0.999


def test_one_bit_of_an_id_changes_half_of_its_pseudonym() -> None:
    ids = np.arange(50_000, dtype=np.int64)
    pseudonyms = Pseudonyms(KEY)
    changed = pseudonyms.of_ids(ids) ^ pseudonyms.of_ids(ids ^ 1)
    assert np.bitwise_count(changed.view(np.uint64)).mean() == pytest.approx(32, abs=0.2)


def test_what_is_missing_stays_missing() -> None:
    column = pa.array([5, None, -7, 5], pa.int64())
    told = Pseudonyms(KEY).of_column(column)
    assert told.type == pa.int64()
    assert told.is_null().to_pylist() == [False, True, False, False]
    assert told[0] == told[3] != told[2]
    assert Pseudonyms(KEY).of_column(column.slice(1, 1)).to_pylist() == [None]
    assert Pseudonyms(KEY).of_column(column.slice(0, 0)).to_pylist() == []


def test_ids_that_are_text_get_text() -> None:
    column = pa.array(["ada", None, "bob", "ada", ""], pa.string())
    told = Pseudonyms(KEY).of_column(column)
    assert told.type == pa.string()
    first, missing, other, again, empty = told.to_pylist()
    assert missing is None
    assert first == again
    assert len({first, other, empty}) == 3
    assert "ada" not in first
    assert Pseudonyms(OTHER).of_column(column)[0].as_py() != first


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(b"short")
