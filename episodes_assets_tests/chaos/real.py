"""The same steps as in `model`, on the real stores and the real databases."""

import asyncio
import datetime as dt
import json
import shutil
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg
from pgqueuer.errors import RetryRequested

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DropNotArrived
from episodes_assets.input.reading import reading
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger import claims, held, plans
from episodes_assets.ledger.claims import Claim, ClaimedJob, GuardedLedger
from episodes_assets.ledger.dispatch import ChunkMessage, fan_out_day
from episodes_assets.ledger.held import cancel_day, retry_held_jobs
from episodes_assets.ledger.workers import Activity, prune_message_log
from episodes_assets.planning.drop import ValidatedDrop
from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.jobs import newly_tracked, plan_checksum, plan_jobs
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import state
from episodes_assets.results.publish import publish_day
from episodes_assets.worker.chunk import ChunkRules, ChunkRunner, JobsWereHeld, groups_to_start
from episodes_assets.worker.compute import JobWindows, MicroBatch, TimeLimits, run_micro_batch
from episodes_assets_tests.chaos.model import Input, Job
from episodes_assets_tests.support.system import System

CHUNK_JOBS = 2


@dataclass(frozen=True)
class Message:
    """A live message."""

    id: int
    chunk: ChunkMessage


@dataclass
class Attempt:
    """What a worker holds in memory that was cut off in the middle of a chunk."""

    claim: Claim
    chunk: int
    started: list[ClaimedJob]
    unwritten: list[ClaimedJob]


class InProcess:
    """Stands in for the compute process: the outcomes are a function of the job, some episodes fail."""

    incarnation = 0

    def __init__(self, bad: frozenset[int]) -> None:
        self._bad = bad

    async def run(self, _timeout: float, function: object, *arguments: Any) -> MicroBatch | None:
        if function is not run_micro_batch:
            return None
        windows: JobWindows = arguments[-1]
        epids = windows.epid.tolist()
        if self._bad & set(epids):
            raise ValueError("a bad episode")
        return MicroBatch(outcomes_of(epids), {0: 0.0})


def outcomes_of(epids: list[int]) -> dict[str, list[Any]]:
    """As a micro-batch returns them."""
    return {
        "covered_from": [None] * len(epids),
        "metrics": [json.dumps({"views": epid}) for epid in epids],
        "algorithm_version": ["1"] * len(epids),
    }


