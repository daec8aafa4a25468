"""A session's cookie, which browsers send to every port of a host, is worth nothing to another user."""

import json
import os
import socket
import subprocess
import sys

import httpx2
import pytest

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth.credentials import user_at
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets.settings import load_settings
from episodes_assets_tests.dashboard.served import PASSWORD, THIS_USER, Dashboard, serving

pytestmark = pytest.mark.process

NOBODY = 65_534
OPERATOR = "operator"
# As another user's server would: with nothing but Python, and the headers of a browser.
REPLAY = """
import encodings.idna, http.client, json, os, sys  # all of it, before the files are out of reach
host, port, cookie = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setuid(int(sys.argv[4]))
body = '{"query": "{ version }"}'
found = []
for method, path in (("GET", "/runs"), ("GET", "/fleet"), ("POST", "/graphql"), ("POST", "/logout")):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    headers = {"Cookie": cookie, "Origin": f"http://{host}:{port}", "Content-Type": "application/json"}
    connection.request(method, path, body=body if method == "POST" else None, headers=headers)
    found.append(connection.getresponse().status)
print(json.dumps(found))
"""


def replay(port: int, cookie: str, user: int) -> list[int]:
    """What another process gets for a cookie."""
    command = [sys.executable, "-I", "-c", REPLAY, "127.0.0.1", str(port), cookie, str(user)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(json.loads(said.stdout))


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_the_kernel_tells_who_is_at_the_other_end(host: str, family: socket.AddressFamily) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        server = listener.getsockname()[:2]
        with socket.create_connection(server) as client:
            accepted, address = listener.accept()
            with accepted:
                assert user_at(address[:2], server) == os.getuid()
                # Of a connection that is closed, half or whole, older kernels say that it is root's.
                client.shutdown(socket.SHUT_WR)
                assert user_at(address[:2], server) is None
        assert user_at((host, 1), server) is None
        assert user_at(server, (host, 1)) is None


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
def test_another_user_of_the_machine_gets_nowhere_with_a_session(dashboard: Dashboard) -> None:
    configuration = read_configuration(load_settings(), host="127.0.0.1", port=0)
    with serving(dashboard.app, configuration) as port:
        address = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=address, headers={"Origin": address}) as browser:
            form = {"name": OPERATOR, "password": PASSWORD, "next": "/runs"}
            assert browser.post("/login", data=form).headers["location"] == "/runs"
            cookie = f"episodes_session={browser.cookies['episodes_session']}"
            assert replay(port, cookie, NOBODY) == [401, 401, 401, 401]
            assert browser.get("/runs").status_code == 200
            # A session that they have begun themselves cannot be pressed on anybody else either.
            theirs = dashboard.session(Role.OPERATOR, client=f"user {NOBODY}")
            assert replay(port, f"episodes_session={theirs}", NOBODY) == [200, 200, 200, 303]
            theirs = dashboard.session(Role.OPERATOR, client=f"user {NOBODY}")
            assert (
                httpx2.get(f"{address}/runs", headers={"Cookie": f"episodes_session={theirs}"}).status_code
                == 401
            )
            assert replay(port, cookie, os.getuid()) == [200, 200, 200, 303]
            assert browser.get("/runs").status_code == 401


def test_without_a_connection_there_is_nothing_to_bind_to(dashboard: Dashboard) -> None:
    assert dashboard.client(Role.VIEWER).get("/runs").status_code == 200
    bound = dashboard.session(Role.VIEWER, client=THIS_USER)
    assert dashboard.client(token=bound).get("/runs").status_code == 401
