"""What a process that works with a lab may know of its environment: nothing that leads to a source.

Neither a setting of this system nor a variable by which a driver or a client finds a server or an account by
itself. A command that works with a lab is begun anew with such an environment, since the system shows the one
that a process was started with, whatever that has removed from it. It loads nothing that takes time.
"""

from collections.abc import Mapping

from episodes_assets.settings import WITHHELD, Section, Settings

# libpq's, those of object stores, and Dagster's: a lab's Dagster has a home of its own.
_FOREIGN = ("PG", "AWS_", "AZURE_", "GOOGLE_", "DAGSTER_")
_HOME = "home"


def is_of_jobs(setting: str) -> bool:
    """Whether a setting limits jobs, and so says nothing of where anything is."""
    said = Settings.model_fields[setting].json_schema_extra
    return isinstance(said, dict) and said["section"] == Section.JOBS.value


def without_source(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing leads to a source.

    Of the settings, the home stays, below which the labs are, and the limits of jobs. All others are
    withheld, also where `.env` has them.

    Args:
        environment: Any; one that this function has given is given back as it is.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}
    withheld = [name for name in Settings.model_fields if name != _HOME and not is_of_jobs(name)]
    return kept | {f"EPISODES_{name.upper()}": WITHHELD for name in withheld}
