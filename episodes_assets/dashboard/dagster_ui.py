"""Dagster's own web application, twice on one workspace: for those who may change things, and read-only.

Viewers see the same code locations, and have no permission to change anything. Our own code location is
loaded from the project's folder, never from the current one. Who is a viewer is decided before a request
comes here (`auth/gate.py`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.workspace.context import (
    IWorkspaceProcessContext,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
)
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from episodes_assets.accounts.identity import Identity
from episodes_assets.settings import PROJECT_FOLDER


class ReadOnlyWorkspace(IWorkspaceProcessContext[WorkspaceRequestContext]):
    """A view of a workspace whose requests may only read, as with `dagster-webserver --read-only`.

    A second workspace would have its own connections to the code server, and would not see a reload of the
    first one.
    """

    def __init__(self, behind: WorkspaceProcessContext) -> None:
        self._behind = behind

    def create_request_context(self, source: Any | None = None) -> WorkspaceRequestContext:  # noqa: ANN401
        """The workspace as it is now, for one request."""
        return WorkspaceRequestContext(
            instance=self._behind.instance,
            current_workspace=self._behind.get_current_workspace(),
            process_context=self._behind,
            version=self._behind.version,
            source=source,
            read_only=True,
        )

    @property
    def version(self) -> str:
        """Of Dagster."""
        return self._behind.version

    @property
    def instance(self) -> dg.DagsterInstance:
        """The same instance."""
        return self._behind.instance

    def reload_code_location(self, name: str) -> None:
        """Not through this view."""
        raise PermissionError(name)

    def reload_workspace(self) -> None:
        """Not through this view."""
        raise PermissionError

    def refresh_workspace(self) -> None:
        """Not through this view."""
        raise PermissionError


# The defaults of dagster-webserver: the longest statement, the longest connection, how many beyond five.
STATEMENT_MILLISECONDS = 15_000
RECYCLE_SECONDS = 3_600
MORE_CONNECTIONS = 20
POLL_MILLISECONDS = 2_000
# As in workspace.yaml, and with a folder: without one, modules of the current folder would take precedence.
_OUR_CODE = ModuleTarget(
    module_name="episodes_assets.definitions",
    attribute=None,
    working_directory=str(PROJECT_FOLDER),
    location_name="episodes_assets",
)
GRAPHQL_ROUTES = ("graphql-http", "graphql-ws")


@dataclass(frozen=True)
class DagsterUi:
    """The ASGI application of Dagster's UI, by role.

    Attributes:
        workspace: The code locations behind both.
        for_operators: With all permissions.
        for_viewers: Read-only.
    """

    workspace: WorkspaceProcessContext
    for_operators: Starlette
    for_viewers: Starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the role of its user."""
        identity = scope["user"]
        may_change = isinstance(identity, Identity) and identity.role.may_change
        await (self.for_operators if may_change else self.for_viewers)(scope, receive, send)

    @property
    def graphql_routes(self) -> Sequence[BaseRoute]:
        """Where GraphQL is answered, over HTTP and over WebSockets."""
        return [
            route
            for app in (self.for_operators, self.for_viewers)
            for route in app.routes
            if getattr(route, "name", None) in GRAPHQL_ROUTES
        ]

    def ping_code(self) -> None:
        """Check that each code server answers.

        Raises:
            ConnectionError: If one has not loaded.
            Exception: Whatever Dagster's client raises for one that does not answer.
        """
        for name, entry in self.workspace.get_current_workspace().code_location_entries.items():
            location = entry.code_location
            if location is None:
                raise ConnectionError(name)
            if isinstance(location, GrpcServerCodeLocation):
                location.client.ping("")


@contextlib.contextmanager
def open_dagster_ui(workspace_file: Path | None) -> Iterator[DagsterUi]:
    """Load Dagster's instance and a workspace, and close both at the end.

    Args:
        workspace_file: Which code locations there are; without it, a code server of our own is started.
    """
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, RECYCLE_SECONDS, MORE_CONNECTIONS)
        target = WorkspaceFileTarget([str(workspace_file)]) if workspace_file else _OUR_CODE
        with WorkspaceProcessContext(instance, target, version=dg.__version__) as workspace:
            yield DagsterUi(
                workspace=workspace,
                for_operators=create_app_from_workspace_process_context(
                    workspace, live_data_poll_rate=POLL_MILLISECONDS
                ),
                for_viewers=create_app_from_workspace_process_context(
                    ReadOnlyWorkspace(workspace), live_data_poll_rate=POLL_MILLISECONDS
                ),
            )
