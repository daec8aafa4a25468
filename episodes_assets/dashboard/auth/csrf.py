"""Recognises forged requests (CSRF, cross-site WebSocket hijacking) and refuses open redirects.

A browser may add this site's cookies to a request that another site's page has caused; `SameSite` does not
tell ports and subdomains apart. `Sec-Fetch-Site` and `Origin` do, and no page can set them. A request with
neither counts as forged: a client that is no browser uses a token. After a login a browser is sent to a page
of this site only. Which requests are checked is `gate`; who a request comes from is `credentials`.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_origin(headers: Headers, *, is_secure: bool) -> bool:
    """Whether the request comes from a page of ours, or from the browser's address bar or bookmarks.

    Args:
        headers: Of the request, its Host already found to be one of ours.
        is_secure: Whether browsers reach us over TLS.

    Returns:
        False also without these headers: the client is then no browser, and has to use a token.
    """
    sites = headers.getlist("sec-fetch-site")
    if sites:
        return len(sites) == 1 and sites[0] in ("same-origin", "none")
    origins, hosts = headers.getlist("origin"), headers.getlist("host")
    if len(origins) != 1 or len(hosts) != 1:
        return False
    scheme = "https" if is_secure else "http"
    theirs = _origin(origins[0])
    return theirs is not None and theirs == _origin(f"{scheme}://{hosts[0]}")


def _origin(address: str) -> tuple[str, str, int] | None:
    """Scheme, host and port, or None where there is none, as in `null`."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, _DEFAULT_PORTS[parts.scheme] if port is None else port


HOME = "/"
_LONGEST = 2_000


def safe_next(wanted: str | None) -> str:
    r"""The page to show after the login, if it is one of ours; else the home page.

    Browsers read `//host`, `/\host` and addresses with tabs or line ends in them as other sites, so
    only a path of printable ASCII that begins with one slash and has no backslash is accepted.
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
