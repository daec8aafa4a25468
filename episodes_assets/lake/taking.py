"""Taking a day's input into the lake: its drop and its viewings, both as of one moment.

What the lake has is not read again, unless that is asked for or viewings have arrived late. Taking a day
again never loses viewings: those of the input are compared with those of the lake, and where some are gone
from the input, the lake keeps them unless an operator accepts the loss. A commit that loses a race compares
again with the newest version.

Which days are taken is decided by the caller; which rows of a drop are accepted, by `planning/drop.py`.
"""

import datetime as dt
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.errors import ViewingsGone, ViewingsLost
from episodes_assets.input.reading import (
    DayReading,
    count_viewings,
    drop_not_arrived,
    read_ahead,
    reading,
    viewings_begin,
)
from episodes_assets.lake.comparing import Difference, difference
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops, DropWriter
from episodes_assets.lake.versions import LOST, REASON, TableVersion
from episodes_assets.lake.viewings import ORDER, DayOfViewings, Viewings
from episodes_assets.planning.drop import prepare_rules, validate_drop

# Of a range, so many days are committed together: what an interrupted run has to read again.
MOST_DAYS = 64
MOST_SECONDS = 5.0

_SAME = Difference(0, 0)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class TakenDay:
    """A day whose input is kept.

    Attributes:
        day: The day.
        drop: Its drop.
        viewings: Its viewings.
        is_reused: Whether everything was there already.
        difference: From the viewings that the lake had to those that were read.
        is_as_read: Whether the lake now has those that were read.
    """

    day: dt.date
    drop: Drop
    viewings: LakeFile
    is_reused: bool
    difference: Difference = _SAME
    is_as_read: bool = True


@dataclass(frozen=True)
class LateViewings:
    """A day of which the input has another number of viewings than was taken.

    Attributes:
        day: The day.
        in_lake: Viewings that were taken.
        in_input: Viewings that the input has now.
        difference: From the viewings in the lake to those in the input.
        was_taken: Whether the lake now has those in the input.
    """

    day: dt.date
    in_lake: int
    in_input: int
    difference: Difference
    was_taken: bool


@dataclass(frozen=True)
class _Read:
    """A day that was read from the input and is not kept yet, or was kept before.

    Attributes:
        day: The day.
        drop: Its drop, where that was kept before.
        found: Its viewings, as they were read; None when none were.
        writer: The drop as it is being written; None when it was kept before.
        drop_rows: Rows that came from the drop.
    """

    day: dt.date
    drop: Drop | None
    found: DayOfViewings | None = None
    writer: DropWriter | None = None
    drop_rows: int = 0


