"""Run the provider until its standard input ends; the first line it writes says how to use it.

Argument: a redirect address of the dashboard. `PROVIDER_FOLDER` is the folder it keeps its database in.
"""

import json
import os
import secrets
import socket
import sys
import threading

import django
import uvicorn

MODULE = "episodes_assets_tests.dashboard.oidc_provider.settings"


def main() -> None:
    """Make the database, the people and the clients, and serve."""
    os.environ["DJANGO_SETTINGS_MODULE"] = MODULE
    django.setup()
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    password = _make_people()
    # A code of `another` is no code of ours, and `symmetric` has its tokens signed by its own secret.
    clients = {name: _make_client(name) for name in ("dashboard", "another", "symmetric")}
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        issuer = f"http://localhost:{listening.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(get_asgi_application(), lifespan="off", log_level="warning", ws="none")
        )
        threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
        print(json.dumps({"issuer": issuer, "password": password, "clients": clients}), flush=True)
        server.run(sockets=[listening])


def _make_people() -> str:
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User

    from episodes_assets_tests.dashboard.oidc_provider.people import PEOPLE

    password = secrets.token_urlsafe()
    hashed = make_password(password)
    User.objects.bulk_create(User(username=name, password=hashed) for name in PEOPLE)
    return password


def _make_client(name: str) -> str:
    from oauth2_provider.models import Application

    secret = secrets.token_urlsafe()
    Application.objects.create(
        client_id=name,
        client_secret=secret,
        hash_client_secret=name != "symmetric",
        name=name,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        algorithm=Application.HS256_ALGORITHM if name == "symmetric" else Application.RS256_ALGORITHM,
        redirect_uris=sys.argv[1],
    )
    return secret


def _end_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
