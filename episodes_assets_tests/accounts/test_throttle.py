"""Throttled logins: kept in the database, so that many at once get no further than one."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from episodes_assets.accounts import throttle
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import AccountsDatabase

FREE = throttle.OF_A_NAME.free
FREE_OF_AN_ADDRESS = throttle.FROM_AN_ADDRESS.free
FIRST, LONGEST = 60.0, 60 * throttle.LONGEST_SECONDS


@pytest.fixture(autouse=True)
def _long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that what passes while a test runs does not count."""
    for rule in ("OF_A_NAME", "FROM_AN_ADDRESS"):
        monkeypatch.setattr(throttle, rule, replace(getattr(throttle, rule), first_seconds=FIRST))
    monkeypatch.setattr(throttle, "LONGEST_SECONDS", LONGEST)


def fail(connection: Connection, name: str, address: str, times: int = 1) -> int:
    """Guess wrongly so often; how many guesses were let through."""
    passed = 0
    for _ in range(times):
        if throttle.begin_attempt(connection, name, address) == 0:
            throttle.record_failure(connection, name, address)
            passed += 1
    return passed


def wait_for(connection: Connection, name: str, address: str) -> float:
    """The wait, without an attempt that counts."""
    with connection.transaction(force_rollback=True):
        return throttle.begin_attempt(connection, name, address)


def succeed(connection: Connection, name: str, address: str) -> None:
    assert throttle.begin_attempt(connection, name, address) == 0
    throttle.record_success(connection, name, address)


def test_many_guesses_at_once_get_no_further_than_one_after_the_other(accounts: AccountsDatabase) -> None:
    together = threading.Barrier(16)

    def guess(number: int) -> float:
        with accounts.connect() as connection:
            together.wait()
            # Another address each time, and the name spelt otherwise.
            return throttle.begin_attempt(connection, " Ada"[number % 2 :], f"10.0.0.{number}")

    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(guess, range(16)))
    assert Counter(wait == 0 for wait in waits) == {True: FREE, False: 16 - FREE}
    assert all(0 < wait <= FIRST for wait in waits if wait)


def test_many_names_from_an_address_at_once(accounts: AccountsDatabase) -> None:
    together = threading.Barrier(8)

    def guess(number: int) -> int:
        with accounts.connect() as connection:
            together.wait()
            names = (f"name{number}_{n}" for n in range(4))
            return sum(throttle.begin_attempt(connection, name, "10.0.0.1") == 0 for name in names)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(guess, range(8))) == FREE_OF_AN_ADDRESS


def test_waits_double_to_a_quarter_of_an_hour(accounts: AccountsDatabase, connection: Connection) -> None:
    assert fail(connection, "ada", "10.0.0.1", 20) == FREE
    expected = FIRST
    for number in range(12):
        left = wait_for(connection, "ada", "10.0.0.9")
        assert expected - FIRST < left <= expected
        accounts.age("login_attempts", expected)
        assert fail(connection, "ada", f"10.0.1.{number}", 3) == 1
        expected = min(2 * expected, LONGEST)
    accounts.age("login_attempts", 86_400)
    assert fail(connection, "ada", "10.0.0.1", 20) == FREE


def test_a_refused_attempt_does_not_prolong_the_wait(
    accounts: AccountsDatabase, connection: Connection
) -> None:
    fail(connection, "ada", "10.0.0.1", FREE + 10)
    accounts.age("login_attempts", FIRST / 2)
    assert fail(connection, "ada", "10.0.0.1", 10) == 0
    accounts.age("login_attempts", FIRST / 2)
    assert wait_for(connection, "ada", "10.0.0.1") == 0


def test_the_wait_begins_when_the_guess_is_known_to_be_wrong(
    accounts: AccountsDatabase, connection: Connection
) -> None:
    fail(connection, "ada", "10.0.0.1", FREE - 1)
    assert throttle.begin_attempt(connection, "ada", "10.0.0.1") == 0
    accounts.age("login_attempts", 60)  # so long it took
    throttle.record_failure(connection, "ada", "10.0.0.1")
    assert wait_for(connection, "ada", "10.0.0.1") > 0


def test_an_attempt_that_is_never_finished_counts(connection: Connection) -> None:
    for _ in range(FREE):
        assert throttle.begin_attempt(connection, "ada", "10.0.0.1") == 0
    assert throttle.begin_attempt(connection, "ada", "10.0.0.1") > 0


