"""Nobody outside can hold the locks of planning, publishing and `db init`; who holds one is named."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pytest
from pgqueuer.adapters.persistence import schema_plan
from pgqueuer.domain.settings import DBSettings
from psycopg.conninfo import make_conninfo

import episodes_assets
from episodes_assets.errors import LockHeld, StateGap
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import cancel_day
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import init as provision_init
from episodes_assets.postgres.provision.schema import downgrade
from episodes_assets.postgres.provision.status import read_status
from episodes_assets.results import state
from episodes_assets.results.publish import publish_day
from episodes_assets.settings import Settings, load_settings
from episodes_assets_tests.support.own_server import OwnServer
from episodes_assets_tests.support.plans import record
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

Act = Callable[[Connection], object]
Init = Callable[..., None]


@pytest.fixture(autouse=True)
def _looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.1)


@contextmanager
def holding(dsn: str, *statements: str) -> Iterator[int]:
    """Somebody's session that did something and then nothing more; its process id."""
    with psycopg.connect(dsn, application_name="forgotten psql") as session:
        for statement in statements:
            session.execute(statement)
        yield session.info.backend_pid
        session.rollback()


def refusal_of(wait: Callable[[float], None]) -> str:
    """What is said to who does not get a lock.

    The holder is looked up meanwhile, for which a busy machine may need longer than the shortest wait.

    Args:
        wait: Waits for a lock for some seconds.
    """
    for seconds in (1, 5, 25, 100):
        try:
            wait(seconds)
        except LockHeld as held:
            return str(held)
        except psycopg.errors.LockNotAvailable:
            continue
    pytest.fail("nobody was named")


def refused(system: System, purpose: Purpose, act: Act) -> str:
    """What is said to who does not get a lock of a database."""

    def wait(seconds: float) -> None:
        with (
            pytest.MonkeyPatch.context() as patch,
            connect(system.dsn(purpose), autocommit=True, lock_seconds=seconds) as connection,
        ):
            patch.setattr(state, "_WRITER_LOCK_SECONDS", seconds)
            act(connection)

    return refusal_of(wait)


def plan_and_finish(system: System) -> None:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        record(queue, 1, 2)
        fan_out_day(queue, day(1))
    system.finish_jobs(views=5)


def publish(system: System, results: Connection) -> object:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        return publish_day(queue, results, system.viewings, day(1), "1")


def test_no_advisory_lock_is_used() -> None:
    """Whoever may connect can take any of them and keep it."""
    sources = Path(episodes_assets.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "pg_advisory" in path.read_text()] == []


