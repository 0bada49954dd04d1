"""The pages of ``hardmine serve`` in a real browser, used as a person would."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_site import TOKEN, Running, running
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import hardmine
from hardmine.serve import app, pages

# One script a page, loaded as a file of the server. It posts what it saw, and goes on.
SCRIPTS = {
    "ask": """
      type("#texts", "a car at night"); key("#texts", "Enter");
      await until(() => all(".hit img").length > 4 && document.querySelector("#ap .value"));
      see("asked", [location.search, text("#asked"), text("#ap").includes("Harder than the rest")]);
      see("first", all(".hit .score").slice(0, 3).map((one) => one.textContent));
      see("marks", all(".hit").length < 120 && document.querySelector("#hits").scrollHeight > 1000);
      choose("#class", "zebra");
      await until(() => text("#summary").includes(" of "));
      see("filtered", all(".hit .labels").every((one) => one.textContent.includes("zebra")));
      choose("#class", ""); choose("#labels", "any");
      await until(() => !text("#summary").includes(" of "));
      scrollTo(0, document.body.scrollHeight);
      await until(() => document.querySelector('.hit[data-place="119"]'));
      see("last", document.querySelector('.hit[data-place="119"]').getAttribute("aria-posinset"));
      scrollTo(0, 0);
      await until(() => document.querySelector('.hit[data-place="0"]'));
      document.querySelector('.hit[data-place="0"] .open').focus();
      key(":focus", "ArrowRight");
      see("arrow", document.activeElement.closest(".hit").dataset.place);
      document.querySelector("#keep-context").click();
      await until(() => text("#problem").includes("names 'car'"));
      document.querySelector("#keep-slice").click();
      await until(() => all("#kept .chip").length === 1);
      document.querySelector('.hit[data-place="2"] .like').click();
      await until(() => text("#asked") === "Images like this" && all("#parts .chip").length === 1);
      see("region", new URLSearchParams(location.search).get("region").split(",").length);
      history.back();
      await until(() => text("#asked") === "a car at night");
    """,
    "classes": """
      await until(() => all("table.gaps tbody tr").length === 3);
      see("classes", all("table.gaps tbody th").map((one) => one.textContent));
      const asked = (link) => new URL(link.href).searchParams.get("text");
      see("asks", all("table.gaps tbody a").map(asked));
    """,
    "rounds": """
      await until(() => all("#draws-wall .tile").length > 10);
      see("draws", all("#draws-wall .score").map((one) => parseFloat(one.textContent)));
      await (await fetch("/test/round", { method: "POST" })).text();
      await until(() => all("details.round").length === 2);
    """,
    "conditions": """
      await until(() => all("#conditions .side").length === 3);
      see("found", text("#conditions h2"));
      see("tiles", all("#conditions .side").map((side) => side.querySelectorAll(".tile").length));
      see("marks", all("#conditions .side").map((side) => side.querySelectorAll(".mark").length));
      document.querySelector("#conditions button.tool").click();
      await until(() => text("#conditions .keep").includes("Kept as a context"));
    """,
    "collect": """
      await until(() => all("#wall .tile").length === 50);
      document.querySelector("#budget").value = "10";
      document.querySelector("#collect").requestSubmit();
      await until(() => all("#wall .tile").length === 10);
      see("wanted", all("#wishes tbody tr").map((row) => row.textContent));
      see("export", document.querySelector("[data-format=cvat]").search);
    """,
    "check": """
      await until(() => document.querySelector("#check h2")?.textContent);
      const before = Number(text("[data-kind=suspect] b"));
      see("question", text("#question"));
      key("body", "1");
      await until(() => text("#facts").includes(`${before - 1} to check`));
      key("body", "2"); key("body", "3"); key("body", "ArrowLeft");
      await until(() => text("#facts").includes(`${before - 2} to check`));
      const counts = async () => (await (await fetch("/api/checks")).json()).counts;
      while (!(await counts()).open) await new Promise((go) => setTimeout(go, 30));
      document.querySelector("[data-kind=confuser]").click();
      await until(() => !text("#facts").includes(`${before - 2} to check`));
      see("before", before);
    """,
}
FRAME = """
const seen = {}, errors = [];
const see = (name, value) => { seen[name] = value; };
const all = (query) => [...document.querySelectorAll(query)];
const text = (query) => document.querySelector(query)?.textContent ?? "";
const type = (query, value) => { const one = document.querySelector(query); one.value = value; one.dispatchEvent(new Event("input", { bubbles: true })); };
const choose = (query, value) => { const one = document.querySelector(query); one.value = value; one.dispatchEvent(new Event("change", { bubbles: true })); };
const key = (query, name) => document.querySelector(query).dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const until = async (done) => {
  const start = Date.now();
  while (!done()) {
    if (Date.now() - start > 60000) throw new Error(`waited in vain for ${done}`);
    await new Promise((go) => setTimeout(go, 30));
  }
};
addEventListener("error", (event) => event.message && errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => errors.push(`${event.violatedDirective} ${event.blockedURI}`));
addEventListener("load", async () => {
  try { STEPS } catch (error) { errors.push(String(error)); }
  const foreign = performance.getEntriesByType("resource").map((one) => one.name).filter((one) => !one.startsWith(location.origin) && !one.startsWith("data:"));
  const nameless = all("button, a, input, select, textarea").filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.title || one.labels?.length));
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const body = JSON.stringify({ page: location.pathname, seen, errors, foreign, nameless: nameless.map((one) => one.outerHTML), wide });
  const next = await (await fetch("/test/seen", { method: "POST", body })).text();
  if (next) location.href = next;
});
"""  # noqa: E501


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no chromium on this machine to look at the pages with")


class Watched:
    """A server whose pages load a script of the test, and what the scripts saw."""

    def __init__(self, served: Running) -> None:
        self.served = served
        self.reports: dict[str, dict[str, Any]] = {}
        self.done = threading.Event()
        space = served.site.workspace
        self.miner = hardmine.HardMiner(
            space.index, encoder=space.encoder, images=space.images, rounds=space.rounds
        )

    async def seen(self, request: Request) -> Response:
        report = json.loads(await request.body())
        self.reports[report["page"]] = report
        left = [page for page in pages.PAGES if page not in self.reports]
        if not left:
            self.done.set()
        return Response(left[0] if left else "")

    def mine(self, request: Request) -> Response:
        self.miner.step({"car": 0.6, "fork<b>": 0.2, "zebra": 0.4})
        return Response()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("browser")
    holder: list[Watched] = []

    async def seen(request: Request) -> Response:
        return await holder[0].seen(request)

    def mine(request: Request) -> Response:
        return holder[0].mine(request)

    def script(request: Request) -> Response:
        steps = SCRIPTS[request.path_params["page"]]
        return Response(FRAME.replace("STEPS", steps), media_type="text/javascript")

    def with_script(page: str, make: Any) -> Any:
        def made(site: Any) -> str:
            tag = f'<script src="/test/{page[1:]}.js" type="module"></script></head>'
            return str(make(site)).replace("</head>", tag)

        return made

    extra = [
        Route("/test/seen", seen, methods=["POST"]),
        Route("/test/round", mine, methods=["POST"]),
        Route("/test/{page}.js", script),
    ]
    with pytest.MonkeyPatch.context() as patch:
        made = {page: with_script(page, make) for page, make in pages.PAGES.items()}
        patch.setattr(app, "PAGES", made)
        plain = app.Starlette
        patch.setattr(
            app, "Starlette", lambda routes, **rest: plain(routes=[*extra, *routes], **rest)
        )
        with running(folder) as served:
            holder.append(Watched(served))
            yield holder[0]


def test_every_page(chromium: str, watched: Watched, tmp_path: Path) -> None:
    """One browser goes through the pages at the width of a telephone."""
    watched.mine(Request({"type": "http"}))
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path}",
        "--window-size=390,900",
        "--remote-debugging-port=0",  # keeps it running
        f"{watched.served.url}/ask?token={TOKEN}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        watched.done.wait(120)
        browser.terminate()
    reports = watched.reports
    assert [*reports] == [*pages.PAGES]
    for page, report in reports.items():
        for kind in ("errors", "foreign", "nameless"):
            assert report[kind] == [], page
        assert report["wide"] <= 0, page
    ask, classes, rounds, conditions, check, collect = (
        report["seen"] for report in reports.values()
    )
    assert ask["asked"] == ["?text=a+car+at+night", "a car at night", True]
    scores = [float(score) for score in ask["first"]]
    assert scores == sorted(scores, reverse=True)
    assert ask["marks"]
    assert ask["filtered"]
    assert (ask["last"], ask["arrow"], ask["region"]) == ("120", "1", 5)
    assert [one.texts for one in watched.served.site.kept.slices()] == [("a car at night",)]
    assert sorted(classes["classes"]) == ["car", "fork<b>", "zebra"]
    assert classes["asks"] == classes["classes"]
    assert rounds["draws"] == sorted(rounds["draws"], reverse=True)
    assert "night" in conditions["found"]
    assert conditions["tiles"] == [8, 8, 8]
    most, least, training = conditions["marks"]
    assert most > 2
    assert least == training == 0
    assert watched.served.site.kept.contexts() == (conditions["found"],)
    assert any("condition" in row for row in collect["wanted"])
    assert collect["export"] == "?format=cvat&budget=10"
    assert check["question"].startswith("Is there an unlabelled ")
    counts = watched.served.site.decisions.counts()
    assert counts == {"missing": 1, "other": 1, "open": 1}
