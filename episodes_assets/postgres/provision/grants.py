"""Who may do what: each role's rights, settings and connection limits; whether the input role could write.

Least privilege: no role of the pipeline can delete a plan, change a decision or rewrite the history of what
was published, and no worker can waive a job. Whether the role that reads the input could write to it is asked
of the database itself.

All of it is given anew at every `episodes db init`. A role may change its own settings and its own password,
so both are put back as well. Two things are left alone: the `search_path` of the input's roles, which says
where its tables are, and all that the roles of an input of other systems have set, since those are not ours.
Making the roles is `init`.
"""

from collections.abc import Callable, Collection, Mapping

import psycopg
from psycopg import sql

from episodes_assets.errors import InputWritable
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.locks import LOCK_SECONDS

# Each thing the role could do, by itself or as a role it is a member of: a membership without
# inheritance is only a SET ROLE away. Rights on a partition count, since they bypass its parent's.
_FIND_RIGHTS = """
    WITH roles AS (
        SELECT oid, rolsuper FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')
    ), named AS (
        SELECT to_regclass(name) AS oid FROM unnest(ARRAY['episodes', 'viewings']) AS name
    ), tables AS (
        SELECT oid FROM named WHERE oid IS NOT NULL
        UNION
        SELECT relid FROM named, pg_partition_tree(named.oid) WHERE relid IS NOT NULL
    ), relations AS (
        SELECT pg_class.oid, relname, relowner, relnamespace
        FROM tables JOIN pg_class ON pg_class.oid = tables.oid
    ), found AS (
        SELECT 1 AS rank, 'is superuser' AS what FROM roles WHERE rolsuper
        UNION
        SELECT 2, format('owns %s', relname) FROM relations JOIN roles ON roles.oid = relowner
        UNION
        SELECT 3, format('may %s %s', word, relname)
        FROM relations, roles, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS word
        WHERE has_table_privilege(roles.oid, relations.oid, word)
            OR word IN ('INSERT', 'UPDATE') AND has_any_column_privilege(roles.oid, relations.oid, word)
        UNION
        SELECT 4, format('may create in schema %s', nspname)
        FROM roles, pg_namespace
        WHERE pg_namespace.oid IN (SELECT relnamespace FROM relations)
            AND has_schema_privilege(roles.oid, pg_namespace.oid, 'CREATE')
    )
    SELECT current_user, array_agg(what ORDER BY what) FROM found
    WHERE rank = (SELECT min(rank) FROM found)
"""
_SHOWN = 4


def check_input_role(connection: Connection, *, is_production: bool, warn: Callable[[str], None]) -> None:
    """Refuse, in production, an input role that could write; warn of it elsewhere.

    Args:
        connection: To the input, as that role.
        is_production: Whether to refuse.
        warn: Called with what would be refused in production, as one line.

    Raises:
        InputWritable: In production, if the role could write.
    """
    role, rights = connection.execute(_FIND_RIGHTS).fetchone() or ("", None)
    if not rights:
        return
    more = f" and {len(rights) - _SHOWN} more" if len(rights) > _SHOWN else ""
    error = InputWritable(
        f"the input role {role} could write to the input: it {', '.join(rights[:_SHOWN])}{more}",
        "give it CONNECT, USAGE and SELECT alone, or name another role in EPISODES_INPUT_DSN",
    )
    if is_production:
        raise error
    warn(str(error))