@pytest.mark.parametrize(
    ("purpose", "table"),
    [
        (Purpose.WORKER, "ledger.locks"),
        (Purpose.CONSUMER, "state.locks"),
        (Purpose.DAGSTER, "dashboard.locks"),
    ],
)
def test_outsiders_cannot_take_our_locks(system: System, purpose: Purpose, table: str) -> None:
    with psycopg.connect(system.dsn(purpose), autocommit=True) as outsider:
        for statement in (
            f"SELECT FROM {table} FOR UPDATE",
            f"SELECT FROM {table} FOR KEY SHARE",
            f"LOCK TABLE {table} IN ACCESS SHARE MODE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), outsider.transaction():
                outsider.execute(statement)


@pytest.mark.long
def test_a_consumer_and_a_worker_stop_nobody_with_advisory_locks(system: System) -> None:
    of_the_day = f"{day(1).toordinal()}"
    with (
        holding(
            system.dsn(Purpose.CONSUMER),
            "SET idle_in_transaction_session_timeout = 0",
            "SELECT pg_advisory_lock(7301853)",
            f"SELECT pg_advisory_lock(hashtext('publish'), {of_the_day})",
        ),
        holding(system.dsn(Purpose.WORKER), f"SELECT pg_advisory_lock(hashtext('plan'), {of_the_day})"),
    ):
        system.generate(day(1), day(1))
        system.plan(day(1))
        system.finish_jobs()
        result = system.materialize(day(1), select=["published_results"])
        assert result.success


def lock_by_hand(table: str, name: str) -> tuple[str, str]:
    insert = f"INSERT INTO {table} (name) VALUES ('{name}') ON CONFLICT DO NOTHING"
    return insert, f"SELECT FROM {table} WHERE name = '{name}' FOR UPDATE"


@pytest.mark.parametrize("what", ["plan", "publish", "state", "accounts"])
def test_who_holds_one_of_our_locks_is_named(system: System, what: str) -> None:
    plan_and_finish(system)
    cases: dict[str, tuple[Purpose, str, str, Act]] = {
        "plan": (Purpose.QUEUE, "ledger.locks", f"plan {day(1)}", lambda queue: record(queue, 2, 3)),
        "publish": (Purpose.RESULTS, "state.locks", f"publish {day(1)}", partial(publish, system)),
        "state": (Purpose.RESULTS, "state.locks", "state", enter_state),
        "accounts": (Purpose.DASHBOARD, "dashboard.locks", "login 00", lock_login),
    }
    purpose, table, name, act = cases[what]
    with holding(system.dsn(purpose), *lock_by_hand(table, name)) as pid:
        said = refused(system, purpose, act)
    assert f"held by pid {pid} (role {purpose.embedded_role}, application 'forgotten psql'" in said
    assert "idle in transaction since 20" in said
    assert f"pg_terminate_backend({pid})" in said


def lock_login(accounts: Connection) -> None:
    locks.lock_row(accounts, locks.ACCOUNTS, "login 00")


def enter_state(lock: Connection) -> None:
    with state.only_writer(lock):
        pass


@pytest.mark.parametrize(
    "act",
    [
        lambda queue: record(queue, 2, 3),
        lambda queue: cancel_day(queue, day(1), reason="r", cancelled_by="b"),
    ],
)
def test_a_worker_that_keeps_a_chunk_is_named(system: System, act: Act) -> None:
    plan_and_finish(system)
    with holding(system.dsn(Purpose.WORKER), "SELECT FROM ledger.chunks FOR UPDATE") as pid:
        said = refused(system, Purpose.QUEUE, act)
    # Of another role's session the orchestrator may not see since when it is so.
    assert f"held by pid {pid} (role episodes_worker, application 'forgotten psql')" in said


def test_what_waits_a_while_and_gets_its_lock_goes_on(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    plan_and_finish(system)
    dsn = system.dsn(Purpose.QUEUE)
    with (
        connect(dsn, autocommit=True) as queue,
        psycopg.connect(dsn) as other,
        locks.LockWatch(dsn, queue) as watch,
        ThreadPoolExecutor(1) as pool,
    ):
        locks.lock_row(other, locks.LEDGER, f"plan {day(1)}")
        planning = pool.submit(record, queue, 2, 3)
        while not watch.holders:
            assert not planning.done()
        other.rollback()
        assert planning.result()[1] is True
        pid = other.info.backend_pid
    assert f"waiting for a lock that is held by pid {pid}" in caplog.text


@pytest.fixture
def init(system: System, embedded_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Init:
    """`db init` of the system's databases, which waits some seconds for locks."""
    dsns = Dsns(system.dsns.by_purpose, is_embedded=True)

    def run(seconds: float = 100) -> None:
        monkeypatch.setattr(provision_init, "SCHEMA_LOCK_SECONDS", seconds)
        monkeypatch.setattr(provision_init, "_LOCK_SECONDS", seconds)
        provision_init.provision(embedded_settings, dsns, lambda _: None)

    return run


@pytest.mark.long
@pytest.mark.parametrize(
    ("purpose", "statement", "version"),
    [
        (Purpose.CONSUMER, "SELECT FROM published.reach", None),
        (Purpose.CONSUMER, "SELECT FROM published.days", "results_0003"),
        (Purpose.WORKER, "SELECT FROM ledger.plans", "queue_0007"),
    ],
)
def test_init_names_the_reader_it_waits_for(
    system: System, init: Init, purpose: Purpose, statement: str, version: str | None
) -> None:
    if version:
        downgrade(purpose.database, system.admin[purpose.database], version)
    with holding(system.dsn(purpose), statement) as pid:
        said = refusal_of(init)
        assert f"pid {pid} (role {purpose.embedded_role}, application 'forgotten psql', idle in" in said
        status = {each.database: each for each in read_status(system.dsns)}
        assert version is None or status[purpose.database].schema_version == version
    init()
    assert all(each.is_current for each in read_status(system.dsns))


@pytest.mark.long
def test_init_names_who_keeps_it_from_upgrading_pgqueuer(system: System, init: Init) -> None:
    key = schema_plan.advisory_key(DBSettings())
    lock = f"SELECT pg_advisory_lock({key})"
    with holding(system.dsn(Purpose.WORKER), lock) as pid:
        assert f"held by pid {pid} " in refusal_of(init)
    init()


@pytest.mark.long
def test_init_goes_on_whatever_a_role_holds_elsewhere(
    tcp_server: OwnServer, tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old lock in the server's own database, and a connection to what databases are copied from."""
    provision_init.provision(load_settings(), tcp_environment, lambda _: None)
    fresh = {
        p: dsn.replace("/prod_", "/again_").replace("//again_", "//prod_")
        for p, dsn in tcp_environment.by_purpose.items()
    }
    consumer = tcp_environment.require(Purpose.CONSUMER)
    lock = "SELECT pg_advisory_lock(hashtext('episodes db init'))"
    with (
        holding(make_conninfo(consumer, dbname="postgres"), lock),
        holding(make_conninfo(consumer, dbname="template1"), "SELECT 1"),
    ):
        provision_init.provision(load_settings(), Dsns(fresh, is_embedded=False), lambda _: None)
    assert all(status.is_current for status in read_status(Dsns(fresh, is_embedded=False)))


def test_init_waits_for_another_one_and_names_it(system: System, init: Init) -> None:
    name = system.query("dagster", "SELECT current_database()")[0][0]
    comment = f"COMMENT ON DATABASE {name} IS 'at work'"
    with holding(system.admin["dagster"], comment) as pid:
        assert f"by pid {pid} " in refusal_of(init)
    with psycopg.connect(system.dsn(Purpose.DAGSTER)) as role, pytest.raises(psycopg.Error, match="must be"):
        role.execute(comment)
    init()
    comments = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
    assert system.query("dagster", comments, [name]) == [(None,)]


@pytest.mark.long
def test_a_state_whose_yesterday_changed_meanwhile_is_not_built_on(system: System) -> None:
    """Also when the lock of its only writer was lost with its connection."""
    add = partial(state.record_day, code_version="1")
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        first, _ = add(results, day(1), np.array([1]), yesterday=None, snapshot_id="s")
        add(results, day(1), np.array([1, 2]), yesterday=None, snapshot_id="another drop")
        with pytest.raises(StateGap, match="another run has changed the tracked episodes of 2018-03-01"):
            add(results, day(2), np.array([3]), yesterday=first, snapshot_id="s")
