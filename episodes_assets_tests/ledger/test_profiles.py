"""Profiles in the queue: asked for within bounds, taken once under a claim, given up in time, pruned."""

import datetime as dt
from typing import Any

import psycopg
import pytest

from episodes_assets.errors import ProfileMissing, ProfilerUnavailable
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import Kind, Seen, State
from episodes_assets.ledger.workers import Activity, WorkerName, read_workers, send_heartbeat
from episodes_assets.postgres.connect import AsyncConnection, Connection
from episodes_assets.profiling.engines import Sampling
from episodes_assets.profiling.stacks import Frame, Profile
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import run_async

PROFILE = Profile(100, {(Frame("main", "a.py", 1), Frame("<script>", "b.py", 2)): 250})
SEEN = Seen("py-spy", PROFILE.pack(), PROFILE.samples)


def ask(queue: Connection, batches: int = 1, **more: Any) -> list[int]:
    return profiles.request_batches(queue, batches, Sampling(), requested_by="ana", **more)


def states(queue: Connection) -> dict[int, str]:
    return {row.profile_id: row.state for row in profiles.read_profiles(queue, 100)}


def test_a_profile_is_asked_for_taken_and_read(system: System, queue: Connection) -> None:
    first, second = ask(queue, 2, day=day(1))

    async def work(connection: AsyncConnection) -> None:
        assert await profiles.claim_profile(connection, Kind.BATCH, "w1", day(2)) is None
        assert await profiles.claim_profile(connection, Kind.WORKER, "w1") is None
        claim = await profiles.claim_profile(connection, Kind.BATCH, "w1", day(1))
        assert claim is not None
        assert (claim.profile_id, claim.sampling) == (first, Sampling())
        assert states(queue) == {first: State.RUNNING, second: State.WAITING}
        other = await profiles.claim_profile(connection, Kind.BATCH, "w2", day(1))
        assert other is not None
        assert await profiles.claim_profile(connection, Kind.BATCH, "w3", day(1)) is None
        assert await profiles.store_as_worker(connection, claim, SEEN)
        assert not await profiles.store_as_worker(connection, claim, Seen(problem="again"))
        assert await profiles.store_as_worker(connection, other, Seen(problem="it is gone"))

    run_async(system, work)
    row, seen = profiles.read_profile(queue, first)
    assert seen == PROFILE
    assert (row.state, row.claimed_by, row.engine, row.seconds) == (State.DONE, "w1", "py-spy", 2.5)
    assert row.title == "micro-batch of 2018-03-01 by w1"
    row, seen = profiles.read_profile(queue, second)
    assert (row.state, row.problem, seen) == (State.FAILED, "it is gone", None)
    with pytest.raises(ProfileMissing, match="there is no profile 99"):
        profiles.read_profile(queue, 99)


def test_who_is_killed_meanwhile_keeps_nobody_from_it(system: System, queue: Connection) -> None:
    (number,) = ask(queue)

    async def work(connection: AsyncConnection) -> None:
        killed = await profiles.claim_profile(connection, Kind.BATCH, "killed", day(1))
        assert killed is not None
        assert await profiles.claim_profile(connection, Kind.BATCH, "w", day(1)) is None
        system.query("queue", "UPDATE ledger.profiles SET claimed_at = now() - interval '3 minutes'")
        assert states(queue) == {number: State.WAITING}
        again = await profiles.claim_profile(connection, Kind.BATCH, "w", day(1))
        assert again is not None
        assert again.profile_id == number
        assert not await profiles.store_as_worker(connection, killed, SEEN)  # the token is another's
        system.query("queue", "UPDATE ledger.profiles SET claimed_at = now() - interval '3 minutes'")
        system.query("queue", "UPDATE ledger.profiles SET expires_at = now() - interval '1 second'")
        assert await profiles.claim_profile(connection, Kind.BATCH, "w", day(1)) is None
        assert states(queue) == {number: State.EXPIRED}
        # What comes late, and whose claim nobody has taken, is kept.
        assert await profiles.store_as_worker(connection, again, SEEN)

    run_async(system, work)
    assert states(queue) == {number: State.DONE}


