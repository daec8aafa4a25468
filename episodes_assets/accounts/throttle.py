"""Rate limit of logins: failed ones slow down the next ones, of the same name and from the same network.

How long somebody must wait after so many failures is a pure rule (exponential backoff). An attempt counts
as failed from the moment it is let through until it is known to have succeeded, so parallel attempts get no
further than one after the other.

Attacks on a name slow down everybody who uses that name, and attacks from an address everybody there; but not
a name at an address where it has logged in before, which is counted by itself. So an attack does not lock its
victim out. The price: at such an address one can see that the name is not refused with the others. Checking
passwords is `users`.
"""

import hashlib
import ipaddress
import math
from collections.abc import Iterable
from dataclasses import dataclass

from episodes_assets.accounts import identity
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection

LONGEST_SECONDS = 15 * 60.0
FORGOTTEN_AFTER_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Attempts:
    """Failed logins of a name or from an address, one after the other.

    Attributes:
        failures: How many.
        seconds_ago: How long ago the last one was.
    """

    failures: int
    seconds_ago: float


@dataclass(frozen=True)
class Backoff:
    """How long to wait after failed logins: exponential backoff.

    Attributes:
        free: How many failures cost no wait.
        halved_after_seconds: The half-life of the count of failures; None to keep all for a day.
        first_seconds: The wait after the first failure that costs one.
    """

    free: int
    halved_after_seconds: float | None = None
    first_seconds: float = 1.0

    def seconds_left(self, attempts: Attempts) -> float:
        """Seconds to wait before the next attempt; 0 if it may be made now.

        After the free ones it is `first_seconds`, doubling with each failure to a quarter of an hour. A day
        after the last failure all are forgotten.
        """
        ago = max(0.0, attempts.seconds_ago)
        if attempts.failures < self.free or ago >= FORGOTTEN_AFTER_SECONDS:
            return 0.0
        doublings = min(attempts.failures - self.free, 20)
        return max(0.0, min(LONGEST_SECONDS, self.first_seconds * 2.0**doublings) - ago)

    def counted(self, attempts: Attempts) -> int:
        """The count of failures after one more, those forgotten meanwhile left out."""
        ago = max(0.0, attempts.seconds_ago)
        if ago >= FORGOTTEN_AFTER_SECONDS:
            return 1
        if self.halved_after_seconds is None:
            return 1 + attempts.failures
        return 1 + math.ceil(attempts.failures * math.pow(0.5, ago / self.halved_after_seconds))


OF_A_NAME = Backoff(free=5)
# Many people can share an address, and each mistypes now and then.
FROM_AN_ADDRESS = Backoff(free=20, halved_after_seconds=3600.0)
KNOWN_FOR_DAYS = 30
_NEVER = Attempts(0, 0.0)


def begin_attempt(connection: Connection, name: str, address: str) -> float:
    """Count an attempt as failed, or say how many seconds to wait; 0 if the password may be checked now.

    After 0 the attempt must end with `record_success` or `record_failure`.

    Args:
        connection: To the accounts.
        name: As it was typed; whether there is such a user makes no difference.
        address: Where it comes from.
    """
    with connection.transaction():
        rules = _rules(connection, name, address)
        _lock(connection, rules)
        found = connection.execute(
            "SELECT subject, failures, extract(epoch FROM clock_timestamp() - failed_at)::float8"
            " FROM dashboard.login_attempts WHERE subject = ANY(%s)",
            [list(rules)],
        )
        attempts = {subject: Attempts(failures, ago) for subject, failures, ago in found}
        seconds = max(rule.seconds_left(attempts.get(subject, _NEVER)) for subject, rule in rules.items())
        if seconds == 0:
            counted = {s: rule.counted(attempts.get(s, _NEVER)) for s, rule in rules.items()}
            # A row without failures records for `forget_failures` at which addresses the name was tried.
            counted.setdefault(_pair(name, address), 0)
            connection.execute(
                "INSERT INTO dashboard.login_attempts (subject, failures, failed_at)"
                " SELECT subject, failures, clock_timestamp()"
                " FROM unnest(%s::bytea[], %s::integer[]) AS counted (subject, failures)"
                " ON CONFLICT (subject)"
                " DO UPDATE SET failures = excluded.failures, failed_at = excluded.failed_at",
                [list(counted), list(counted.values())],
            )
        return seconds


