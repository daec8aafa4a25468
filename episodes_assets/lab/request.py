"""What is to be taken: which days, and which episodes. It loads nothing that takes long to import.

The episodes that a sample consists of are chosen in `sampling.py`.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.errors import BadLab


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
    """Which episodes are to be taken.

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
        """Whether all episodes are taken."""
        return self.kind is Kind.WHOLE

    def to_record(self) -> dict[str, Any]:
        """As a manifest records it; ids of a file by their number and a digest."""
        record: dict[str, Any] = {"kind": self.kind.value}
        if self.kind is Kind.SHARE:
            record["share"] = self.share
        elif self.kind is Kind.SERIES:
            record["series"] = list(self.series)
        elif self.kind is Kind.EPIDS:
            content = b"".join(epid.to_bytes(8, "little", signed=True) for epid in self.epids)
            record["epids"] = len(self.epids)
            record["sha256"] = hashlib.sha256(content).hexdigest()
        elif self.kind is Kind.CHUNK:
            record["plan"], record["chunk"] = self.chunk
        elif self.kind is Kind.SLOWEST:
            record["slowest"] = self.slowest
        return record


WHOLE = SampleSpec()


def parse_sample(
    *,
    share: str = "",
    series: Sequence[str] | None = None,
    epids: Sequence[int] | None = None,
    chunk: str = "",
    slowest: int = 0,
) -> SampleSpec:
    """The sample that a command's options ask for; all episodes if none is given.

    Args:
        share: A share of the series, such as `5%` or `0.05`.
        series: Names of series.
        epids: Episodes, in any order.
        chunk: A plan and a chunk, such as `4711/12`.
        slowest: How many chunks.

    Raises:
        BadLab: If one is not spelled so, or several are given.
    """
    given = {
        "--share": share,
        "--series": series,
        "--epids": epids is not None,
        "--chunk": chunk,
        "--slowest": slowest,
    }
    chosen = [name for name, value in given.items() if value]
    if len(chosen) > 1:
        raise BadLab(f"{' and '.join(chosen)} exclude each other", "give one of them")
    if share:
        return SampleSpec(Kind.SHARE, share=_parse_share(share))
    if series:
        return SampleSpec(Kind.SERIES, series=tuple(sorted({*series})))
    if epids is not None:
        return SampleSpec(Kind.EPIDS, epids=tuple(sorted({*epids})))
    if chunk:
        return SampleSpec(Kind.CHUNK, chunk=_parse_chunk(chunk))
    return SampleSpec(Kind.SLOWEST, slowest=slowest) if slowest else WHOLE


def _parse_share(text: str) -> float:
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise BadLab(f"{text!r} is no share", "spell it 5% or 0.05; it is more than none and at most all")
    return share


def _parse_chunk(text: str) -> tuple[int, int]:
    plan, _, chunk = text.partition("/")
    if not (plan.isascii() and plan.isdigit() and chunk.isascii() and chunk.isdigit()):
        raise BadLab(f"{text!r} is no chunk", "spell it PLAN/CHUNK, as in 4711/12")
    return int(plan), int(chunk)


def describe_sample(record: Mapping[str, Any]) -> str:
    """A manifest's record of a sample, for people."""
    kind = Kind(record["kind"])
    text = {
        Kind.WHOLE: "whole",
        Kind.SHARE: f"{record.get('share', 0):.3g} of the series",
        Kind.SERIES: f"series {', '.join(record.get('series', []))}",
        Kind.EPIDS: f"{record.get('epids', 0)} episodes asked for",
        Kind.CHUNK: f"chunk {record.get('plan')}/{record.get('chunk')}",
        Kind.SLOWEST: f"the {record.get('slowest')} slowest chunks",
    }[kind]
    # They are counted once they are chosen.
    return f"{text}, {record['episodes']:,} episodes" if "episodes" in record else text


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

    def to_record(self, environment: str) -> dict[str, Any]:
        """What two requests for the same bundle have in common, as a manifest records it.

        Args:
            environment: The source's.
        """
        return {
            "environment": environment,
            "days": [str(day) for day in self.all_days],
            "sample": self.sample.to_record(),
            "keep_viewer_ids": self.keep_viewer_ids,
        }
