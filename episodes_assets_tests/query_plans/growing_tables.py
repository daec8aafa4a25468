"""Tables as they are after years, and what PostgreSQL's statistics may say of them."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from episodes_assets.days import ONE_DAY
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

OTHER_DAY = dt.date(2018, 3, 1)
THE_DAY = dt.date(2018, 3, 2)
OTHER_PLAN, THE_PLAN = 5_001, 5_002
FINISHED_PLANS = 1_000
FINISHED_CHUNKS = 25  # of each
WAIVERS = 3  # of each
CHUNK_JOBS = 2_000
# Of the day: a chunk that a worker holds, and one that waits. The others are finished.
OPEN_CHUNKS = 2
HELD = 50
# Two days of small chunks that all wait: one whose jobs never moved, one whose jobs moved before any others.
NEVER_MOVED, MOVED_FIRST = 5_003, 5_004
WAITING_CHUNKS, WAITING_CHUNK_JOBS = 250, 4  # of each
MESSAGES_OF_WORKER = 10
OLD_LOG_ROWS = 40
OPEN_ALERTS, OLD_ALERTS = 20, 10
REPAIRS = 5  # of the day, by one run
PROCESSES, OLD_PROCESSES = 1_000, 5  # started within thirty days, after which they are forgotten
PROFILES = 10  # that wait, of one run, long ago
FIRST_FINISHED = 10_000
FINISHED_DAYS = [dt.date(2010, 1, 1) + n * ONE_DAY for n in range(1, FINISHED_PLANS + 1)]

TABLES = {
    "queue": (
        "ledger.plans", "ledger.chunks", "ledger.jobs", "ledger.outcomes", "ledger.job_attempts",
        "ledger.batches", "ledger.waivers", "ledger.workers", "ledger.profiles", "ledger.locks",
        "public.pgqueuer", "public.pgqueuer_log", "alerts.alerts", "alerts.messages",
    ),
    "results": (
        "state.tracked_episodes", "state.tracked_days", "state.locks", "published.results",
        "published.days", "published.history", "published.episodes", "published.repairs",
        "published.restore_points",
    ),
    "dagster": (
        "dashboard.users", "dashboard.sessions", "dashboard.service_tokens", "dashboard.login_attempts",
        "dashboard.audit_log", "public.processes",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class GrowingTables:
    """The tables of a system that grow with days, jobs, logins or events.

    Attributes:
        system: Theirs.
        jobs: Of a day; as many rows have the tables of the state and of the accounts.
    """

    system: System
    jobs: int

    def leave_alone(self) -> None:
        """Let no autovacuum look at them: only `analyze` does."""
        self._each("ALTER TABLE {} SET (autovacuum_enabled = off)")

    def empty(self) -> None:
        for database, tables in TABLES.items():
            self.system.query(database, f"TRUNCATE {', '.join(tables)} CASCADE")

    def analyze(self) -> None:
        self._sweep("(ANALYZE)")

    def forget_statistics(self) -> None:
        """As of tables that were never analysed."""
        self._sweep()
        self._clear_columns()
        self._each_name("SELECT pg_clear_relation_stats({})")

    def remember_them_empty(self) -> None:
        """As of tables that were analysed before they had rows."""
        self._sweep()
        self._clear_columns()
        self._each_name("SELECT pg_restore_relation_stats({}, 'relpages', 0, 'reltuples', 0::real)")

    def fill_other_day(self) -> None:
        """What was there before the day came."""
        self._finished_plans()
        self._plan(OTHER_PLAN, OTHER_DAY, jobs=self.jobs, finished=self.jobs)
        self.system.query(
            "queue",
            "INSERT INTO public.pgqueuer (priority, status, entrypoint, payload, updated)"
            f" SELECT 0, 'failed', 'x', '', now() FROM generate_series(1, {self.jobs // 50}) AS n",
        )
        self.system.query(
            "queue",
            "INSERT INTO public.pgqueuer_log (priority, status, entrypoint, job_id, aggregated)"
            f" SELECT 0, 'successful', 'x', n, n % 2 = 0 FROM generate_series(1, {self.jobs}) AS n",
        )
        self.system.query(
            "queue",
            "INSERT INTO ledger.profiles (kind, subject, run_id, reason, requested_by, requested_at,"
            " expires_at, rate, most_seconds, finished_at, samples)"
            " SELECT (ARRAY['step', 'batch', 'worker'])[n % 3 + 1], 's', 'run' || n, '', 'a',"
            " at, at, 100, 60, at, 1"
            f" FROM generate_series(1, {self.jobs}) AS n,"
            f" LATERAL (SELECT now() - interval '29 days' * n / {self.jobs}) AS moment (at)",
        )
        self._alerts()
        self._locks()
        self._processes()
        self._published_days()
        self._repairs()
        self._track(OTHER_DAY, first_epid=0, over_days=FINISHED_PLANS)
        self._publish(OTHER_PLAN, OTHER_DAY)
        self._accounts("1 day", "old", self.jobs)

    def fill_the_day(self) -> None:
        """The day itself, most of whose jobs are finished, two that wait, and the accounts' new rows."""
        query, jobs = self.system.query, self.jobs
        finished = jobs - OPEN_CHUNKS * CHUNK_JOBS
        self._plan(THE_PLAN, THE_DAY, jobs=jobs, finished=finished)
        query(
            "queue",
            "INSERT INTO ledger.job_attempts (plan_id, position, starts, is_held, error)"
            f" SELECT {THE_PLAN}, n, 4, true, 'why'"
            f" FROM generate_series({finished}, {finished + HELD - 1}) AS n",
        )
        query(
            "queue",
            f"UPDATE ledger.chunks SET held = {HELD}, claim = gen_random_uuid(), claimed_by = 'w',"
            " claimed_at = now()"
            f" WHERE plan_id = {THE_PLAN} AND first_position = {finished}",
        )
        waiting = WAITING_CHUNKS * WAITING_CHUNK_JOBS
        for plan_id, day in ((NEVER_MOVED, THE_DAY + ONE_DAY), (MOVED_FIRST, THE_DAY + 2 * ONE_DAY)):
            self._plan(plan_id, day, jobs=waiting, finished=0, chunk_jobs=WAITING_CHUNK_JOBS)
        query("queue", f"UPDATE ledger.chunks SET moved_at = NULL WHERE plan_id = {NEVER_MOVED}")
        query("queue", f"UPDATE ledger.chunks SET moved_at = '2009-01-01' WHERE plan_id = {MOVED_FIRST}")
        query(
            "queue",
            # Of the chunk that is named so.
            "INSERT INTO public.pgqueuer (priority, status, entrypoint, payload, updated)"
            " SELECT 0, 'queued', 'x', convert_to(plan_id || ' ' || chunk, 'UTF8'), now()"
            " FROM ledger.chunks WHERE succeeded < jobs",
        )
        query(
            "queue",
            "UPDATE ledger.chunks SET message_id = id FROM public.pgqueuer"
            " WHERE payload = convert_to(plan_id || ' ' || chunk, 'UTF8') AND succeeded < jobs",
        )
        query(
            "queue",
            "INSERT INTO public.pgqueuer_log (created, priority, status, entrypoint, job_id, aggregated)"
            f" SELECT now() - interval '8 days', 0, 'successful', 'x', n, true"
            f" FROM generate_series(1, {OLD_LOG_ROWS}) AS n",
        )
        query(
            "queue",
            "INSERT INTO ledger.workers (worker, host, pid, release, started_at)"
            " SELECT 'w' || n, 'h', n, '1', now() FROM generate_series(1, 40) AS n",
        )
        query(
            "queue",
            "INSERT INTO ledger.profiles (kind, subject, run_id, reason, requested_by, requested_at,"
            " expires_at, rate, most_seconds)"
            " SELECT (ARRAY['batch', 'worker'])[n % 2 + 1], 'w' || n, 'the run', '', 'a',"
            " now() - interval '31 days', now() + interval '1 day', 100, 60"
            f" FROM generate_series(1, {PROFILES}) AS n",
        )
        self._track(THE_DAY, first_epid=1)
        self._publish(THE_PLAN, THE_DAY)
        query(
            "results",
            "INSERT INTO published.repairs (day, what, reason, repaired_by, run_id)"
            f" SELECT '{THE_DAY}', 'what ' || n, 'why', 'who', 'the run'"
            f" FROM generate_series(1, {REPAIRS}) AS n",
        )
        self._accounts("1 hour", "new", 40)

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Let the day be finished while the block lasts."""
        first = self.jobs - OPEN_CHUNKS * CHUNK_JOBS
        self.system.query(
            "queue",
            "INSERT INTO ledger.outcomes (plan_id, position, metrics, algorithm_version, worker)"
            f" SELECT {THE_PLAN}, n, '{{\"views\": 1}}', '1', 'w'"
            f" FROM generate_series({first}, {self.jobs - 1}) AS n",
        )
        yield
        self.system.query(
            "queue", f"DELETE FROM ledger.outcomes WHERE plan_id = {THE_PLAN} AND position >= {first}"
        )

    def _finished_plans(self) -> None:
        query = self.system.query
        plans = f"generate_series(1, {FINISHED_PLANS}) AS p"
        chunks = f"{plans}, generate_series(0, {FINISHED_CHUNKS - 1}) AS c"
        query(
            "queue",
            "INSERT INTO ledger.plans"
            " (plan_id, day, jobs, checksum, snapshot_id, code_version, fanned_out_at)"
            f" OVERRIDING SYSTEM VALUE SELECT {FIRST_FINISHED} + p, date '{FINISHED_DAYS[0]}' + p - 1,"
            f" {FINISHED_CHUNKS * 4}, 'c', 's', '1', now() FROM {plans}",
        )
        query(
            "queue",
            "INSERT INTO ledger.chunks (plan_id, chunk, first_position, jobs, succeeded, held, moved_at)"
            f" SELECT {FIRST_FINISHED} + p, c, c * 4, 4, CASE c WHEN 0 THEN 1 ELSE 4 END,"
            f" CASE c WHEN 0 THEN {WAIVERS} ELSE 0 END, now() - interval '1 day' FROM {chunks}",
        )
        query(
            "queue",
            "INSERT INTO ledger.batches (plan_id, first_position, chunk, jobs, seconds, algorithm_ids,"
            " algorithm_jobs, algorithm_seconds, worker, finished_at)"
            f" SELECT {FIRST_FINISHED} + p, c * 4, c, 4, 0.1, '{{0}}', '{{4}}', '{{0.1}}', 'w',"
            f" now() - interval '1 day' FROM {chunks}",
        )
        query(
            "queue",
            "INSERT INTO ledger.waivers (waiver_id, plan_id, jobs, reason, decided_by)"
            f" OVERRIDING SYSTEM VALUE SELECT (p - 1) * {WAIVERS} + w, {FIRST_FINISHED} + p, 1, 'why', 'who'"
            f" FROM {plans}, generate_series(1, {WAIVERS}) AS w",
        )
        query(
            "queue",
            "INSERT INTO ledger.job_attempts (plan_id, position, starts, is_held, error, waiver_id)"
            " SELECT plan_id, row_number() OVER (PARTITION BY plan_id ORDER BY waiver_id), 4, true, 'why',"
            " waiver_id FROM ledger.waivers",
        )
        query(
            "queue",
            "SELECT setval(pg_get_serial_sequence('ledger.waivers', 'waiver_id'), max(waiver_id))"
            " FROM ledger.waivers",
        )

    def _plan(
        self, plan_id: int, day: dt.date, *, jobs: int, finished: int, chunk_jobs: int = CHUNK_JOBS
    ) -> None:
        query = self.system.query
        query(
            "queue",
            "INSERT INTO ledger.plans"
            " (plan_id, day, jobs, checksum, snapshot_id, code_version, fanned_out_at)"
            f" OVERRIDING SYSTEM VALUE VALUES ({plan_id}, '{day}', {jobs}, 'c', 's', '1', now())",
        )
        query(
            "queue",
            "INSERT INTO ledger.chunks (plan_id, chunk, first_position, jobs, succeeded, moved_at)"
            f" SELECT {plan_id}, n, n * {chunk_jobs}, {chunk_jobs},"
            f" CASE WHEN n * {chunk_jobs} < {finished} THEN {chunk_jobs} ELSE 0 END, now()"
            f" FROM generate_series(0, {jobs // chunk_jobs - 1}) AS n",
        )
        query(
            "queue",
            "INSERT INTO ledger.jobs (plan_id, position, epid, algorithm_id, window_start)"
            f" SELECT {plan_id}, n, n / 2 * 7, n % 2, date '{day}' - 3"
            f" FROM generate_series(0, {jobs - 1}) AS n",
        )
        query(
            "queue",
            "INSERT INTO ledger.outcomes (plan_id, position, metrics, algorithm_version, worker)"
            f" SELECT {plan_id}, n, '{{\"views\": 1}}', '1', 'w'"
            f" FROM generate_series(0, {finished - 1}) AS n",
        )
        query(
            "queue",
            "INSERT INTO ledger.batches (plan_id, first_position, chunk, jobs, seconds, algorithm_ids,"
            " algorithm_jobs, algorithm_seconds, worker)"
            f" SELECT {plan_id}, n * {chunk_jobs}, n, {chunk_jobs}, 0.1, '{{0,1}}', '{{1000,1000}}',"
            f" '{{0.04,0.05}}', 'w' FROM generate_series(0, {finished // chunk_jobs - 1}) AS n",
        )

    def _track(self, day: dt.date, *, first_epid: int, over_days: int = 1) -> None:
        """Add a day to the state, in an order that is neither that of the episodes nor that of the days.

        As in an import, the episodes may have been tracked over many days up to it.
        """
        self.system.query(
            "results",
            "INSERT INTO state.tracked_days"
            " (day, origin, newly_tracked, total, checksum, previous_checksum, code_version)"
            f" SELECT '{day}', 'day', {self.jobs}, total + {self.jobs}, 'c{day}', checksum, '1'"
            f" FROM state.tracked_days WHERE day = date '{day}' - 1",
        )
        self.system.query(
            "results",
            "INSERT INTO state.tracked_episodes"
            f" SELECT n * 7 + {first_epid}, date '{day}' - n % {over_days}"
            f" FROM generate_series(1, {self.jobs}) AS n"
            " ORDER BY n % 777, n",
        )

    def _alerts(self) -> None:
        """Alerts that have ended, with what was told of each; few are open, however many there were."""
        ended = f"generate_series(1, {self.jobs // 10}) AS n"
        columns = "key, kind, severity, summary, detail, hint, first_seen_at, seen_at, opened_at, resolved_at"
        self.system.query(
            "queue",
            f"INSERT INTO alerts.alerts ({columns}) SELECT 'jobs_held', 'jobs_held', 'error', 's', 'd', 'h',"
            f" at, at, at, at FROM {ended},"
            f" LATERAL (SELECT now() - interval '80 days' * n / {self.jobs // 10}) AS moment (at)",
        )
        self.system.query(
            "queue",
            "INSERT INTO alerts.messages (alert_id, channel, event, summary, detail, created_at, not_before,"
            " delivered_at) SELECT alert_id, channel, event, 's', 'd', opened_at, opened_at, opened_at"
            " FROM alerts.alerts, unnest(ARRAY['email', 'slack', 'webhook']) AS channel,"
            " unnest(ARRAY['opened', 'reminded', 'resolved']) AS event",
        )
        self.system.query(
            "queue",
            f"INSERT INTO alerts.alerts ({columns}) SELECT 'runs_failed:' || n, 'runs_failed', 'error', 's',"
            f" 'd', 'h', now(), now(), now(), NULL FROM generate_series(1, {OPEN_ALERTS}) AS n"
            " UNION ALL SELECT 'old', 'runs_failed', 'error', 's', 'd', 'h', at, at, at, at"
            f" FROM generate_series(1, {OLD_ALERTS}), (SELECT now() - interval '99 days') AS moment (at)",
        )
        self.system.query(
            "queue",
            "INSERT INTO alerts.messages (alert_id, channel, event, summary, detail, created_at, not_before)"
            " SELECT alert_id, channel, 'opened', 's', 'd', now(), now()"
            " FROM alerts.alerts, unnest(ARRAY['email', 'slack']) AS channel WHERE resolved_at IS NULL",
        )

    def _locks(self) -> None:
        """A lock for each day, in each database that has some by day."""
        for database, table in (("queue", "ledger.locks"), ("results", "state.locks")):
            self.system.query(
                database,
                f"INSERT INTO {table} SELECT 'plan ' || n FROM generate_series(1, {self.jobs}) AS n",
            )

    def _processes(self) -> None:
        """All of this release; none of them lives."""
        for first, count, days in (("p", PROCESSES, 29), ("old", OLD_PROCESSES, 31)):
            self.system.query(
                "dagster",
                "INSERT INTO public.processes (session, host, pid, program, release, knows, seen_at)"
                f" SELECT '{first}' || n, 'h', n, 'x', '1', '{{}}', now() - interval '1 day' * {days}"
                f" FROM generate_series(1, {count}) AS n",
            )

    def _repairs(self) -> None:
        """Of years, each by a run of its own."""
        self.system.query(
            "results",
            "INSERT INTO published.repairs (day, what, reason, repaired_by, run_id)"
            f" SELECT date '{FINISHED_DAYS[0]}' + n % {FINISHED_PLANS}, 'what', 'why', 'who', 'run ' || n"
            f" FROM generate_series(1, {self.jobs}) AS n",
        )

    def _published_days(self) -> None:
        plans = f"generate_series(1, {FINISHED_PLANS}) AS n"
        for table, times in (("days", 1), ("history", 3)):
            self.system.query(
                "results",
                f"INSERT INTO published.{table} (day, jobs, rows, left_out, decision, checksum, plan_id,"
                " plan_checksum, code_version, algorithm_versions)"
                f" SELECT date '{FINISHED_DAYS[0]}' + n - 1, 1, 1, 0, '', 'c', n, 'c', '1', '{{}}'"
                f" FROM {plans}, generate_series(1, {times})",
            )
        self.system.query(
            "results",
            "INSERT INTO published.restore_points (publication_id, name, day, databases)"
            " SELECT publication_id, 'episodes', day, '{}' FROM published.history",
        )
        self.system.query(
            "results",
            # Up to the day before the other one; nothing is tracked before that.
            "INSERT INTO state.tracked_days"
            " (day, origin, newly_tracked, total, checksum, previous_checksum, code_version)"
            f" SELECT date '{OTHER_DAY}' - {FINISHED_PLANS + 1} + n,"
            " CASE n WHEN 1 THEN 'beginning' ELSE 'day' END,"
            f" 0, 0, 'c' || n, CASE WHEN n > 1 THEN 'c' || n - 1 END, '1' FROM {plans}",
        )

    def _publish(self, plan_id: int, day: dt.date) -> None:
        self.system.query(
            "results",
            "INSERT INTO published.results (day, epid, algorithm_id, window_start, window_end, metrics)"
            f" SELECT '{day}', n / 2 * 7, n % 2, date '{day}' - 3, '{day}', '{{\"views\": 1}}'"
            f" FROM generate_series(0, {self.jobs - 1}) AS n",
        )
        self.system.query(
            "results",
            "INSERT INTO published.episodes SELECT n * 7, 'series', 1, n, 'Episode ' || n, '2018-03-01'"
            # In the order in which they were first published, which is not that of their ids.
            f" FROM generate_series(1, {self.jobs}) AS n ORDER BY n % 777, n ON CONFLICT DO NOTHING",
        )
        for table in ("days", "history"):
            self.system.query(
                "results",
                f"INSERT INTO published.{table} (day, jobs, rows, left_out, decision, checksum, plan_id,"
                " plan_checksum, code_version, algorithm_versions)"
                f" VALUES ('{day}', {self.jobs}, {self.jobs}, 0, '', 'c', {plan_id}, 'c', '1', '{{}}')",
            )

    def _accounts(self, age: str, kind: str, rows: int) -> None:
        series = f"FROM generate_series(1, {rows}) AS n"
        digest = f"sha256(('{kind}' || n)::bytea)"
        self.system.query(
            "dagster",
            "INSERT INTO dashboard.users (name, role, password_hash)"
            f" SELECT '{kind}' || n, 'viewer', 'x' FROM generate_series(1, {min(rows, 200)}) AS n",
        )
        self.system.query(
            "dagster",
            "INSERT INTO dashboard.sessions"
            " (token_hash, name, role, way, started_at, seen_at, absolute, idle)"
            f" SELECT {digest}, '{kind}' || n % 40 + 1, 'viewer', 'password', now(), now(),"
            f" interval '1 day', interval '1 day' {series}",
        )
        self.system.query(
            "dagster",
            "INSERT INTO dashboard.service_tokens (token_hash, name, role, revoked_at)"
            f" SELECT {digest}, '{kind}' || n, 'viewer',"
            f" CASE WHEN n > 40 THEN now() END {series}",
        )
        self.system.query(
            "dagster",
            "INSERT INTO dashboard.login_attempts (subject, failures, failed_at, succeeded_at)"
            f" SELECT {digest}, 1, now(), CASE WHEN n % 2 = 0 THEN now() END {series}",
        )
        self.system.query(
            "dagster",
            "INSERT INTO dashboard.audit_log (at, who, way, what, detail, address, outcome)"
            f" SELECT now() - interval '{age}', '{kind}', 'password', 'x', '{{}}', 'a', 'ok' {series}",
        )

    def _sweep(self, options: str = "") -> None:
        """Remove the rows that were rolled back, as autovacuum does: statements step over them."""
        for database, tables in TABLES.items():
            self.system.query(database, f"VACUUM {options} {', '.join(tables)}")

    def _clear_columns(self) -> None:
        for database, tables in TABLES.items():
            names = ", ".join(f"'{table}'::regclass" for table in tables)
            self.system.query(
                database,
                "SELECT pg_clear_attribute_stats(nspname, relname, attname, stainherit)"
                " FROM pg_statistic JOIN pg_class ON pg_class.oid = starelid"
                " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
                " JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum"
                f" WHERE starelid IN (SELECT unnest(ARRAY[{names}])"
                f"  UNION SELECT indexrelid FROM pg_index WHERE indrelid = ANY (ARRAY[{names}]))",
            )

    def _each(self, statement: str) -> None:
        for database, tables in TABLES.items():
            for table in tables:
                self.system.query(database, statement.format(table))

    def _each_name(self, statement: str) -> None:
        for database, tables in TABLES.items():
            for table in tables:
                schema, name = table.split(".")
                if "restore" in statement:
                    named = f"'schemaname', '{schema}', 'relname', '{name}'"
                else:
                    named = f"'{schema}', '{name}'"
                self.system.query(database, statement.format(named))


def role_of(statement: str) -> Purpose:
    """The role that may execute a statement, of those which have all rights on their tables."""
    named = {
        "ledger.": Purpose.QUEUE,
        "pgqueuer": Purpose.QUEUE,
        "alerts.": Purpose.QUEUE,
        "dashboard.": Purpose.DASHBOARD,
        "public.processes": Purpose.DAGSTER,
    }
    plain = statement.replace('"', "")
    return next((role for word, role in named.items() if word in plain), Purpose.RESULTS)


def statistics(tables: GrowingTables) -> dict[str, Callable[[], None]]:
    """What the statistics may say once both days are there, with how that comes about; in this order."""
    return {
        "analysed with another day's rows": lambda: None,
        "never analysed": tables.forget_statistics,
        "analysed while empty": tables.remember_them_empty,
        "analysed now": tables.analyze,
    }
