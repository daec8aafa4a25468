"""Arrow streams ordered by episode, cut into parts of bounded size with every episode in one part."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

DROP_PART_ROWS = 1 << 17


def whole_episodes(batches: Iterable[pa.RecordBatch], part_rows: int) -> Iterator[pa.Table]:
    """Join and cut a stream's batches.

    Where it is cut depends on the rows alone, not on the batches they come in.

    Args:
        batches: Ordered by their column `epid`, missing ones last.
        part_rows: A part ends with the episode of its row of that number. Rows without an episode stay
            together like those of one.

    Yields:
        All rows in their order; nothing for a stream without batches.
    """
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        while rows > part_rows:
            table = pa.Table.from_batches(waiting)
            end = _end_of_episode(table["epid"], part_rows)
            if end is None:
                break
            yield table[:end]
            waiting, rows = table[end:].to_batches(), rows - end
    if waiting:
        yield pa.Table.from_batches(waiting)


def _end_of_episode(epids: pa.ChunkedArray, begin: int) -> int | None:
    """The first row from `begin` on of another episode than the row before it; None if there is none."""
    episode = epids[begin - 1]
    if not episode.is_valid:
        return None  # they come last
    others = pc.fill_null(pc.not_equal(epids[begin:], episode), True)  # noqa: FBT003
    first = pc.index(others, True).as_py()
    return None if first < 0 else begin + int(first)