class Taking:
    """Takes days from one input into one lake.

    Args:
        open_input: Returns the input's DSN; called once, and only when a day has to be read, as days that are
            kept need no input.
        drops: The lake's drops.
        viewings: Its viewings.
        environment: This process's.
    """

    def __init__(
        self, open_input: Callable[[], str], drops: Drops, viewings: Viewings, environment: str
    ) -> None:
        self._dsn = cache(open_input)
        self._drops = drops
        self._viewings = viewings
        self._environment = environment
        viewings.verify_environment(environment)
        drops.verify_environment(environment)

    def take(
        self,
        days: Sequence[dt.date],
        *,
        refresh: bool = False,
        reason: str = "",
        accept_lost: bool = False,
        before_reading: Callable[[dt.date], None] = lambda _: None,
    ) -> Iterator[TakenDay]:
        """Take days into the lake; those that it keeps already are read again only if that is asked for.

        Several days are committed together. When one cannot be taken, those before it are committed.

        Args:
            days: The days, in order.
            refresh: Take them again although they are kept.
            reason: Why, for the record.
            accept_lost: Take the input's viewings again, even if some that the lake has are gone from it; the
                drop that is kept stays, unless it is to be refreshed.
            before_reading: Called with the first day that is read, before it is read: if it raises, the
                day is not taken.

        Yields:
            Each day.

        Raises:
            DropNotArrived: If there is no drop of a day.
            InputUnreadable: If the input's columns cannot be read.
            LakeMismatch: If the lake has viewer ids of another type.
            ViewingsGone: If the lake lacks a day's viewings, and the input has deleted some since its
                drop was taken: the day stays as it is.
            ViewingsLost: If a day is to be taken again, and the input has new viewings of it and lacks others
                that the lake has.
            SystemFailure: If the input or the lake cannot be reached, or there is no room.
        """
        has_begun = False

        def read(day: dt.date, opened: ExitStack) -> _Read:
            nonlocal has_begun
            drop = self._drops.find(day)
            if drop is not None and not (refresh or accept_lost) and day in self._files():
                return _Read(day, drop)
            if not has_begun:
                before_reading(day)
                has_begun = True
            return self._read(day, drop, opened, refresh=refresh, reason=reason, accept_lost=accept_lost)

        def keep(group: Sequence[_Read]) -> list[TakenDay]:
            return self._keep(group, reason=reason, refresh=refresh, accept_lost=accept_lost)

        yield from _in_groups(days, read, keep)

    def take_earlier(
        self, day: dt.date, since: dt.date | None = None, *, reason: str = "", accept_lost: bool = False
    ) -> Iterator[LakeFile]:
        """Where a history begins, take what the input still holds of the days before it.

        The oldest day comes first, and several are committed together, so that an interrupted run continues
        where it was. Drops of these days are neither needed nor taken.

        Args:
            day: The first day of the history, or the first one after a gap.
            since: The earliest day to take. Without it, nothing is taken if the lake has the day or the day
                before: it then has what there was.
            reason: With `accept_lost`, why, for the record.
            accept_lost: Where `since` is said, take those that the lake has again, as the input has them now,
                even if viewings are gone from it.

        Yields:
            What was taken, day by day; days that are taken again are left out if they are as they were.

        Raises:
            As `take`.
        """
        if since is None and not self._files().keys().isdisjoint((day, day - ONE_DAY)):
            return
        first = since or dt.date.min
        begin = viewings_begin(self._dsn(), day - ONE_DAY, first)
        there = self._files()

        def read(earlier: dt.date, _: ExitStack) -> DayOfViewings | None:
            found = self._read_viewings(earlier)
            return found if earlier in there or self._holds_all(found, self._drops.find(earlier)) else None

        def keep(group: Sequence[DayOfViewings | None]) -> list[LakeFile]:
            taken = [each for each in group if each is not None and there.get(each.file.day) != each.file]
            if taken:
                said = reason if accept_lost else f"held by the input when {day} was taken"
                self._commit(taken, said, accept_lost=accept_lost)
            return [each.file for each in taken]

        held = days_between(max(begin, first), day - ONE_DAY) if begin else ()
        again = [each for each in there if first <= each < day] if since and accept_lost else []
        yield from _in_groups(sorted({*again, *(each for each in held if each not in there)}), read, keep)

    def take_late(self, days: Sequence[dt.date]) -> list[LateViewings]:
        """Compare days that were taken with the input, and take those again that have late viewings.

        A day of which viewings are gone from the input is left as it is, whatever is new. A day of which the
        input has as many viewings as the lake is not read.

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
        changed = [day for day, rows in kept.items() if now[day] != rows]
        taken = {day: self._read_viewings(day) for day in changed if now[day]}
        differences: dict[dt.date, Difference] = {}
        kept_now: Mapping[dt.date, LakeFile] = {}
        if taken:
            version, differences = self._commit(list(taken.values()), "viewings arrived late")
            kept_now = version.files
        late = [
            LateViewings(
                day,
                kept[day],
                taken[day].file.rows if day in taken else 0,
                differences.get(day, Difference(kept[day], 0)),
                was_taken=day in taken and kept_now[day] == taken[day].file,
            )
            for day in changed
        ]
        return [each for each in late if each.difference != _SAME]  # the numbers differed for a moment only

    def _files(self) -> Mapping[dt.date, LakeFile]:
        newest = self._viewings.newest()
        return newest.files if newest else {}

    def _read_viewings(self, day: dt.date) -> DayOfViewings:
        with reading(self._dsn(), day) as source:
            return self._write_viewings(source)

    def _write_viewings(self, source: DayReading) -> DayOfViewings:
        with source.viewings() as batches:
            return self._viewings.write(source.day, batches)

    def _holds_all(self, found: DayOfViewings, drop: Drop | None) -> bool:
        """Whether viewings were found of each episode that was viewed by the drop's record.

        If not, the input has deleted viewings since. The loss of only some viewings of an episode cannot be
        detected.
        """
        if drop is None or drop.viewed is None:
            return drop is None or len(found.episodes) >= drop.viewed_episodes
        return bool(np.isin(self._drops.read_viewed(drop), found.episodes).all())

    def _read(
        self,
        day: dt.date,
        drop: Drop | None,
        opened: ExitStack,
        *,
        refresh: bool,
        reason: str,
        accept_lost: bool,
    ) -> _Read:
        """Read a day's viewings, and its drop if that is to be taken; nothing is committed yet."""
        with reading(self._dsn(), day) as source:
            wants_drop = drop is None or refresh
            if wants_drop and not source.has_drop():
                raise drop_not_arrived(self._dsn(), day)
            found = self._write_viewings(source)
            kept = self._files().get(day)
            if kept is None and not self._holds_all(found, drop):
                raise ViewingsGone(
                    f"the input has deleted viewings of {day} since its drop was taken, before the lake "
                    "had them",
                    "leave the day out: what is published of it stays, but it cannot be computed again",
                )
            if not wants_drop:
                return _Read(day, drop, found)
            if refresh and kept is not None and not accept_lost:
                _require_none_lost(day, difference(self._viewings, kept, found.file, ORDER))
            writer = opened.enter_context(self._drops.writer(day, reason=reason))
            with read_ahead(source.drop()) as parts:
                prepare_rules()
                for part in parts:
                    writer.add(validate_drop(part))
            return _Read(day, None, found, writer, source.rows)

    def _keep(
        self, group: Sequence[_Read], *, reason: str, refresh: bool, accept_lost: bool
    ) -> list[TakenDay]:
        """Commit what was read: first the viewings of all days, then their drops."""
        found = {each.day: each.found for each in group if each.found is not None}
        differences: dict[dt.date, Difference] = {}
        if found:
            _, differences = self._commit(
                list(found.values()),
                reason or _viewings_of(list(found)),
                refresh=refresh,
                accept_lost=accept_lost,
            )
        newest = self._viewings.newest()
        taken, new = [], []
        for each in group:
            assert newest is not None  # noqa: S101  the days are in it
            drop, file = each.drop, newest.files[each.day]
            if each.writer is not None and each.found is not None:
                is_own = file == each.found.file
                viewed = (
                    each.found.episodes if is_own else self._viewings.episodes_of(newest.number, each.day)
                )
                drop = each.writer.finish(viewed, each.drop_rows)
                new.append(drop)
            assert drop is not None  # noqa: S101  it was there, or is written with the viewings
            taken.append(
                TakenDay(
                    each.day,
                    drop,
                    file,
                    is_reused=each.found is None,
                    difference=differences.get(each.day, _SAME),
                    is_as_read=each.found is None or file == each.found.file,
                )
            )
        self._drops.commit(new, self._environment)
        self._drops.settle([each.day for each in group if each.writer is None], self._environment)
        return taken

    def _commit(
        self, taken: Sequence[DayOfViewings], reason: str, *, refresh: bool = False, accept_lost: bool = False
    ) -> tuple[TableVersion, dict[dt.date, Difference]]:
        """Commit the viewings that were read, except of days that would lose some.

        Returns:
            The version that has them, and how they differ from those that the lake had, by day.

        Raises:
            ViewingsLost: If a day was to be taken again for a reason, and has both lost and gained some.
        """
        found: dict[dt.date, Difference] = {}
        compared: dict[tuple[str, str], Difference] = {}
        facts = {REASON: reason}

        def choose(kept: Mapping[dt.date, LakeFile]) -> list[LakeFile]:
            found.clear()
            facts.pop(LOST, None)
            chosen = []
            for each in taken:
                day, file = each.file.day, each.file
                if day in kept:
                    pair = (kept[day].path, file.path)
                    if pair not in compared:
                        compared[pair] = difference(self._viewings, kept[day], file, ORDER)
                    found[day] = compared[pair]
                    if refresh and not accept_lost:
                        _require_none_lost(day, found[day])
                if accept_lost or not found.get(day, _SAME).gone:
                    chosen.append(file)
            if lost := {str(file.day): found[file.day] for file in chosen if found.get(file.day, _SAME).gone}:
                facts[LOST] = json.dumps(lost)
            return chosen

        schema = taken[0].schema
        return self._viewings.commit(schema, choose, environment=self._environment, facts=facts), found


