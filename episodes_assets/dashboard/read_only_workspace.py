"""Dagster's workspace as viewers see it: the same code locations, and no permission to change anything."""

from typing import Any

import dagster as dg
from dagster._core.workspace.context import (
    IWorkspaceProcessContext,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
)


class ReadOnlyWorkspace(IWorkspaceProcessContext[WorkspaceRequestContext]):
    """A view of a workspace whose requests may only read, as with `dagster-webserver --read-only`.

    A workspace of its own would have its own connections to the code server, and know nothing of a
    reload that an operator asked the other one for.
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
