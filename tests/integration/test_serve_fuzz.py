"""Hostile requests to the server, made by Schemathesis from its own OpenAPI description."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from serve_site import TOKEN, make_workspace
from starlette.testclient import TestClient

from hardmine.kept import KeptFolder
from hardmine.serve.access import POLICY, Access
from hardmine.serve.app import make_app
from hardmine.serve.openapi import describe
from hardmine.serve.pages import PAGES, STATIC
from hardmine.serve.site import Site

schemathesis = pytest.importorskip("schemathesis", reason="Schemathesis makes the requests")
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    status_code_conformance,
)

HEADERS = {"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1"}
CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]
DESCRIBED = describe()["paths"]
OPERATIONS = [(path, method) for path in DESCRIBED for method in DESCRIBED[path]]
# A browser may keep pictures, and scripts and styles if it asks about them each time.
CACHED = {
    "image/jpeg": "private, max-age=3600",
    "text/css": "no-cache",
    "text/javascript": "no-cache",
}


@dataclass
class Fuzzed:
    """A server in this process, and what it opens.

    Attributes:
        secret: A picture beside its images, which no request may open.
        key: Of an answer.
        opened: Every path that was opened so far.
    """

    site: Site
    client: TestClient
    schema: Any
    secret: Path
    key: str
    opened: set[str]

    def hostile(self) -> st.SearchStrategy[str]:
        """The secret's path in ways that a server might fall for, and other bad texts."""
        path = str(self.secret)
        up = "../" * 12 + path.lstrip("/")
        quoted = up.replace("/", "%2f").replace(".", "%2e")
        others = (
            f"{path}\x00",
            up.replace("/", "\\"),
            "{{7*7}}",
            "' OR 1=1",
            "- !!python",
            self.key,
        )
        return st.sampled_from(
            (path, self.secret.as_uri(), f"../{self.secret.name}", up, quoted, *others)
        )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    site = Site(make_workspace(folder)[0])
    app = make_app(site, Access(TOKEN))
    secret = folder / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    # So that the endpoints have something to show.
    for value in (site.live.matches, site.live.diagnosis, site.live.conditions, site.live.wishes):
        assert value.wait().error == ""
    client = TestClient(app, base_url="http://127.0.0.1", headers=HEADERS, follow_redirects=False)
    key = client.post("/api/questions", json={"texts": ["zebra"]}).json()["key"]
    opened: set[str] = set()
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open":
            opened.add(str(arguments[0]))

    sys.addaudithook(watch)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app=app, headers=HEADERS)
    yield Fuzzed(site, client, schema, secret, key, opened)
    watching = False


def require_headers(headers: Mapping[str, str]) -> None:
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    kind = headers.get("content-type", "").partition(";")[0]
    assert headers["cache-control"] == CACHED.get(kind, "no-store")


def replace_texts(value: Any, draw: Any, texts: st.SearchStrategy[str]) -> Any:
    """The value with some of its texts replaced."""
    if isinstance(value, str):
        return draw(texts) if draw(st.booleans()) else value
    if isinstance(value, dict):
        return {name: replace_texts(one, draw, texts) for name, one in value.items()}
    if isinstance(value, list):
        return [replace_texts(one, draw, texts) for one in value]
    return value


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_request_is_answered_as_described(fuzzed: Fuzzed, path: str, method: str) -> None:
    operation = fuzzed.schema[path][method]
    modes = [GenerationMode.POSITIVE]
    if operation.body or operation.query or operation.path_parameters:
        modes.append(GenerationMode.NEGATIVE)
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

    @settings(
        max_examples=6 if len(modes) > 1 else 2,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, st.data())
    def check(case: Any, data: st.DataObject) -> None:
        for part in ("path_parameters", "query", "body"):
            setattr(case, part, replace_texts(getattr(case, part), data.draw, fuzzed.hostile()))
        answer = case.call(headers=HEADERS)
        case.validate_response(answer, checks=CHECKS)
        require_headers({name: values[0] for name, values in answer.headers.items()})
        if answer.status_code >= 400:
            assert answer.json()["error"]

    check()
    assert fuzzed.opened
    assert not any(fuzzed.secret.name in opened for opened in fuzzed.opened)


def test_what_a_fuzz_wrote_can_be_read(fuzzed: Fuzzed) -> None:
    """Contexts, slices and checks, which a training reads, are whole whatever was asked."""
    KeptFolder(fuzzed.site.workspace.folder)
    assert all(slice.texts for slice in fuzzed.site.kept.slices())


@pytest.mark.parametrize("path", [*PAGES, *DESCRIBED, "/static/ask.js", "/x"])
def test_every_path_refuses_strangers(fuzzed: Fuzzed, path: str) -> None:
    address = path.format(key=fuzzed.key, row=0, number=0, size="small")
    for headers, status in (
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"authorization": "Bearer x"}, 401),
    ):
        for method in ("GET", "POST"):
            answer = fuzzed.client.request(method, address, headers=headers)
            assert answer.status_code == status
            require_headers(answer.headers)


@pytest.mark.parametrize("path", [*PAGES, *(f"/static/{name}" for name in STATIC), "/", "/x"])
def test_pages_have_the_headers(fuzzed: Fuzzed, path: str) -> None:
    answer: httpx.Response = fuzzed.client.get(path, params={"text": str(fuzzed.secret)})
    assert answer.status_code == {"/": 303, "/x": 404}.get(path, 200)
    require_headers(answer.headers)


def test_a_refusal_names_the_methods_of_a_path(fuzzed: Fuzzed) -> None:
    answer = fuzzed.client.put("/api/contexts")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}
