"""Dagster's instance folder, in the home like everything else that is written."""

import os
from pathlib import Path

from episodes_assets.private_files import make_folder
from episodes_assets.settings import PROJECT_FOLDER, Settings


def prepare_dagster_home(settings: Settings) -> Path:
    """Point DAGSTER_HOME at a folder in the home that has the project's dagster.yaml.

    Nobody but this user may read it. A DAGSTER_HOME that is set already is respected. Events of a step
    over many days are written in batches, which halves what Dagster's bookkeeping takes.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    if given := os.environ.get("DAGSTER_HOME"):
        return Path(given)
    folder = make_folder(settings.dagster_home.resolve())
    folder.chmod(0o700)  # what runs print may be read by those who may read the data
    link = folder / "dagster.yaml"
    if not link.exists():
        # By rename: another process may be doing the same.
        made = folder / f".dagster.yaml.{os.getpid()}"
        made.symlink_to(PROJECT_FOLDER / "dagster.yaml")
        made.replace(link)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
