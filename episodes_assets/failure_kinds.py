"""The table of root causes: how each is recognised, what is said of it, and the hint.

Recognised by SQLSTATE, errno and class name, so that no driver is imported here; by text only where a driver
gives nothing else, as libpq does for failed connections. Finding the innermost cause is `failures.py`.
"""

import errno
from dataclasses import dataclass

from episodes_assets import errors
from episodes_assets.errors import SystemFailure


@dataclass(frozen=True)
class Kind:
    """A kind of cause.

    Attributes:
        error: What it is raised as.
        what: What happened; `{place}` and `{reason}` are filled in.
        hint: What to do about it; `{variables}` are those of libpq's environment variables that are set.
        sqlstates: What those that mean it begin with. Whole classes come after single ones.
        only_with: What the message must hold besides.
        errnos: Those that mean it.
        classes: Names of exception classes that mean it.
        texts: What messages that mean it hold: a driver's, where there is no SQLSTATE, or the server log's.
        is_handled_often: Whether code expects it and goes on, so that as the mere context of another error it
            explains nothing.
    """

    error: type[SystemFailure]
    what: str
    hint: str
    sqlstates: tuple[str, ...] = ()
    only_with: str = ""
    errnos: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    is_handled_often: bool = False


# The order is that of search: a full disk also ends connections and makes statements time out, never the
# other way round.
KINDS = (
    Kind(
        errors.DiskFull,
        "the database server has too little shared memory",
        "give the server more of it (`--shm-size` of its container, or the size of /dev/shm)",
        sqlstates=("53100",),
        only_with="shared memory segment",
        texts=("could not resize shared memory segment",),
    ),
    Kind(
        errors.DiskFull,
        "the disk of the database server is full",
        "free space on that disk, then run it again; what was committed is kept",
        sqlstates=("53100",),
        # A short write is told without errno.
        texts=("No space left on device", "Disk quota exceeded", "wrote only"),
    ),
    Kind(
        errors.DiskFull,
        "the disk is full",
        "free space there, then run it again",
        errnos=(errno.ENOSPC, errno.EDQUOT),
    ),
    Kind(
        errors.OutOfMemory,
        "the database server is out of memory",
        "lower its work_mem or max_connections, or give it more memory",
        sqlstates=("53200",),
        texts=("out of memory", "Cannot allocate memory"),
    ),
    Kind(
        errors.OutOfMemory,
        "this process is out of memory",
        "give it more (see `ulimit -v`, the container's limit), or run fewer workers on this machine",
        errnos=(errno.ENOMEM,),
        classes=("MemoryError",),
    ),
    Kind(
        errors.TooManyConnections,
        "the database server has no connection left",
        "stop what holds connections (see pg_stat_activity) or run fewer workers; or raise max_connections, "
        "or the CONNECTION LIMIT of the role or database",
        sqlstates=("53300",),
        texts=("too many clients already", "remaining connection slots are reserved",
               "too many connections for", "no more connections allowed"),
    ),
    Kind(
        errors.LimitReached,
        "this process may open no more files",
        "raise its limit (`ulimit -n`)",
        errnos=(errno.EMFILE, errno.ENFILE),
    ),
    Kind(
        errors.LimitReached,
        "a limit of the database server is reached",
        "see the server's log, and raise the limit that it names",
        sqlstates=("53",),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "check the DSN's user and password, and the server's pg_hba.conf; `episodes db init` makes the roles",
        sqlstates=("28",),
        texts=("password authentication failed", "no password supplied", "no pg_hba.conf entry",
               "authentication failed for user", "is not permitted to log in", "FATAL:  role "),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "check the options of the DSN{variables}",
        texts=('invalid value for parameter "', "unrecognized configuration parameter", ' value: "',
               "permission denied to set parameter", "startup parameter", "channel binding required",
               "authentication method requirement", "GSSAPI encryption required", "GSSAPI support is not",
               "SSL was required", "request an SSL certificate", "hot standby mode", "session is read-only",
               "session is not read-only"),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "check the database's name in the DSN; `episodes db init` makes the databases",
        sqlstates=("3D000",),
        texts=("FATAL:  database ",),
    ),
    Kind(
        errors.ReadOnly,
        "the database takes no changes",
        "if this is a standby, point the DSN at the primary; otherwise see default_transaction_read_only",
        sqlstates=("25006",),
        texts=("read-only transaction",),
    ),
    Kind(
        errors.ReadOnly,
        "the file system is read-only",
        "mount it so that it can be written, or name another folder in EPISODES_HOME or "
        "EPISODES_LAKE_URL",
        errnos=(errno.EROFS,),
    ),
    Kind(
        errors.AccessDenied,
        "the database refuses this role",
        "run `episodes db init`, which grants each role its rights; where it is other systems' database, "
        "ask its owner",
        sqlstates=("42501",),
        texts=("permission denied for", "must be owner of"),
    ),
    Kind(
        errors.AccessDenied,
        "this user may not read or write there",
        "give this user the right (`chown`, `chmod`), or run as the user that owns it",
        errnos=(errno.EACCES, errno.EPERM),
        classes=("PermissionError",),
        texts=("Permission denied", "Operation not permitted"),
    ),
    Kind(
        errors.Damaged,
        "the database server cannot read or write its files",
        "see the server's log and its disk; restore the database from a backup if it is damaged",
        sqlstates=("58", "XX001", "XX002", "F0"),
    ),
    Kind(
        errors.Damaged,
        "the disk fails",
        "see the kernel's log (`dmesg`), and restore from a backup what cannot be read",
        errnos=(errno.EIO, errno.ESTALE),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "check the host of the DSN, and this machine's name resolution (DNS)",
        texts=("could not translate host name", "failed to resolve host", "Name or service not known",
               "Temporary failure in name resolution", "No address associated with hostname"),
    ),
    Kind(
        errors.HostUnreachable,
        "a host has no known address",
        "check the host's name in the setting, and this machine's name resolution (DNS)",
        classes=("gaierror",),
    ),
    Kind(
        errors.TimedOut,
        "a lock was not acquired in time",
        "see pg_stat_activity for who holds it; wait for that, then run it again",
        sqlstates=("55P03",),
        texts=("due to lock timeout",),
    ),
    Kind(
        errors.TimedOut,
        "the database ended the session, whose transaction was idle or took too long",
        "raise idle_in_transaction_session_timeout or transaction_timeout of the role",
        sqlstates=("25P03", "25P04"),
        texts=("idle-in-transaction timeout", "due to transaction timeout"),
    ),
    Kind(
        errors.TimedOut,
        "the database cancelled a statement",
        "if it was its statement_timeout, raise it for this role; if somebody cancelled it, run it again",
        sqlstates=("57014",),
        texts=("due to statement timeout", "due to user request"),
    ),
    Kind(
        errors.Conflict,
        "two transactions conflicted",
        "run it again",
        sqlstates=("40",),
        texts=("deadlock detected",),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "the server starts, stops or recovers: wait for it; if it does not come back, its log says why",
        sqlstates=("57P",),
        texts=("the database system is", "terminating connection due to",
               "terminating connection because of"),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "start the server, or check host and port of the DSN",
        texts=("Connection refused", "Is the server running"),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "it did not answer in time: see that the server is up, that host and port are right, and that no "
        "firewall is in between",
        classes=("ConnectionTimeout", "PoolTimeout"),
        texts=("timeout expired", "timed out", "Connection timed out"),
    ),
    Kind(
        errors.DatabaseUnreachable,
        "cannot reach {place} ({reason})",
        "see that the server is up; if it stopped or crashed, its log says why",
        sqlstates=("08",),
        texts=("server closed the connection", "connection has been closed", "connection is closed",
               "connection already closed", "Connection reset by peer", "could not receive data from server",
               "could not send data to server", "no connection to the server", "Network is unreachable",
               "No route to host", "connection is lost", "consuming input failed", "Broken pipe"),
    ),
    Kind(
        errors.TimedOut,
        "it took too long",
        "see whether the host or disk it waited for answers, then run it again",
        errnos=(errno.ETIMEDOUT,),
        classes=("TimeoutError",),
    ),
    Kind(
        errors.HostUnreachable,
        "a host does not answer",
        "see that it is up, and that host and port in the setting are right",
        errnos=(errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH),
        classes=("ConnectionRefusedError", "ConnectionResetError"),
    ),
    Kind(
        errors.LimitReached,
        "this process may start no more threads or processes",
        "raise its limit (`ulimit -u`, the container's pids limit), or run fewer workers on this machine",
        errnos=(errno.EAGAIN,),
        texts=("can't start new thread",),
    ),
    Kind(
        errors.FileMissing,
        "a file or folder is missing",
        "check its path; restore it from a backup if it was there before",
        errnos=(errno.ENOENT, errno.ENOTDIR),
        classes=("FileNotFoundError", "NotADirectoryError"),
        is_handled_often=True,
    ),
)  # fmt: skip
