"""The form (short or long), the seed, the record; and what a violation prints."""

import datetime as dt
import os
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from episodes_assets_tests.chaos.record import Attempt, Promise, Record

T = TypeVar("T")
RECORD = pytest.StashKey[Record]()


@dataclass(frozen=True)
class Chaos:
    """What an attack needs to know.

    Attributes:
        is_long: Whether this is `make chaos`.
        random: Seeded; all choices of the test come from it.
        record: Where attacks are counted.
        repeat: The command that repeats the test.
    """

    is_long: bool
    seed: int
    random: random.Random
    record: Record
    repeat: str

    def pick(self, *, short: T, long: T) -> T:
        """A size that depends on the form."""
        return long if self.is_long else short

    def sample(self, choices: Sequence[T], short: int) -> list[T]:
        """All choices in the long form, some of them in the short one, in their order."""
        if self.is_long or len(choices) <= short:
            return list(choices)
        return [choices[at] for at in sorted(self.random.sample(range(len(choices)), short))]

    def attack(self, promise: Promise, attack: str) -> AbstractContextManager[Attempt]:
        """Count an attack, and say how to repeat it if it is a violation."""
        return self.record.attack(promise, attack, self.repeat)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORD] = Record()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These start many processes: on a busy machine they take longer than others may."""
    if config.getoption("--chaos") == "short":
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.timeout(420))


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    config = request.config
    is_long, seed = config.getoption("--chaos") == "long", int(config.getoption("--chaos-seed"))
    test = request.node.name
    return Chaos(
        is_long=is_long,
        seed=seed,
        random=random.Random(f"{test} {seed}"),
        record=config.stash[RECORD],
        repeat=f"make chaos SEED={seed} ONLY={test}"
        if is_long
        else f".venv/bin/pytest '{request.node.nodeid}' --chaos-seed {seed}",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--chaos-record")
    if not path:
        return
    session.config.stash[RECORD].write(
        Path(path),
        {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "seed": session.config.getoption("--chaos-seed"),
            "form": session.config.getoption("--chaos"),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
        },
    )
