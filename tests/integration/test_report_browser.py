"""The report's page in a real browser: sort, filter, expand, no errors, no requests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hardmine.report.diagnose import diagnose_gaps
from hardmine.report.gap_output import GapReport
from hardmine.report.gap_page import gap_page
from hardmine.report.gaps import ClassGap, LabelCount

HOSTILE = '<img src=x onerror="document.title=1">'
COUNTS = [(HOSTILE, 0.3, 40), ("bus", 0.1, 900), ("cat", 0.6, 5), ("dog", float("nan"), 0)]

# Uses the page as a person would, and records what the table shows after each step.
SCRIPT = """
const seen = [];
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.blockedURI));
const names = () => [...document.querySelectorAll("table.gaps tbody tr")]
  .filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
const head = (text) => [...document.querySelectorAll("table.gaps thead th")]
  .find((cell) => cell.textContent === text);
seen.push(names());
const val = head("val");
val.querySelector("button").focus();
seen.push([document.activeElement.textContent]);
val.querySelector("button").click();
seen.push([val.getAttribute("aria-sort"), ...names()]);
val.querySelector("button").click();
seen.push([val.getAttribute("aria-sort"), ...names()]);
head("AP").querySelector("button").click();
seen.push([val.getAttribute("aria-sort"), ...names()]);
const filter = document.getElementById("filter");
filter.value = "BU";
filter.dispatchEvent(new Event("input"));
seen.push([document.getElementById("count").textContent, ...names()]);
filter.value = "";
filter.dispatchEvent(new Event("input"));
const kind = document.getElementById("kind");
kind.value = "weak";
kind.dispatchEvent(new Event("change"));
seen.push(names());
const details = document.querySelector("td.why details");
details.querySelector("summary").click();
seen.push([String(details.open)]);
document.querySelector('[data-action="theme"]').click();
seen.push([document.documentElement.dataset.theme]);
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const loaded = performance.getEntriesByType("resource").map((one) => one.name);
const note = document.createElement("pre");
note.id = "seen";
note.textContent = JSON.stringify({ seen, errors, wide, loaded, title: document.title });
document.body.append(note);
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no chromium on this machine to look at the page with")


def page() -> str:
    gaps = [
        ClassGap(name, ap, need=max(0.0, 0.4 - ap) if ap == ap else 0.0, val=LabelCount(n, n, 0.5))
        for name, ap, n in COUNTS
    ]
    gaps.sort(key=lambda gap: -gap.need)
    return gap_page(GapReport("<b>results</b>", "detections", tuple(diagnose_gaps(gaps))))


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(chromium: str, tmp_path: Path, width: int) -> None:
    html = page()
    assert HOSTILE not in html
    end = html.rindex("</script>")
    file = tmp_path / "page.html"
    file.write_text(f"{html[:end]}\n{SCRIPT}{html[end:]}", encoding="utf-8")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:]
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    result = json.loads(text)
    first, focused, up, down, by_ap, filtered, weak, opened, theme = result["seen"]
    assert first == ["bus", HOSTILE, "cat", "dog"]
    assert focused == ["val"]
    assert up == ["ascending", "dog", "cat", HOSTILE, "bus"]
    assert down == ["descending", "bus", HOSTILE, "cat", "dog"]
    assert by_ap == ["none", "bus", HOSTILE, "cat", "dog"]  # the unknown one last
    assert filtered == ["1 of 4 classes", "bus"]
    assert weak == ["bus", HOSTILE]
    assert opened == ["true"]
    assert theme[0] in ("dark", "light")
    assert result["errors"] == []
    assert result["loaded"] == []
    assert result["wide"] <= 0  # the table scrolls, the page does not
    assert result["title"].startswith("<b>results</b>")
