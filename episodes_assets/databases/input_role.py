"""Whether the role that reads the input could write to it, which no role of the pipeline may."""

from collections.abc import Callable

from episodes_assets.databases.connections import Connection
from episodes_assets.errors import InputWritable

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
        warn: Is told, as one line, what would be refused in production.

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
