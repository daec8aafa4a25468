"""Where the cluster of an embedded server lies, and which operating-system account runs it.

That is `postgres` in the home, run by whoever runs the command. Where this process is root, which PostgreSQL
refuses to be, it is a link to a folder below `SYSTEM_FOLDER`, whose data belong to a system user: the home
and the folders above it stay closed to that user. The folder has a random name and the home's path in it, so
a home that is deleted and made again begins with a new cluster, and two homes never share one.
"""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from episodes_assets.databases.postgres_programs import (
    SYSTEM_FOLDER,
    Account,
    Programs,
    find_programs,
    system_account,
)
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.private_files import write_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A cluster's folder, and what runs it."""

    home: Path
    data: Path
    programs: Programs

    def own(self, path: Path) -> None:
        """Give a file or a folder of ours to whoever runs the server."""
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
        _tell_of_orphans(home)
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


def _tell_of_orphans(home: Path) -> None:
    for file in SYSTEM_FOLDER.glob("cluster-*/home"):
        if file.read_text(encoding="utf-8") == str(home):
            log.warning(
                "note: %s has the databases of an earlier %s; delete it if nobody needs them",
                file.parent,
                home,
            )
