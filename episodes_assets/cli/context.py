"""What commands make sure of before they begin, and the lock on the episodes home.

Databases are found, and set up if they are embedded; queue and results answer; hosts are allowed; the input's
role cannot write in production; Dagster has its home. The lake is not looked at, but the snapshots of an
older release are brought into it. `episodes up` holds the lock, so that one system runs in one home; the lock
file names its holder. Commands that work beside a running system (`run`, `webserver`, `dagster dev`) do not
take it. How databases are found and set up is in `postgres/`.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from episodes_assets.cli.console import err
from episodes_assets.errors import AlreadyRunning, DatabaseUnreachable
from episodes_assets.postgres import connect, hosts
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import grants, status
from episodes_assets.private_files import make_folder, open_file, try_lock
from episodes_assets.settings import PACKAGE_FOLDER, PROJECT_FOLDER, Settings


def find_instance_file() -> Path:
    """This release's `dagster.yaml`: in the package where a wheel was installed, else the checkout's."""
    packaged = PACKAGE_FOLDER / "dagster.yaml"
    return packaged if packaged.is_file() else PROJECT_FOLDER / "dagster.yaml"


def prepare_dagster_home(settings: Settings) -> Path:
    """Point DAGSTER_HOME at a folder in the home that has this release's dagster.yaml.

    Nobody but this user may read it. A DAGSTER_HOME that is set already is respected, and so is a file that
    somebody has put into that folder. Events of a step over many days are written in batches, which halves
    what Dagster's bookkeeping takes.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    if given := os.environ.get("DAGSTER_HOME"):
        return Path(given)
    folder = make_folder(settings.dagster_home.resolve())
    folder.chmod(0o700)  # the output of runs, which is kept there, may quote data
    link = folder / "dagster.yaml"
    target = find_instance_file().resolve()
    # A link may lead to another release, which was installed elsewhere.
    if not link.exists() or (link.is_symlink() and link.resolve() != target):
        # By rename: another process may be doing the same.
        made = folder / f".dagster.yaml.{os.getpid()}"
        made.symlink_to(target)
        made.replace(link)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def ready_databases(settings: Settings) -> Dsns:
    """Find the databases; embedded ones are set up, with a message, if they are not.

    With embedded ones, the snapshots of an older release are brought into the lake as well.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
        HostNotAllowed: Outside production, if a setting names a host that is not listed.
    """
    dsns = status.ready_databases(settings, _say)
    if dsns.is_embedded and (settings.snapshots_url or Path(settings.snapshots).exists()):
        bring_in_older_snapshots(settings)
    return dsns


def bring_in_older_snapshots(settings: Settings) -> None:
    """Bring the snapshots of an older release into the lake, with a message, if that was not done.

    Raises:
        SnapshotDamaged: If a snapshot is not what was written.
        WrongEnvironment: If the lake belongs to another environment.
        SystemFailure: If the snapshots or the lake cannot be reached.
    """
    from episodes_assets.lake.opening import open_lake  # a second, and few have such snapshots

    open_lake(settings).bring_in_older_snapshots(settings.environment, _say)


def _say(step: str) -> None:
    err.print(step, style="dim")


def require_reachable(dsns: Dsns) -> None:
    """Fail before a run begins rather than after its retries.

    Raises:
        DatabaseUnreachable: If the queue or the results do not answer.
        SchemaTooOld: If the schema of one is of an older release.
        SchemaTooNew: If the schema of one is of a newer release.
    """
    for purpose in (Purpose.QUEUE, Purpose.RESULTS):
        with connect.connect_to_read(dsns.require(purpose), purpose.database):
            pass


def announce_open_hosts(settings: Settings) -> None:
    """Say, outside production, which hosts are open to this process, if any."""
    if shown := hosts.describe_open(hosts.require_allowed(settings)):
        err.print(f"Open by {hosts.SETTING}: {shown}", style="dim", soft_wrap=True)


def refuse_writable_input(settings: Settings, dsns: Dsns) -> None:
    """Refuse, in production, an input role that could write; warn of it elsewhere.

    An input that cannot be reached is no error here: only a step that reads it needs it.

    Raises:
        InputWritable: In production, if the role could write.
    """
    if Purpose.INPUT not in dsns.by_purpose:
        return
    with (
        suppress(DatabaseUnreachable),
        connect.connect_to_input(dsns.require(Purpose.INPUT)) as connection,
    ):
        grants.check_input_role(
            connection,
            is_production=settings.is_production,
            warn=lambda line: err.print(f"warning: {line}", style="yellow", soft_wrap=True),
        )


def writable_input(settings: Settings, dsns: Dsns) -> str:
    """The DSN of the role that fills the input, after checking the input's stamp.

    Raises:
        WrongEnvironment: If the input belongs to another environment.
        NotProvisioned: If it has no stamp: it may then belong to other systems.
    """
    dsn = dsns.require(Purpose.INPUT_WRITER)
    with connect.connect_to_write(dsn, Database.INPUT, settings.environment):
        pass
    return dsn


LOCK_FILE = "up.lock"


@contextmanager
def only_system(home: Path, address: str) -> Iterator[None]:
    """Hold the lock on the home during the block; the kernel releases it however the process ends.

    Args:
        home: The folder.
        address: The URL of this system's web UI, for the message of another `episodes up`.

    Raises:
        AlreadyRunning: At once, if another process holds the lock.
    """
    path = make_folder(home) / LOCK_FILE
    with open_file(path, "a+") as file:
        if not try_lock(file):
            raise AlreadyRunning(
                f"`episodes up` is running already with {_describe_holder(path)} in {home}",
                "stop that one, or set EPISODES_HOME to another folder",
            )
        file.truncate(0)
        since = f"{dt.datetime.now(dt.UTC):%F %H:%M} UTC"
        json.dump({"pid": os.getpid(), "address": address, "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {holder['pid']} on {holder['address']} since {holder['since']}"
    except (OSError, ValueError):  # it is just starting, or just ending
        return "another process"
