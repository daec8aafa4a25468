"""Databases from before waivers and the publication history, with data and jobs in flight."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from episodes_assets.ledger import claims, held, plans
from episodes_assets.ledger.claims import Claim, ClaimedJob
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import AsyncConnection, connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.postgres.provision.schema import downgrade
from episodes_assets.results import publications, publish
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.slow


async def claim_as_before(worker: AsyncConnection, plan_id: int) -> Claim:
    """What a worker of that release does: it knows nothing of a lake."""
    token = uuid.uuid4()
    await worker.execute(
        "UPDATE ledger.chunks SET claim = %s, claimed_by = 'w', claimed_at = now()"
        " WHERE plan_id = %s AND chunk = 0",
        [token, plan_id],
    )
    cursor = await worker.execute(
        "SELECT position, epid, algorithm_id, window_start, 0 FROM ledger.jobs"
        " WHERE plan_id = %s AND epid <> 4 ORDER BY position",
        [plan_id],
    )
    jobs = [ClaimedJob(*row) for row in await cursor.fetchall()]
    return Claim(token, plan_id, 0, day(2), 0, jobs, viewings_version=None)


def test_nothing_is_lost(system: System, server_home: Path) -> None:
    for number in (1, 2):
        system.insert_drop(day(number), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(1, 7)])
        system.insert_viewings([(epid, 1, f"{day(number)} 12:00+00", 1, True) for epid in range(1, 7)])
    system.plan(day(1), day(2))
    system.finish_jobs("plan_id = (SELECT min(plan_id) FROM ledger.plans)")
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        publish.publish_day(queue, results, system.viewings, day(1), "1")
        fan_out_day(queue, day(2))
        plan_id = plans.require_plan(queue, day(2)).plan_id
        system.hold_jobs(f"plan_id = {plan_id} AND epid = 4")
        held.waive_held_jobs(queue, day(2), reason="r", decided_by="b")
    downgrade(Database.QUEUE, system.admin["queue"], "queue_0003")
    downgrade(Database.RESULTS, system.admin["results"], "results_0002")

    def seen() -> list[list[Any]]:
        [(is_renamed,)] = system.query("queue", "SELECT to_regclass('ledger.job_attempts') IS NOT NULL")
        attempts = "job_attempts" if is_renamed else "lone_jobs"
        in_queue = ["plans", "chunks", "jobs", "outcomes", attempts, "job_states"]
        days = "SELECT day, jobs, rows, checksum, plan_id, plan_checksum, code_version, published_at"
        return [
            *(system.query("queue", f"SELECT * FROM ledger.{table} ORDER BY 1, 2") for table in in_queue),
            system.query("queue", "SELECT jobs FROM ledger.backlog"),
            system.query("results", "SELECT * FROM state.tracked_episodes ORDER BY 1"),
            system.query("results", "SELECT * FROM state.tracked_days ORDER BY 1"),
            system.query("results", "SELECT * FROM published.results ORDER BY 1, 2, 3"),
            system.query("results", f"{days} FROM published.days"),
        ]

    async def upgrade_meanwhile() -> None:
        dsn = system.dsn(Purpose.WORKER)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as worker:
            claim = await claim_as_before(worker, plan_id)
            await claims.count_start(worker, claim, claim.jobs)
            before = seen()
            states = [row[6] for row in before[5] if row[0] == plan_id]
            assert sorted(states) == ["held", *["running"] * 5]  # waiving is what the older one cannot say
            settings = load_settings(home=server_home, **{f"{purpose}_dsn": None for purpose in Purpose})
            dsns = Dsns(system.dsns.by_purpose, is_embedded=True)
            await asyncio.to_thread(provision, settings, dsns, lambda _: None)
            # A column that is new comes after what was there.
            both = zip(before, seen(), strict=True)
            found = [[new[: len(old)] for old, new in zip(*rows, strict=True)] for rows in both]
            assert found == before
            await claims.write_outcomes(
                worker,
                claim,
                claim.jobs,
                {"covered_from": [None] * 5, "metrics": ["{}"] * 5, "algorithm_version": ["1"] * 5},
                "w",
                claims.Took(0, {}),
            )

    asyncio.run(upgrade_meanwhile())
    with (
        connect(system.dsn(Purpose.QUEUE)) as queue,
        connect(system.dsn(Purpose.RESULTS)) as results,
    ):
        progress = read_progress(queue, [day(2)])[0]
        assert (progress.succeeded, progress.held, progress.waived) == (5, 1, 0)
        manifest = publications.find_day(results, day(1))
        assert manifest is not None
        assert (manifest.snapshot_id, manifest.left_out, manifest.decision) == (None, 0, "")
        assert publications.read_history(results, day(1)) == [manifest]