def _require_none_lost(day: dt.date, found: Difference) -> None:
    """Refuse a day of which the lake and the input each have viewings that the other lacks.

    If the input has no new ones, the lake keeps what it has.
    """
    if found.gone and found.new:
        raise ViewingsLost(
            f"{day} is not taken again: of the viewings that were taken {found.gone:,} are gone from the"
            f" input, and it has {found.new:,} new ones",
            "ask whoever fills the input whether they were meant to go; if so, take it again with"
            " `accept_lost_viewings` (`--accept-lost-viewings`)",
        )


def _viewings_of(days: Sequence[dt.date]) -> str:
    return f"viewings of {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "")


def _in_groups(
    days: Iterable[dt.date],
    read: Callable[[dt.date, ExitStack], Item],
    keep: Callable[[Sequence[Item]], Sequence[Result]],
) -> Iterator[Result]:
    """Read days one by one, and commit them in groups of up to `MOST_DAYS` or `MOST_SECONDS`.

    When reading one fails, those that were read before it are committed all the same.

    Args:
        days: The days.
        read: Reads one; what it opens stays open until its group is committed.
        keep: Commits a group.
    """
    left = deque(days)
    while left:
        failure: BaseException | None = None
        kept: Sequence[Result] = []
        with ExitStack() as opened:
            group: list[Item] = []
            end = time.monotonic() + MOST_SECONDS
            while left and len(group) < MOST_DAYS and time.monotonic() < end:
                try:
                    group.append(read(left[0], opened))
                except BaseException as error:  # noqa: BLE001  raised below; an interrupt too
                    failure = error
                    break
                left.popleft()
            try:
                kept = keep(group)
            except Exception:
                if failure is None:
                    raise
        yield from kept
        if failure is not None:
            raise failure
