"""`episodes db stamp`: let databases belong to another environment, on an explicit word."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from episodes_assets.databases import stamps
from episodes_assets.databases.connections import describe
from episodes_assets.databases.dsns import Dsns
from episodes_assets.databases.purposes import Database
from episodes_assets.databases.targets import Target, find_targets
from episodes_assets.errors import NotProvisioned, WrongEnvironment
from episodes_assets.settings import Settings


def restamp(
    settings: Settings,
    dsns: Dsns,
    databases: Iterable[Database],
    *,
    old: str,
    new: str,
    report: Callable[[str], None],
) -> None:
    """Change the stamps of databases from one environment to another, all or none.

    All are changed before the first is committed. Only a server that goes away between two commits leaves
    some of them changed; the same again with those named that are not finishes it.

    Without databases it is all four; then an input database of other systems, which has no stamp, is
    left as it is.

    Args:
        settings: Name the administrators' DSNs.
        dsns: Name the databases.
        databases: Which of them; none stands for all.
        old: What each of them must be stamped with.
        new: What they shall be stamped with.
        report: Is told each change, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        NotProvisioned: If a database has no stamp.
        WrongEnvironment: If a database is stamped with something else than `old`.
    """
    named = tuple(dict.fromkeys(databases))  # one that is named twice would wait for itself
    targets = list(find_targets(settings, dsns, named or tuple(Database)))
    found = {target.database: _read(target) for target in targets}
    others = [t for t in targets if t.database is Database.INPUT and not named and found[t.database] is None]
    changing = [target for target in targets if target not in others]
    for target in changing:
        stamp = found[target.database]
        if stamp is None:
            raise NotProvisioned(
                f"{describe(target.admin_dsn)} has no environment stamp", "run `episodes db init`"
            )
        if stamp != old:
            raise _not_old(target, stamp, old)
    with ExitStack() as stack:
        # Whatever goes wrong before the block ends rolls all of them back.
        for target in changing:
            admin = stack.enter_context(target.connect())
            if not stamps.replace(admin, old, new):  # changed since we looked
                raise _not_old(target, stamps.read(admin), old)
    for target in changing:
        report(f"{target.database}: stamp of {target.name} changed from {old} to {new}")
    for target in others:
        report(f"{target.database}: {target.name} has no stamp and is left as it is")


def _read(target: Target) -> str | None:
    with target.connect(read_only=True) as admin:
        return stamps.read(admin)


def _not_old(target: Target, stamp: str | None, old: str) -> WrongEnvironment:
    return WrongEnvironment(
        f"{target.database} ({describe(target.admin_dsn)}) is stamped {stamp!r}, not {old!r}, so it was not"
        " changed",
        f"say --from {stamp} if you mean it, or choose databases with --database",
    )
