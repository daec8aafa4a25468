"""Dagster's own GraphQL endpoint over a schema that notes what is executed.

The auth gate's reading is held to it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import graphene
from dagster_webserver.graphql import GraphQLServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Route, WebSocketRoute


class BareDagster(GraphQLServer[Any]):
    """The endpoint, and what it executed since it was last asked."""

    def __init__(self) -> None:
        self._executed: list[tuple[str, str]] = []
        super().__init__()

    def take_executed(self) -> list[tuple[str, str]]:
        """Kind and field of each resolver that ran."""
        found = list(self._executed)
        self._executed.clear()
        return found

    def app(self) -> Starlette:
        return self.create_asgi_app()

    def build_graphql_schema(self) -> graphene.Schema:
        executed = self._executed

        class Query(graphene.ObjectType):  # type: ignore[misc]
            asked = graphene.Boolean()
            also = graphene.Boolean()

            def resolve_asked(self, _info: Any) -> bool:
                executed.append(("query", "asked"))
                return True

            def resolve_also(self, _info: Any) -> bool:
                executed.append(("query", "also"))
                return True

        class Mutation(graphene.ObjectType):  # type: ignore[misc]
            change = graphene.Boolean()
            # Of the same name as a subscription: that is what makes a socket execute mutations.
            ticks = graphene.Boolean()

            def resolve_change(self, _info: Any) -> bool:
                executed.append(("mutation", "change"))
                return True

            def resolve_ticks(self, _info: Any) -> bool:
                executed.append(("mutation", "ticks"))
                return True

        class Subscription(graphene.ObjectType):  # type: ignore[misc]
            ticks = graphene.Boolean()

            async def subscribe_ticks(self, _info: Any) -> AsyncIterator[bool]:
                yield True

        return graphene.Schema(query=Query, mutation=Mutation, subscription=Subscription)

    def build_graphql_middleware(self) -> list[Any]:
        return []

    def build_middleware(self) -> list[Middleware]:
        return []

    def build_routes(self) -> list[BaseRoute]:
        return [
            Route("/graphql", self.graphql_http_endpoint, methods=["GET", "POST"]),
            WebSocketRoute("/graphql", self.graphql_ws_endpoint),
        ]

    @contextmanager
    def _make_request_context(self, conn: HTTPConnection) -> Iterator[None]:  # noqa: ARG002
        yield None
