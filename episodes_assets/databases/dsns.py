"""Which DSN serves which purpose, configured or embedded.

A purpose is a role in a database. A process asks for the purposes of its own work and is given
nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from episodes_assets.databases import embedded
from episodes_assets.errors import BadSetting
from episodes_assets.settings import Settings


class Database(StrEnum):
    """One of the four databases."""

    DAGSTER = "dagster"
    INPUT = "input"
    QUEUE = "queue"
    RESULTS = "results"


class Purpose(StrEnum):
    """A role in one of the databases; its value is the middle of the setting's name."""

    DAGSTER = "dagster"
    INPUT = "input"
    INPUT_WRITER = "input_writer"
    QUEUE = "queue"
    WORKER = "worker"
    RESULTS = "results"
    CONSUMER = "consumer"

    @property
    def database(self) -> Database:
        """The database this role works in."""
        return _DATABASES[self]

    @property
    def setting(self) -> str:
        """The environment variable that holds its DSN."""
        return f"EPISODES_{self.name}_DSN"

    @property
    def embedded_role(self) -> str:
        """Its name in the embedded server."""
        return _EMBEDDED_ROLES[self]


_DATABASES = {
    Purpose.DAGSTER: Database.DAGSTER,
    Purpose.INPUT: Database.INPUT,
    Purpose.INPUT_WRITER: Database.INPUT,
    Purpose.QUEUE: Database.QUEUE,
    Purpose.WORKER: Database.QUEUE,
    Purpose.RESULTS: Database.RESULTS,
    Purpose.CONSUMER: Database.RESULTS,
}
_EMBEDDED_ROLES = {
    Purpose.DAGSTER: "episodes_dagster",
    Purpose.INPUT: "episodes_input_reader",
    Purpose.INPUT_WRITER: "episodes_input_writer",
    Purpose.QUEUE: "episodes_orchestrator",
    Purpose.WORKER: "episodes_worker",
    Purpose.RESULTS: "episodes_publisher",
    Purpose.CONSUMER: "episodes_consumer",
}

ORCHESTRATOR = (Purpose.DAGSTER, Purpose.INPUT, Purpose.QUEUE, Purpose.RESULTS)
FLEET = (Purpose.INPUT, Purpose.WORKER)


@dataclass(frozen=True)
class Dsns:
    """The DSNs a process has been given."""

    by_purpose: Mapping[Purpose, str]
    is_embedded: bool

    def require(self, purpose: Purpose) -> str:
        """The DSN for a purpose.

        Raises:
            BadSetting: If DSNs are configured, but not this one.
        """
        try:
            return self.by_purpose[purpose]
        except KeyError:
            raise BadSetting(
                f"{purpose.setting} is not set",
                "set it, or unset every EPISODES_*_DSN to use the embedded databases",
            ) from None

    def environment(self, purposes: Iterable[Purpose]) -> dict[str, str]:
        """The environment variables that hand just these purposes to a child process."""
        return {purpose.setting: self.by_purpose.get(purpose, "") for purpose in purposes}


def resolve_dsns(settings: Settings) -> Dsns:
    """Find the databases; with no DSN configured, start the embedded server.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    configured = {
        purpose: secret.get_secret_value()
        for purpose in Purpose
        if (secret := getattr(settings, f"{purpose.value}_dsn")) is not None
    }
    if configured:
        return Dsns(configured, is_embedded=False)
    server = embedded.start(settings.home)
    return Dsns(
        {purpose: server.dsn(purpose.embedded_role, purpose.database.value) for purpose in Purpose},
        is_embedded=True,
    )
