"""Where the tracebacks of errors go that end a command: into a log in the home."""

import datetime as dt
import sys
import traceback

from episodes_assets.commands.console import block, err
from episodes_assets.errors import EpisodesError
from episodes_assets.private_files import make_folder, open_file
from episodes_assets.settings import load_settings

LOG = "errors.log"


def keep_traceback() -> str:
    """Append the traceback of the error that is being handled to the log; print it if that is impossible.

    Returns:
        Where it is, as a clause.
    """
    told = traceback.format_exc()
    try:
        folder = make_folder(load_settings().home.resolve() / "logs")
        entry = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} {' '.join(sys.argv)}\n{told}\n"
        with open_file(folder / LOG, "a") as log:
            log.write(entry.encode("utf-8", "backslashreplace").decode())
    except (OSError, EpisodesError):
        err.print(block(told), soft_wrap=True)
        return "the traceback is above"
    return f"the traceback is in {folder / LOG}"
