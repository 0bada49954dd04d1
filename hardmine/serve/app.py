"""The server as an ASGI application: routes, bounded bodies, errors as JSON, access."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hardmine.errors import HardmineError
from hardmine.records import plain_values
from hardmine.serve.access import Access, Guard
from hardmine.serve.api import ENDPOINTS
from hardmine.serve.asking import NotKept
from hardmine.serve.endpoint import Call, Endpoint
from hardmine.serve.openapi import describe
from hardmine.serve.pages import PAGES, STATIC
from hardmine.serve.site import Site

_Handler = Callable[[Request], Awaitable[Response]]


def make_app(site: Site, access: Access) -> ASGIApp:
    """Put the server together.

    Args:
        site: What pages and endpoints answer from.
        access: What a request must show.
    """
    described = describe()

    async def openapi(request: Request) -> Response:
        return JSONResponse(described)

    async def home(request: Request) -> Response:
        return RedirectResponse("/ask", 303)

    app = Starlette(
        routes=[
            Route("/", home),
            *(Route(path, _page(site, make)) for path, make in PAGES.items()),
            *(Route(f"/static/{name}", _file(path)) for name, path in STATIC.items()),
            *(
                Route(path, _by_method(handlers), methods=[*handlers])
                for path, handlers in _handlers(site).items()
            ),
            Route("/api/openapi.json", openapi),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected},
    )
    # Outermost, so that every response has its headers, errors too.
    return Guard(app, access)


def _handlers(site: Site) -> dict[str, dict[str, _Handler]]:
    """Handler by path and method."""
    handlers: dict[str, dict[str, _Handler]] = {}
    for endpoint in ENDPOINTS:
        handlers.setdefault(endpoint.path, {})[endpoint.method] = _endpoint(site, endpoint)
    return handlers


def _by_method(handlers: dict[str, _Handler]) -> _Handler:
    """One handler for all methods of a path, so that a refusal names all of them."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


def _endpoint(site: Site, endpoint: Endpoint) -> _Handler:
    async def handle(request: Request) -> Response:
        try:
            query = endpoint.query and msgspec.convert(
                dict(request.query_params), endpoint.query, strict=False
            )
            content = await _read_body(request, endpoint.limit)
            body: Any = None
            if endpoint.body is bytes:
                body = content
            elif endpoint.body is not None:
                body = msgspec.json.decode(content, type=endpoint.body)
            params = {
                name: msgspec.convert(text, endpoint.params[name], strict=False)
                for name, text in request.path_params.items()
            }
            call = Call(params, query, body)
            answer = await run_in_threadpool(endpoint.answer, site, call)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return JSONResponse({"error": f"not understood: {error}"}, 400)
        except NotKept as error:
            return JSONResponse({"error": str(error)}, 404)
        except HardmineError as error:
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(answer, Response):
            return answer
        # NaN becomes null, arrays become lists.
        encoded = msgspec.json.encode(answer, enc_hook=plain_values)
        return Response(encoded, media_type="application/json")

    return handle


def _page(site: Site, make: Callable[[Site], str]) -> _Handler:
    async def handle(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(make, site))

    return handle


def _file(path: Path) -> _Handler:
    async def handle(request: Request) -> Response:
        return FileResponse(path, headers={"cache-control": "no-cache"})

    return handle


async def _read_body(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is too large, whatever its length claims to be."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            reason = f"the body is larger than {limit >> 10} kB"
            raise HTTPException(413, reason, {"connection": "close"})
        parts.append(part)
    return b"".join(parts)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again, and the server logs it.
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