class Real:
    """One system, with a connection for each role."""

    def __init__(self, system: System, max_starts: int) -> None:
        self.system = system
        self.checks = 0  # how often all of it was compared with the model
        self._max_starts = max_starts
        self._loop = asyncio.new_event_loop()
        self.queue = psycopg.connect(system.dsn(Purpose.QUEUE), autocommit=True)
        self.results = psycopg.connect(system.dsn(Purpose.RESULTS), autocommit=True)
        self._upstream = psycopg.connect(system.dsn(Purpose.INPUT_WRITER), autocommit=True)
        self._worker = self._do(psycopg.AsyncConnection.connect(system.dsn(Purpose.WORKER), autocommit=True))

    def close(self) -> None:
        for connection in (self.queue, self.results, self._upstream):
            connection.close()
        self._do(self._worker.close())
        self._loop.close()

    def forget_everything(self) -> None:
        self.queue.execute("DELETE FROM pgqueuer")
        self.results.execute("DELETE FROM state.tracked_days; DELETE FROM state.tracked_episodes")
        # Neither the orchestrator nor the publisher may take anything out of its history.
        self.system.forget_plans()
        self.system.query(
            "results",
            "DELETE FROM published.days; DELETE FROM published.results; DELETE FROM published.history",
        )
        self._upstream.execute("DELETE FROM episodes; DELETE FROM viewings")
        for table in self.system.drops.tables:
            shutil.rmtree(f"{self.system.settings.lake}/{table.name}", ignore_errors=True)

    def arrive(self, day: dt.date, content: Input) -> None:
        """The day's drop and viewings, in place of what there was."""
        self.delete_upstream(day, day)
        self._upstream.cursor().executemany(
            "INSERT INTO episodes (batch_date, epid, algorithm_id, premier_date, start_date, title)"
            " VALUES (%s, %s, %s, %s, %s, 'a title')",
            [(day, row.epid, row.algorithm_id, row.premier_date, row.start_date) for row in content.rows],
        )
        noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
        self._upstream.cursor().executemany(
            "INSERT INTO viewings VALUES (%s, 1, %s, 60, false)", [(epid, noon) for epid in content.viewed]
        )

    def delete_upstream(self, first: dt.date, last: dt.date) -> None:
        self._upstream.execute("DELETE FROM episodes WHERE batch_date BETWEEN %s AND %s", [first, last])
        self._upstream.execute(
            "DELETE FROM viewings WHERE (viewed_at AT TIME ZONE 'UTC')::date BETWEEN %s AND %s", [first, last]
        )

    def take_snapshot(self, day: dt.date, refresh: bool) -> None:
        """Without validation: the model's rows are all valid, and it would take most of the time."""
        drops = self.system.drops
        if not refresh and drops.find(day) is not None:
            return
        lake, environment = self.system.viewings, self.system.settings.environment
        with (
            reading(self.system.dsn(Purpose.INPUT), day) as source,
            drops.writer(day) as drop,
        ):
            with source.viewings() as batches:
                found = lake.write(day, batches)
            for part in source.drop():
                accepted = part.astype({"epid": "int64", "algorithm_id": "int16"})
                nothing = part.iloc[:0].assign(reasons=pd.Series(dtype="str"))
                drop.add(ValidatedDrop(accepted, nothing))
            if not drop.rows:
                raise DropNotArrived(f"there is no drop of {day}")
            lake.commit(found.schema, lambda _: [found.file], environment=environment, facts={})
            drops.commit([drop.finish(found.episodes, source.rows)], environment)

    def track(self, day: dt.date) -> None:
        drops = self.system.drops
        with (
            connect(self.system.dsn(Purpose.RESULTS), autocommit=True) as lock,
            state.only_writer(lock),
        ):
            yesterday = state.state_before(self.results, day)
            before = state.read_tracked(self.system.dsn(Purpose.RESULTS), yesterday).as_of(day - ONE_DAY)
            drop = drops.require(day)
            (part,) = drops.read_drop(drop, ["epid", "algorithm_id", "premier_date"])
            new = newly_tracked(part, before, day)
            state.record_day(
                self.results,
                day,
                new,
                yesterday=yesterday,
                snapshot_id=drop.snapshot_id,
                code_version="1",
            )

    def plan(self, day: dt.date) -> None:
        drops = self.system.drops
        yesterday = state.state_before(self.results, day)
        before = state.read_tracked(self.system.dsn(Purpose.RESULTS), yesterday).as_of(day - ONE_DAY)
        drop = drops.require(day)
        viewings = self.system.viewings
        newest = viewings.newest()
        assert newest is not None
        (part,) = drops.read_drop(drop, ["epid", "algorithm_id", "premier_date", "start_date"])
        jobs = plan_jobs(part, EpisodeSet.of(viewings.episodes_of(newest.number, day)), before, day)
        plans.record_plan(
            self.queue,
            day,
            jobs,
            checksum=plan_checksum(jobs),
            snapshot_id=drop.snapshot_id,
            code_version="1",
            chunk_jobs=CHUNK_JOBS,
            viewings=PinnedVersion(0, None),
        )

    def fan_out(self, day: dt.date) -> None:
        fan_out_day(self.queue, day)

    def retry(self, day: dt.date) -> None:
        retry_held_jobs(self.queue, day)

    def cancel(self, day: dt.date) -> None:
        cancel_day(self.queue, day, reason="it is not wanted now", cancelled_by="somebody")

    def waive(self, day: dt.date) -> None:
        held.waive_held_jobs(self.queue, day, reason="they are known to fail", decided_by="somebody")

    def publish(self, day: dt.date) -> None:
        publish_day(self.queue, self.results, self.system.viewings, day, "1")

    def prune(self) -> None:
        prune_message_log(self.queue, 0)

    def messages(self) -> list[Message]:
        """The live messages, in the order they were sent."""
        rows = self.queue.execute(
            "SELECT id, payload FROM pgqueuer WHERE status = 'queued' ORDER BY id"
        ).fetchall()
        return [Message(id, ChunkMessage.decode(payload)) for id, payload in rows]  # noqa: A001

    def lose(self, message: Message) -> None:
        self.queue.execute("DELETE FROM pgqueuer WHERE id = %s", [message.id])

    def jobs_of(self, chunk: ChunkMessage) -> tuple[dt.date, list[Job]] | None:
        """The day and the jobs of a chunk; None when its plan was superseded."""
        rows = self.queue.execute(
            "SELECT day, epid, algorithm_id, window_start FROM ledger.job_states JOIN ledger.plans"
            " USING (plan_id) WHERE plan_id = %s AND chunk = %s",
            [chunk.plan_id, chunk.chunk],
        ).fetchall()
        return (rows[0][0], [tuple(row[1:]) for row in rows]) if rows else None

    def work(self, message: Message, bad: frozenset[int]) -> None:
        """Work a message to its end, and do with it what PgQueuer would."""

        async def run() -> str | None:
            rules = ChunkRules(
                worker="w",
                lake_url="",
                limits=TimeLimits(batch=60, job=60),
                max_starts=self._max_starts,
                retry_seconds=0,
            )
            ledger_of_ours = GuardedLedger(self._worker, self.system.settings.environment, 60)
            process: Any = InProcess(bad)
            stopping, over = asyncio.Event(), asyncio.Event()
            runner = ChunkRunner(ledger_of_ours, process, rules, Activity(), stopping, over)
            try:
                await runner.run(message.chunk, 0)
            except RetryRequested:
                return "queued"
            except JobsWereHeld:
                return "failed"
            return None

        status = self._do(run())
        if status is None:
            self.lose(message)
        else:
            self.queue.execute("UPDATE pgqueuer SET status = %s WHERE id = %s", [status, message.id])

    def begin(self, message: Message, upto: str) -> Attempt | None:
        """Begin to work a message and be cut off after the `claim`, the `start` or the `write`."""
        claim = self._do(claims.claim_chunk(self._worker, message.chunk, "cut off"))
        if claim is None:
            return None
        group = list(next(groups_to_start(claim.starts, claim.jobs)))
        attempt = Attempt(claim, message.chunk.chunk, [], group)
        if upto != "claim":
            self._do(claims.count_start(self._worker, claim, group))
            attempt.started = group
        if upto == "write":
            self.write(attempt)
        return attempt

    def write(self, attempt: Attempt) -> None:
        jobs, attempt.unwritten = attempt.unwritten, []
        outcomes = outcomes_of([job.epid for job in jobs])
        took = claims.Took(0, {})
        self._do(claims.write_outcomes(self._worker, attempt.claim, jobs, outcomes, "cut off", took))

    def count_start(self, attempt: Attempt) -> None:
        self._do(claims.count_start(self._worker, attempt.claim, attempt.unwritten))
        attempt.started = attempt.unwritten

    def fail(self, attempt: Attempt) -> None:
        failure = claims.JobFailure("late", "")
        job, attempt.unwritten = attempt.unwritten[0], []
        self._do(claims.record_failures(self._worker, attempt.claim, [job], failure, self._max_starts))

    def give_back(self, attempt: Attempt) -> None:
        self._do(claims.release_claim(self._worker, attempt.claim))

    def _do(self, step: Any) -> Any:
        return self._loop.run_until_complete(step)
