"""Taking a day's input: its drop as a snapshot, its viewings into the lake, both as of one moment.

What was taken is never replaced by less: where the input has fewer viewings of a day than the lake, because
it has deleted them or by a mishap there, the lake keeps its own. Which days are to be taken is decided by
whoever calls; what a drop's rows are worth by `validation/drop.py`.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.errors import ViewingsGone
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.viewings import DayOfViewings, Viewings
from episodes_assets.stores.input_tables import DayReading, count_viewings, drop_not_arrived, reading
from episodes_assets.stores.read_ahead import read_ahead
from episodes_assets.stores.snapshot_manifest import Snapshot
from episodes_assets.stores.snapshots import SnapshotStore
from episodes_assets.stores.viewings_coverage import viewings_begin
from episodes_assets.validation.drop import prepare_rules, validate_drop


@dataclass(frozen=True)
class TakenDay:
    """A day whose input is kept.

    Attributes:
        day: The day.
        snapshot: Its drop.
        viewings: Its viewings.
        read: Viewings that were read from the input; None when none were, because the lake has the day.
        is_reused: Whether everything was there already.
    """

    day: dt.date
    snapshot: Snapshot
    viewings: LakeFile
    read: int | None
    is_reused: bool


@dataclass(frozen=True)
class LateViewings:
    """A day of which the input has another number of viewings than was taken."""

    day: dt.date
    in_lake: int
    in_input: int

    @property
    def was_taken(self) -> bool:
        """Whether the day was taken again: less never replaces what there is."""
        return self.in_input > self.in_lake


class Taking:
    """Takes days from one input into one snapshot store and one lake.

    Args:
        open_input: Gives the input's DSN; it is asked when a day has to be read, since those that are kept
            need no input.
        store: The snapshots.
        viewings: The lake's viewings.
        environment: This process's.
    """

    def __init__(
        self, open_input: Callable[[], str], store: SnapshotStore, viewings: Viewings, environment: str
    ) -> None:
        self._open_input = open_input
        self._opened = ""
        self._store = store
        self._viewings = viewings
        self._environment = environment
        viewings.verify_environment(environment)

    def take(self, day: dt.date, *, refresh: bool = False, reason: str = "") -> TakenDay:
        """A day as it is kept; what is not kept yet is taken, or with `refresh` all of it anew.

        Args:
            day: The day.
            refresh: Take it again although it is kept.
            reason: Why, for the record.

        Raises:
            DropNotArrived: If there is no drop of the day.
            InputUnreadable: If the input's columns cannot be read.
            LakeMismatch: If the lake tells viewers apart in another way.
            ViewingsGone: If the lake lacks the day's viewings, and the input has deleted some since its
                snapshot was taken: the day stays as it is.
            SystemFailure: If the input or the lake cannot be reached, or there is no room.
        """
        snapshot = self._store.find(day)
        kept = self._files().get(day)
        if snapshot is not None and kept is not None and not refresh:
            return TakenDay(day, snapshot, kept, None, is_reused=True)
        with reading(self._dsn(), day) as source:
            if (snapshot is None or refresh) and not source.has_drop():
                raise drop_not_arrived(self._dsn(), day)
            found = self._write_viewings(source)
            if kept is None and not self._holds_all(found, snapshot):
                raise ViewingsGone(
                    f"the input has deleted viewings of {day} since its snapshot was taken, before the lake "
                    "had them",
                    "leave the day out: what is published of it stays, but it cannot be computed again",
                )
            if snapshot is None or refresh:
                snapshot = self._take_drop(source, found, reason)
            else:
                self._commit(found, reason or f"viewings of {day}")
        return TakenDay(day, snapshot, self._files()[day], found.file.rows, is_reused=False)

    def take_earlier(self, day: dt.date, since: dt.date | None = None) -> Iterator[LakeFile]:
        """Where a history begins, take what the input still holds of the days before it.

        The oldest day comes first, and each is kept as soon as it is taken, so that what is interrupted goes
        on where it was.

        Args:
            day: The first day of the history, or the first one after a gap.
            since: The first day that may be wanted. When it is said, days are taken also where the lake has
                the day or the day before; otherwise it is known to have what there was.

        Yields:
            What was taken, day by day.

        Raises:
            As `take`.
        """
        if since is None and not self._files().keys().isdisjoint((day, day - ONE_DAY)):
            return
        first = since or dt.date.min
        begin = viewings_begin(self._dsn(), day - ONE_DAY, first)
        for earlier in days_between(max(begin, first), day - ONE_DAY) if begin else ():
            if earlier not in self._files():
                with reading(self._dsn(), earlier) as source:
                    found = self._write_viewings(source)
                if self._holds_all(found, self._store.find(earlier)):
                    self._commit(found, f"held by the input when {day} was taken")
                    yield found.file

    def take_late(self, days: Sequence[dt.date]) -> list[LateViewings]:
        """Look again at days that were taken; take those anew of which the input has more viewings by now.

        Args:
            days: The days; those that the lake lacks are left out.

        Returns:
            The days with another number than was taken.

        Raises:
            As `take`.
        """
        kept = {day: file.rows for day, file in self._files().items() if day in days}
        if not kept:
            return []
        now = count_viewings(self._dsn(), list(kept))
        changed = [LateViewings(day, rows, now[day]) for day, rows in kept.items() if now[day] != rows]
        for late in changed:
            if late.was_taken:
                with reading(self._dsn(), late.day) as source:
                    found = self._write_viewings(source)
                self._commit(found, f"{late.in_input - late.in_lake:,} viewings arrived late")
        return changed

    def _dsn(self) -> str:
        """The input's, which is opened once."""
        self._opened = self._opened or self._open_input()
        return self._opened

    def _files(self) -> Mapping[dt.date, LakeFile]:
        newest = self._viewings.newest()
        return newest.files if newest else {}

    def _write_viewings(self, source: DayReading) -> DayOfViewings:
        with source.viewings() as batches:
            return self._viewings.write(source.day, batches)

    def _holds_all(self, found: DayOfViewings, snapshot: Snapshot | None) -> bool:
        """Whether each episode was viewed that was when a release before the lake took the snapshot.

        Where it was not, the input has deleted viewings since. Less than a whole episode cannot be told.
        """
        return snapshot is None or bool(np.isin(self._store.read_viewed(snapshot), found.episodes).all())

    def _commit(self, found: DayOfViewings, reason: str) -> None:
        """Keep what was taken, but where there is more by now."""

        def not_less(kept: Mapping[dt.date, LakeFile]) -> list[LakeFile]:
            file = found.file
            return [] if file.day in kept and kept[file.day].rows > file.rows else [file]

        facts = {"episodes.reason": reason}
        self._viewings.commit(found.schema, not_less, environment=self._environment, facts=facts)

    def _take_drop(self, source: DayReading, found: DayOfViewings, reason: str) -> Snapshot:
        """Take the drop; its snapshot is the day's once its viewings are kept."""
        day = source.day
        with (
            self._store.new(day, environment=self._environment, reason=reason) as snapshot,
            read_ahead(source.drop()) as parts,
        ):
            prepare_rules()
            for part in parts:
                snapshot.add(validate_drop(part))
            self._commit(found, reason or f"taken with the drop of {day}")
            newest = self._viewings.newest()
            assert newest is not None  # noqa: S101  the day is in it
            return snapshot.finish(self._viewings.episodes_of(newest.number, day), source.rows)