def test_requests_are_bounded(system: System, queue: Connection) -> None:
    for batches in (0, profiles.MOST_BATCHES + 1):
        with pytest.raises(ProfilerUnavailable, match=f"{batches} micro-batches cannot be profiled at once"):
            ask(queue, batches)
    for _ in range(profiles.MOST_OPEN // profiles.MOST_BATCHES):
        ask(queue, profiles.MOST_BATCHES)
    with pytest.raises(ProfilerUnavailable, match="40 profiles are waited for already"):
        ask(queue)
    system.query("queue", "UPDATE ledger.profiles SET expires_at = now() - interval '1 second'")
    assert len(ask(queue)) == 1
    refused = [
        ("stacks = convert_to(repeat('x', 1000000), 'UTF8')", "check"),
        ("rate = 1001", "check"),
        ("most_seconds = 601", "check"),
        ("claim = gen_random_uuid()", "a_claim_is_whole"),
        ("kind = 'worker'", "a_worker_is_named"),
    ]
    for change, constraint in refused:
        with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
            queue.execute(f"UPDATE ledger.profiles SET {change}".encode())


def test_a_worker_takes_profiles_and_asks_for_none(system: System, queue: Connection) -> None:
    ask(queue)

    async def work(connection: AsyncConnection) -> None:
        for statement in (
            (
                "INSERT INTO ledger.profiles (kind, reason, requested_by, expires_at, rate, most_seconds)"
                " VALUES ('batch', '', '', now(), 1, 1)"
            ),
            "DELETE FROM ledger.profiles",
            "UPDATE ledger.profiles SET rate = 1000",
            "UPDATE ledger.profiles SET subject = 'w'",
            "UPDATE ledger.profiles SET expires_at = now() + interval '1 year'",
            "UPDATE ledger.profiles SET requested_by = 'w'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)

    run_async(system, work)


def test_one_worker_is_asked_by_any_of_its_names(system: System, queue: Connection) -> None:
    with pytest.raises(ProfilerUnavailable, match=r"no worker that lives is called 'worker-1': start one"):
        profiles.request_worker(queue, "worker-1", Sampling(), requested_by="ana")

    async def live(connection: AsyncConnection) -> None:
        for number, age in ((7, 5), (8, 500), (9, 50)):
            name = WorkerName("here", number, "1.2")
            await send_heartbeat(connection, name, Activity(began=Activity().began - age))

    run_async(system, live)
    system.query("queue", "UPDATE ledger.workers SET seen_at = now() - interval '1 hour' WHERE pid = 9")
    living = read_workers(queue)
    named = {
        name: profiles.find_worker(living, name).name for name in ("here-7", "8", "worker-1", "worker-2")
    }
    assert named == {"here-7": "here-7", "8": "here-8", "worker-1": "here-8", "worker-2": "here-7"}
    for name in ("", "9", "here-9", "worker-0", "worker-3", "worker-", "worker-99999999999", "worker-²", "%"):
        with pytest.raises(
            ProfilerUnavailable, match=r"no worker that lives is called .*: name one of: here-8"
        ):
            profiles.find_worker(living, name)
    number = profiles.request_worker(queue, "worker-1", Sampling(seconds=1), requested_by="ana")

    async def work(connection: AsyncConnection) -> None:
        assert await profiles.claim_profile(connection, Kind.WORKER, "here-7") is None
        claim = await profiles.claim_profile(connection, Kind.WORKER, "here-8")
        assert claim is not None
        assert (claim.profile_id, claim.sampling.seconds) == (number, 1)

    run_async(system, work)
    assert profiles.read_profile(queue, number)[0].title == "worker here-8"


def begin(queue: Connection, step: str = "episode_jobs", by: str = "slow", hours: int | None = 1) -> Any:
    return profiles.begin_step(
        queue, step, Sampling(), run_id="r", requested_by=by, reason="why", day=None, claimed_by="here-1",
        not_within=None if hours is None else dt.timedelta(hours=hours),
    )  # fmt: skip


def test_a_step_is_profiled_by_itself_once_in_an_hour(system: System, queue: Connection) -> None:
    assert begin(queue) is not None
    assert begin(queue) is None
    assert begin(queue, step="tracked_episodes") is not None
    assert begin(queue, by="ana", hours=None) is not None
    assert begin(queue, by="ana", hours=None) is not None
    system.query("queue", "UPDATE ledger.profiles SET requested_at = now() - interval '61 minutes'")
    claim = begin(queue)
    assert claim is not None
    assert profiles.store(queue, claim, SEEN)
    assert ask(queue, 2, not_within=dt.timedelta(hours=1))
    assert ask(queue, 2, not_within=dt.timedelta(hours=1)) == []

    # No worker takes a step's.
    async def work(connection: AsyncConnection) -> None:
        assert await profiles.claim_profile(connection, Kind.STEP, "here-1") is None

    run_async(system, work)


def test_what_a_run_wanted_and_nobody_has_begun_is_withdrawn(queue: Connection) -> None:
    (kept,) = ask(queue)
    (other,) = ask(queue, run_id="other")
    ask(queue, 2, run_id="r")
    claim = begin(queue)
    assert profiles.withdraw(queue, "r") == 2
    assert profiles.withdraw(queue, "r") == 0
    assert [row.profile_id for row in profiles.read_profiles_of_run(queue, "r")] == [claim.profile_id]
    assert states(queue).keys() == {kept, other, claim.profile_id}
