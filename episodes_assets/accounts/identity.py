"""Who a request comes from, and what that allows."""

import os
import pwd
import socket
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a user or a service token may do in the dashboard."""

    VIEWER = "viewer"
    OPERATOR = "operator"

    @property
    def may_change(self) -> bool:
        """Whether it may do more than look."""
        return self is Role.OPERATOR


class Way(StrEnum):
    """How somebody proved who they are."""

    PASSWORD = "password"  # noqa: S105
    OPENID = "openid"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True)
class Identity:
    """Who a request comes from: Starlette's `request.user` in every part of the dashboard.

    Attributes:
        name: Of the user, their e-mail address with OpenID Connect, or of the service token.
        role: What they may do.
        way: How they proved who they are.
    """

    name: str
    role: Role
    way: Way

    @property
    def is_authenticated(self) -> bool:
        """Always: a request from nobody has Starlette's `UnauthenticatedUser`."""
        return True

    @property
    def display_name(self) -> str:
        """What pages call them."""
        return self.name

    @property
    def recorded_name(self) -> str:
        """What is recorded with a decision or a run; a service token is never taken for a user."""
        return f"token {self.name}" if self.way is Way.TOKEN else self.name


def operating_system_user() -> str:
    """Who runs this process, as decisions and runs record it; a blank in it tells it from an account."""
    return f"os user {system_user_name()}@{socket.gethostname()}"


def system_user_name() -> str:
    """The user as the system knows them; the environment could say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user id without a name, as containers have
        return str(os.getuid())
