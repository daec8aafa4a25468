"""How users and service tokens may be called; names that differ in case alone are the same."""

import re
import unicodedata

from episodes_assets.errors import BadAccount

# No colon and no blank: `cli:somebody` in the audit log is never a user.
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}")


def fold(name: str) -> str:
    """A name as it is compared: what people type in its place, in upper case or with blanks around."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def is_name(folded: str) -> bool:
    """Whether an account can be called that."""
    return _NAME.fullmatch(folded) is not None


def require_name(name: str) -> str:
    """The name of an account to be, folded.

    Raises:
        BadAccount: If none can be called that.
    """
    folded = fold(name)
    if not is_name(folded):
        raise BadAccount(
            f"{name!r} cannot be the name of an account",
            "use up to 100 of a-z, 0-9 and ._@+-, beginning with a letter or a digit",
        )
    return folded
