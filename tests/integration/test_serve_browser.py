"""The pages of ``hardmine serve`` in a real browser, used as a person would, and under axe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serve_site import TOKEN, Running, running

import hardmine
from hardmine.serve import pages

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 900}
# Of a wall of equal tiles, two say as much as all, in a tenth of the time.
AXE = """rules => axe.run(
  { exclude: [[".tile:nth-child(n + 3)"], [".hit:nth-child(n + 3)"]] },
  { resultTypes: ["violations"], ...(rules && { runOnly: rules }) },
).then(({ violations }) => violations.map(({ id, nodes }) => [id, ...nodes.map((one) => one.html)]))
"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which a package brings along."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-playwright-python is not installed, which brings Playwright and axe-core")
    return Path(spec.origin).with_name("axe.min.js").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def page(axe: str, served: Running) -> Iterator[Page]:
    """A browser at the width of a telephone, let in as a person is: by the printed address."""
    from playwright.sync_api import expect, sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on this machine to look at the pages with")
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport=NARROW, base_url=served.url)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(f"/?token={TOKEN}")
        yield page
        browser.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest, page: Page, served: Running, axe: str) -> Iterator[Page]:
    """A page that must make no error and no request elsewhere, fit the screen, and pass axe."""
    problems: list[str] = []

    def hear(message: object) -> None:
        problems.append(str(getattr(message, "text", message)))

    def ask(asked: object) -> None:
        url = getattr(asked, "url", "")
        if not url.startswith((served.url, "data:")):
            problems.append(url)

    page.on("console", hear)
    page.on("pageerror", hear)
    page.on("request", ask)
    page.goto(f"/{request.param}")
    yield page
    page.evaluate(axe)
    # The same elements are there at both widths, in other colours.
    for scheme, size, rules in (("dark", NARROW, None), ("light", WIDE, ["color-contrast"])):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size(size)
        assert page.evaluate(AXE, rules) == [], (scheme, size)
        element = "document.documentElement"
        assert page.evaluate(f"{element}.scrollWidth - {element}.clientWidth") <= 0, size
    page.set_viewport_size(NARROW)
    page.remove_listener("console", hear)
    page.remove_listener("pageerror", hear)
    page.remove_listener("request", ask)
    # A picture of the data is broken on purpose.
    assert [one for one in problems if "400 (Bad Request)" not in one] == []


def at(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", [name], indirect=True, ids=[name])


@at("ask")
def test_ask(opened: Page, served: Running) -> None:
    from playwright.sync_api import expect

    page, one = opened, opened.locator
    page.fill("#texts", "a car at night")
    page.press("#texts", "Enter")
    expect(one("#asked")).to_have_text("a car at night")
    expect(one("#ap")).to_contain_text("Harder than the rest")
    assert page.url.endswith("/ask?text=a+car+at+night")
    one(".hit img").first.wait_for()
    scores = [float(score) for score in one(".hit .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert 4 < len(scores) < 120  # only what is in view exists
    page.select_option("#class", "zebra")
    expect(one("#summary")).to_contain_text(" of ")
    assert all("zebra" in labels for labels in one(".hit .labels").all_text_contents())
    page.select_option("#class", "")
    page.select_option("#labels", "any")
    expect(one("#summary")).not_to_contain_text(" of ")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(one('.hit[data-place="119"]')).to_have_attribute("aria-posinset", "120")
    page.evaluate("scrollTo(0, 0)")
    page.focus('.hit[data-place="0"] .open')
    page.keyboard.press("ArrowRight")
    expect(one(".hit:focus-within")).to_have_attribute("data-place", "1")
    page.click("#keep-context")
    expect(one("#problem")).to_contain_text("names 'car'")
    page.click("#keep-slice")
    expect(one("#kept .chip")).to_have_count(1)
    assert [kept.texts for kept in served.site.kept.slices()] == [("a car at night",)]
    page.click('.hit[data-place="2"] .like')
    expect(one("#asked")).to_have_text("Images like this")
    expect(one("#parts .chip")).to_have_count(1)
    assert "region=" in page.url
    page.go_back()
    expect(one("#asked")).to_have_text("a car at night")


@at("classes")
def test_classes(opened: Page) -> None:
    rows = opened.locator("table.gaps tbody th")
    rows.first.wait_for()
    names = rows.all_text_contents()
    assert sorted(names) == ["car", "fork<b>", "zebra"]
    asked = "all => all.map((one) => new URL(one.href).searchParams.get('text'))"
    assert opened.eval_on_selector_all("table.gaps tbody a", asked) == names


@at("rounds")
def test_rounds(opened: Page, served: Running) -> None:
    from playwright.sync_api import expect

    space = served.site.workspace
    miner = hardmine.HardMiner(
        space.index, encoder=space.encoder, images=space.images, rounds=space.rounds
    )
    for number in (1, 2):
        miner.step({"car": 0.6, "fork<b>": 0.2, "zebra": 0.4})
        # The page looks for more by itself.
        expect(opened.locator("details.round")).to_have_count(number)
    opened.locator("#draws-wall .tile").nth(10).wait_for()
    draws = opened.locator("#draws-wall .score").all_text_contents()
    assert draws == sorted(draws, key=lambda text: -float(text.split()[0]))


@at("conditions")
def test_conditions(opened: Page, served: Running) -> None:
    from playwright.sync_api import expect

    sides = opened.locator("#conditions .side")
    expect(sides).to_have_count(3)
    found = opened.locator("#conditions h2").text_content() or ""
    assert "night" in found
    assert [side.locator(".tile").count() for side in sides.all()] == [8, 8, 8]
    most, least, training = (side.locator(".mark").count() for side in sides.all())
    assert most > 2
    assert least == training == 0
    opened.click("#conditions button.tool")
    expect(opened.locator("#conditions .keep")).to_contain_text("Kept as a context")
    assert served.site.kept.contexts() == (found,)


@at("check")
def test_check(opened: Page, served: Running) -> None:
    from playwright.sync_api import expect

    facts = opened.locator("#facts")
    expect(opened.locator("#question")).to_contain_text("Is there an unlabelled ")
    before = int(opened.locator("[data-kind=suspect] b").inner_text())
    for press in ("1", "2", "3", "ArrowLeft"):
        opened.keyboard.press(press)
    expect(facts).to_contain_text(f"{before - 2} to check")
    # Answers are written one after the other, before the next list is fetched.
    opened.wait_for_load_state("networkidle")
    assert served.site.decisions.counts() == {"missing": 1, "other": 1, "open": 1}
    opened.click("[data-kind=confuser]")
    expect(facts).not_to_contain_text(f"{before - 2} to check")


@at("collect")
def test_collect(opened: Page) -> None:
    from playwright.sync_api import expect

    tiles = opened.locator("#wall .tile")
    expect(tiles).to_have_count(50)
    opened.fill("#budget", "10")
    opened.press("#budget", "Enter")
    expect(tiles).to_have_count(10)
    assert "condition" in opened.locator("#wishes tbody").inner_text()
    address = opened.locator("[data-format=cvat]").get_attribute("href") or ""
    assert address.endswith("?format=cvat&budget=10")


def test_no_page_is_left_out() -> None:
    tested = {name[5:] for name in globals() if name.startswith("test_")}
    assert {path[1:] for path in pages.PAGES} <= tested
