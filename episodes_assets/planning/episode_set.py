"""Sets of episodes that answer for whole columns."""

import datetime as dt

import numpy as np
import numpy.typing as npt
import pandas as pd

EpisodeIds = npt.NDArray[np.int64]

_NONE: EpisodeIds = np.array([], dtype=np.int64)


class EpisodeSet:
    """Episode ids, hashed once however often they are asked for."""

    def __init__(
        self,
        index: pd.Index,
        member: npt.NDArray[np.bool_] | None = None,
        more: EpisodeIds = _NONE,
    ) -> None:
        """Share a hash table; `EpisodeSet.of` makes one.

        Args:
            index: Distinct epids.
            member: Which of them belong to the set; by default all.
            more: Ascending epids that belong to it as well.
        """
        self._index = index
        self._member = member
        self._more = more

    @classmethod
    def of(cls, epids: EpisodeIds) -> "EpisodeSet":
        """The set of some epids, in any order, also repeated."""
        return cls(pd.Index(np.unique(epids)))

    def plus(self, epids: EpisodeIds) -> "EpisodeSet":
        """This set and some more epids; costs what is added to the first set, not what was in it."""
        return EpisodeSet(self._index, self._member, np.union1d(self._more, epids))

    def contains(self, epids: EpisodeIds) -> npt.NDArray[np.bool_]:
        """Which of some epids are in the set."""
        row = self._index.get_indexer(pd.Index(epids))
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
        self._index = pd.Index(epids)
        self._tracked_on = tracked_on

    def as_of(self, day: dt.date) -> EpisodeSet:
        """Those tracked as of the end of a day; the sets of all days share one hash table."""
        return EpisodeSet(self._index, self._tracked_on <= np.datetime64(day, "D"))
