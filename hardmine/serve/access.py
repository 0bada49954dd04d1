"""Who is answered: only requests with the token, from pages of this server."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts and style sheets are files of this server; a text that slips through is not run. Style
# attributes place marks and dots and cannot load anything, as every source is named here.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Attributes:
        token: The secret of this run: in the address that is opened first, then in a cookie; or in
            the header ``Authorization: Bearer``.
        hosts: Names by which the server may be called, besides IP addresses and ``localhost``. A
            page elsewhere can point a name of its own at this machine (DNS rebinding); such a name
            is not among them.
        codes: Each opens once in place of the token. A browser is started with one, as other users
            of a machine see what programs are started with.
    """

    token: str
    hosts: frozenset[str] = frozenset()
    codes: set[str] = field(default_factory=set)

    @property
    def cookie(self) -> str:
        """Its name; servers on other ports of a host share its cookies."""
        return f"hardmine-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"

    def is_token(self, given: str | None) -> bool:
        """Whether this is the token; the time to say so tells nothing of it."""
        return given is not None and secrets.compare_digest(given.encode(), self.token.encode())

    def opens(self, given: str) -> bool:
        """Whether this is the token, or a code that was not used yet."""
        if given in self.codes:
            self.codes.discard(given)
            return True
        return self.is_token(given)

    def knows_host(self, host: str | None) -> bool:
        """Whether a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname
            # Reading the port raises ValueError where it is none.
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if not host or name is None or any(letter in host for letter in "@/?#\\ "):
            return False
        return name == "localhost" or name in self.hosts or _is_address(name)


class Guard:
    """Refuses requests that are not this user's, and sends the security headers.

    Args:
        app: Gets what is let through.
        access: What a request must show.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request is not let through; None if it is."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.knows_host(hosts[0]):
            return _refuse(403, "this server is not called by that name; use its IP address")
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{hosts[0]}":
            return _refuse(403, "the request comes from a page of another server")
        # Pages on other ports of this host count as the same site, so cookies alone do not tell.
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return _refuse(403, "the request comes from a page of another server")
        if foreign and scope["method"] not in ("GET", "HEAD"):
            return _refuse(403, "the request comes from a page of another server")
        return self._unknown(scope, headers)

    def _unknown(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if scope["method"] == "GET" and given and self.access.opens(given[-1]):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # One slash: //host would be another server.
            path = "/" + scope["path"].lstrip("/\\")
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            # Lax: the redirect after a click on the address elsewhere must have the cookie too.
            response.set_cookie(
                self.access.cookie, self.access.token, httponly=True, samesite="lax"
            )
            return response
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self.access.cookie)
        if self.access.is_token(cookie):
            return None
        if scheme.lower() == "bearer" and self.access.is_token(bearer.strip()):
            return None
        return _refuse(
            401, "the token is missing: open the address that hardmine serve printed, token and all"
        )


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
