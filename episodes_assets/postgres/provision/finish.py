"""`episodes db finish`: remove what only older releases need, once no process of them lives (contract).

First the schemas say that no older release may go on. Who begins after that is refused, so a second look
at the living processes is final: none is found, or the schemas let the older releases go on again and
nothing has been removed. How a schema is finished is `schema`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from episodes_assets.errors import OlderReleaseLives
from episodes_assets.postgres import admission
from episodes_assets.postgres.connect import describe
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.locks import SCHEMA_LOCK_SECONDS
from episodes_assets.postgres.provision import schema
from episodes_assets.postgres.provision.init import locked
from episodes_assets.postgres.provision.schema import SchemaState, begin_migrations, finish_within
from episodes_assets.postgres.provision.status import Report
from episodes_assets.postgres.provision.targets import Target, find_targets
from episodes_assets.settings import Settings

# Names the living processes whose release does not know some versions, by database.
FindOlder = Callable[[Mapping[Database, str]], Sequence[str]]


def finish(settings: Settings, dsns: Dsns, find_older: FindOlder, report: Report) -> None:
    """Finish the schemas of all databases, or none.

    Args:
        settings: Names the environment and the administrators' DSNs.
        dsns: Name the databases.
        find_older: Called twice, if there is something to remove.
        report: Called with each step, as one line.

    Raises:
        OlderReleaseLives: If a process of a release lives that still needs something.
        WrongEnvironment: If a database belongs to another environment.
        SchemaTooOld: If `episodes db init` of this release has not been run.
        SchemaTooNew: If a newer release has set a database up.
        LockHeld: If another session holds a lock on something that has to be changed.
    """
    targets = [target for target in find_targets(settings, dsns) if target.is_ours]
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(locked(target))
        states = [(target, _state(target, settings.environment)) for target in targets]
        pending = [(target, state) for target, state in states if state.unfinished(target.database)]
        if not pending:
            report("All schemas are finished: there is nothing that only older releases need.")
            return
        versions = {
            target.database: state.unfinished(target.database)[-1].revision for target, state in pending
        }
        _require_none(find_older(versions))
        left: list[tuple[Target, SchemaState]] = []
        try:
            for target, state in pending:
                left.append((target, state))  # first: it may be closed although its connection fails
                with target.connect() as admin:
                    schema.close_window(admin, target.database, state)
            _require_none(find_older(versions))
            for target, state in pending:
                with (
                    target.connect(lock_seconds=SCHEMA_LOCK_SECONDS) as admin,
                    begin_migrations(admin, target.database) as migrations,
                ):
                    finish_within(migrations, target.database, state)
                left.remove((target, state))
                removed = ", ".join(each.revision for each in state.unfinished(target.database))
                report(f"{target.database}: finished {removed}")
        finally:
            with ExitStack() as opening:  # each, whatever becomes of the others
                for target, state in left:
                    opening.callback(_open_window, target, state)


def _open_window(target: Target, state: SchemaState) -> None:
    with target.connect() as admin:
        schema.open_window(admin, target.database, state)


def _state(target: Target, environment: str) -> SchemaState:
    described = describe(target.admin_dsn)
    with target.connect(read_only=True) as admin:
        # Also of a newer schema beside which this release may go on it does not know what is left to remove.
        stamp, version, _ = admin.execute(admission.READ_ADMISSION).fetchone() or admission.NOTHING_FOUND
        admission.require_admission((stamp, version, None), target.database, environment, described)
        return schema.read_state(admin)


def _require_none(older: Sequence[str]) -> None:
    if older:
        raise OlderReleaseLives(
            f"processes of an older release live: {'; '.join(older)}",
            "stop them or start them with this release, then run `episodes db finish` again",
        )
