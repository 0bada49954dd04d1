"""The HTML pages: those of the reports, live, and two of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardmine.report.gap_page import KIND_WORDS, gap_values
from hardmine.report.page import page_environment
from hardmine.report.rounds_page import rounds_values
from hardmine.report.run_summary import summarize_run
from hardmine.serve.background import State
from hardmine.serve.site import WAIT, Site

_HERE = Path(__file__).parent
_REPORT = _HERE.parent / "report"
# File name -> file, of every style sheet and script; nothing else is served from disk.
STATIC = {
    path.name: path
    for folder in (_REPORT, _HERE / "static")
    for path in sorted(folder.iterdir())
    if path.suffix in (".css", ".js")
}
_LAYOUT = "layout.html"
FORMATS = (("coco", "COCO"), ("labelstudio", "Label Studio"), ("cvat", "CVAT"))


def ask_page(site: Site) -> str:
    """The page on which questions are asked."""
    space = site.workspace
    about = [
        ("index", space.name),
        ("images", f"{len(space.index):,}"),
        ("regions", f"{space.index.num_regions:,}"),
    ]
    if space.images is not None:
        labelled = int((space.label_rows >= 0).sum())
        about.append(("labelled", f"{labelled:,}"))
    return _render(
        site,
        "ask.html",
        "ask",
        scripts=("ask.js",),
        about=about,
        class_names=space.class_names,
        folders=space.folders,
        has_detections=space.detections is not None,
    )


def classes_page(site: Site) -> str:
    """The table of classes of the report."""
    state = site.live.diagnosis.wait(WAIT)
    report = None if state.value is None else state.value.report
    if report is None:
        missing = site.workspace.detections is None
        advice = (
            "Give detections and the labels of their images: hardmine serve INDEX --ann FILE "
            "--detections FILE, with --val-ann FILE if they are on other images than the index."
        )
        return _waiting(site, "classes", "Classes", state, advice if missing else "")
    return _render(
        site,
        "gap_page.html",
        "classes",
        styles=("gap_page.css",),
        scripts=("gap_page.js", "live.js"),
        state=state,
        ask="/ask?text=",
        **gap_values(report),
    )


def rounds_page(site: Site) -> str:
    """The history of a training's rounds, and what the last one draws."""
    state = site.live.rounds_now()
    if not state.value:
        given = site.workspace.rounds
        advice = (
            f"Waiting for the first round in {given}."
            if given
            else "Give the file that the miner of a training writes: hardmine serve INDEX "
            "--ann FILE --rounds rounds.jsonl."
        )
        return _waiting(site, "rounds", "Rounds", state, advice)
    title = site.workspace.rounds.name if site.workspace.rounds else "rounds"
    return _render(
        site,
        "rounds.html",
        "rounds",
        styles=("rounds_page.css",),
        scripts=("draws.js", "live.js"),
        state=state,
        **rounds_values(summarize_run(state.value), title=title),
    )


def conditions_page(site: Site) -> str:
    """Conditions in which the detector fails."""
    return _render(site, "conditions.html", "conditions", scripts=("conditions.js",))


def collect_page(site: Site) -> str:
    """What to label next."""
    return _render(
        site,
        "collect.html",
        "collect",
        scripts=("collect.js",),
        has_pool=site.workspace.pool is not None,
        formats=FORMATS,
    )


def check_page(site: Site) -> str:
    """Suspects and confusers, one by one."""
    return _render(
        site,
        "check.html",
        "check",
        scripts=("check.js",),
        has_labels=site.workspace.images is not None,
        file=site.decisions.file,
        formats=FORMATS,
    )


PAGES: dict[str, Callable[[Site], str]] = {
    "/ask": ask_page,
    "/classes": classes_page,
    "/rounds": rounds_page,
    "/conditions": conditions_page,
    "/check": check_page,
    "/collect": collect_page,
}


def _waiting(site: Site, page: str, title: str, state: State[Any], advice: str) -> str:
    return _render(
        site,
        "waiting.html",
        page,
        scripts=("live.js",),
        title=title,
        state=state,
        advice=advice,
    )


def _render(
    site: Site,
    template: str,
    page: str,
    *,
    styles: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
    **values: Any,
) -> str:
    return (
        page_environment(_HERE / "templates")
        .get_template(template)
        .render(
            layout=_LAYOUT,
            page=page,
            pages=[path[1:] for path in PAGES],
            linked_styles=("page.css", *styles, "serve.css"),
            linked_scripts=("page.js", *scripts),
            workspace_name=site.workspace.name,
            server_run=site.run,
            words_of_kinds=KIND_WORDS,
            **values,
        )
    )
