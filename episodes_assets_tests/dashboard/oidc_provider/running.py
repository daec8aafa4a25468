"""The provider as a process, and a person's browser at it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?')


@dataclass(frozen=True)
class Provider:
    """A running provider.

    Attributes:
        issuer: Its address.
        password: Of all of its people.
        clients: Secrets by the names of clients.
    """

    issuer: str
    password: str
    clients: Mapping[str, str]

    def answer(self, address: str, person: str, *, agree: bool = True) -> str:
        """Log in as somebody, agree, and say where the provider then sends their browser.

        Args:
            address: At the provider, where the dashboard sent the browser.
            person: Who.
            agree: Whether they let the dashboard know who they are.
        """
        with httpx2.Client(verify=False) as browser:
            login = browser.get(address)
            assert login.status_code == 302, login.text
            there = str(httpx2.URL(address).join(login.headers["location"]))
            page = browser.get(there)
            form = {"username": person, "password": self.password}
            back = browser.post(there, data={**form, "csrfmiddlewaretoken": _found(_CSRF, page.text)})
            assert back.status_code == 302, back.text
            consent = browser.get(address)
            assert consent.status_code == 200, consent.text
            fields = dict(_HIDDEN.findall(consent.text.replace("&quot;", '"').replace("&amp;", "&")))
            answer = browser.post(address, data={**fields, **({"allow": "Authorize"} if agree else {})})
            assert answer.status_code == 302, answer.text
            return answer.headers["location"]


@contextmanager
def running_provider(folder: Path, *redirects: str) -> Iterator[Provider]:
    """The provider while the block lasts.

    Args:
        folder: An empty one, for its database.
        redirects: Where it may send browsers back to; on loopback, at any port.
    """
    command = [sys.executable, "-W", "ignore", "-m", "episodes_assets_tests.dashboard.oidc_provider"]
    with (folder / "provider.log").open("w") as log:
        process = subprocess.Popen(
            [*command, " ".join(redirects)],
            env={**os.environ, "PROVIDER_FOLDER": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            line = process.stdout.readline()
            assert line, (folder / "provider.log").read_text()
            yield Provider(**json.loads(line))
        finally:
            process.stdin.close()


def query_of(address: str) -> dict[str, str]:
    """What an address has after its question mark."""
    return dict(httpx2.QueryParams(urlsplit(address).query))


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    assert match, text
    return match.group(1)
