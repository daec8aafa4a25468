"""What is asked for when a lab is taken: which days, and which episodes. It loads nothing that takes time.

Which episodes that are is decided in `sampling.py`.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from episodes_assets.days import ONE_DAY, days_between


class Kind(StrEnum):
    """How the episodes of a sample are chosen."""

    WHOLE = "whole"
    SHARE = "share"
    SERIES = "series"
    EPIDS = "epids"
    CHUNK = "chunk"
    SLOWEST = "slowest"


@dataclass(frozen=True)
class SampleSpec:
    """What was asked for.

    Attributes:
        kind: How the episodes are chosen.
        share: Of `share`, more than 0 and at most 1.
        series: Of `series`, their names.
        epids: Of `epids`, ascending.
        chunk: Of `chunk`, the plan and the chunk.
        slowest: Of `slowest`, how many chunks.
    """

    kind: Kind = Kind.WHOLE
    share: float = 1.0
    series: tuple[str, ...] = ()
    epids: tuple[int, ...] = ()
    chunk: tuple[int, int] = (0, 0)
    slowest: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether no episode is left out."""
        return self.kind is Kind.WHOLE

    def describe(self) -> dict[str, object]:
        """As a manifest says it; ids of a file by their number and a digest."""
        said: dict[str, object] = {"kind": self.kind.value}
        if self.kind is Kind.SHARE:
            said["share"] = self.share
        elif self.kind is Kind.SERIES:
            said["series"] = list(self.series)
        elif self.kind is Kind.EPIDS:
            content = b"".join(epid.to_bytes(8, "little", signed=True) for epid in self.epids)
            said["epids"] = len(self.epids)
            said["sha256"] = hashlib.sha256(content).hexdigest()
        elif self.kind is Kind.CHUNK:
            said["plan"], said["chunk"] = self.chunk
        elif self.kind is Kind.SLOWEST:
            said["slowest"] = self.slowest
        return said


WHOLE = SampleSpec()


@dataclass(frozen=True)
class TakeRequest:
    """What is to be taken.

    Attributes:
        day: The last day.
        days: How many days up to it.
        sample: Which episodes.
        keep_viewer_ids: Whether viewers keep their ids.
        max_rows: The most rows that the bundle may have; None for any number.
    """

    day: dt.date
    days: int = 1
    sample: SampleSpec = WHOLE
    keep_viewer_ids: bool = False
    max_rows: int | None = None

    @property
    def first(self) -> dt.date:
        """The first day."""
        return self.day - (self.days - 1) * ONE_DAY

    @property
    def all_days(self) -> list[dt.date]:
        """Each day, in order."""
        return list(days_between(self.first, self.day))

    def describe(self, environment: str) -> dict[str, object]:
        """What makes two requests the same.

        Args:
            environment: The source's.
        """
        return {
            "environment": environment,
            "days": [str(day) for day in self.all_days],
            "sample": self.sample.describe(),
            "keep_viewer_ids": self.keep_viewer_ids,
        }
