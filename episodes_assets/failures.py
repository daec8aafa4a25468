"""Root causes: what made a command, a run or a request end, in one line with a hint.

A full disk reaches us as an OSError, as SQLSTATE 53100, as SQLAlchemy's wrapper of it, as a step failure that
Dagster has turned into text, or as a line of PostgreSQL's log. Each is looked through to the innermost cause,
and that is one of the kinds in `failure_kinds.py`. What is none of them is a defect, of ours or of an
algorithm's, and no business of this module.
"""

import builtins
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from episodes_assets import errors
from episodes_assets.errors import EpisodesError, SystemFailure
from episodes_assets.failure_kinds import KINDS, Kind

_DRIVERS = {
    "psycopg", "psycopg2", "psycopg_pool", "adbc_driver_manager", "adbc_driver_postgresql", "asyncpg",
    "sqlalchemy",
}  # fmt: skip


_NOISE = (
    "(Background on this error", "[SQL:", "[parameters:", "Is the server running", "This probably means",
    "before or while processing", ". SQLSTATE", "LINE ", "^", "DETAIL:", "HINT:", "CONTEXT:", "WARNING:",
    "Multiple connection attempts failed", "The above exception",
)  # fmt: skip
# All that a client's libpq takes from its environment.
_LIBPQ_VARIABLES = {
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH",
    "PGCHANNELBINDING", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGOPTIONS", "PGAPPNAME",
    "PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY",
    "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI", "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION", "PGREQUIREPEER", "PGKRBSRVNAME", "PGGSSLIB", "PGGSSENCMODE",
    "PGGSSDELEGATION", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO",
    "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION",
    "PGOAUTHDEBUG",
}  # fmt: skip
_SEVERE = re.compile(r"\b(?:PANIC|FATAL|ERROR): +(.*)")
_PREFIX = re.compile(
    r"^(connection failed: |connection is bad: |IO: |\[libpq\] |Failed to connect: |\[Errno -?\d+\] |- )+"
)
_ERRNO = re.compile(r"\[Errno (-?\d+)\]")
_LONGEST_REASON = 500


@dataclass(frozen=True)
class _Link:
    """One error of a chain, whether it was raised here or is what Dagster kept of it.

    Attributes:
        module: Where its class is from.
        classes: The names of its class and of those above it.
        text: Its message.
        sqlstate: If it is a database's.
        number: Its errno, if it is the operating system's.
        is_context: It was only being handled when the one before it was raised.
    """

    module: str
    classes: tuple[str, ...]
    text: str
    sqlstate: str | None
    number: int | None
    is_context: bool

    @property
    def is_database(self) -> bool:
        return self.module.partition(".")[0] in _DRIVERS or "libpq" in self.text

    @cached_property
    def kind(self) -> Kind | None:
        found = next((each for each in KINDS if self._is(each)), None)
        return None if found and found.is_handled_often and self.is_context else found

    def _is(self, kind: Kind) -> bool:
        is_named = not set(kind.classes).isdisjoint(self.classes)
        is_said = any(text in self.text for text in kind.texts)
        if self.is_database:
            if self.sqlstate:
                return self.sqlstate.startswith(kind.sqlstates) and kind.only_with in self.text
            return is_named or is_said
        if self.number is not None and "gaierror" not in self.classes:
            return self.number in kind.errnos
        return is_named or (is_said and bool(kind.errnos) and "RuntimeError" in self.classes)


def explain(error: BaseException, place: str = "") -> EpisodesError | None:
    """The foreseen error that says why something ended; None for a defect.

    Looks through causes, contexts, SQLAlchemy's `orig` and the members of exception groups. An
    `EpisodesError` anywhere among them is the answer.

    Args:
        error: What was raised.
        place: What was read or written, for the message.
    """
    links = []
    for each, is_context in _walk(error, is_context=False, seen=set()):
        if isinstance(each, EpisodesError):
            return each
        links.append(_link_of(each, is_context=is_context))
    return _choose(links, place)


def cannot_be_written(path: object, error: OSError) -> EpisodesError:
    """What to say of a file of the user's that could not be written."""
    said = f"{path} cannot be written ({reason(error)})"
    cause = explain(error)
    if cause is None or isinstance(cause, errors.FileMissing):
        return errors.BadFile(said, "check the path")
    return errors.BadFile(said, cause.hint)


def explain_recorded(info: Any) -> EpisodesError | None:  # noqa: ANN401
    """The same for an error that Dagster has recorded as text, a `SerializableErrorInfo`."""
    links = list(_walk_recorded(info, is_context=False))
    for link in links:
        found = getattr(errors, link.classes[0], None)
        if isinstance(found, type) and issubclass(found, EpisodesError):
            return found(link.text)
    return _choose(links, "")


def explain_server_log(text: str, place: str) -> SystemFailure | None:
    """Why a PostgreSQL server did not start or stopped, by its log; None when that does not say.

    Args:
        text: The log, or its end.
        place: Which server, for the message.
    """
    said = re.findall(r"(?:PANIC|FATAL):.*", text)
    links = [_Link("psycopg", ("OperationalError",), line, None, None, is_context=False) for line in said]
    fatal = [link for link in links if link.kind and not issubclass(link.kind.error, errors.HostUnreachable)]
    if fatal:
        return _choose(fatal, place)
    return errors.DatabaseUnreachable(f"{place} stopped ({reason_of(said[-1])})") if said else None


def explain_connection(error: BaseException, place: str) -> SystemFailure:
    """Why there is no connection to a database, or none any more.

    Args:
        error: What the driver raised.
        place: The database, without its password.
    """
    found = explain(error, place)
    if isinstance(found, SystemFailure):
        return found
    doubt = _variables() + ("; else " if _variables() else "")
    return errors.DatabaseUnreachable(
        f"cannot reach {place} ({reason(error)})", f"{doubt}see that the server is up; its log says more"
    )


