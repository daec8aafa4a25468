"""Whether a role could write anything in the database it is connected to, by the database's own catalogues.

A role that is meant to read may have been granted more since: directly, through PUBLIC, or as a member of
another role. A membership without inheritance counts as well, since it is only a SET ROLE away. The query
covers attributes, predefined roles, ownership, the rights to create, rights on tables and columns, sequences,
large objects, foreign servers and the server's configuration, functions that run with their owner's rights
(SECURITY DEFINER), and functions that PostgreSQL or an extension withholds from PUBLIC. Of these, some read
what monitoring needs, and are granted to predefined roles for it; all others count, as most change something.

For the role that reads the input there is a narrower query in `provision/grants.py`: its database belongs to
other teams, which may permit everybody to create temporary tables.
"""

from collections.abc import Sequence
from typing import LiteralString

from episodes_assets.errors import RoleCanWrite

_PARAMETERS: LiteralString = """
        UNION ALL
        SELECT 6, format('may ALTER SYSTEM SET %s', parname)
        FROM roles, pg_catalog.pg_parameter_acl
        WHERE has_parameter_privilege(roles.oid, parname, 'ALTER SYSTEM')
"""
_FIND: LiteralString = """
    WITH roles AS MATERIALIZED (
        SELECT oid, rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
        FROM pg_catalog.pg_roles
        WHERE pg_has_role(session_user, oid, 'MEMBER') OR pg_has_role(current_user, oid, 'MEMBER')
    ), words AS (
        SELECT unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS word
        UNION ALL
        SELECT 'MAINTAIN' WHERE current_setting('server_version_num')::integer >= 170000
    ), relations AS MATERIALIZED (
        SELECT pg_class.oid, relkind, format('%I.%I', nspname, relname) AS name
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            -- Everybody may update this view of their own session's settings.
            AND pg_class.oid <> 'pg_catalog.pg_settings'::regclass
    ), withheld AS MATERIALIZED (
        -- Functions that nobody may execute from the beginning, but for their owner and the roles below.
        SELECT objoid
        FROM pg_catalog.pg_init_privs
        WHERE classoid = 'pg_catalog.pg_proc'::regclass AND NOT EXISTS (
            SELECT FROM aclexplode(initprivs) AS granted
            WHERE grantee = 0 OR grantee IN (
                SELECT oid FROM pg_catalog.pg_roles WHERE rolname IN (
                    'pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables'
                )
            )
        )
    ), found AS (
        SELECT 1 AS rank, 'is superuser' AS what FROM roles WHERE rolsuper
        UNION ALL
        SELECT 2, attribute.what
        FROM roles, LATERAL (
            VALUES (rolcreatedb, 'may create databases'), (rolcreaterole, 'may create roles'),
                (rolreplication, 'may replicate'), (rolbypassrls, 'bypasses row security')
        ) AS attribute (is_set, what)
        WHERE attribute.is_set
        UNION ALL
        SELECT 2, format('is a member of %I', rolname)
        FROM roles
        WHERE starts_with(rolname, 'pg_') AND rolname NOT IN (
            -- They only read; the last has the owner of the database as its member, which is found below.
            'pg_read_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables',
            'pg_monitor', 'pg_database_owner'
        )
        UNION ALL
        SELECT 3, format('owns %s', pg_describe_object(classid, objid, objsubid))
        FROM pg_catalog.pg_shdepend
        JOIN roles ON roles.oid = refobjid
        WHERE refclassid = 'pg_catalog.pg_authid'::regclass AND deptype = 'o' AND dbid IN (
            0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        )
        UNION ALL
        SELECT 4, format('may create schemas in database %I', datname)
        FROM roles, pg_catalog.pg_database WHERE has_database_privilege(roles.oid, pg_database.oid, 'CREATE')
        UNION ALL
        SELECT 4, 'may create temporary tables'
        FROM roles WHERE has_database_privilege(roles.oid, current_database(), 'TEMPORARY')
        UNION ALL
        SELECT 4, format('may create in schema %I', nspname)
        FROM roles, pg_catalog.pg_namespace
        WHERE has_schema_privilege(roles.oid, pg_namespace.oid, 'CREATE')
        UNION ALL
        SELECT 5, format('may %s %s', word, name)
        FROM roles, relations, words
        WHERE relkind <> 'S' AND (
            has_table_privilege(roles.oid, relations.oid, word)
            OR word IN ('INSERT', 'UPDATE', 'REFERENCES')
                AND has_any_column_privilege(roles.oid, relations.oid, word)
        )
        UNION ALL
        SELECT 5, format('may %s sequence %s', does, name)
        FROM roles, relations, (VALUES ('USAGE', 'draw from'), ('UPDATE', 'set')) AS sequences (word, does)
        -- Before the question, which is an error for anything else.
        WHERE CASE WHEN relkind = 'S' THEN has_sequence_privilege(roles.oid, relations.oid, word) END
        UNION ALL
        SELECT 6, format('may execute %s, which runs with its owner''s rights', pg_proc.oid::regprocedure)
        FROM roles, pg_catalog.pg_proc
        WHERE prosecdef AND has_function_privilege(roles.oid, pg_proc.oid, 'EXECUTE')
        UNION ALL
        SELECT 6, format('may execute %s', pg_proc.oid::regprocedure)
        FROM roles, pg_catalog.pg_proc
        WHERE (
            pg_proc.oid IN (SELECT objoid FROM withheld)
            -- These are everybody's, unless `db init` could take them from PUBLIC.
            OR pronamespace = 'pg_catalog'::regnamespace
                AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')
        ) AND has_function_privilege(roles.oid, pg_proc.oid, 'EXECUTE')
        UNION ALL
        SELECT 6, format('may write large object %s', pg_largeobject_metadata.oid)
        FROM pg_catalog.pg_largeobject_metadata, aclexplode(lomacl) AS granted
        WHERE privilege_type = 'UPDATE' AND (grantee = 0 OR grantee IN (SELECT oid FROM roles))
        UNION ALL
        SELECT 7, format('may use foreign server %I', srvname)
        FROM roles, pg_catalog.pg_foreign_server
        WHERE has_server_privilege(roles.oid, pg_foreign_server.oid, 'USAGE')
        UNION ALL
        SELECT 7, format('may use foreign data wrapper %I', fdwname)
        FROM roles, pg_catalog.pg_foreign_data_wrapper
        WHERE has_foreign_data_wrapper_privilege(roles.oid, pg_foreign_data_wrapper.oid, 'USAGE')
        -- Parameters.
    )
    -- A superuser could do all the rest as well.
    SELECT session_user::text AS role, array_agg(what ORDER BY rank, what) AS rights
    FROM (SELECT what, min(rank) AS rank FROM found GROUP BY what) AS each_once
    WHERE rank = 1 OR NOT EXISTS (SELECT FROM roles WHERE rolsuper)
"""
# Before it, no rights on parameters can be granted.
_SERVER_WITH_PARAMETERS = 150_000
_SHOWN = 4


def find_rights(server_version: int) -> LiteralString:
    """The query for what a role could write; it has no parameters.

    One row: `role`, and `rights`, the worst first; NULL for nothing.

    Args:
        server_version: The server's `server_version_num`.
    """
    parameters = _PARAMETERS if server_version >= _SERVER_WITH_PARAMETERS else ""
    return _FIND.replace("        -- Parameters.\n", parameters)


def require_no_rights(role: str, rights: Sequence[str] | None, described: str, setting: str) -> None:
    """Refuse a role that could write.

    Args:
        role: Its name.
        rights: What it could do, as `find_rights` gives it; None for nothing.
        described: How to name the database in the message.
        setting: Which setting names the role.

    Raises:
        RoleCanWrite: If there is anything; the message names the role and what it could do.
    """
    if not rights:
        return
    more = f" and {len(rights) - _SHOWN} more" if len(rights) > _SHOWN else ""
    raise RoleCanWrite(
        f"the role {role} could change {described}: it {', '.join(rights[:_SHOWN])}{more}",
        f"take that from it (`episodes db init` leaves the role of {setting} the rights to read alone), or"
        f" name another role in {setting}",
    )
