"""The first user, without whom nobody could log in."""

from collections.abc import Callable

from episodes_assets.accounts import audit, passwords
from episodes_assets.accounts.identity import Role
from episodes_assets.accounts.users import add_user, has_users
from episodes_assets.postgres.connect import Connection

NAME = "operator"


def add_first_operator(connection: Connection, show: Callable[[str, str], None]) -> bool:
    """Add an operator with a generated password where there is no user at all.

    Two processes at once add one. The audit log says so.

    Args:
        connection: To the accounts.
        show: Is told the name and the password, which is kept nowhere: what it raises leaves no operator
            behind whose password nobody has seen.

    Returns:
        Whether one was added.
    """
    if has_users(connection):
        return False
    password = passwords.generate_password()
    with connection.transaction():
        connection.execute("LOCK TABLE dashboard.users IN SHARE ROW EXCLUSIVE MODE")
        if has_users(connection):
            return False
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
        show(NAME, password)
    return True
