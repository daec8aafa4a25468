"""Everything that the product asks of a growing table, and how many rows it asks for."""

import datetime as dt
from decimal import Decimal

from episodes_assets.accounts import audit, sessions, throttle, users
from episodes_assets.accounts.identity import Role
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.checks.results import LIVE_DAYS
from episodes_assets.days import ONE_DAY
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger import batches, dispatch, profiles, progress, verify, workers
from episodes_assets.ledger import episode as ledger_episode
from episodes_assets.ledger.dispatch import ChunkMessage
from episodes_assets.ledger.held import (
    cancel_day,
    read_held,
    read_held_first,
    read_left_out,
    read_shared_errors,
    read_waivers,
    retry_held_jobs,
)
from episodes_assets.ledger.plans import (
    lock_plan,
    read_named_drops,
    read_viewings_versions,
    require_current,
    require_plan,
)
from episodes_assets.ledger.workers import Activity, WorkerName
from episodes_assets.outbox import records
from episodes_assets.postgres.databases import Database
from episodes_assets.profiling.engines import Sampling
from episodes_assets.results import episode as results_episode
from episodes_assets.results import publications, recompute, rows, state
from episodes_assets.results.repairs import RepairDecision, read_repairs, read_repairs_of_run
from episodes_assets.results.restore_points import (
    find_newest_restore_point,
    make_restore_point,
    read_restore_points,
)
from episodes_assets.results.rows import Order, Position, Selection
from episodes_assets.results.verify import (
    find_damaged_state,
    read_publications,
    read_state_days,
)
from episodes_assets_tests.query_plans import steps
from episodes_assets_tests.query_plans.cases import Case
from episodes_assets_tests.query_plans.growing_tables import (
    CHUNK_JOBS,
    FINISHED_CHUNKS,
    FINISHED_DAYS,
    FINISHED_PLANS,
    FIRST_FINISHED,
    HELD,
    MESSAGES_OF_WORKER,
    NEVER_MOVED,
    OLD_ALERTS,
    OLD_LOG_ROWS,
    OPEN_ALERTS,
    OPEN_CHUNKS,
    OTHER_DAY,
    OTHER_PLAN,
    PROCESSES,
    PROFILES,
    REPAIRS,
    THE_DAY,
    THE_PLAN,
    WAITING_CHUNK_JOBS,
    WAITING_CHUNKS,
    WAIVERS,
)

_SHOWN, _SEARCHED = Selection(THE_DAY, 0), Selection(THE_DAY, 0, "Episode 77")
_MOST_VIEWED = Order("views", is_descending=True)
_MANY = 25
_MANY_DAYS = [*FINISHED_DAYS[:_MANY], THE_DAY]
_MANY_PLANS = [*range(FIRST_FINISHED + 1, FIRST_FINISHED + 1 + _MANY), NEVER_MOVED, THE_PLAN]
_PASSWORD = "correct horse battery staple"
_MINUTE = dt.timedelta(minutes=1)
_SILENCE = dt.timedelta(seconds=30)
_WHY = RepairDecision("why", "who", "run")
_LIVES = Lifetimes(dt.timedelta(hours=12), dt.timedelta(hours=1))


