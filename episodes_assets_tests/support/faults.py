"""Counts what a process does to databases and files, and lets a fault strike at one instant of it."""

import functools
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import adbc_driver_manager.dbapi as adbc
import dagster as dg
import psycopg
from dagster._core.errors import DagsterInvariantViolationError
from fsspec.implementations.local import LocalFileOpener
from psycopg import sql

from episodes_assets.lake.tables import LakeTable

START = "(start)"
_WRITES = re.compile(r"^(INSERT|UPDATE|DELETE|COPY [a-z]|WITH input|write|rename|link|remove|mkdir|rmdir)")
_AFTER = "after the transaction"
_AFTER_COMMIT = "after the commit"
_FILE_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}


@dataclass(frozen=True)
class Instant:
    """The moment before something is done.

    Attributes:
        asset: The asset that does it; `(start)` before the first.
        what: A statement, the begin or end of a transaction, or an operation on a file.
        nth: Which of the asset's of that kind, from 1.
    """

    asset: str
    what: str
    nth: int

    @property
    def is_write(self) -> bool:
        """Whether it changes a database or a file."""
        return _WRITES.search(self.what) is not None

    def __str__(self) -> str:
        return f"{self.asset}: {self.what} ({self.nth})"


class Instants:
    """The instants that a process has passed.

    What a thread repeats without anything in between, such as polling, is one instant. Threads are told
    apart, since what one does between two statements of another is chance.
    """

    def __init__(self, strike_at: Instant | None, strike: Callable[[], None]) -> None:
        self.passed: list[Instant] = []
        self._strike_at = strike_at
        self._strike = strike
        self._asset = START
        self._last = threading.local()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.RLock()

    def passing(self, what: str) -> None:
        """Count an instant; let the fault strike when it is the one."""
        with self._lock:
            self._asset = _current_asset() or self._asset
            label = f"{self._asset} {what}"
            if label == getattr(self._last, "label", None):
                return
            self._last.label = label
            self._counts[self._asset, what] += 1
            instant = Instant(self._asset, what, self._counts[self._asset, what])
            self.passed.append(instant)
            if instant == self._strike_at:
                self._strike()


def watch(instants: Instants, folder: str) -> None:
    """Let each statement through psycopg or ADBC, and each file operation below a folder, pass an instant.

    For the rest of the process: it is one that ends soon.
    """
    _before(psycopg.Cursor, "execute", lambda _, query, *__, **___: _statement(query), instants)
    _before(psycopg.Cursor, "copy", lambda _, query, *__, **___: _statement(query), instants)
    _before(psycopg.Copy, "write", lambda *_: "copied rows", instants)
    _before(psycopg.Copy, "__exit__", lambda *_: "end of COPY", instants)
    _before(psycopg.Connection, "commit", lambda _: "COMMIT", instants)
    _before(psycopg.Transaction, "__enter__", lambda _: "BEGIN", instants)
    _before(psycopg.Transaction, "__exit__", lambda _, error, *__: _end_of_transaction(error), instants)
    _after(psycopg.Transaction, "__exit__", _AFTER, instants)
    _before(adbc.Cursor, "execute", lambda _, query, *__: _statement(query), instants)
    _before(adbc.Connection, "commit", lambda _: "COMMIT", instants)
    _before(LocalFileOpener, "write", lambda file, *_: f"write {_place(file.path, folder)}", instants)
    _before(LocalFileOpener, "close", lambda file: f"close {_place(file.path, folder)}", instants)

    _before(LakeTable, "_commit", lambda table, *_: f"write a commit of {table.name}", instants)
    _after(LakeTable, "_commit", _AFTER_COMMIT, instants)

    def on_audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS and isinstance(arguments[0], str) and arguments[0].startswith(folder):
            mode = f" {arguments[1]}" if event == "open" else ""
            instants.passing(f"{event.removeprefix('os.')} {_place(arguments[0], folder)}{mode}")

    sys.addaudithook(on_audit)


def _current_asset() -> str | None:
    try:
        made = dg.AssetExecutionContext.get().selected_asset_keys
        return min(str(key.to_user_string()) for key in made)  # of a step that makes several, the first
    except DagsterInvariantViolationError:  # between two steps, or in a thread of one
        return None


def _before(owner: type, name: str, what: Callable[..., str], instants: Instants) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        instants.passing(what(self, *args, **kwargs))
        return original(self, *args, **kwargs)

    setattr(owner, name, watched)


def _after(owner: type, name: str, what: str, instants: Instants) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        instants.passing(what)
        return result

    setattr(owner, name, watched)


def _statement(query: str | bytes | sql.Composable) -> str:
    text = query.as_string(None) if isinstance(query, sql.Composable) else query
    text = text.decode() if isinstance(text, bytes) else text
    # Ids differ from run to run, and some statements have them written in.
    return re.sub(r"\d+", "n", " ".join(text.split()))[:90]


def _end_of_transaction(error: object) -> Literal["COMMIT", "ROLLBACK"]:
    return "COMMIT" if error is None else "ROLLBACK"


def _place(path: str, folder: str) -> str:
    """A path below the folder, without the names that differ from run to run."""
    return re.sub(r"[0-9a-f]{32,}(\.[0-9a-f]{16})?", "*", str(path).removeprefix(folder))


def phases(passed: Sequence[Instant], asset: str) -> dict[str, list[Instant]]:
    """An asset's instants `before` its first write, `during`, and `after` its write is complete."""
    own = [instant for instant in passed if instant.asset == asset]
    first = next(at for at, instant in enumerate(own) if instant.is_write)
    # A database's write is complete after its transaction, the lake's after its commit.
    ends = [at for at, instant in enumerate(own) if instant.what in (_AFTER, _AFTER_COMMIT)]
    writes = [at + 1 for at, instant in enumerate(own) if instant.is_write]
    complete = max(ends or writes)
    return {"before": own[: first + 1], "during": own[first + 1 : complete], "after": own[complete:]}
