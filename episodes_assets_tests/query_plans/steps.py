"""What the product asks of growing tables in several steps, as publishing a day; `statements` names each."""

import datetime as dt
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pgqueuer.models import Job

from episodes_assets.accounts import audit, sessions, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.alerts import conditions
from episodes_assets.alerts.conditions import Alert, Assessment, Severity
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import StateGap
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import claims, dispatch, profiles
from episodes_assets.ledger import copies as ledger_copies
from episodes_assets.ledger.claims import Claim, JobFailure, Took
from episodes_assets.ledger.copies import PlanRecord
from episodes_assets.ledger.dispatch import ChunkMessage
from episodes_assets.ledger.held import (
    read_held,
    read_left_out,
    read_waivers,
    retry_held_job,
    waive_held_jobs,
)
from episodes_assets.ledger.messages import OwnMessages
from episodes_assets.ledger.plans import record_plan
from episodes_assets.ledger.profiles import Kind, Seen
from episodes_assets.outbox import messages, records
from episodes_assets.postgres import processes
from episodes_assets.postgres.arrow import bounded_session
from episodes_assets.postgres.databases import Database
from episodes_assets.profiling.engines import Sampling
from episodes_assets.results import copies as results_copies
from episodes_assets.results import publications, publish, state
from episodes_assets.results.provenance import read_provenance
from episodes_assets.results.repairs import RepairDecision
from episodes_assets.results.repairs import record_repair as record_of_repair
from episodes_assets.results.verify import (
    read_publication,
    read_records,
)
from episodes_assets_tests.query_plans.cases import Open
from episodes_assets_tests.query_plans.growing_tables import (
    CHUNK_JOBS,
    MESSAGES_OF_WORKER,
    MOVED_FIRST,
    NEVER_MOVED,
    OTHER_PLAN,
    THE_DAY,
    THE_PLAN,
)
from episodes_assets_tests.support.plans import NO_DIGEST

_PASSWORD = "correct horse battery staple"
_WHY = RepairDecision("why", "who", "run")
_LIVES = Lifetimes(dt.timedelta(hours=12), dt.timedelta(hours=1))


def _viewings(to: Open) -> Viewings:
    return Viewings(str(to.tables.system.home / "lake"))


def plan_again(to: Open, checksum: str = "another", snapshot: str = "s") -> None:
    record_plan(
        to.queue,
        THE_DAY,
        pd.DataFrame({"epid": [1], "algorithm_id": [0], "window_start": [pd.Timestamp(THE_DAY)]}),
        checksum=checksum,
        snapshot_id=snapshot,
        code_version="1",
        chunk_jobs=CHUNK_JOBS,
        viewings=NO_DIGEST,
    )


def plan_once_more(to: Open) -> None:
    plan_again(to, "c", "another")


def compare(to: Open) -> None:
    lake = str(to.tables.system.home / "lake")
    read_records(to.queue, to.results, Drops(lake), _viewings(to), None)


def fan_out_anew(to: Open) -> None:
    to.queue.execute("UPDATE ledger.chunks SET message_id = NULL WHERE plan_id = %s", [THE_PLAN])
    dispatch.fan_out_day(to.queue, THE_DAY)


def waive(to: Open) -> None:
    waive_held_jobs(to.queue, THE_DAY, reason="why", decided_by="who")
    read_waivers(to.queue, [OTHER_PLAN, THE_PLAN])
    read_left_out(to.queue, THE_PLAN)


def retry_one(to: Open) -> None:
    (held,) = read_held(to.queue, [THE_PLAN], each=1)
    retry_held_job(to.queue, THE_DAY, held.epid, held.algorithm_id)


def ask_for_worker(to: Open) -> None:
    to.queue.execute("UPDATE ledger.workers SET seen_at = now() WHERE worker = 'w7'")
    profiles.request_worker(to.queue, "w7", Sampling(), requested_by="b")


def profile_step(to: Open) -> None:
    claim = profiles.begin_step(
        to.queue,
        "another",
        Sampling(),
        run_id="r",
        requested_by="b",
        reason="why",
        day=THE_DAY,
        claimed_by="h-1",
        not_within=dt.timedelta(hours=1),
    )
    assert claim is not None
    assert profiles.store(to.queue, claim, Seen(problem="x"))


async def take_profile(to: Open) -> None:
    claim = await profiles.claim_profile(to.worker, Kind.WORKER, "w7")
    assert claim is not None
    await profiles.store_as_worker(to.worker, claim, Seen(problem="x"))


