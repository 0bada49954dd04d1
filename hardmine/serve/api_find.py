"""Endpoints of what the server finds by itself: conditions, and images to label next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hardmine.serve.collect import ABOUT, MAX_BUDGET
from hardmine.serve.conditions import Example, ShownCondition
from hardmine.serve.endpoint import EXPORTED, Call, Endpoint, Format, download, status
from hardmine.serve.site import WAIT, Site
from hardmine.serve.workspace import Source, Workspace


class CollectQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many images to choose, and the format of their file."""

    budget: Annotated[int, Meta(ge=1, le=MAX_BUDGET)] = 50
    format: Format = "coco"


def _conditions(site: Site, call: Call) -> Any:
    state = site.live.conditions.wait(WAIT)
    kept = site.kept.contexts()
    return {
        **status(state),
        "conditions": [
            {**_condition(site.workspace, one), "kept": one.condition.text in kept}
            for one in state.value or ()
        ],
    }


def _condition(space: Workspace, one: ShownCondition) -> dict[str, Any]:
    ap, answers = one.ap, one.answers

    def images(examples: Sequence[Example], source: Source) -> list[dict[str, Any]]:
        return [{**space.image(row, source), "missed": boxes} for row, boxes in examples]

    return {
        **asdict(one.condition),
        "phrase": answers.phrase,
        "ap": None
        if ap is None or math.isnan(ap.gap)
        else {
            "inside": ap.ap_inside,
            "outside": ap.ap_outside,
            "low": ap.low,
            "high": ap.high,
            "num_images": ap.num_images,
        },
        "val_share": answers.share(answers.val_values),
        "training_share": answers.share(answers.values),
        "rounds": one.rounds,
        "inside": images(one.inside, "val"),
        "outside": images(one.outside, "val"),
        "training": images(one.training, "index"),
    }


def _collect(site: Site, call: Call) -> Any:
    state = site.live.wishes.wait(WAIT)
    if state.value is None:
        return {**status(state), "wishes": [], "images": []}
    collected = site.collected(state, call.query.budget)
    return {**status(state), **collected.to_json(site.workspace)}


def _export(site: Site, call: Call) -> Any:
    collected = site.collected(site.live.wishes.wait(), call.query.budget)
    return download(collected.mined, call.query.format, "to-label", ABOUT)


FIND_ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/conditions",
        "Conditions in which the detector fails, the surest first: how often and how sure, AP "
        "inside and outside, the shares of validation and training images that answer, validation "
        "images on both sides with the boxes of missed objects, and training images.",
        _conditions,
    ),
    Endpoint(
        "GET",
        "/api/collect",
        "Images of the pool to label next, in order: what each is for (wish), how likely it shows "
        "that (fit) and how like an image chosen before it is (closeness). By wish: need, labelled "
        "images now, the chosen ones and how many of them are expected to show it.",
        _collect,
        query=CollectQuery,
    ),
    Endpoint(
        "GET",
        "/api/collect/export",
        "The images to label as a COCO data set, Label Studio tasks or CVAT XML.",
        _export,
        query=CollectQuery,
        media_types=EXPORTED,
    ),
)
