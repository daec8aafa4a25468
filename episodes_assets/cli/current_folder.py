"""The current folder of the processes that a command starts, Dagster's own among them: one of the home.

Dagster's programs look for a `.env` in their current folder, and put its variables in the place of those that
they were given. Where a command is typed, that may be other people's file, or the one of the checkout with
DSNs that are withheld from them. So a command that starts them works in an empty folder of the home before it
does. Which variables they are given is in `postgres/dsn.py`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from episodes_assets.postgres.dsn import NO_PATH, inherited
from episodes_assets.private_files import make_folder
from episodes_assets.settings import Settings

_PATHS_OF_SETTINGS = ("home", "lake_url", "snapshots_url", "tls_certificate", "tls_key")
# Variables by which libpq, OpenSSL and the clients of object stores find files, and `tempfile` its folder.
_PATHS_OF_LIBRARIES = (
    "PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT", "PGSSLCRL",
    "PGSSLCRLDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "TMPDIR",
)  # fmt: skip
_SEARCH_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


@contextmanager
def own_current_folder(settings: Settings) -> Iterator[None]:
    """Let this process and its children work in an empty folder of the home while the block lasts.

    What a variable names by a relative path stays what it is, a file of the folder where the command was
    typed. The paths of settings are absolute already, and so are those of the DSNs that were resolved before.

    Raises:
        OSError: If the folder cannot be made or entered.
    """
    folder = make_folder(settings.dagster_home / "current")
    with ExitStack() as stack:
        stack.enter_context(inherited({**_absolute(os.environ), **_paths(settings)}))
        with suppress(OSError):  # it may be gone
            stack.callback(_return_to, Path.cwd())
        os.chdir(folder)
        yield


def _return_to(folder: Path) -> None:
    with suppress(OSError):  # it may be gone by now
        os.chdir(folder)


def _paths(settings: Settings) -> dict[str, str]:
    """The settings that name files or folders, as variables; those that are not set are left out."""
    found = {f"EPISODES_{name.upper()}": getattr(settings, name) for name in _PATHS_OF_SETTINGS}
    return {name: str(path) for name, path in found.items() if path}


def _absolute(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of libraries that name something relative to the current folder, made absolute."""
    found = {
        name: str(Path(value).absolute())
        for name in _PATHS_OF_LIBRARIES
        if (value := environment.get(name)) and value != NO_PATH
    }
    for name in _SEARCH_PATHS:
        folders = environment.get(name, "").split(os.pathsep)
        # An empty one stays empty: it stands for the current folder, which is then ours.
        found[name] = os.pathsep.join(str(Path(each).absolute()) if each else "" for each in folders)
    return {name: value for name, value in found.items() if value != environment.get(name, "")}