def _variables() -> str:
    """What to do about libpq's environment variables that are set: they count beside a DSN."""
    found = sorted(name for name in os.environ if name in _LIBPQ_VARIABLES)
    return f"correct or unset what the environment sets ({', '.join(found)})" if found else ""


def reason(error: BaseException) -> str:
    """The innermost cause's own words, in one line; its class's name where it has none."""
    *_, (innermost, _) = _walk(error, is_context=False, seen=set(), with_contexts=False)
    link = _link_of(innermost, is_context=False)
    return reason_of(link.text) or link.classes[0]


def name_defect(error: BaseException) -> str:
    """What to call an error that is not explained: the innermost one's class and message."""
    *_, (innermost, _) = _walk(error, is_context=False, seen=set(), with_contexts=False)
    return f"{type(innermost).__name__}: {reason_of(str(innermost))}".removesuffix(": ")


def name_recorded_defect(info: Any) -> str:  # noqa: ANN401
    """The same of an error that Dagster has recorded as text."""
    root = _recorded_root(info)
    return reason_of(root.message) or str(root.cls_name)


def name_recorded_class(info: Any) -> str:  # noqa: ANN401
    """The class of the error at the root of one that Dagster has recorded: the same whatever it says."""
    return str(_recorded_root(info).cls_name or "error")


def _recorded_root(info: Any) -> Any:  # noqa: ANN401
    while info.cause is not None:
        info = info.cause
    return info


def reason_of(text: str) -> str:
    """The line of a driver's message that says what happened."""
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line and not line.startswith(_NOISE)]
    severe = [found[1] for line in told if (found := _SEVERE.search(line))]
    line = (severe or [_PREFIX.sub("", told[0]) if told else ""])[0]
    return shorten(line, _LONGEST_REASON)


def shorten(text: str, longest: int) -> str:
    """A text for a message, of at most so many characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def storable(text: str) -> str:
    """A text without NUL and lone surrogates, which PostgreSQL refuses: errors and requests are anybody's."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def describe_exit(code: int) -> str:
    """How a process ended, by its return code, with the most frequent reason where a signal ended it."""
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"was killed ({name}; if nobody did, the machine or container ran out of memory: see `dmesg`)"
    return f"was ended by {name}"


def _choose(links: list[_Link], place: str) -> SystemFailure | None:
    """What the most telling of some errors means; of equal ones, the innermost."""
    known = [(link, link.kind) for link in reversed(links) if link.kind]
    if not known:
        return None
    link, kind = min(known, key=lambda each: KINDS.index(each[1]))
    said = reason_of(link.text) or link.classes[0]
    if not place and link.module.startswith("psycopg2"):
        place = "Dagster's own database"
    if "{place}" in kind.what:
        variables = _variables()
        hint = kind.hint.replace("{variables}", variables and f", and {variables}")
        return kind.error(kind.what.format(place=place or "the database", reason=said), hint)
    return kind.error(f"{kind.what} ({place + ': ' if place else ''}{said})", kind.hint)


def _walk(
    error: BaseException, *, is_context: bool, seen: set[int], with_contexts: bool = True
) -> Iterator[tuple[BaseException, bool]]:
    """An error and all that led to it, the outermost first; whether only as a context."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error, is_context
    inner: list[tuple[BaseException | None, bool]] = [
        *((each, is_context) for each in getattr(error, "exceptions", ()) if isinstance(each, BaseException)),
        (error.__cause__, is_context),
        (getattr(error, "orig", None), is_context),  # SQLAlchemy's
    ]
    if with_contexts and error.__cause__ is None and not error.__suppress_context__:
        inner.append((error.__context__, True))
    for each, as_context in inner:
        if isinstance(each, BaseException):
            yield from _walk(each, is_context=as_context, seen=seen, with_contexts=with_contexts)


def _walk_recorded(info: Any, *, is_context: bool) -> Iterator[_Link]:  # noqa: ANN401
    yield _link_of_recorded(info, is_context=is_context)
    if info.cause is not None:
        yield from _walk_recorded(info.cause, is_context=is_context)
    elif info.context is not None:
        yield from _walk_recorded(info.context, is_context=True)


def _link_of(error: BaseException, *, is_context: bool) -> _Link:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number is not None and number > 0:
        path = getattr(error, "filename", None)
        text = os.strerror(number) + (f": {path}" if path else "")
    return _Link(
        module=type(error).__module__,
        classes=tuple(each.__name__ for each in type(error).__mro__),
        text=text,
        sqlstate=_sqlstate_of(error),
        number=number,
        is_context=is_context,
    )


def _sqlstate_of(error: BaseException) -> str | None:
    """Most drivers call it `sqlstate`, psycopg2 `pgcode`; ADBC may give NULs for none."""
    found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return found if isinstance(found, str) and found.isalnum() else None


def _link_of_recorded(info: Any, *, is_context: bool) -> _Link:  # noqa: ANN401
    """Its message is `module.Class: text`, without the module for Python's own."""
    name = info.cls_name or ""
    head, _, text = info.message.partition(f"{name}: ")
    own = getattr(builtins, name, None)
    above = tuple(each.__name__ for each in own.__mro__) if isinstance(own, type) else (name,)
    number = _ERRNO.search(text) if "OSError" in above else None
    return _Link(
        module=head.strip().rstrip("."),
        classes=above,
        text=text.strip(),
        sqlstate=None,
        number=int(number[1]) if number else None,
        is_context=is_context,
    )
