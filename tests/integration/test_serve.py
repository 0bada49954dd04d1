"""The server: who is answered, hostile requests, asking, keeping and checking over HTTP."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serve_site import HOSTILE, TOKEN, Running, running
from toy_data import WordEncoder, text_vector

import hardmine
from hardmine.miner import HardMiner
from hardmine.serve.access import Access
from hardmine.serve.pages import PAGES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("serve")) as one:
        yield one


def test_only_the_token_opens(served: Running) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        for path in (
            "/",
            "/ask",
            "/api/workspace",
            "/images/0/small",
            "/static/ask.js",
            "/nothing",
        ):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert "content-security-policy" in answer.headers
            assert stranger.get(f"{path}?token=wrong").status_code == 401
        assert (
            stranger.get(
                "/ask", headers={"authorization": "Bearer é".encode("latin-1")}
            ).status_code
            == 401
        )
        first = stranger.get(f"/ask?token={TOKEN}&text=car")
        assert (first.status_code, first.headers["location"]) == (303, "/ask?text=car")
        assert "HttpOnly" in first.headers["set-cookie"]
        assert "samesite=lax" in first.headers["set-cookie"].lower()
        page = stranger.get("/ask")
        assert page.status_code == 200
        assert (
            "unsafe-inline"
            not in page.headers["content-security-policy"].split("style-src-attr")[0]
        )
        away = stranger.get(f"//elsewhere.example/?token={TOKEN}", follow_redirects=False)
        assert not away.headers.get("location", "/").startswith(("//", "http"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"host": "localhost:9000"}, 200, id="a tunnel's port"),
        pytest.param({"host": "evil.example"}, 403, id="DNS rebinding"),
        pytest.param({"host": "127.0.0.1.evil.example"}, 403, id="looks like an address"),
        pytest.param({"host": "127.0.0.1:x"}, 403, id="no port"),
        pytest.param({"host": "evil.example@127.0.0.1"}, 403, id="user part"),
        pytest.param({"origin": "http://evil.example"}, 403, id="another page"),
        pytest.param({"origin": "null"}, 403, id="a page in a sandbox"),
        pytest.param({"origin": "http://127.0.0.1:1"}, 403, id="a page of another port"),
        pytest.param({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403, id="img"),
        pytest.param({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403, id="port"),
        pytest.param(
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200, id="link"
        ),
    ],
)
def test_requests_from_elsewhere_are_refused(
    served: Running, headers: dict[str, str], status: int
) -> None:
    assert served.client.get("/api/workspace", headers=headers).status_code == status


def test_a_code_opens_once() -> None:
    access = Access("t", codes={"once"})
    answers = [access.opens(given) for given in ("once", "once", "t", "t", "x")]
    assert answers == [True, False, True, True, False]


def test_a_name_of_one_s_own_host() -> None:
    access = Access("t", frozenset({"workstation"}))
    assert access.knows_host("workstation:80")
    assert access.knows_host("[::1]:80")
    assert access.knows_host("10.0.0.3")
    for name in ("workstation.evil.example", "", None, "work station", "a:b:c", "[::1"):
        assert not access.knows_host(name)


@pytest.mark.parametrize(
    "path",
    [
        "/images/-1/small",
        "/images/120/small",
        "/images/99999999999999999999/small",
        "/images/0/..%2f..%2fetc",
        "/images/0/huge",
        "/images/..%2f..%2fdetections.json/small",
        "/static/..%2f..%2fcli/serve.py",
        "/static/app.py",
        "/static//etc/passwd",
        "/images/1/small",  # no picture
    ],
)
def test_no_path_of_a_request_is_opened(served: Running, path: str) -> None:
    answer = served.client.get(path)
    assert answer.status_code in (400, 404)
    assert "error" in answer.json()


def test_bodies_are_bounded(served: Running) -> None:
    large = b'{"texts": ["' + b"a" * 100_000 + b'"]}'
    assert served.client.post("/api/questions", content=large).status_code == 413
    chunks = (b"x" * 2**20 for _ in range(20))  # sent without a length
    try:
        status = served.client.post("/api/pictures", content=chunks).status_code
    except httpx.WriteError:  # hung up on before it was all sent
        status = 413
    assert status == 413
    nested = b"[" * 30_000
    assert served.client.post("/api/questions", content=nested).status_code == 400


def picture(size: tuple[int, int], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 60)).save(file, kind)
    return file.getvalue()


def test_uploads_that_are_no_pictures(served: Running) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(run) run\n"
    gif = picture((8, 8), "GIF")
    bomb = gif[:6] + bytes([0, 48, 0, 48]) + gif[10:]  # claims 12,288 × 12,288 pixels
    whole = picture((64, 64))
    for content in (b"", b"no picture", eps, bomb, whole[: len(whole) // 2]):
        answer = served.client.post("/api/pictures", content=content)
        assert answer.status_code == 400, content[:20]
    assert len(served.client.post("/api/pictures", content=whole).json()["key"]) == 16


def ask(served: Running, **question: Any) -> dict[str, Any]:
    answer = served.client.post("/api/questions", json=question)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def hits(served: Running, key: str, **query: Any) -> dict[str, Any]:
    answer = served.client.get(f"/api/questions/{key}/hits", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_hits_are_those_of_a_brute_force(served: Running) -> None:
    vectors = served.site.workspace.index.store.shards[0].vectors.astype(np.float64)  # type: ignore[attr-defined]
    words = ["zebra", "street", "night"]
    zebra, street, night = (
        (vectors @ text_vector(word)).reshape(-1, 4).max(axis=1) for word in words
    )
    for question, scores in (
        ({"texts": ["zebra"]}, zebra),
        ({"texts": ["zebra", "night"]}, np.maximum(zebra, night)),
        ({"texts": ["zebra", "night"], "match": "all"}, np.minimum(zebra, night)),
        ({"texts": ["zebra"], "without": ["night", "street"]},
         np.where(zebra > np.maximum(night, street), zebra, -np.inf)),
    ):  # fmt: skip
        found = ask(served, **question)
        expected = np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]
        assert found["num_found"] == len(expected)
        pages = [hits(served, found["key"], offset=start, limit=50) for start in (0, 50, 100)]
        rows = [hit["row"] for page in pages for hit in page["hits"]]
        assert len(rows) == len(expected)
        np.testing.assert_allclose(scores[rows], scores[expected], atol=2e-4)
        best = pages[0]["hits"][0]
        assert best["score"] == pytest.approx(scores[best["row"]], abs=2e-4)


def test_filters(served: Running) -> None:
    images = served.site.workspace.images
    assert images is not None
    key = ask(served, texts=["zebra"])["key"]
    labelled = set(np.flatnonzero(images.class_counts[:, 2].toarray().ravel()).tolist())
    with_label = hits(served, key, class_name="zebra", labels="with", limit=200)
    assert {hit["row"] for hit in with_label["hits"]} == labelled
    assert with_label["total"] == len(labelled)
    without = hits(served, key, class_name="zebra", labels="without", limit=200)
    assert without["total"] == 120 - len(labelled)
    top = hits(served, key, limit=10)["hits"]
    above = hits(served, key, min_score=top[9]["score"] - 1e-4)
    assert above["total"] == 10
    assert hits(served, key, folder="")["total"] == 120
    assert hits(served, key, folder="elsewhere")["total"] == 0
    for query in ({"class_name": "cow"}, {"limit": 10_000}, {"offset": -1}, {"sort": "x"}):
        answer = served.client.get(f"/api/questions/{key}/hits", params=query)
        assert answer.status_code == 400
    assert served.client.get(f"/api/questions/{'0' * 16}/hits").status_code == 404


def test_pictures_and_regions_as_questions(served: Running) -> None:
    space = served.site.workspace
    file = space.path(5)
    upload = served.client.post("/api/pictures", content=file.read_bytes()).json()["key"]
    whole = ask(served, pictures=[upload])
    region = ask(served, regions=[{"row": 5, "box": [0.0, 0.0, 1.0, 1.0]}])
    first = [hit["row"] for hit in hits(served, whole["key"])["hits"]]
    assert first == [hit["row"] for hit in hits(served, region["key"])["hits"]]
    thin = {"regions": [{"row": 5, "box": [0.5, 0.0, 0.5, 1.0]}]}
    assert "pixels" in served.client.post("/api/questions", json=thin).json()["error"]


def test_ap_where_a_question_is_answered(served: Running) -> None:
    """The detector misses cars at night: AP is lower on the images that answer it."""
    key = ask(served, texts=["a car at night"])["key"]
    for _ in range(100):
        ap = served.client.get(f"/api/questions/{key}/ap").json()
        if not ap["busy"]:
            break
        time.sleep(0.1)
    assert ap["classes"] == ["car"]
    assert ap["num_images"] == 24  # a fifth
    assert ap["ap_inside"] < ap["ap_outside"]
    assert ap["low"] < ap["gap"] < ap["high"]
    assert ap["low"] > 0


def test_what_is_kept_is_what_the_config_reads(served: Running) -> None:
    client = served.client
    for text in ("at night", " at night", "wet: - {}\n"):
        assert client.post("/api/contexts", json={"texts": [text]}).status_code == 200
    file = Path(client.get("/api/contexts").json()["file"])
    assert hardmine.load_config(file).miner.contexts == ("at night", "wet: - {}")
    client.delete("/api/contexts", params={"text": "at night"})
    assert hardmine.load_config(file).miner.contexts == ("wet: - {}",)
    for refused in ({"texts": ["x"], "without": ["y"]}, {"texts": ["a zebra at night"]}):
        assert client.post("/api/contexts", json=refused).status_code == 400
    question = {"texts": ["zebra", "night"], "match": "all", "without": ["street"]}
    assert client.post("/api/slices", json=question).json()["slices"] == [question]
    assert client.delete("/api/slices/0").json()["slices"] == []


def checks(served: Running, **query: Any) -> dict[str, Any]:
    for _ in range(200):
        found: dict[str, Any] = served.client.get("/api/checks", params=query).json()
        if found["version"]:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_checks_survive_and_export(served: Running) -> None:
    found = checks(served, kind="suspect")
    assert found["total"] > 3
    # What is suspected is there, and only the label is missing.
    names = served.site.workspace.class_names
    true = [
        served.toy.present[one["row"], names.index(one["class_name"])] for one in found["checks"]
    ]
    assert np.mean(true) > 0.7
    first, second, third = found["checks"][:3]
    for one, decision in (
        (first, "missing"),
        (second, "missing"),
        (third, "other"),
        (second, "open"),
    ):
        body = {"image_id": one["id"], "class_name": one["class_name"], "decision": decision}
        assert served.client.post("/api/checks", json=body).status_code == 200
    invented = {"image_id": first["id"], "class_name": "cow", "decision": "missing"}
    assert served.client.post("/api/checks", json=invented).status_code == 400
    coco = served.client.get("/api/checks/export").json()
    assert [one["image_id"] for one in coco["annotations"]] == [first["id"]]
    category = {one["name"]: one["id"] for one in coco["categories"]}
    assert category == {"car": 1, "fork<b>": 2, "zebra": 3}  # the data set's own ids
    assert coco["annotations"][0]["category_id"] == category[first["class_name"]]
    tasks = served.client.get("/api/checks/export", params={"format": "labelstudio"}).json()
    assert [task["data"]["image_id"] for task in tasks] == [first["id"]]
    left = checks(served, kind="suspect", decision="open")
    assert left["total"] == found["total"] - 2
    assert checks(served, kind="confuser")["total"] > 0


def test_rounds_grow_and_draws_are_explained(served: Running) -> None:
    client, space = served.client, served.site.workspace
    assert "Waiting for the first round" in client.get("/rounds").text
    miner = HardMiner(
        space.index, encoder=WordEncoder(), images=space.images, rounds=space.rounds, strict=True
    )
    done = miner.step({"car": 0.6, "fork<b>": 0.2, "zebra": 0.4})
    before = client.get("/api/rounds").json()
    assert [one["number"] for one in before["summary"]["rounds"]] == [1]
    for _ in range(100):
        draws = client.get("/api/draws", params={"limit": 5}).json()
        if draws["total"]:
            break
        time.sleep(0.1)
    weights = done.weights / done.weights.mean()
    assert [one["draws"] for one in draws["images"]] == pytest.approx(
        np.sort(weights)[::-1][:5].tolist(), abs=1e-3
    )
    assert any(one["reasons"] for one in draws["images"])
    miner.step({"car": 0.6, "fork<b>": 0.3, "zebra": 0.4})
    after = client.get("/api/rounds").json()
    assert len(after["summary"]["rounds"]) == 2
    assert after["version"] > before["version"]


def test_pages_escape_what_files_say(served: Running) -> None:
    checks(served)
    for page in PAGES:
        answer = served.client.get(page)
        assert answer.status_code == 200
        html = answer.text
        assert "toy&lt;i&gt;.hmx" in html
        assert "fork<b>" not in html
        assert "<script>" not in html  # files of the server alone
        assert HOSTILE not in html
