"""Who a request comes from and what that allows; how users and service tokens may be called.

Names that differ in case alone are the same. How somebody proves who they are is `users` and `sessions`.
"""

import os
import pwd
import re
import socket
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from episodes_assets.errors import BadAccount


class Role(StrEnum):
    """What a user or a service token may do in the dashboard."""

    VIEWER = "viewer"
    OPERATOR = "operator"

    @property
    def may_change(self) -> bool:
        """Whether it may change anything."""
        return self is Role.OPERATOR


class AuthMethod(StrEnum):
    """How somebody proved who they are."""

    PASSWORD = "password"  # noqa: S105
    OIDC = "openid"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True)
class Identity:
    """Who a request comes from: Starlette's `request.user` in every part of the dashboard.

    Attributes:
        name: Of the user, their e-mail address with OpenID Connect, or of the service token.
        role: What they may do.
        method: How they proved who they are.
    """

    name: str
    role: Role
    method: AuthMethod

    @property
    def is_authenticated(self) -> bool:
        """Always true: an unauthenticated request has Starlette's `UnauthenticatedUser` instead."""
        return True

    @property
    def display_name(self) -> str:
        """What pages call them."""
        return self.name

    @property
    def recorded_name(self) -> str:
        """What is recorded with a decision or a run; a service token is never taken for a user."""
        return f"token {self.name}" if self.method is AuthMethod.TOKEN else self.name


def operating_system_user() -> str:
    """This process's user, as recorded with decisions and runs; it has a blank, which no account has."""
    return f"os user {system_user_name()}@{socket.gethostname()}"


def system_user_name() -> str:
    """The user of this process, from its user id and not from the environment, which anybody can set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user id without a name, as containers have
        return str(os.getuid())


# No colon and no blank: `cli:somebody` in the audit log is never a user.
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}")


def fold(name: str) -> str:
    """A name normalised for comparison: NFKC, without case and without blanks around it."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def is_name(folded: str) -> bool:
    """Whether an account can have this name."""
    return _NAME.fullmatch(folded) is not None


def require_name(name: str) -> str:
    """The name of a new account, folded.

    Raises:
        BadAccount: If no account can have it.
    """
    folded = fold(name)
    if not is_name(folded):
        raise BadAccount(
            f"{name!r} cannot be the name of an account",
            "use up to 100 of a-z, 0-9 and ._@+-, beginning with a letter or a digit",
        )
    return folded
