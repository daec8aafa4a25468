"""Who may do what: each role's rights in its database, granted anew at every `episodes db init`."""

from collections.abc import Mapping

import psycopg
from psycopg import sql

from episodes_assets.databases.connections import Connection
from episodes_assets.databases.purposes import Database, Purpose

Roles = Mapping[Purpose, str]

_STAMP = "GRANT SELECT ON environment_stamp, episodes_schema_version TO {role}"

_RIGHTS: dict[Purpose, tuple[str, ...]] = {
    # Dagster migrates its own tables, in a schema that nobody else looks into: with a right to make
    # operators in `public` its role could let every other one execute what it likes.
    Purpose.DAGSTER: (
        _STAMP,
        "REVOKE CREATE ON SCHEMA public FROM {role}",
        "GRANT CREATE, USAGE ON SCHEMA dagster TO {role}",
        "ALTER ROLE {role} IN DATABASE {database} SET search_path = dagster, public",
    ),
    # No other role may see the schema: it holds what logins are checked against.
    Purpose.DASHBOARD: (
        _STAMP,
        "GRANT USAGE ON SCHEMA dashboard TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON dashboard.users, dashboard.sessions TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON dashboard.login_attempts TO {role}",
        "GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at) ON dashboard.service_tokens TO {role}",
        "GRANT SELECT, INSERT ON dashboard.signing_key TO {role}",
        # Column by column: when it happened is the database's to say.
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
        "REVOKE UPDATE ON ledger.waivers FROM {role}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ),
    Purpose.WORKER: (
        _STAMP,
        "GRANT USAGE ON SCHEMA ledger TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO {role}",
        (
            "GRANT UPDATE (succeeded, held, starts, claim, claimed_by, claimed_at, moved_at)"
            " ON ledger.chunks TO {role}"
        ),
        "GRANT INSERT ON ledger.outcomes, ledger.batches TO {role}",
        "GRANT INSERT, UPDATE ON ledger.workers TO {role}",
        # Column by column: which held jobs a day is published without is not a worker's to say.
        "REVOKE INSERT, UPDATE ON ledger.lone_jobs FROM {role}",
        "GRANT INSERT (plan_id, position, starts, is_held, error, traceback) ON ledger.lone_jobs TO {role}",
        "GRANT UPDATE (starts, is_held, error, traceback) ON ledger.lone_jobs TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "REVOKE INSERT, UPDATE, DELETE ON environment_stamp, episodes_schema_version FROM {role}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ),
    Purpose.RESULTS: (
        _STAMP,
        "GRANT USAGE ON SCHEMA state, published TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA state, published TO {role}",
        "REVOKE UPDATE, DELETE ON published.history FROM {role}",
    ),
    Purpose.CONSUMER: (
        "GRANT USAGE ON SCHEMA published TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA published TO {role}",
    ),
}
_READ_ONLY_SESSIONS = {Purpose.INPUT, Purpose.CONSUMER}


def rights(database: Database) -> dict[str, tuple[str, ...]]:
    """The statements that give each role of a database its rights, by purpose."""
    return {p.value: statements for p, statements in _RIGHTS.items() if p.database is database}


def grant(
    admin: Connection, database: Database, database_name: str, roles: Roles, *, is_ours: bool = True
) -> None:
    """Give each role of a database its rights and, where the database is ours, nobody else any.

    Args:
        admin: An administrator's connection to that database.
        database: Which of the four it is.
        database_name: What it is called on its server.
        roles: The roles' names by purpose; those of other databases are ignored.
        is_ours: Whether who else may come in is for us to say.
    """
    names = {"database": sql.Identifier(database_name)}
    if is_ours:
        _run(admin, "REVOKE ALL ON DATABASE {database} FROM PUBLIC", names)
        _run(admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", names)
    for purpose, role in roles.items():
        if purpose.database is not database:
            continue
        names["role"] = sql.Identifier(role)
        _run(admin, "GRANT CONNECT ON DATABASE {database} TO {role}", names)
        for right in _RIGHTS[purpose]:
            _run(admin, right, names)
        if purpose in _READ_ONLY_SESSIONS:
            read_only = "ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on"
            _run(admin, read_only, names)


def _run(admin: psycopg.Connection, statement: str, names: Mapping[str, sql.Identifier]) -> None:
    admin.execute(sql.SQL(statement).format(**names))
