"""Our own pages: templates and what all of them are given."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

FOLDER = Path(__file__).parent
TEMPLATES = Jinja2Templates(directory=FOLDER / "templates")
STATIC = FOLDER / "static"


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **context: Any,  # noqa: ANN401  whatever the template shows
) -> Response:
    """A page from a template, never cached; `user` in it is who looks at it."""
    return TEMPLATES.TemplateResponse(
        request,
        template,
        {"user": request.user, **context},
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
