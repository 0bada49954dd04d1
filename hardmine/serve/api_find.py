"""Endpoints of what the server finds by itself: conditions, and images to label next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hardmine.serve.collect import MAX_BUDGET
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
    pool = site.workspace.index_of("pool")
    wishes, picks = state.value.wishes, site.picks(state, call.query.budget)
    return {
        **status(state),
        "num_pool": len(pool),
        "need_from": state.value.need_from,
        "wishes": [
            {
                "name": wish.name,
                "is_class": wish.is_class,
                "need": round(wish.need, 3),
                "num_labelled": wish.num_labelled,
                "precision": wish.precision,
                "num_chosen": sum(pick.wish == place for pick in picks),
                "expected": sum(pick.fit for pick in picks if pick.wish == place)
                if wish.is_class and wish.num_labelled
                else None,
            }
            for place, wish in enumerate(wishes)
        ],
        "images": [
            {
                **site.workspace.image(pick.row, "pool"),
                "wish": wishes[pick.wish].name,
                "fit": round(pick.fit, 3),
                "closeness": round(pick.closeness, 3),
                "box": mined.box,
            }
            for pick, mined in zip(picks, site.mined(state, picks), strict=True)
        ],
    }


def _export(site: Site, call: Call) -> Any:
    state = site.live.wishes.wait()
    picks = site.picks(state, call.query.budget)
    return download(
        site.mined(state, picks),
        call.query.format,
        "to-label",
        "Images to label, chosen by hardmine. A box is the region that matched: it shows where to "
        "look, and its class is a guess.",
    )


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