Roles = Mapping[Purpose, str]
_STAMP = "GRANT SELECT ON environment_stamp, episodes_schema_version TO {role}"
_RIGHTS: dict[Purpose, tuple[str, ...]] = {
    # Dagster migrates its own tables, in a schema that is in no other role's search path: with a right to
    # make operators in `public`, its role could have other roles execute its code.
    Purpose.DAGSTER: (
        _STAMP,
        "REVOKE CREATE ON SCHEMA public FROM {role}",
        "GRANT CREATE, USAGE ON SCHEMA dagster TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON processes TO {role}",
    ),
    # No other role may see the schema: it has the hashes of passwords and tokens.
    Purpose.DASHBOARD: (
        _STAMP,
        "GRANT USAGE ON SCHEMA dashboard TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON dashboard.users, dashboard.sessions TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON dashboard.login_attempts TO {role}",
        "GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at) ON dashboard.service_tokens TO {role}",
        "GRANT SELECT, INSERT ON dashboard.signing_key TO {role}",
        "GRANT SELECT, INSERT, UPDATE ON dashboard.locks TO {role}",
        # Column by column, so that the time of an event is the database's.
        "GRANT SELECT, INSERT (who, way, what, detail, address, outcome) ON dashboard.audit_log TO {role}",
    ),
    Purpose.INPUT: ("GRANT SELECT ON episodes, viewings TO {role}",),
    Purpose.INPUT_WRITER: (
        _STAMP,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON episodes, viewings TO {role}",
    ),
    Purpose.QUEUE: (
        _STAMP,
        "GRANT USAGE ON SCHEMA ledger TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ledger TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "REVOKE INSERT, UPDATE, DELETE ON environment_stamp, episodes_schema_version FROM {role}",
        # What was planned and decided stays on record; superseding deletes jobs alone.
        "REVOKE DELETE ON ledger.plans, ledger.waivers FROM {role}",
        "REVOKE UPDATE ON ledger.waivers, ledger.plans FROM {role}",
        (
            "GRANT UPDATE (snapshot_id, tracked_checksum, fanned_out_at, superseded_at)"
            " ON ledger.plans TO {role}"
        ),
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        "GRANT USAGE, SELECT ON SEQUENCE ledger.plans_plan_id_seq TO {role}",
        # Alerts to people: the orchestrator and the web server decide on them; no other role sees them.
        "GRANT USAGE ON SCHEMA alerts TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA alerts TO {role}",
    ),
    Purpose.WORKER: (
        _STAMP,
        "GRANT USAGE ON SCHEMA ledger TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO {role}",
        "REVOKE ALL ON ledger.locks FROM {role}",
        (
            "GRANT UPDATE (succeeded, held, starts, claim, claimed_by, claimed_at, moved_at)"
            " ON ledger.chunks TO {role}"
        ),
        "GRANT INSERT ON ledger.outcomes, ledger.batches TO {role}",
        "GRANT INSERT, UPDATE ON ledger.workers TO {role}",
        # Column by column, so that a worker cannot waive a job.
        "REVOKE INSERT, UPDATE ON ledger.job_attempts FROM {role}",
        (
            "GRANT INSERT (plan_id, position, starts, is_held, error, traceback)"
            " ON ledger.job_attempts TO {role}"
        ),
        "GRANT UPDATE (starts, is_held, error, traceback) ON ledger.job_attempts TO {role}",
        # A worker takes profiles that are asked for, and asks for none.
        (
            "GRANT UPDATE (claim, claimed_by, claimed_at, finished_at, engine, samples, problem, stacks)"
            " ON ledger.profiles TO {role}"
        ),
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "REVOKE INSERT, UPDATE, DELETE ON environment_stamp, episodes_schema_version FROM {role}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ),
    # For labs, column by column: neither errors and tracebacks nor the names of workers and of people.
    Purpose.QUEUE_READER: (
        _STAMP,
        "GRANT USAGE ON SCHEMA ledger TO {role}",
        "GRANT SELECT ON ledger.plans, ledger.jobs TO {role}",
        "GRANT SELECT (plan_id, chunk, first_position, jobs, priority) ON ledger.chunks TO {role}",
        (
            "GRANT SELECT (plan_id, position, covered_from, metrics, algorithm_version, finished_at)"
            " ON ledger.outcomes TO {role}"
        ),
        "GRANT SELECT (plan_id, position, waiver_id) ON ledger.job_attempts TO {role}",
        (
            "GRANT SELECT (plan_id, first_position, chunk, jobs, seconds, algorithm_ids, algorithm_jobs,"
            " algorithm_seconds, finished_at) ON ledger.batches TO {role}"
        ),
    ),
    # One number, which a program of other people polls: without the stamp, as it writes nowhere.
    Purpose.SCALER: (
        "GRANT USAGE ON SCHEMA ledger TO {role}",
        "GRANT SELECT ON ledger.backlog TO {role}",
    ),
    Purpose.RESULTS: (
        _STAMP,
        "GRANT USAGE ON SCHEMA state, published TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA state, published TO {role}",
        # What was published and repaired stays on record.
        "REVOKE UPDATE, DELETE ON published.history, published.repairs, published.restore_points FROM {role}",
    ),
    # For explanations and labs. It sees the tracked state, which consumers do not.
    Purpose.RESULTS_READER: (
        _STAMP,
        "GRANT USAGE ON SCHEMA state, published TO {role}",
        "GRANT SELECT ON state.tracked_days, state.tracked_episodes TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA published TO {role}",
    ),
    Purpose.CONSUMER: (
        "GRANT USAGE ON SCHEMA published TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA published TO {role}",
    ),
}
# Revoked first from a role that only reads, so that it keeps nothing that somebody else has granted. A role
# that serves other purposes as well keeps its rights, since those purposes are granted rights to write.
_SCHEMAS = {Database.QUEUE: "ledger, alerts, public", Database.RESULTS: "state, published, public"}
_REVOKE_ALL = (
    "REVOKE ALL ON ALL TABLES IN SCHEMA {schemas} FROM {{role}}",
    "REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schemas} FROM {{role}}",
    "REVOKE ALL ON ALL ROUTINES IN SCHEMA {schemas} FROM {{role}}",
    "REVOKE ALL ON SCHEMA {schemas} FROM {{role}}",
)
_READERS = (Purpose.QUEUE_READER, Purpose.SCALER, Purpose.RESULTS_READER)
_READ_ONLY = "default_transaction_read_only = on"
_LOCK_TIMEOUT = f"lock_timeout = '{LOCK_SECONDS:.0f}s'"
# The settings with which a role's session begins. It may change most of them: they prevent mistakes only.
_SETTINGS: dict[Purpose, tuple[str, ...]] = {
    Purpose.DAGSTER: ("search_path = dagster, public", _LOCK_TIMEOUT),
    Purpose.DASHBOARD: (_LOCK_TIMEOUT,),
    # The systems that fill the input may lock it for minutes.
    Purpose.INPUT: (_READ_ONLY, "lock_timeout = '10min'"),
    Purpose.INPUT_WRITER: (),
    Purpose.QUEUE: (_LOCK_TIMEOUT,),
    Purpose.WORKER: (_LOCK_TIMEOUT,),
    Purpose.QUEUE_READER: (
        _READ_ONLY,
        _LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout = '10min'",
        "statement_timeout = '10min'",
    ),
    Purpose.SCALER: (
        _READ_ONLY,
        "lock_timeout = '10s'",
        "idle_in_transaction_session_timeout = '10s'",
        "statement_timeout = '10s'",
    ),
    Purpose.RESULTS: (_LOCK_TIMEOUT,),
    # An explanation is read within a minute; what takes a lab asks for more.
    Purpose.RESULTS_READER: (
        _READ_ONLY,
        _LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout = '1min'",
        "statement_timeout = '1min'",
    ),
    Purpose.CONSUMER: (
        _READ_ONLY,
        "idle_in_transaction_session_timeout = '10min'",
        "statement_timeout = '1h'",
    ),
}
# Only a superuser may set these, and no session of the role can change them.
_LIMITS: dict[Purpose, tuple[str, ...]] = {
    Purpose.QUEUE_READER: ("temp_file_limit = '2GB'",),
    Purpose.SCALER: ("temp_file_limit = '64MB'",),
    Purpose.RESULTS_READER: ("temp_file_limit = '2GB'",),
    Purpose.CONSUMER: ("temp_file_limit = '8GB'",),
}
# Only a superuser may give it. All that a role can do with it is to write a name into the server's log.
_MAKE_RESTORE_POINTS = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO {role}"
_MARKERS = (Purpose.DAGSTER, Purpose.QUEUE, Purpose.RESULTS)
# How much of the server's `max_connections` a role may have, in percent. Dagster's processes keep two each,
# and their threads may need more at once. Roles that other teams use leave room for ours.
_CONNECTIONS: dict[Purpose, int] = {
    Purpose.DAGSTER: 85,
    Purpose.DASHBOARD: 20,
    Purpose.INPUT: 70,
    Purpose.INPUT_WRITER: 20,
    Purpose.QUEUE: 40,
    Purpose.WORKER: 70,
    Purpose.QUEUE_READER: 2,
    Purpose.SCALER: 2,
    Purpose.RESULTS: 40,
    Purpose.RESULTS_READER: 10,
    Purpose.CONSUMER: 10,
}
# Any role that may connect could fill the disk with large objects, which belong to no schema.
_NO_LARGE_OBJECTS = (
    "REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid),"
    " pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC"
)


def rights(database: Database) -> dict[str, object]:
    """What each role of a database is given, by purpose: statements, settings, connections."""
    given = {
        p.value: (_RIGHTS[p], _SETTINGS[p], _LIMITS.get(p), _CONNECTIONS[p], _revocations(p))
        for p in Purpose
        if p.database is database
    }
    markers = [p.value for p in _MARKERS if p.database is database]
    return {**given, "everybody": _NO_LARGE_OBJECTS, "restore points": (_MAKE_RESTORE_POINTS, markers)}


def _revocations(purpose: Purpose) -> tuple[str, ...]:
    """The statements that revoke all other rights of a role, if its purpose is to read only."""
    if purpose not in _READERS:
        return ()
    return tuple(each.format(schemas=_SCHEMAS[purpose.database]) for each in _REVOKE_ALL)


def connection_limit(purposes: Collection[Purpose], max_connections: int) -> int:
    """How many connections a role may have that serves some purposes."""
    share = min(100, sum(_CONNECTIONS[purpose] for purpose in purposes))
    return max(1, max_connections * share // 100)


def grant(
    admin: Connection,
    database: Database,
    database_name: str,
    roles: Roles,
    *,
    input_roles: Collection[str] = (),
    is_ours: bool = True,
) -> None:
    """Give each role of a database its rights and settings and, where the database is ours, nobody else any.

    What a role has set for itself, on the whole server or in this database, is reset where that is ours.

    Args:
        admin: An administrator's connection to that database.
        database: Which of the four it is.
        database_name: What it is called on its server.
        roles: The roles' names by purpose; those of other databases are ignored.
        input_roles: Those that keep their `search_path`; one role may serve several databases.
        is_ours: Whether the database is ours: then all others lose their rights, and settings are reset.
    """
    names = {"database": sql.Identifier(database_name)}
    is_superuser = admin.info.parameter_status("is_superuser") == "on"
    if is_ours:
        _run(admin, "REVOKE ALL ON DATABASE {database} FROM PUBLIC", names)
        _run(admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", names)
        if is_superuser:
            _run(admin, _NO_LARGE_OBJECTS, names)
    own = {purpose: role for purpose, role in roles.items() if purpose.database is database}
    for role in own.values() if is_ours else ():  # before any is set: one role may serve several purposes
        _reset(admin, role, database_name, keeps_search_path=role in input_roles)
        _run(admin, "REVOKE ALL ON DATABASE {database} FROM {role}", {**names, "role": sql.Identifier(role)})
    for purpose, role in own.items():
        names["role"] = sql.Identifier(role)
        _run(admin, "GRANT CONNECT ON DATABASE {database} TO {role}", names)
        has_one_purpose = list(own.values()).count(role) == 1
        for statement in (*(_revocations(purpose) if has_one_purpose else ()), *_RIGHTS[purpose]):
            _run(admin, statement, names)
        if is_superuser and purpose in _MARKERS:
            _run(admin, _MAKE_RESTORE_POINTS, names)
        for setting in (*_SETTINGS[purpose], *(_LIMITS.get(purpose, ()) if is_superuser else ())):
            _run(admin, f"ALTER ROLE {{role}} IN DATABASE {{database}} SET {setting}", names)


def _reset(admin: Connection, role: str, database_name: str, *, keeps_search_path: bool) -> None:
    """Reset what a role has set for itself, on the whole server and in a database."""
    names = {"role": sql.Identifier(role), "database": sql.Identifier(database_name)}
    for alter, place in (
        ("ALTER ROLE {role}", None),
        ("ALTER ROLE {role} IN DATABASE {database}", database_name),
    ):
        kept = _search_path_of(admin, role, place) if keeps_search_path else None
        _run(admin, f"{alter} RESET ALL", names)
        if kept is not None:
            # In PostgreSQL's own stored form, which it accepts; quoted again it would be another path.
            row = admin.execute("SELECT current_setting('search_path')").fetchone()
            admin.execute("SELECT set_config('search_path', %s, false)", [kept])
            _run(admin, f"{alter} SET search_path FROM CURRENT", names)
            admin.execute("SELECT set_config('search_path', %s, false)", row)


def _search_path_of(admin: Connection, role: str, database_name: str | None) -> str | None:
    """The `search_path` that is set for a role, on the whole server or in a database; None if none is."""
    row = admin.execute(
        """
        SELECT substr(setting, length('search_path=') + 1)
        FROM pg_catalog.pg_db_role_setting
        JOIN pg_catalog.pg_roles ON pg_roles.oid = setrole AND rolname = %(role)s
        LEFT JOIN pg_catalog.pg_database ON pg_database.oid = setdatabase, unnest(setconfig) AS setting
        WHERE datname IS NOT DISTINCT FROM %(database)s AND starts_with(setting, 'search_path=')
        """,
        {"role": role, "database": database_name},
    ).fetchone()
    return None if row is None else str(row[0])


def _run(admin: psycopg.Connection, statement: str, names: Mapping[str, sql.Identifier]) -> None:
    admin.execute(sql.SQL(statement).format(**names))
