"""Other users of this machine, for tests that run as root: what they may do is tried, not computed."""

import contextlib
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import pytest

from episodes_assets.postgres.cluster import Account, find_programs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")

_T = TypeVar("_T")


@contextlib.contextmanager
def other_user(name: str) -> Iterator[Account]:
    """A user of this machine as long as the block lasts."""
    import pwd

    user = f"episodes-{name}-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", user], check=True, capture_output=True)
    try:
        entry = pwd.getpwnam(user)
        yield Account(entry.pw_uid, entry.pw_gid)
    finally:
        subprocess.run(["userdel", user], check=True, capture_output=True)


def do_as(account: Account, function: Callable[[], _T]) -> _T:
    """Call a function in a fork of this process that has become the user; what it raises is raised here.

    A fork, since this interpreter may lie in a folder that the user cannot enter.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "wb") as pipe:
            try:
                os.setgroups([])
                os.setgid(account.gid)
                os.setuid(account.uid)
                answer = (True, function())
            except BaseException as error:  # noqa: BLE001
                answer = (False, error)  # type: ignore[assignment]
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        went_well, result = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if not went_well:
        raise result
    return cast("_T", result)


def require_programs(account: Account) -> None:
    """Skip where the environment itself is closed to other users."""
    if not account.reaches(find_programs().folder):
        pytest.skip("other users cannot enter the folder of this environment")
