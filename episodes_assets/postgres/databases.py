"""The four databases, the roles in them, and which of them each kind of process needs.

Where they are is `dsn`; what the roles may do is `provision/grants.py`.
"""

from enum import StrEnum


class Database(StrEnum):
    """One of the four databases."""

    DAGSTER = "dagster"
    INPUT = "input"
    QUEUE = "queue"
    RESULTS = "results"


class Purpose(StrEnum):
    """A role in one of the databases; its value is the middle of the setting's name."""

    DAGSTER = "dagster"
    DASHBOARD = "dashboard"
    INPUT = "input"
    INPUT_WRITER = "input_writer"
    QUEUE = "queue"
    WORKER = "worker"
    QUEUE_READER = "queue_reader"
    SCALER = "scaler"
    RESULTS = "results"
    RESULTS_READER = "results_reader"
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
    Purpose.DASHBOARD: Database.DAGSTER,
    Purpose.INPUT: Database.INPUT,
    Purpose.INPUT_WRITER: Database.INPUT,
    Purpose.QUEUE: Database.QUEUE,
    Purpose.WORKER: Database.QUEUE,
    Purpose.QUEUE_READER: Database.QUEUE,
    Purpose.SCALER: Database.QUEUE,
    Purpose.RESULTS: Database.RESULTS,
    Purpose.RESULTS_READER: Database.RESULTS,
    Purpose.CONSUMER: Database.RESULTS,
}
_EMBEDDED_ROLES = {
    Purpose.DAGSTER: "episodes_dagster",
    Purpose.DASHBOARD: "episodes_dashboard",
    Purpose.INPUT: "episodes_input_reader",
    Purpose.INPUT_WRITER: "episodes_input_writer",
    Purpose.QUEUE: "episodes_orchestrator",
    Purpose.WORKER: "episodes_worker",
    Purpose.QUEUE_READER: "episodes_queue_reader",
    Purpose.SCALER: "episodes_scaler",
    Purpose.RESULTS: "episodes_publisher",
    Purpose.RESULTS_READER: "episodes_results_reader",
    Purpose.CONSUMER: "episodes_consumer",
}

ORCHESTRATOR = (Purpose.DAGSTER, Purpose.INPUT, Purpose.QUEUE, Purpose.RESULTS)
FLEET = (Purpose.WORKER,)
WEBSERVER = (
    Purpose.DAGSTER,
    Purpose.DASHBOARD,
    Purpose.QUEUE,
    Purpose.RESULTS_READER,
    Purpose.CONSUMER,
)
