"""Passwords: hashed with argon2id, checked in the same time whether there is a user or not."""

import functools
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from episodes_assets.errors import BadAccount

MINIMUM_LENGTH = 12
MAXIMUM_LENGTH = 1_000

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

    Raises:
        BadAccount: If it is too short, too long, or the user's name.
    """
    mend = "choose a longer one, several words for instance, or let --generate make one"
    if len(password) < MINIMUM_LENGTH:
        raise BadAccount(f"the password has fewer than {MINIMUM_LENGTH} characters", mend)
    if len(password) > MAXIMUM_LENGTH:
        raise BadAccount(f"the password has more than {MAXIMUM_LENGTH:,} characters", "choose a shorter one")
    if password.strip().casefold() == name or len(set(password)) <= 2:
        raise BadAccount("the password is the user's name, or one or two characters repeated", mend)


def _spelt(password: str) -> bytes:
    """The same bytes from every keyboard; no more of them than a password may have."""
    return unicodedata.normalize("NFKC", password[: MAXIMUM_LENGTH + 1]).encode("utf-8", "surrogatepass")


@functools.cache
def _dummy(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(32))
