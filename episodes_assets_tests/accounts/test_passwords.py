"""Passwords: hashed, strong enough, and checked in the same time whether there is one or not."""

import re
from typing import Literal

import pytest
from argon2 import PasswordHasher

from episodes_assets.accounts import users
from episodes_assets.errors import BadAccount


class CountingHasher(PasswordHasher):
    """Remembers which hashes it was asked to verify."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.verified.append(str(hash))
        return super().verify(hash, password)


def test_a_hash_is_argon2id_with_the_costs_of_rfc_9106() -> None:
    hashed = users.hash_password("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert "correct" not in hashed
    assert users.matches(hashed, "correct horse battery")
    assert not users.matches(hashed, "correct horse batterY")
    assert not users.needs_rehash(hashed)


def test_without_a_user_as_much_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = CountingHasher()
    monkeypatch.setattr(users, "_HASHER", hasher)
    hashed = users.hash_password("correct horse battery")
    for stored in (hashed, None):
        hasher.verified.clear()
        assert not users.matches(stored, "wrong horse battery")
        assert len(hasher.verified) == 1
        costs = hasher.verified[0].rsplit("$", 2)[0]
        assert costs == hashed.rsplit("$", 2)[0]


def test_what_is_no_hash_matches_nothing() -> None:
    assert not users.matches("!", "correct horse battery")


def test_every_keyboard_spells_a_password_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accent of its own, or with its letter; and what no keyboard gives is no error."""
    monkeypatch.setattr(users, "_HASHER", CountingHasher())
    hashed = users.hash_password("cafe\u0301 au lait, merci")
    assert users.matches(hashed, "caf\u00e9 au lait, merci")
    for typed in ("\ud800", "a\0b", "", "x" * 5_000_000):
        assert not users.matches(hashed, typed)


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("elevenchars", "fewer than 12 characters"),
        ("", "fewer than 12 characters"),
        ("x" * 1_001, "more than 1,000 characters"),
        ("abababababab", "easily guessed .Repeats like"),
        ("passwordpassword", "easily guessed .Repeats like"),
        ("P@ssw0rd1234", "easily guessed .This is similar to a commonly used password"),
        ("iloveyou1234", "easily guessed .This is similar to a commonly used password"),
        ("qwertyuiopas", "easily guessed"),
        ("abcdefghijkl", "easily guessed .Sequences like"),
        ("summer2026summer", "easily guessed"),
        ("Ada.Lovelace@example.org", "the user's name"),
        ("ada LOVELACE ada lovelace 1815", "the user's name"),
        ("episodes-dashboard-operator", "words everybody knows of this system"),
    ],
)
def test_a_weak_password_is_refused(password: str, problem: str) -> None:
    with pytest.raises(BadAccount, match=problem) as refused:
        users.require_strong(password, "ada.lovelace@example.org")
    assert not password or password not in str(refused.value)


@pytest.mark.parametrize("password", ["correct horse battery", "Sommerferien in Kiel", "x7" + "kq9v2m" * 166])
def test_words_that_do_not_belong_together_are_accepted(password: str) -> None:
    users.require_strong(password[: users.MAXIMUM_LENGTH], "ada.lovelace@example.org")


def test_a_generated_password_is_strong_and_readable() -> None:
    generated = {users.generate_password() for _ in range(50)}
    assert len(generated) == 50
    for each in generated:
        users.require_strong(each, "operator")
        assert re.fullmatch(r"([a-km-np-z2-9]{5}-){3}[a-km-np-z2-9]{5}", each)