def test_a_success_forgets_the_names_failures_but_not_the_addresss(connection: Connection) -> None:
    fail(connection, "ada", "10.0.0.1", FREE - 1)
    succeed(connection, "ada", "10.0.0.1")
    assert fail(connection, "ada", "10.0.0.1", 20) == FREE
    # Nor does the success itself count: it leaves what was left.
    passed = FREE - 1  # where she is known by now, she is counted by herself
    succeed(connection, "eve", "10.0.0.1")
    for number in range(FREE_OF_AN_ADDRESS):
        passed += fail(connection, f"name{number}", "10.0.0.1")
        if wait_for(connection, "eve", "10.0.0.1") == 0:
            succeed(connection, "eve", "10.0.0.1")
    assert passed == FREE_OF_AN_ADDRESS


def test_an_attack_keeps_nobody_out_where_they_log_in(
    accounts: AccountsDatabase, connection: Connection
) -> None:
    succeed(connection, "ada", "192.168.1.1")
    for number in range(FREE + 3):
        fail(connection, "ada", f"10.0.0.{number}")
    assert wait_for(connection, "ada", "10.0.9.9") > 0
    assert wait_for(connection, "ada", "192.168.1.2") > 0
    succeed(connection, "Ada", "192.168.1.1")
    assert wait_for(connection, "ada", "10.0.9.9") > 0  # which did not help the attack
    # There guesses are counted as well.
    assert fail(connection, "ada", "192.168.1.1", 20) == FREE
    accounts.age("login_attempts", 31 * 86_400)
    for number in range(FREE):
        fail(connection, "ada", f"10.0.0.{number}")
    assert wait_for(connection, "ada", "192.168.1.1") > 0


@pytest.mark.parametrize("name", ["ada", "nobody", "", "a\0b", "\ud800", "x" * 1_000_000])
def test_every_name_is_throttled_alike(connection: Connection, name: str) -> None:
    assert fail(connection, name, "10.0.0.1", 20) == FREE


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("testclient", "testclient", True),
    ],
)
def test_one_machine_is_one_address(connection: Connection, first: str, second: str, is_one: bool) -> None:
    for number in range(FREE_OF_AN_ADDRESS):
        fail(connection, f"name{number}", first)
    assert (wait_for(connection, "somebody", second) > 0) is is_one


def fill(connection: Connection, address: str) -> None:
    """Guess at an address until everybody new there has to wait."""
    for number in range(FREE_OF_AN_ADDRESS):
        fail(connection, f"name{number}", address)


def test_guesses_at_an_address_keep_nobody_out_where_they_log_in(connection: Connection) -> None:
    succeed(connection, "ada", "127.0.0.1")
    fill(connection, "127.0.0.1")
    assert wait_for(connection, "eve", "127.0.0.1") > 0
    for _ in range(3):
        succeed(connection, "ada", "127.0.0.1")
    # Nor do wrong guesses at ada there cost the others anything.
    before = wait_for(connection, "eve", "127.0.0.1")
    fail(connection, "ada", "127.0.0.1", FREE)
    assert 0 < wait_for(connection, "eve", "127.0.0.1") <= before


def test_typing_errors_among_good_logins_do_not_add_up(
    accounts: AccountsDatabase, connection: Connection
) -> None:
    for number in range(FREE_OF_AN_ADDRESS + 11):
        assert fail(connection, f"name{number}", "127.0.0.1") == 1
        succeed(connection, f"name{number}", "127.0.0.1")
        accounts.age("login_attempts", 3_600)


def test_an_administrator_can_end_the_wait(connection: Connection) -> None:
    succeed(connection, "ada", "10.0.0.2")
    fail(connection, "ada", "10.0.0.2", FREE)
    fail(connection, "ada", "10.0.0.1", FREE)
    fail(connection, "eve", "10.0.0.3", FREE)
    fill(connection, "10.0.0.1")
    fill(connection, "10.0.0.4")
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.9"):
        assert wait_for(connection, "ada", address) > 0
    throttle.forget_failures(connection, "ADA")
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.9"):
        assert wait_for(connection, "ada", address) == 0
    # Others' waits are none of hers.
    assert wait_for(connection, "eve", "10.0.0.9") > 0
    assert wait_for(connection, "mallory", "10.0.0.4") > 0


def test_what_counts_no_more_is_not_kept(accounts: AccountsDatabase, connection: Connection) -> None:
    fail(connection, "ada", "10.0.0.1")
    succeed(connection, "eve", "10.0.0.2")
    accounts.age("login_attempts", 86_500)
    succeed(connection, "mallory", "10.0.0.3")
    kept = [bytes(subject) for (subject,) in accounts.query("SELECT subject FROM dashboard.login_attempts")]
    assert throttle._pair("eve", "10.0.0.2") in kept
    assert throttle._name("ada") not in kept
    assert len(kept) == 4
    accounts.age("login_attempts", 31 * 86_400)
    succeed(connection, "mallory", "10.0.0.3")
    assert throttle._pair("eve", "10.0.0.2") not in [
        bytes(subject) for (subject,) in accounts.query("SELECT subject FROM dashboard.login_attempts")
    ]
