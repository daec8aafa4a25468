"""How often each promise was attacked and what happened, kept for the report."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path


class Promise(StrEnum):
    """What is promised, in the order of the report."""

    WORKERS = "A worker killed at any instant loses nothing and doubles nothing"
    RUNS = "A run killed at any instant leaves nothing half done; running it again ends as a calm run"
    TICKS = "A daemon or a sensor tick killed at any instant loses no message and doubles none"
    OUTAGE = "When a database goes away, runs say so and end well when run again; workers come back alone"
    STALL = "A worker cut off from the queue loses its jobs to others, and its late writes change nothing"
    TWO = "Two of anything at once end as one: no deadlock, no lost update, no traceback"
    LAKE = "A day whose taking is killed, cut off or out of room is taken again to the same bytes"
    UPGRADE = "A day goes on while one process after the other is replaced by one of a newer release"
    ORDER = "In whatever order things happen and fail, each job of a current plan has at most one outcome"


@dataclass
class Tally:
    """One way to attack a promise.

    Attributes:
        promise: The promise.
        attack: How it is attacked.
        tried: Times.
        kept: Times it was kept.
        violations: What went wrong, with the command that repeats it.
    """

    promise: Promise
    attack: str
    tried: int = 0
    kept: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass
class Attempt:
    """An attack under way; set how many it is when the block holds several."""

    times: int = 1


@dataclass
class Record:
    """All attacks of a session, and figures beside them."""

    tallies: dict[tuple[Promise, str], Tally] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def attack(self, promise: Promise, attack: str, repeat: str) -> Iterator["Attempt"]:
        """Count an attack: kept when the block ends well, else a violation that says how to repeat it."""
        tally = self.tallies.setdefault((promise, attack), Tally(promise, attack))
        attempt = Attempt()
        try:
            yield attempt
        except Exception as error:
            tally.tried += attempt.times
            tally.violations.append(f"{type(error).__name__}: {error}".splitlines()[0] + f" ({repeat})")
            error.add_note(f"violated: {promise}\nattack: {attack}\nrepeat: {repeat}")
            raise
        tally.tried += attempt.times
        tally.kept += attempt.times

    def write(self, path: Path, about: Mapping[str, object]) -> None:
        """Write all of it as JSON."""
        content = {
            **about,
            "attacks": [asdict(tally) for tally in self.tallies.values()],
            "figures": self.figures,
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
