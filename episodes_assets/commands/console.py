"""Where commands print: results to stdout, everything else to stderr; colours on a terminal only."""

import sys

from rich.console import Console

# Wide enough for every table: a pipe or a log file has no width of its own.
_PIPE_WIDTH = 140

out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err = Console(stderr=True, highlight=False)
