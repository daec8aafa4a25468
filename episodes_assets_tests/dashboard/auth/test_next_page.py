"""Where a login leads is never another site, whatever a link says."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from episodes_assets.dashboard.auth.csrf import safe_next

BASE = "https://dashboard.example/login"
_PIECES = ["/", "\\", "//", "http:", "https://", "evil.example", "@", ":", "?", "#", "..", ".", "%2f",
           "%5c", "\t", "\n", "\r", "\0", " ", "javascript:", "runs", "a=b", "\u2044",
           "\uff0f", ";", "["]  # fmt: skip


def as_browsers_read(address: str) -> str:
    """What browsers do before they parse: tabs and line ends go, blanks around, and backslashes turn."""
    text = "".join(each for each in address if each not in "\t\n\r").strip("".join(map(chr, range(33))))
    before, mark, after = text.partition("?")
    return before.replace("\\", "/") + mark + after


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=8).map("".join))
@example("//evil.example")
@example("/\\evil.example")
@example("/\t/evil.example")
@example("///evil.example")
def test_it_never_leaves_the_host(wanted: str) -> None:
    safe = safe_next(wanted)
    read = as_browsers_read(safe)
    assert read == safe
    joined = urlsplit(urljoin(BASE, read))
    assert (joined.scheme, joined.netloc) == ("https", "dashboard.example")
    assert safe.isprintable()


@pytest.mark.parametrize("wanted", ["/", "/runs", "/assets/a%2Fb?x=1&y=%2F%2F#z", "/a//b", "/?next=//x"])
def test_pages_of_ours_are_kept(wanted: str) -> None:
    assert safe_next(wanted) == wanted


@pytest.mark.parametrize("wanted", [None, "", "/login", "/login?next=/login", "/logout", "/" + "x" * 3_000])
def test_what_leads_nowhere_leads_home(wanted: str | None) -> None:
    assert safe_next(wanted) == "/"
