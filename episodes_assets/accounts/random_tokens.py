"""Random tokens that stand for somebody, and what of them is stored."""

import hashlib
import secrets


def new_token(prefix: str = "") -> str:
    """A token of 256 random bits, in letters that need no quoting anywhere."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """What is stored of a token; so much randomness needs no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
