"""Where to go after a login: a page of this site and nowhere else."""

from urllib.parse import urlsplit

HOME = "/"
_LONGEST = 2_000


def safe_next(wanted: str | None) -> str:
    r"""The page that was wanted before the login, if it is one of ours; else the home page.

    Browsers read `//host`, `/\host` and addresses with tabs or line ends in them as other sites, so
    only a path of printable ASCII that begins with one slash and has no backslash is let through.
    """
    if not wanted or len(wanted) > _LONGEST or not wanted.isascii() or not wanted.isprintable():
        return HOME
    if not wanted.startswith("/") or wanted.startswith("//") or "\\" in wanted or " " in wanted:
        return HOME
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return HOME
    if parts.scheme or parts.netloc or parts.path in ("/login", "/logout"):
        return HOME
    return wanted
