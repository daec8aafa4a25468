"""The difference between two files of a day, as multisets of rows; in bounded memory.

Both files must be ordered by all columns, as `viewings.py` writes them: they are merged side by side, and
only rows that may be equal are held at a time. What follows from a difference is decided in `taking.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.lake.day_file import ROW_GROUP_ROWS, LakeFile
from episodes_assets.lake.tables import LakeTable

BLOCK_ROWS = 8 * ROW_GROUP_ROWS
_SIDE = "side"


class Difference(NamedTuple):
    """How two files of a day differ.

    Attributes:
        gone: Rows of the first that the second lacks, each counted as often as it lacks it.
        new: Rows of the second that the first lacks.
    """

    gone: int
    new: int


def difference(table: LakeTable, before: LakeFile, after: LakeFile, order: Sequence[str]) -> Difference:
    """Compare two files of a table, row by row.

    Args:
        table: The table.
        before: A file.
        after: Another one.
        order: All columns, in the order by which both are ordered, ascending, missing values last.

    Raises:
        LakeDamaged: If one of them is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
    """
    if before.path == after.path:
        return Difference(0, 0)
    gone, new = 0, 0
    with ExitStack() as opened:
        sides = [
            _Side(opened.enter_context(table.open(file)).iter_batches(BLOCK_ROWS, use_threads=False), order)
            for file in (before, after)
        ]
        while any(not side.is_over for side in sides):
            # Rows before this one are complete on both sides; more rows equal to it may follow.
            bound = min((side for side in sides if not side.is_over), key=lambda side: side.last_key)
            row = bound.last
            at_bound = [side for side in sides if not side.is_over and side.last_key == bound.last_key]
            lost, found = _compare(*(side.take_before(row) for side in sides))
            gone, new = gone + lost, new + found
            for side in at_bound:
                side.read_on()
        lost, found = _compare(*(side.rows for side in sides))
    return Difference(gone + lost, new + found)


class _Side:
    """One of the two files: the rows that are in memory, in its order, and were not compared yet.

    Attributes:
        rows: The rows.
        is_over: Whether the file has no more than those.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], order: Sequence[str]) -> None:
        self._batches = batches
        self._order = order
        self.is_over = False
        self.rows: pa.Table | None = None
        self.read_on()

    def read_on(self) -> None:
        """Read the next rows into memory."""
        batch = next((batch for batch in self._batches if batch.num_rows), None)
        if batch is None:
            self.is_over = True
            return
        more = pa.Table.from_batches([batch])
        self.rows = more if self.rows is None else pa.concat_tables([self.rows, more]).combine_chunks()
        self.last = {name: self.rows[name][-1] for name in self._order}
        self.last_key = _key(self.last)

    def take_before(self, row: dict[str, pa.Scalar]) -> pa.Table | None:
        """Remove and return the rows that come before one in the order."""
        if self.rows is None:
            return None
        is_less = np.zeros(len(self.rows), np.bool_)
        is_equal = ~is_less
        for name, value in row.items():
            column = self.rows[name].combine_chunks()
            if value.is_valid:
                less, equal = (
                    pc.fill_null(compare(column, value), fill_value=False) for compare in (pc.less, pc.equal)
                )
            else:  # the missing ones come last
                less, equal = column.is_valid(), column.is_null()
            is_less |= is_equal & less.to_numpy(zero_copy_only=False)
            is_equal &= equal.to_numpy(zero_copy_only=False)
        count = int(np.count_nonzero(is_less))
        taken, self.rows = self.rows.slice(0, count), self.rows.slice(count)
        return taken


def _key(row: dict[str, pa.Scalar]) -> tuple[Any, ...]:
    """A row as a sort key in the files' order: missing values last."""
    return tuple((not value.is_valid, value.as_py()) for value in row.values())


def _compare(before: pa.Table | None, after: pa.Table | None) -> tuple[int, int]:
    """How many rows only the first of two tables has, and how many only the second, as multisets."""
    if before is None or after is None:
        return (0 if before is None else len(before)), (0 if after is None else len(after))
    if before.equals(after):
        return 0, 0
    sides = [
        rows.append_column(_SIDE, pa.array(np.full(len(rows), side), pa.int64()))
        for rows, side in ((before, 1), (after, -1))
    ]
    counted = pa.concat_tables(sides).group_by(before.column_names, use_threads=False)
    sums = counted.aggregate([(_SIDE, "sum")])[f"{_SIDE}_sum"].to_numpy()
    return int(sums[sums > 0].sum()), int(-sums[sums < 0].sum())
