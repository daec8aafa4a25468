"""Sets of episodes that answer for whole columns, and the hash chain of the tracked set.

Equal sets have equal checksums on any machine; that of a day depends on all days before. Where the
tracked set is stored is `results/state.py`.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

EpisodeIds = npt.NDArray[np.int64]
DENSE_SPAN = 16  # places in a table for each id; 64 bytes of memory
_NONE: EpisodeIds = np.array([], dtype=np.int64)


class EpisodeSet:
    """A set of episode ids, made for many lookups of whole columns."""

    def __init__(
        self,
        rows: "_Rows",
        member: npt.NDArray[np.bool_] | None = None,
        more: EpisodeIds = _NONE,
    ) -> None:
        """Share a lookup; `EpisodeSet.of` makes one.

        Args:
            rows: Finds an epid's row.
            member: Which rows belong to the set; by default all.
            more: Ascending epids that belong to it as well.
        """
        self._rows = rows
        self._member = member
        self._more = more

    @classmethod
    def of(cls, epids: EpisodeIds) -> "EpisodeSet":
        """The set of some epids, in any order, also repeated."""
        return cls(_rows_of(epids))

    def plus(self, epids: EpisodeIds) -> "EpisodeSet":
        """This set and some more epids; costs what is added to the first set, not what was in it."""
        return EpisodeSet(self._rows, self._member, np.union1d(self._more, epids))

    def contains(self, epids: EpisodeIds) -> npt.NDArray[np.bool_]:
        """Which of some epids are in the set."""
        row = self._rows(epids)
        found: npt.NDArray[np.bool_] = row >= 0
        if self._member is not None:
            found[found] = self._member[row[found]]
        return found | np.isin(epids, self._more) if self._more.size else found


class TrackedEpisodes:
    """The accumulated state: distinct episodes with the day each was first tracked."""

    def __init__(self, epids: EpisodeIds, tracked_on: npt.NDArray[np.datetime64]) -> None:
        """Take the state.

        Args:
            epids: Distinct.
            tracked_on: The day of each, datetime64[D].
        """
        self._rows = _rows_of(epids)
        self._tracked_on = tracked_on

    def as_of(self, day: dt.date) -> EpisodeSet:
        """Those tracked as of the end of a day; the sets of all days share one lookup."""
        return EpisodeSet(self._rows, self._tracked_on <= np.datetime64(day, "D"))


_Rows = Callable[[EpisodeIds], npt.NDArray[np.signedinteger[Any]]]


def _rows_of(epids: EpisodeIds) -> _Rows:
    """A lookup of the row of each epid, or -1."""
    if epids.size and int(epids.max()) - int(epids.min()) < DENSE_SPAN * epids.size:
        return _rows_of_dense(epids)
    unique, rows = np.unique(epids, return_index=True)
    index = pd.Index(unique)

    def find(wanted: EpisodeIds) -> npt.NDArray[np.signedinteger[Any]]:
        at = index.get_indexer(pd.Index(wanted))
        return np.where(at >= 0, rows[at], -1) if rows.size else at

    return find


def _rows_of_dense(epids: EpisodeIds) -> _Rows:
    """The same by a table with a place for every id: several times as fast as hashing."""
    low, high = int(epids.min()), int(epids.max())
    table = np.full(high - low + 1, -1, dtype=np.int32)
    table[epids - low] = np.arange(epids.size, dtype=np.int32)

    def find(wanted: EpisodeIds) -> npt.NDArray[np.signedinteger[Any]]:
        row = table.take(wanted - low, mode="clip")
        row[(wanted < low) | (wanted > high)] = -1
        return row

    return find


def state_checksum(previous: str, newly_tracked: EpisodeIds) -> str:
    """The checksum of the tracked episodes as of a day.

    Chained, so that it costs what is new in the day and still depends on all days before.

    Args:
        previous: The checksum as of the day before; empty at the beginning.
        newly_tracked: Ascending epids that the day added.
    """
    digest = hashlib.sha256(previous.encode())
    digest.update(newly_tracked.astype("<i8").tobytes())
    return digest.hexdigest()


def find_unchained_day(manifest: Sequence[Mapping[str, Any]]) -> dt.date | None:
    """The first day that was built on another past than there is; None if none was.

    Episodes of such a day may be an earlier one's by now, so that it is not damaged if they are not its own.

    Args:
        manifest: `day`, `origin`, `previous_checksum` and `checksum` of each day, in order.
    """
    expected = None
    for row in manifest:
        if row["origin"] == "day" and row["previous_checksum"] != expected:
            return row["day"]  # type: ignore[no-any-return]
        expected = row["checksum"]
    return None


def find_broken_day(
    epids: EpisodeIds, tracked_on: npt.NDArray[np.datetime64], manifest: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The manifest of the first day whose episodes do not have its checksum; None if all have theirs.

    Args:
        epids: Distinct, in the order of their days.
        tracked_on: The day of each, datetime64[D].
        manifest: As `find_unchained_day` takes it.
    """
    ends = np.searchsorted(tracked_on, np.array([row["day"] for row in manifest], "datetime64[D]"), "right")
    begin = 0
    for row, end in zip(manifest, ends.tolist(), strict=True):
        # The first manifest of a history has the episodes of all days up to its own. Within a day ids mostly
        # ascend, which a stable sort uses.
        added = np.sort(epids[begin:end], kind="stable")
        previous = "import" if row["origin"] == "import" else row["previous_checksum"] or ""
        if state_checksum(previous, added) != row["checksum"]:
            return row
        begin = end
    return None
