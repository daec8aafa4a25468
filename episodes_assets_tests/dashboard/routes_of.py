"""Every route an application has, found by walking through it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from episodes_assets.dashboard.dagster_ui import DagsterUi

_PARAMETER = re.compile(r"{[^}]+}")


@dataclass(frozen=True)
class Found:
    """A path that something answers."""

    path: str
    is_socket: bool = False


def routes_of(app: Any, prefix: str = "") -> Iterator[Found]:
    """All paths of an ASGI application, those of applications inside it and of static files included."""
    if isinstance(app, DagsterUi):
        yield from routes_of(app.for_operators, prefix)
        yield from routes_of(app.for_viewers, prefix)
    elif isinstance(app, StaticFiles):
        for directory in app.all_directories:
            for file in Path(directory).rglob("*"):
                if file.is_file():
                    yield Found(f"{prefix}/{file.relative_to(directory)}")
    elif hasattr(app, "routes"):
        for route in app.routes:
            yield from _paths(route, prefix)
    elif hasattr(app, "_app"):
        yield from routes_of(app._app, prefix)
    else:
        raise TypeError(f"do not know how to look into {app!r}")


def _paths(route: Any, prefix: str) -> Iterator[Found]:
    if isinstance(route, Mount):
        yield from routes_of(route.app, prefix + route.path)
    elif isinstance(route, Route | WebSocketRoute):
        yield Found(prefix + _PARAMETER.sub("x", route.path), isinstance(route, WebSocketRoute))
    else:
        raise TypeError(f"do not know what {route!r} answers")
