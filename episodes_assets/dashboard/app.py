"""The dashboard's ASGI application, put together from its parts.

Routes, middleware and what they share are assembled here; what each part does is in its own module.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from episodes_assets.accounts.pool import AWAY, AccountsAccess, AccountsPool
from episodes_assets.accounts.sessions import signing_key
from episodes_assets.dashboard import fleet, health, middleware, profiles, results
from episodes_assets.dashboard.auth import refusals
from episodes_assets.dashboard.auth.gate import AuthGate, Routes
from episodes_assets.dashboard.auth.login import OidcLogin, login_routes, logout_routes
from episodes_assets.dashboard.auth.oidc import oidc_login
from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.dashboard.dagster_ui import DagsterUi, open_dagster_ui
from episodes_assets.dashboard.explain import ExplainSources, explain_routes
from episodes_assets.dashboard.metrics import Sources as MetricSources
from episodes_assets.dashboard.metrics import SystemCollector
from episodes_assets.dashboard.pages import STATIC
from episodes_assets.dashboard.site import Metrics, Site, site_of
from episodes_assets.dashboard.watch import DaemonWatch, WatchSettings
from episodes_assets.errors import BadSetting
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.settings import Settings

_LOG = logging.getLogger(__name__)

# The files of the login page; every other file needs a login.
PUBLIC_FILES = ("dashboard.css", "favicon.svg")
_STATIC_PATH = "/dashboard/static"


def create_application(
    site: Site, ui: DagsterUi, *, oidc: OidcLogin | None = None, pages: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Build the application, with all routes behind its auth gate.

    Args:
        site: What its parts share.
        ui: Dagster's UI, which answers every request that no route of ours matches.
        oidc: The login through an OpenID Connect provider, if there is one.
        pages: Further routes of our own, which need a login.

    Raises:
        BadSetting: If nobody could sign in.
    """
    if oidc is None and not site.configuration.password_login:
        raise BadSetting(
            "EPISODES_PASSWORD_LOGIN is false and OpenID Connect is not configured, so nobody could sign in",
            "switch one of them on",
        )
    routes = Routes(
        anonymous=[
            *health.health_routes(site.accounts, ui),
            *(_file_route(name) for name in PUBLIC_FILES),
        ],
        public=[*login_routes(oidc), *(oidc.routes if oidc else ())],
        for_all_roles=logout_routes(),
        graphql=ui.graphql_routes,
        polled=[page for page in pages if isinstance(page, Route) and page.path == fleet.LIVE],
    )
    application = Starlette(
        routes=[
            *routes.anonymous,
            *routes.public,
            *routes.for_all_roles,
            Route("/metrics", _show_metrics, methods=["GET"], name="metrics"),
            Mount(_STATIC_PATH, StaticFiles(directory=STATIC), name="dashboard-static"),
            *pages,
            Mount("/", middleware.PolicyOfDagster(middleware.NavigationStrip(ui)), name="dagster"),
        ],
        middleware=[
            Middleware(
                TrustedHostMiddleware, allowed_hosts=list(site.configuration.names), www_redirect=False
            ),
            Middleware(AuthGate, site=site, routes=routes, instance=ui.workspace.instance),
        ],
        exception_handlers=dict.fromkeys(AWAY, _show_away),
    )
    application.state.site = site
    # Outside of Starlette's own handling of errors, so that its answers count and have the headers too.
    return middleware.MetricsMiddleware(
        middleware.SecurityHeaders(application, is_secure=site.configuration.is_secure), site.metrics
    )


@contextlib.contextmanager
def open_application(
    settings: Settings, dsns: Dsns, configuration: Configuration, workspace_file: Path | None
) -> Iterator[ASGIApp]:
    """The application with its connections and code locations, which are closed at the end.

    Raises:
        BadSetting: If a DSN it needs is not set, a way to alert people is not whole, or nobody could sign in.
        DatabaseUnreachable: If a database is away.
        NotProvisioned: If `episodes db init` has not been run.
        WrongEnvironment: If a database belongs to another environment.
    """
    queue_dsn = dsns.require(Purpose.QUEUE)
    with (
        AccountsPool(dsns.require(Purpose.DASHBOARD), settings.environment) as pool,
        open_dagster_ui(workspace_file) as ui,
    ):
        lake = open_lake(settings)
        system = SystemCollector(
            MetricSources(
                queue_dsn=queue_dsn,
                results_dsn=dsns.by_purpose.get(Purpose.RESULTS_READER)
                or dsns.by_purpose.get(Purpose.CONSUMER),
                lake=lake,
                instance=ui.workspace.instance,
                settings=settings,
            )
        )
        site = Site(configuration, AccountsAccess(pool), Metrics(system), queue_dsn)
        sources = ExplainSources(
            queue_dsn=queue_dsn,
            results_dsn=dsns.by_purpose.get(Purpose.RESULTS_READER),
            lake_url=lake.url,
            quarantine_limit=settings.quarantine_limit,
        )
        pages = [
            *fleet.fleet_routes(queue_dsn, settings.environment),
            *profiles.profile_routes(queue_dsn, settings.environment),
            *explain_routes(sources),
            *results.results_routes(dsns.by_purpose.get(Purpose.CONSUMER)),
        ]
        watch = DaemonWatch(ui.workspace, WatchSettings.of(settings, queue_dsn))
        application = create_application(site, ui, oidc=_oidc(configuration, pool), pages=pages)
        with watch.running():
            yield application


def _oidc(configuration: Configuration, pool: AccountsPool) -> OidcLogin | None:
    if configuration.oidc is None:
        return None
    with pool.connection() as connection:
        key = signing_key(connection)
    return oidc_login(configuration.oidc, signing_key=key, is_secure=configuration.is_secure)


def _show_metrics(request: Request) -> Response:
    """Everything counted, for anybody who is signed in or has a token: `Site.metrics` names no user.

    It reveals how much the dashboard is used by which role, what was refused and why, and how the system is.
    """
    return Response(site_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _show_away(request: Request, error: Exception) -> Response:
    """The response where a database became unreachable while a request was handled."""
    _LOG.warning("%s: %s", request.url.path, error)
    return refusals.answer(refusals.AWAY, request)


def _file_route(name: str) -> Route:
    """The route of a public file, which is answered from memory.

    Starlette would read it in a thread of those that GraphQL has as well: with all of them waiting for a
    database, a probe of whether this process lives would wait too, and the process be restarted for it.
    """
    path = STATIC / name
    content, as_file = path.read_bytes(), FileResponse(path, stat_result=path.stat())
    headers = {key: as_file.headers[key] for key in ("etag", "last-modified")}

    async def show(_request: Request) -> Response:
        return Response(content, media_type=as_file.media_type, headers=headers)

    return Route(f"{_STATIC_PATH}/{name}", show, methods=["GET"], name=f"public-{name}")
