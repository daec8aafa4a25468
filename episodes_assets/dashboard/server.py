"""Serves the dashboard until it is told to stop."""

import uvicorn
from starlette.types import ASGIApp

from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.dashboard.request_body import MOST_BYTES

# Open WebSockets and slow answers do not hold up a restart for longer.
LEAVE_SECONDS = 5


def serve(application: ASGIApp, configuration: Configuration) -> None:
    """Listen and answer, until SIGTERM or Ctrl-C."""
    server = uvicorn.Server(server_configuration(application, configuration))
    server.run()


def server_configuration(application: ASGIApp, configuration: Configuration) -> uvicorn.Config:
    """How uvicorn is to serve it."""
    return uvicorn.Config(
        application,
        host=configuration.host,
        port=configuration.port,
        log_level="warning",
        ssl_certfile=configuration.certificate,
        ssl_keyfile=str(configuration.key) if configuration.key else None,
        proxy_headers=bool(configuration.trusted_proxies),
        forwarded_allow_ips=list(configuration.trusted_proxies),
        server_header=False,
        ws_max_size=MOST_BYTES,
        timeout_graceful_shutdown=LEAVE_SECONDS,
    )
