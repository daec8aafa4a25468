"""Passwords: hashed with argon2id, checked in the same time whether there is a user or not."""

import functools
import re
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from episodes_assets.errors import BadAccount

MINIMUM_LENGTH = 12
MAXIMUM_LENGTH = 1_000
# zxcvbn's best mark: at least ten to the tenth guesses.
_STRONG = 4
# zxcvbn takes no more: its time grows with the square of the length.
_LONGEST_ESTIMATED = 72
_SYSTEM_WORDS = ("episodes", "episode", "dagster", "dashboard", "operator", "viewer")
_SHORTEST_WORD = 3

# The library's defaults follow RFC 9106; when they change, passwords are hashed anew at the next login.
_HASHER = PasswordHasher()
# No letters that are taken for one another.
_READABLE = "abcdefghijkmnpqrstuvwxyz23456789"


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with its salt and costs."""
    return _HASHER.hash(_spelt(password))


def matches(hashed: str | None, password: str) -> bool:
    """Whether a hash is of this password.

    Args:
        hashed: The hash; None where there is no user. That takes as long, and is False.
        password: What somebody typed.
    """
    dummy = _dummy(_HASHER)  # made in either case: the first login would give away which it was
    try:
        is_right = _HASHER.verify(hashed or dummy, _spelt(password))
    except (VerificationError, InvalidHashError):
        return False
    return is_right and hashed is not None


def needs_rehash(hashed: str) -> bool:
    """Whether a hash was made with other costs than this release's."""
    return _HASHER.check_needs_rehash(hashed)


def generate_password() -> str:
    """A password of 100 random bits that can be read aloud: four groups of five."""
    return "-".join("".join(secrets.choice(_READABLE) for _ in range(5)) for _ in range(4))


def require_strong(password: str, name: str) -> None:
    """Refuse a password that is too easily guessed.

    zxcvbn estimates how many guesses it takes: it knows common passwords and words, also spelt with digits
    for letters, names, dates, rows of the keyboard, sequences and repeats. The user's name and the words
    of this system count for nothing, because an attacker tries them first.

    Args:
        password: The password to be.
        name: The user's name, folded.

    Raises:
        BadAccount: If it is too short, too long, common, or little more than names.
    """
    mend = "choose a longer one, several words for instance, or let --generate make one"
    if len(password) < MINIMUM_LENGTH:
        raise BadAccount(f"the password has fewer than {MINIMUM_LENGTH} characters", mend)
    if len(password) > MAXIMUM_LENGTH:
        raise BadAccount(f"the password has more than {MAXIMUM_LENGTH:,} characters", "choose a shorter one")
    mend = "choose four uncommon words that do not belong together, or let --generate make one"
    if (weakness := _weakness(password)) is not None:
        raise BadAccount(f"the password is easily guessed{weakness}", mend)
    if _weakness(_without_known_words(password, name)) is not None:
        raise BadAccount(
            "the password is little more than the user's name or words everybody knows of this system", mend
        )


def _weakness(password: str) -> str | None:
    """Why a password is easily guessed, to be put behind that; None if it is not."""
    if not password:
        return ""
    found = zxcvbn(password[:_LONGEST_ESTIMATED])
    if found["score"] >= _STRONG:
        return None
    warning = found["feedback"]["warning"]
    return f" ({warning.rstrip('.')})" if warning else ""


def _without_known_words(password: str, name: str) -> str:
    """What an attacker who knows the user's name and where it is used has to guess."""
    parts = re.split(r"[^a-z0-9]+", name)
    known = sorted({name, *parts, *_SYSTEM_WORDS}, key=len, reverse=True)
    rest = password.casefold()
    for word in known:
        if len(word) >= _SHORTEST_WORD:
            rest = rest.replace(word, "")
    return rest


def _spelt(password: str) -> bytes:
    """The same bytes from every keyboard; no more of them than a password may have."""
    return unicodedata.normalize("NFKC", password[: MAXIMUM_LENGTH + 1]).encode("utf-8", "surrogatepass")


@functools.cache
def _dummy(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(32))
