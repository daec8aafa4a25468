"""A stream is cut between episodes, wherever its batches end."""

import itertools

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.planning.drop import whole_episodes

epids = st.lists(st.integers(0, 9), max_size=60).map(sorted)


@given(epids, st.integers(0, 5), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 20))
def test_every_row_comes_once_and_no_episode_is_split(
    known: list[int], missing: int, cuts: list[int], part_rows: int
) -> None:
    rows: list[int | None] = [*known, *[None] * missing]
    table = pa.table({"epid": pa.array(rows, pa.int64()), "row": range(len(rows))})
    ends = [0, *sorted(cuts), len(rows)]
    batches = [batch for begin, end in itertools.pairwise(ends) for batch in table[begin:end].to_batches()]
    parts = list(whole_episodes(batches, part_rows))
    assert [row for part in parts for row in part["row"].to_pylist()] == list(range(len(rows)))
    groups = [{epid for epid in part["epid"].to_pylist() if epid is not None} for part in parts]
    assert sum(map(len, groups)) == len(set(known))
    assert sum(None in part["epid"].to_pylist() for part in parts) <= 1
    for part in parts[:-1]:
        last = part["epid"].to_pylist()[part_rows - 1 :]
        assert len(part) >= part_rows
        assert len(set(last)) == 1  # it ends with the episode of its row of that number
    assert all(len(part) for part in parts)
    # Parquet's pages, and so a file's bytes, depend on where columns are cut.
    assert {column.num_chunks for part in parts for column in part.columns} <= {1}
    assert [p.num_rows for p in whole_episodes(table.to_batches(), part_rows)] == [p.num_rows for p in parts]
