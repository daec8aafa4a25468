"""Two files of a day are told apart as multisets of rows, however they are cut."""

import tempfile
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes_assets.lake import comparing
from episodes_assets.lake.comparing import Difference, difference
from episodes_assets.lake.viewings import ORDER, Viewings, schema_of
from episodes_assets_tests.support.small_lakes import FIRST, rows_of

ROW = st.tuples(
    st.none() | st.integers(0, 2),
    st.integers(0, 1),
    st.none() | st.sampled_from(["", "a", "é", "\U0001f600", "\uff5e"]),
    st.none() | st.integers(0, 1),
    st.none() | st.booleans(),
)
ROWS = st.lists(ROW, max_size=40)


def table_of(rows: list[tuple[object, ...]]) -> pa.Table:
    midnight = rows_of(FIRST, (1, 0))["viewed_at"][0].as_py()
    return pa.Table.from_pylist(
        [
            {
                "epid": epid,
                "viewer_id": viewer,
                "viewed_at": midnight.replace(second=second),
                "seconds_watched": seconds,
                "completed": completed,
            }
            for epid, second, viewer, seconds, completed in rows
        ],
        schema_of(pa.string()),
    )


@pytest.mark.slow
@given(before=ROWS, after=ROWS, shared=ROWS, rows=st.integers(1, 9))
@settings(max_examples=60)
def test_what_is_gone_and_what_is_new_is_counted(
    before: list[tuple[object, ...]],
    after: list[tuple[object, ...]],
    shared: list[tuple[object, ...]],
    rows: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        lake = Viewings(folder)
        first, second = (
            lake.write(FIRST, table_of(each + shared).to_reader()).file for each in (before, after)
        )
        patch.setattr(comparing, "BLOCK_ROWS", rows)
        old, new = Counter(before + shared), Counter(after + shared)
        assert difference(lake, first, second, ORDER) == Difference((old - new).total(), (new - old).total())
