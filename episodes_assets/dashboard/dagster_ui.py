"""Dagster's own web application, twice on one workspace: for those who may change things, and read-only.

Viewers see the same code locations, and have no permission to change anything. Our own code location is
loaded from the project's folder, never from the current one. Who is a viewer is decided before a request
comes here (`auth/gate.py`).

Dagster parses and validates subscriptions in the event loop, which keeps everybody waiting for as long; here
that is done in threads, and once for each document.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import graphene
from anyio import CapacityLimiter, to_thread
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.workspace.context import (
    IWorkspaceProcessContext,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
)
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster_webserver.webserver import DagsterWebserver
from graphql import DocumentNode, ExecutionResult, GraphQLError, parse, subscribe, validate
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


# They are validated for as long as a second of processor time.
_VALIDATED_AT_ONCE = 2
# The UI has three.
_KEPT_DOCUMENTS = 16


class SubscriptionSchema(graphene.Schema):  # type: ignore[misc]  # graphene has no types
    """Dagster's GraphQL schema, whose subscriptions are parsed and validated in a thread.

    Args:
        schema: As Dagster has it.
    """

    def __init__(self, schema: graphene.Schema) -> None:
        # Nothing is built anew.
        self.__dict__.update(vars(schema))
        self._limiter = CapacityLimiter(_VALIDATED_AT_ONCE)
        self._read = lru_cache(maxsize=_KEPT_DOCUMENTS)(self._read_document)

    async def subscribe(
        self, query: str, *, variables: dict[str, Any] | None, operation_name: str | None, context: object
    ) -> AsyncIterator[ExecutionResult] | ExecutionResult:
        """The results of a subscription; a single one with errors where it is none."""
        read = await to_thread.run_sync(self._read, query, limiter=self._limiter)
        if not isinstance(read, DocumentNode):
            return ExecutionResult(data=None, errors=read)
        return await subscribe(
            self.graphql_schema,
            read,
            context_value=context,
            variable_values=variables,
            operation_name=operation_name,
        )

    def _read_document(self, text: str) -> DocumentNode | list[GraphQLError]:
        try:
            document = parse(text)
        except GraphQLError as error:
            return [error]
        return validate(self.graphql_schema, document) or document


class _Webserver(DagsterWebserver[Any, Any]):
    def build_graphql_schema(self) -> graphene.Schema:
        return SubscriptionSchema(super().build_graphql_schema())


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
                for_operators=_application(workspace),
                for_viewers=_application(ReadOnlyWorkspace(workspace)),
            )


def _application(workspace: IWorkspaceProcessContext[WorkspaceRequestContext]) -> Starlette:
    return _Webserver(workspace, live_data_poll_rate=POLL_MILLISECONDS).create_asgi_app()