def cases(jobs: int) -> list[Case]:
    """All of them, for days of so many jobs.

    First comes what reads most, so that it does not step over rows that others have rolled back.
    """
    chunks = jobs // CHUNK_JOBS
    open_jobs = OPEN_CHUNKS * CHUNK_JOBS
    last = ChunkMessage(THE_PLAN, chunks - 1)
    plans = FINISHED_PLANS + 4
    # A finished plan has a chunk with held jobs, which is looked at like an open one.
    all_open = OPEN_CHUNKS + 2 * WAITING_CHUNKS + FINISHED_PLANS
    of_many = chunks + WAITING_CHUNKS + _MANY * FINISHED_CHUNKS
    found = [
        # The orchestrator's half of the ledger.
        Case("a day's plan", "queue", 1, lambda to: require_plan(to.queue, THE_DAY)),
        Case(
            "a plan and its chunks, locked",
            "queue",
            chunks,
            lambda to: lock_plan(to.queue, THE_DAY, with_chunks=True),
        ),
        Case("whether plans are current", "queue", 1, lambda to: require_current(to.queue, [THE_PLAN])),
        Case("a plan superseded", "queue", jobs + chunks, steps.plan_again),
        Case("a day's progress", "queue", chunks, lambda to: progress.read_progress(to.queue, [THE_DAY])),
        Case(
            "many days' progress", "queue", of_many, lambda to: progress.read_progress(to.queue, _MANY_DAYS)
        ),
        Case("every day's progress", "queue", plans + all_open, lambda to: progress.read_progress(to.queue)),
        Case("a day's held jobs", "queue", HELD, lambda to: read_held_first(to.queue, [THE_PLAN], 20)),
        Case("the backlog", "queue", all_open, lambda to: progress.backlog(to.queue)),
        Case(
            "versions that plans name",
            "queue",
            plans,
            lambda to: read_viewings_versions(to.queue),
        ),
        Case("drops that plans name", "queue", plans, lambda to: read_named_drops(to.queue)),
        Case(
            "planned jobs read back",
            "queue",
            jobs,
            lambda to: verify.read_ledger_days(to.queue, to.queue_dsn, [require_plan(to.queue, THE_DAY)]),
            lie_together=True,
        ),
        Case(
            "jobs of the last days",
            "queue",
            2,
            lambda to: verify.read_job_counts(to.queue, OTHER_DAY, THE_DAY),
        ),
        Case(
            "outcomes counted",
            "queue",
            jobs,
            lambda to: verify.count_outcomes(to.queue, [THE_PLAN]),
            lie_together=True,
        ),
        Case(
            "outcomes of many plans counted",
            "queue",
            jobs + of_many,
            lambda to: verify.count_outcomes(to.queue, _MANY_PLANS),
        ),
        Case("a plan compared", "queue", 2 * jobs, steps.find_damage, is_undone=False, lie_together=True),
        Case("a plan copied", "queue", 3 * jobs, steps.copy_plan, is_undone=False, lie_together=True),
        Case("a copied plan put", "queue", WAITING_CHUNKS * WAITING_CHUNK_JOBS, steps.put_plan),
        Case("messages sent", "queue", chunks, steps.fan_out_anew),
        Case(
            "messages of many chunks looked for",
            "queue",
            WAITING_CHUNKS,
            lambda to: dispatch.fan_out_day(to.queue, THE_DAY + ONE_DAY),
        ),
        Case("a day waived", "queue", HELD + chunks, steps.waive),
        Case("decisions", "queue", 1, lambda to: read_waivers(to.queue, [OTHER_PLAN, THE_PLAN])),
        Case(
            "decisions about many plans",
            "queue",
            _MANY * WAIVERS,
            lambda to: read_waivers(to.queue, _MANY_PLANS),
        ),
        Case(
            "what an older plan leaves out",
            "queue",
            WAIVERS,
            lambda to: read_left_out(to.queue, FIRST_FINISHED + 1),
        ),
        Case("what is left out", "queue", 1, lambda to: read_left_out(to.queue, THE_PLAN)),
        Case("a day's plans", "queue", 1, lambda to: ledger_episode.read_plans(to.queue, THE_DAY)),
        Case(
            "what is left of a day, explained",
            "queue",
            chunks,
            lambda to: ledger_episode.read_open_jobs(to.queue, THE_DAY),
        ),
        Case(
            "an episode's jobs",
            "queue",
            chunks,
            lambda to: ledger_episode.read_jobs(to.queue, THE_PLAN, 7),
        ),
        Case(
            "an episode's jobs, of many chunks",
            "queue",
            WAITING_CHUNKS,
            lambda to: ledger_episode.read_jobs(to.queue, NEVER_MOVED, 0),
        ),
        Case("held jobs retried", "queue", HELD + chunks, lambda to: retry_held_jobs(to.queue, THE_DAY)),
        Case("one held job retried", "queue", HELD + chunks, steps.retry_one),
        Case("log pruned", "queue", OLD_LOG_ROWS, lambda to: workers.prune_message_log(to.queue, 7)),
        Case("workers forgotten", "queue", 40, lambda to: workers.forget_dead_workers(to.queue)),
        Case("profiles pruned", "queue", PROFILES, lambda to: profiles.prune_profiles(to.queue, 30)),
        # Alerts to people: few are open, and two channels are to get a message of each.
        Case("open alerts", "queue", 3 * OPEN_ALERTS, lambda to: records.read_open_alerts(to.queue)),
        Case(
            "the outbox in numbers",
            "queue",
            3 * OPEN_ALERTS,
            lambda to: records.read_figures(to.queue, list(ChannelName)),
        ),
        Case("alerts decided and told", "queue", 6 * OPEN_ALERTS, steps.tell_of_alerts),
        Case("alerts pruned", "queue", OLD_ALERTS, lambda to: records.prune_alerts(to.queue)),
        # For the metrics.
        Case("workers by release", "queue", 40, lambda to: workers.count_by_release(to.queue)),
        Case("older workers", "queue", 40, lambda to: workers.read_older_workers(to.queue, "queue_9999")),
        Case(
            "batches since a minute ago",
            "queue",
            chunks,
            lambda to: batches.read_batches_since(to.queue, records.read_clock(to.queue) - _MINUTE),
        ),
        Case("the newest published day", "results", 1, lambda to: publications.newest_day(to.results)),
        Case(
            "profiles asked for",
            "queue",
            PROFILES,
            lambda to: profiles.request_batches(
                to.queue, 1, Sampling(), requested_by="b", not_within=dt.timedelta(hours=1)
            ),
        ),
        Case("a worker's profile asked for", "queue", 40, steps.ask_for_worker),
        Case("a step's profile begun and stored", "queue", PROFILES, steps.profile_step),
        Case(
            "a run's profiles withdrawn", "queue", PROFILES, lambda to: profiles.withdraw(to.queue, "the run")
        ),
        Case("a profile taken", "queue", PROFILES, steps.take_profile),
        Case("the newest profiles", "queue", 30, lambda to: profiles.read_profiles(to.queue, 30)),
        Case(
            "a run's profiles",
            "queue",
            PROFILES,
            lambda to: profiles.read_profiles_of_run(to.queue, "the run"),
        ),
        Case("a profile read", "queue", 1, steps.read_profile),
        Case("the newest plan renewed", "queue", chunks, steps.plan_once_more),
        Case(
            "a worker's sign of life",
            "queue",
            1,
            lambda to: workers.send_heartbeat(to.worker, WorkerName(), Activity()),
        ),
        Case(
            "whether another worker may have an algorithm",
            "queue",
            41,
            lambda to: workers.may_start_elsewhere(to.worker, THE_PLAN, 0, "host-1"),
        ),
        # What people look at.
        Case(
            "a day that stalls", "queue", chunks, lambda to: progress.open_days(to.queue, _SILENCE, [THE_DAY])
        ),
        Case(
            "days that stall", "queue", chunks + all_open, lambda to: progress.open_days(to.queue, _SILENCE)
        ),
        Case(
            "the fleet's progress",
            "queue",
            2 * chunks,
            lambda to: progress.read_fleet_progress(to.queue, [THE_DAY]),
        ),
        Case(
            "throughput",
            "queue",
            2 * chunks,
            lambda to: batches.read_throughput(to.queue, bucket_seconds=10, buckets=60),
        ),
        Case(
            "many days' stalls",
            "queue",
            of_many,
            lambda to: progress.open_days(to.queue, _SILENCE, _MANY_DAYS),
        ),
        Case("workers", "queue", 40, lambda to: workers.read_workers(to.queue)),
        Case("workers that live", "queue", 40, lambda to: workers.count_alive(to.queue)),
        Case("held jobs shown", "queue", 3, lambda to: read_held(to.queue, [THE_PLAN], each=3)),
        Case("shared errors", "queue", HELD, lambda to: read_shared_errors(to.queue, THE_PLAN, 10)),
        Case(
            "seconds by algorithm",
            "queue",
            chunks,
            lambda to: batches.durations_by_algorithm(to.queue, [THE_PLAN]),
        ),
        Case(
            "slowest batches", "queue", chunks, lambda to: batches.slowest_batches(to.queue, [THE_PLAN], 10)
        ),
        Case("jobs over time", "queue", chunks, lambda to: batches.finished_over_time(to.queue, [THE_PLAN])),
        Case(
            "seconds of many plans",
            "queue",
            of_many,
            lambda to: batches.durations_by_algorithm(to.queue, _MANY_PLANS),
        ),
        Case(
            "held jobs of many plans",
            "queue",
            HELD + _MANY * WAIVERS,
            lambda to: read_held(to.queue, _MANY_PLANS, each=3),
        ),
        # The workers' half of the ledger.
        Case("a chunk claimed", "queue", CHUNK_JOBS, lambda to: steps.claim_one(to, last), lie_together=True),
        Case("a chunk worked", "queue", CHUNK_JOBS, lambda to: steps.work(to, last)),
        Case("a job failed", "queue", CHUNK_JOBS, lambda to: steps.fail(to, last)),
        Case("a worker's messages ended", "queue", MESSAGES_OF_WORKER, steps.end_messages),
        Case(
            "a day cancelled",
            "queue",
            open_jobs + chunks,
            lambda to: cancel_day(to.queue, THE_DAY, reason="why", cancelled_by="who"),
        ),
        Case(
            "a day of many chunks cancelled",
            "queue",
            2 * WAITING_CHUNKS,
            lambda to: cancel_day(to.queue, THE_DAY + ONE_DAY, reason="why", cancelled_by="who"),
        ),
        # Publishing.
        Case("a day published", "results", jobs, steps.publish_twice, is_undone=False),
        Case("a day repaired", "results", jobs, steps.repair_publication, is_undone=False),
        Case(
            "published rows read back", "results", jobs, steps.read_back, is_undone=False, lie_together=True
        ),
        Case(
            "whether it is in time",
            "results",
            4 * LIVE_DAYS,  # each with its history, as none of them is of a live system
            lambda to: read_publications(to.results, THE_DAY),
        ),
        Case(
            "all rows of a day",
            "results",
            jobs,
            lambda to: publications.read_rows(to.results, THE_DAY),
            lie_together=True,
        ),
        Case(
            "the first rows of each algorithm",
            "results",
            jobs,
            lambda to: publications.read_first_rows(to.results, THE_DAY, 5),
            lie_together=True,
        ),
        Case(
            "a page of rows",
            "results",
            jobs,
            lambda to: rows.read_page(to.results, _SHOWN, _MOST_VIEWED, 50),
            lie_together=True,
        ),
        Case(
            "a later page of rows",
            "results",
            jobs,
            lambda to: rows.read_page(to.results, _SHOWN, _MOST_VIEWED, 50, Position(Decimal(1), 7_000)),
            lie_together=True,
        ),
        Case(
            "a page of rows without a value",
            "results",
            jobs,
            lambda to: rows.read_page(to.results, _SHOWN, Order(), 50, Position(None, 7_000)),
            lie_together=True,
        ),
        Case(
            "a page of rows that were searched for",
            "results",
            jobs,
            lambda to: rows.read_page(to.results, _SEARCHED, _MOST_VIEWED, 50),
        ),
        Case(
            "movers",
            "results",
            2 * jobs,
            lambda to: rows.read_movers(to.results, _SHOWN, "views", OTHER_DAY, 20),
            lie_together=True,
        ),
        Case(
            "an episode over its days",
            "results",
            plans,
            lambda to: rows.read_episode_days(to.results, 7, 0, THE_DAY, 1_000),
        ),
        Case("a title", "results", 1, lambda to: rows.find_title(to.results, 7)),
        Case("rows in parts", "results", jobs, lambda to: list(rows.stream_rows(to.results, _SHOWN))),
        Case(
            "rows in parts that were searched for",
            "results",
            jobs,
            lambda to: list(rows.stream_rows(to.results, _SEARCHED)),
        ),
        Case("titles recorded", "results", jobs, steps.record_titles),
        Case(
            "the published days around a day",
            "results",
            3,
            lambda to: publications.find_neighbours(to.results, THE_DAY),
        ),
        Case("a manifest", "results", 1, lambda to: publications.find_day(to.results, THE_DAY)),
        Case("manifests", "results", 2, lambda to: publications.read_days(to.results, OTHER_DAY, THE_DAY)),
        Case("a day's history", "results", 3, lambda to: publications.read_history(to.results, THE_DAY)),
        Case(
            "a day's last publication",
            "results",
            3,
            lambda to: publications.find_last_publication(to.results, THE_DAY),
        ),
        Case(
            "a restore point made",
            "results",
            6,
            lambda to: make_restore_point(dict.fromkeys(Database, to.results), [THE_DAY]),
        ),
        Case("a day's restore points", "results", 3, lambda to: read_restore_points(to.results, THE_DAY)),
        Case("the newest restore point", "results", 1, lambda to: find_newest_restore_point(to.results)),
        Case("a day's repairs", "results", REPAIRS, lambda to: read_repairs(to.results, THE_DAY)),
        Case("a run's repairs", "results", REPAIRS, lambda to: read_repairs_of_run(to.results, "the run")),
        Case("a repair recorded", "results", 1, steps.record_repair),
        Case(
            "an episode's published rows",
            "results",
            2,
            lambda to: results_episode.read_published_rows(to.results, THE_DAY, 7),
        ),
        Case(
            "since when it is tracked", "results", 1, lambda to: results_episode.find_tracked(to.results, 8)
        ),
        Case(
            "where the history begins",
            "results",
            1,
            lambda to: results_episode.read_state(to.results, THE_DAY),
        ),
        Case("what days were made of", "results", plans, lambda to: publications.published_plans(to.results)),
        Case(
            "the newest published plan", "results", 3 * plans, lambda to: publications.newest_plan(to.results)
        ),
        Case(
            "versions that were published",
            "results",
            3 * plans,
            lambda to: publications.read_viewings_versions(to.results),
        ),
        Case(
            "drops that were published",
            "results",
            3 * plans,
            lambda to: publications.read_named_drops(to.results),
        ),
        Case("drops of tracked days", "results", plans, lambda to: state.read_named_drops(to.results)),
        Case(
            "since when a day has viewings",
            "results",
            jobs,
            lambda to: recompute.read_published_coverage(to.results, THE_DAY, THE_DAY),
            lie_together=True,
        ),
        Case(
            "days of older viewings",
            "results",
            plans,
            lambda to: publications.read_other_than(to.results, PinnedVersion(1, "0"), THE_DAY, 35),
        ),
        Case("what the databases say of each other", "queue", 4 * plans + all_open, steps.compare),
        # The state.
        Case("yesterday's state", "results", plans, lambda to: state.state_before(to.results, THE_DAY)),
        Case("the newest state", "results", 1, lambda to: state.latest_day(to.results)),
        Case("a state that is missing", "results", plans, steps.miss),
        Case(
            "the checksums of many days",
            "results",
            _MANY,
            lambda to: recompute.read_checksums(to.results, THE_DAY - _MANY * ONE_DAY, THE_DAY),
        ),
        Case("the tracked episodes", "results", 2 * jobs, steps.read_tracked, lie_together=True),
        Case(
            "the state exported",
            "results",
            2 * jobs,
            steps.export_state,
            lie_together=True,
        ),
        Case("the state copied", "results", 2 * jobs + plans, steps.copy_state, lie_together=True),
        Case("a day tracked", "results", jobs, lambda to: steps.track(to, THE_DAY)),
        Case("a beginning repaired", "results", 2 * jobs, steps.begin),
        Case(
            "a state of another size", "results", 2 * jobs + plans, steps.read_other_total, lie_together=True
        ),
        Case("a day's state repaired", "results", jobs, lambda to: steps.track(to, THE_DAY, repair=_WHY)),
        Case("another day tracked", "results", 100, lambda to: steps.track(to, THE_DAY + ONE_DAY, 100)),
        Case("an earlier day tracked", "results", jobs, lambda to: steps.track(to, THE_DAY - ONE_DAY)),
        Case(
            "all days' state read back",
            "results",
            2 * jobs + plans,
            lambda to: find_damaged_state(to.results, to.results_dsn, THE_DAY),
            lie_together=True,
        ),
        Case(
            "the state read back",
            "results",
            2 * jobs,
            lambda to: read_state_days(to.results, to.results_dsn, [THE_DAY]),
            lie_together=True,
        ),
        # Dagster's processes; of those that were started within thirty days each is looked at.
        Case("a process that lives", "dagster", PROCESSES, steps.register_process),
        Case("processes of older releases", "dagster", PROCESSES, steps.look_for_older_processes),
        # Accounts.
        Case("a session found", "dagster", 1, lambda to: sessions.find_session(to.accounts, "t", _LIVES)),
        Case("a session begun", "dagster", 1, steps.begin_session),
        Case("a session ended", "dagster", 1, lambda to: sessions.end_session(to.accounts, "t")),
        Case(
            "a name's sessions ended", "dagster", 1, lambda to: sessions.end_sessions_of(to.accounts, "new1")
        ),
        Case("old sessions purged", "dagster", jobs, lambda to: sessions.purge_sessions(to.accounts)),
        Case("a token found", "dagster", 1, lambda to: sessions.find_token(to.accounts, "episodes_t")),
        Case("a token revoked", "dagster", 1, lambda to: sessions.revoke_token(to.accounts, "new1")),
        Case("an attempt", "dagster", 3, lambda to: throttle.begin_attempt(to.accounts, "a", "10.0.0.1")),
        Case("a failure", "dagster", 3, lambda to: throttle.record_failure(to.accounts, "a", "10.0.0.1")),
        Case("a success", "dagster", 4, lambda to: throttle.record_success(to.accounts, "a", "10.0.0.1")),
        Case("failures forgotten", "dagster", 3, lambda to: throttle.forget_failures(to.accounts, "a")),
        Case("a user removed", "dagster", 300, lambda to: users.remove_user(to.accounts, "new1", force=True)),
        Case(
            "a user disabled", "dagster", 300, lambda to: users.disable_user(to.accounts, "new2", force=True)
        ),
        Case("a name known", "dagster", 1, lambda to: users.known_name(to.accounts, "new1")),
        Case(
            "a user added",
            "dagster",
            2,
            lambda to: users.add_user(to.accounts, "ada", Role.VIEWER, _PASSWORD),
        ),
        Case("a password set", "dagster", 100, lambda to: users.set_password(to.accounts, "new3", _PASSWORD)),
        Case("a login", "dagster", 1, steps.log_in),
        Case("a role set", "dagster", 400, lambda to: users.set_role(to.accounts, "new4", Role.OPERATOR)),
        Case("a user enabled", "dagster", 1, lambda to: users.enable_user(to.accounts, "new5")),
        Case("the users", "dagster", 400, lambda to: users.list_users(to.accounts)),
        Case("whether there are users", "dagster", 1, lambda to: users.has_users(to.accounts)),
        Case(
            "a token made",
            "dagster",
            1,
            lambda to: sessions.create_token(to.accounts, "ci", Role.VIEWER, None),
        ),
        Case("the tokens", "dagster", jobs, lambda to: sessions.list_tokens(to.accounts)),
        Case("an event recorded", "dagster", 1, steps.record_event),
        Case("the newest events", "dagster", 20, lambda to: audit.read(to.accounts, 20)),
        Case("somebody's events", "dagster", 20, lambda to: audit.read(to.accounts, 20, who="old")),
        Case("somebody's rare events", "dagster", 40, lambda to: audit.read(to.accounts, 100, who="new")),
        Case(
            "events of an hour",
            "dagster",
            40,
            lambda to: audit.read(to.accounts, 100, since=dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)),
        ),
        Case(
            "nobody's events",
            "dagster",
            1,
            lambda to: audit.read(
                to.accounts, 100, since=dt.datetime.now(dt.UTC) - dt.timedelta(hours=2), who="old"
            ),
        ),
    ]
    return sorted(found, key=lambda case: not case.lie_together)