def record_failure(connection: Connection, name: str, address: str) -> None:
    """Record that an attempt failed: the wait begins now."""
    with connection.transaction():
        rules = _rules(connection, name, address)
        _lock(connection, rules)
        connection.execute(
            "UPDATE dashboard.login_attempts"
            " SET failures = greatest(failures, 1), failed_at = clock_timestamp() WHERE subject = ANY(%s)",
            [list(rules)],
        )


def record_success(connection: Connection, name: str, address: str) -> None:
    """Record that an attempt succeeded.

    It resets the failures of the name, or of the name at this address where the two are known together. The
    address's own failures stay, but for this attempt: otherwise an attacker could reset them by logging in to
    an account of their own.
    """
    with connection.transaction():
        rules = _rules(connection, name, address)
        pair = _pair(name, address)
        _lock(connection, [*rules, pair])
        connection.execute(
            "UPDATE dashboard.login_attempts"
            " SET failures = CASE WHEN subject = %s THEN greatest(failures - 1, 0) ELSE 0 END"
            " WHERE subject = ANY(%s)",
            [_address(address), list(rules)],
        )
        connection.execute(
            "INSERT INTO dashboard.login_attempts (subject, failures, failed_at, succeeded_at)"
            " VALUES (%s, 0, clock_timestamp(), clock_timestamp())"
            " ON CONFLICT (subject) DO UPDATE SET succeeded_at = excluded.succeeded_at",
            [pair],
        )
    _purge(connection)


def forget_failures(connection: Connection, name: str) -> None:
    """Reset the failures of a name and of each address where it was tried; for an administrator's command."""
    with connection.transaction():
        # Attempts lock these rows in another order, so locking row by row could deadlock.
        connection.execute("LOCK TABLE dashboard.login_attempts IN SHARE ROW EXCLUSIVE MODE")
        connection.execute(
            "UPDATE dashboard.login_attempts SET failures = 0"
            " WHERE substring(subject FROM 1 FOR 16) = ANY (%(name)s || ARRAY("
            " SELECT substring(subject FROM 17) FROM dashboard.login_attempts"
            " WHERE substring(subject FROM 1 FOR 16) = %(name)s))",
            {"name": _name(name)[:16]},
        )


def _rules(connection: Connection, name: str, address: str) -> dict[bytes, Backoff]:
    """The subjects for which an attempt counts, each with its rule."""
    pair = _pair(name, address)
    known = connection.execute(
        "WITH attempt AS MATERIALIZED (SELECT succeeded_at FROM dashboard.login_attempts WHERE subject = %s)"
        " SELECT FROM attempt WHERE succeeded_at > now() - make_interval(days => %s)",
        [pair, KNOWN_FOR_DAYS],
    ).fetchone()
    if known is not None:
        return {pair: OF_A_NAME}
    return {_name(name): OF_A_NAME, _address(address): FROM_AN_ADDRESS}


def _lock(connection: Connection, subjects: Iterable[bytes]) -> None:
    """Lock subjects until the transaction ends, so that no attempt is counted twice or lost.

    Subjects share 256 locks (striping), so that the names which attackers try do not fill the lock table.
    """
    locks.lock_row(connection, locks.ACCOUNTS, *(f"login {subject[0]:02x}" for subject in subjects))


def _purge(connection: Connection) -> None:
    # Subjects that have had a success, and those that have not: each condition has a partial index.
    for succeeded in (
        "succeeded_at < now() - make_interval(days => %(days)s)",
        "succeeded_at IS NULL",
    ):
        connection.execute(
            "WITH old AS ("  # noqa: S608
            " SELECT subject FROM dashboard.login_attempts"
            f" WHERE failed_at < now() - make_interval(secs => %(seconds)s) AND {succeeded}"
            " FOR UPDATE SKIP LOCKED"
            ") DELETE FROM dashboard.login_attempts WHERE subject = ANY (ARRAY(SELECT subject FROM old))",
            {"seconds": FORGOTTEN_AFTER_SECONDS, "days": KNOWN_FOR_DAYS},
        )


def _name(name: str) -> bytes:
    return _subject("name", identity.fold(name))


def _address(address: str) -> bytes:
    return _subject("address", network_of(address))


def _pair(name: str, address: str) -> bytes:
    """The subject of a name at an address: half of each digest, so that all of a name have one prefix."""
    return _name(name)[:16] + _address(address)[:16]


def network_of(address: str) -> str:
    """An IPv4 address as it is; of an IPv6 address its /64, which a single machine usually has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)


def _subject(kind: str, what: str) -> bytes:
    return hashlib.sha256(f"{kind}\0{what}".encode("utf-8", "surrogatepass")).digest()
