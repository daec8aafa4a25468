"""Keeping processes that work with a lab apart from its source: their environment, and the network.

Such a process is given no setting of this system that leads to a source, and no variable by which a driver or
a client finds a server or an account by itself. A command that works with a lab replaces its own process
(exec) to get such an environment, since /proc shows the one with which a process was started, whatever that
has removed from it. This module loads nothing that takes long to import.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping

from episodes_assets.errors import ProcessFailed
from episodes_assets.setting_fields import Section, section_of
from episodes_assets.settings import WITHHELD, Settings, with_settings

# Variables of libpq, of object stores, and of Dagster, which has a home of its own in a lab.
_WITHHELD_PREFIXES = ("PG", "AWS_", "AZURE_", "GOOGLE_", "DAGSTER_")
_HOME = "home"


def limits_jobs(setting: str) -> bool:
    """Whether a setting is a limit of jobs, which does not depend on where anything is."""
    return section_of(Settings.model_fields[setting]) is Section.JOBS


def without_source(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing leads to a source.

    Of the settings, the home stays, below which the labs are, and the limits of jobs. All others are
    withheld, also where `.env` has them. Applied twice, it changes nothing more.

    Args:
        environment: Any.
    """
    kept = {
        name: value for name, value in environment.items() if not name.upper().startswith(_WITHHELD_PREFIXES)
    }
    withheld = [name for name in Settings.model_fields if name != _HOME and not limits_jobs(name)]
    return with_settings(kept, {f"EPISODES_{name.upper()}": WITHHELD for name in withheld})


def without_network() -> list[str]:
    """The beginning of a command line that runs the rest of it in a network namespace of its own.

    Raises:
        ProcessFailed: If this system does not permit that.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ProcessFailed("unshare is not installed", "install util-linux, or leave --no-network out")
    # An ordinary user may make a network namespace in a user namespace only.
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    prefix = [unshare, *as_user, "--net", "--"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["without a reason"])[-1]
        raise ProcessFailed(
            f"this system refuses a network namespace ({reason})",
            "run it as root or where user namespaces are allowed, or leave --no-network out",
        )
    return prefix
