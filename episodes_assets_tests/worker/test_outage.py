"""A worker in an outage of the lake: few tries, and work as soon as it is back."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from episodes_assets.errors import LakeDamaged, LakeMissing
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.workers import Activity
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker import outage
from episodes_assets.worker.chunk import ChunkRules
from episodes_assets.worker.compute import MicroBatch, TimeLimits, import_algorithm
from episodes_assets.worker.main import Sessions
from episodes_assets.worker.outage import Pauses
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process
CHUNKS, TRIES, FIRST_PAUSE_SECONDS = 50, 6, 0.05


def test_pauses_grow_and_end_with_the_outage_or_at_once() -> None:
    async def seconds_of(pauses: Pauses) -> float:
        began = time.monotonic()
        async with pauses.turn():
            return time.monotonic() - began

    async def scenario() -> None:
        over = asyncio.Event()
        pauses = Pauses(FIRST_PAUSE_SECONDS, over)
        for longest in (1, 2, 4):
            pauses.lengthen()
            assert await seconds_of(pauses) >= longest * FIRST_PAUSE_SECONDS / 2
        long = Pauses(20, over)
        assert await seconds_of(long) < 10
        long.lengthen()
        long.end()
        assert await seconds_of(long) < 10
        for _ in range(2000):
            long.lengthen()
        asyncio.get_running_loop().call_soon(over.set)
        assert await seconds_of(long) < 10

    asyncio.run(scenario())


class Process:
    """In place of the process that computes; it says when it has begun."""

    incarnation = 0

    def __init__(self) -> None:
        self.tries: list[float] = []

    async def run(self, _limit: float, function: object, *arguments: Any) -> MicroBatch | None:
        if function is import_algorithm:
            return None
        self.tries.append(time.monotonic())
        windows = arguments[-1]
        self.read(windows.epid.tolist())
        many = len(windows.epid)
        return MicroBatch(
            {"covered_from": [None] * many, "metrics": ["{}"] * many, "algorithm_version": ["1"] * many}, {}
        )

    def read(self, _epids: list[int]) -> None:
        pass


class OfLakeThatComesBack(Process):
    """The lake is put back to its place at some try."""

    def __init__(self, lake: Path, moved_to: Path) -> None:
        super().__init__()
        self.lake, self.moved_to = lake, moved_to

    def read(self, _epids: list[int]) -> None:
        if len(self.tries) > TRIES and self.moved_to.exists():
            self.moved_to.rename(self.lake)
        if not self.lake.exists():
            raise LakeMissing("there is no lake", "put it back")


class OfDamagedFile(Process):
    """A file of some of the jobs cannot be read."""

    def read(self, _epids: list[int]) -> None:
        if not is_behind(_epids[0]):
            raise LakeDamaged("a file was changed", "restore it")


def is_behind(epid: int) -> bool:
    """Whether a job is of the second half of those that `handed_out` has planned."""
    return epid >= CHUNKS // 2


@pytest.fixture
def handed_out(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system with many chunks of one job each."""
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "1")
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(CHUNKS)])
    system.plan(day(1))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert fan_out_day(queue, day(1)).messages == CHUNKS
    return system


def work(system: System, process: Any, retry_seconds: float, left: int) -> None:
    """Be a worker until no more jobs than so many are left."""
    rules = ChunkRules("w-1", system.settings.lake, TimeLimits(10, 10), 1, retry_seconds)

    async def main() -> None:
        stopping = asyncio.Event()
        sessions = Sessions(system.dsn(Purpose.WORKER), process, rules, Activity(), "development", 30)
        working = asyncio.create_task(sessions.work(stopping))
        async with asyncio.timeout(60):  # with a pause after each chunk it takes far longer
            while system.query("queue", "SELECT jobs FROM ledger.backlog")[0][0] > left:
                await asyncio.sleep(0.05)
        stopping.set()
        await working

    asyncio.run(main())
    assert system.query("queue", "SELECT FROM ledger.job_attempts WHERE is_held") == []


@pytest.mark.long
def test_a_worker_tries_seldom_while_the_lake_is_away_and_goes_on_when_it_is_back(
    handed_out: System, tmp_path: Path
) -> None:
    lake = Path(handed_out.settings.lake)
    lake.rename(tmp_path / "moved")
    process = OfLakeThatComesBack(lake, tmp_path / "moved")
    work(handed_out, process, FIRST_PAUSE_SECONDS, left=0)
    assert len(process.tries) == TRIES + CHUNKS
    pauses = [later - earlier for earlier, later in itertools.pairwise(process.tries)]
    # Two chunks are at hand when it begins; from then on one is tried after each pause.
    doubled = [FIRST_PAUSE_SECONDS * 2**number for number in range(1, TRIES - 1)]
    assert all(took >= pause for took, pause in zip(pauses[1:], doubled, strict=False))


@pytest.mark.long
def test_a_damaged_file_does_not_keep_a_worker_from_other_chunks(handed_out: System) -> None:
    work(handed_out, OfDamagedFile(), 20.0, left=CHUNKS // 2)
    done = handed_out.query("queue", "SELECT epid FROM ledger.job_states WHERE state = 'succeeded'")
    assert len(done) == CHUNKS // 2
    assert all(is_behind(epid) for (epid,) in done)


@pytest.mark.long
def test_jobs_that_a_worker_does_not_know_do_not_keep_it_from_others(
    handed_out: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes them one by one, so that others may have them."""
    monkeypatch.setattr(outage, "REST_SECONDS", 0.01)
    handed_out.query("queue", "UPDATE ledger.jobs SET algorithm_id = 99 WHERE epid < %s", [CHUNKS // 2])
    work(handed_out, Process(), 20.0, left=CHUNKS // 2)
    assert handed_out.query("queue", "SELECT FROM ledger.job_attempts WHERE starts > 1") == []
