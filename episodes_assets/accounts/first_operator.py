"""The first user, without whom nobody could log in."""

from episodes_assets.accounts import audit, passwords
from episodes_assets.accounts.identity import Role
from episodes_assets.accounts.users import add_user, has_users
from episodes_assets.databases.connections import Connection

NAME = "operator"


def first_operator(connection: Connection) -> tuple[str, str] | None:
    """Add an operator with a generated password where there is no user at all.

    Two processes at once add one. The audit log says so.

    Returns:
        The name and the password, which is kept nowhere; None if there was a user.
    """
    if has_users(connection):
        return None
    password = passwords.generate_password()
    with connection.transaction():
        connection.execute("LOCK TABLE dashboard.users IN SHARE ROW EXCLUSIVE MODE")
        if has_users(connection):
            return None
        add_user(connection, NAME, Role.OPERATOR, password)
        audit.record(
            connection,
            who="first start",
            way=None,
            what="add user",
            detail={"name": NAME, "role": Role.OPERATOR.value},
            address="",
            outcome="done",
        )
    return NAME, password