def tell_of_alerts(to: Open) -> None:
    """One alert goes on, one is new, the others end; a message is sent, and another one refused."""
    new = {each.key: each for each in map(_alert, ("5", "new"))}
    channels = list(ChannelName)
    now = records.read_clock(to.queue)
    records.evaluate(
        to.queue,
        Assessment(new, set(conditions.Kind)),
        channels,
        now,
        dt.timedelta(days=1),
        records.Evaluator.SENSOR,
    )
    for is_delivered in (True, False):
        message = messages.claim_message(to.queue, channels, now, dt.timedelta(minutes=1))
        assert message is not None
        if is_delivered:
            messages.record_delivery(to.queue, message, now)
        else:
            messages.record_failure(to.queue, message, "no", now)


def _alert(subject: str) -> Alert:
    return Alert(conditions.Kind.RUNS_FAILED, subject, Severity.ERROR, "s", "d", "h")


def read_profile(to: Open) -> None:
    newest = profiles.read_profiles(to.queue, 1)[0]
    profiles.read_profile(to.queue, newest.profile_id)


async def claim_one(to: Open, message: ChunkMessage) -> Claim:
    claim = await claims.claim_chunk(to.worker, message, "w")
    assert claim is not None
    assert len(claim.jobs) == CHUNK_JOBS
    return claim


async def work(to: Open, message: ChunkMessage) -> None:
    claim = await claim_one(to, message)
    await claims.count_start(to.worker, claim, claim.jobs)
    await claims.uncount_start(to.worker, claim, claim.jobs)
    outcomes: dict[str, list[Any]] = {
        "covered_from": [None] * len(claim.jobs),
        "metrics": ['{"views": 1}'] * len(claim.jobs),
        "algorithm_version": ["1"] * len(claim.jobs),
    }
    half = len(claim.jobs) // 2
    for part in (slice(half), slice(half, None)):
        await claims.write_outcomes(
            to.worker, claim, claim.jobs[part], {k: v[part] for k, v in outcomes.items()}, "w", Took(0.1, {})
        )


async def fail(to: Open, message: ChunkMessage) -> None:
    claim = await claim_one(to, message)
    await claims.count_start(to.worker, claim, claim.jobs[:1])
    await claims.uncount_start(to.worker, claim, claim.jobs[:1])
    await claims.record_failures(to.worker, claim, claim.jobs[:1], JobFailure("why", ""), 1)
    await claims.release_claim(to.worker, claim)


async def end_messages(to: Open) -> None:
    """Those of another worker, of which none is ended: PgQueuer's own statements are not looked at."""
    ids = to.tables.system.query(
        "queue", "SELECT id FROM pgqueuer WHERE status = 'queued' ORDER BY id LIMIT %s", [MESSAGES_OF_WORKER]
    )
    a_message: Any = Job.model_construct
    jobs = [a_message(id=number, queue_manager_id=uuid.uuid4()) for (number,) in ids]
    assert len(jobs) == MESSAGES_OF_WORKER
    own = OwnMessages(to.messages)
    await own.log_jobs([(job, "successful", None) for job in jobs])
    await own.retry_job(jobs[0], dt.timedelta(0), None)


def publish_twice(to: Open) -> None:
    # Its transaction on the queue begins with its isolation level, so it is not within another one. What is
    # published has a made-up checksum, as of other code.
    with to.tables.finished(), to.results.transaction(force_rollback=True):
        for _ in range(2):
            _, changed = publish.publish_day(to.queue, to.results, _viewings(to), THE_DAY, "2")
    assert not changed


def repair_publication(to: Open) -> None:
    with to.tables.finished(), to.results.transaction(force_rollback=True):
        publish.publish_day(to.queue, to.results, _viewings(to), THE_DAY, "2", _WHY)


def find_damage(to: Open) -> None:
    # In no transaction, as `publish`.
    found = read_provenance(to.queue, to.results, THE_DAY)
    found.describe_damage(to.queue, to.queue_dsn, publish.CODE_VERSION)
    found.has_other_outcomes(to.queue, publish.CODE_VERSION)


