"""The page, and what it loads: a few files, nothing from elsewhere."""

from importlib.resources import files

from .requests import Request, Response
from .routes import Route
from .served import Served

__all__ = ["PAGES"]

_HTML = "text/html; charset=utf-8"


def _page(name: str, content_type: str) -> Route:
    def answer(served: Served, request: Request, run: str) -> Response:
        return Response(
            files("asyncrunner.streaming").joinpath("page", name).read_bytes(), content_type
        )

    path = "/" if content_type == _HTML else f"/{name}"
    return Route(path, f"The page: {name}.", content_type.partition(";")[0], answer)


PAGES = (
    _page("index.html", _HTML),
    _page("page.js", "text/javascript; charset=utf-8"),
    _page("page.css", "text/css; charset=utf-8"),
    _page("icon.svg", "image/svg+xml"),
)