def copy_plan(to: Open) -> None:
    """As a lab is taken, on a connection of its own."""
    with bounded_session(to.queue_dsn, "copy") as queue:
        assert len(ledger_copies.read_current_plans(queue, [THE_DAY])) == 1
        ledger_copies.read_first_window(queue, THE_PLAN)
        assert len(ledger_copies.read_plan_rows(queue, THE_PLAN).jobs) == to.jobs


def put_plan(to: Open) -> None:
    """As a lab is loaded."""
    with bounded_session(to.queue_dsn, "copy") as queue:
        rows = ledger_copies.read_plan_rows(queue, NEVER_MOVED)
    first = rows.jobs.slice(0, 1).select(["position"])
    record = PlanRecord(
        day=THE_DAY + 30 * ONE_DAY,
        plan_id=MOVED_FIRST + 100,
        plan_uid=uuid.uuid4(),
        checksum="c",
        snapshot_id="s",
        code_version="1",
        planned_at=dt.datetime.now(dt.UTC),
        fanned_out_at=None,
        tracked_checksum=None,
        viewings_version=1,
        viewings_digest="d",
    )
    assert ledger_copies.put_plan(to.queue, record, replace(rows, waived=first), "w")


def copy_state(to: Open) -> None:
    with bounded_session(to.results_dsn, "copy") as results:
        results_copies.read_state(results, THE_DAY)
        results_copies.read_total(results, THE_DAY)
        assert len(results_copies.read_publications(results, [THE_DAY])) == 1


def read_back(to: Open) -> None:
    manifest = publications.find_day(to.results, THE_DAY)
    assert manifest is not None
    read_publication(to.queue, to.results, [manifest])


def record_titles(to: Open) -> None:
    # Half of them are there, of an earlier day.
    epids = publish._read_published_episodes(to.results, THE_DAY) + 7 * to.jobs // 4
    named = pa.table({"epid": epids, **dict.fromkeys(("season", "episode"), pa.nulls(len(epids)))})
    for name in ("series", "title"):
        named = named.append_column(name, pa.array(["another"] * len(epids)))
    publish._write_titles(to.results, THE_DAY, named)


def read_tracked(to: Open) -> None:
    # It reads on a connection of its own, which must see the day.
    day = state.read_day(to.results, THE_DAY)
    # All is read, then refused: the checksums of these days are made up.
    with pytest.raises(StateGap, match="not those that its manifest says"):
        state.read_tracked(to.results_dsn, day)


def export_state(to: Open) -> None:
    # As above.
    with pytest.raises(StateGap, match="not those that its manifest says"):
        results_copies.export_state(to.results_dsn, THE_DAY)


def miss(to: Open) -> None:
    with pytest.raises(StateGap):
        state.state_before(to.results, THE_DAY + 7 * ONE_DAY)


def track(to: Open, day: dt.date, newly: int | None = None, repair: RepairDecision | None = None) -> None:
    yesterday = state.read_day(to.results, day - ONE_DAY)
    epids = np.arange(1, (newly or to.jobs) + 1, dtype=np.int64) * 7 + 2
    state.record_day(
        to.results, day, epids, yesterday=yesterday, snapshot_id="s", code_version="1", repair=repair
    )


def begin(to: Open) -> None:
    epids = np.arange(1, to.jobs + 1, dtype=np.int64) * 7 + 2
    state.record_day(
        to.results, THE_DAY, epids, yesterday=None, snapshot_id="s", code_version="1", repair=_WHY
    )


def read_other_total(to: Open) -> None:
    day = state.read_day(to.results, THE_DAY)
    assert day is not None
    with pytest.raises(StateGap):
        state.read_tracked(to.results_dsn, replace(day, total=day.total + 1))


def log_in(to: Open) -> None:
    users.set_password(to.accounts, "new6", _PASSWORD)
    assert users.log_in(to.accounts, "new6", _PASSWORD)


def register_process(to: Open) -> None:
    processes._registered.clear()
    processes.register(to.dagster, "development")


def look_for_older_processes(to: Open) -> None:
    # As of a release that none of them knows.
    processes.read_older(to.dagster, dict.fromkeys(Database, "z"))


def record_repair(to: Open) -> None:
    record_of_repair(to.results, THE_DAY, "another", _WHY)


def record_event(to: Open) -> None:
    audit.record(to.accounts, who="new1", method=None, what="x", detail={}, address="a", outcome="ok")


def begin_session(to: Open) -> None:
    sessions.start_session(to.accounts, Identity("new1", Role.VIEWER, AuthMethod.PASSWORD), _LIVES)
