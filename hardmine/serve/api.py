"""The JSON interface: one table of endpoints, from which its OpenAPI description is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.report.gap_output import to_json
from hardmine.report.run_summary import summarize_run
from hardmine.report.text_slices import named_classes
from hardmine.serve.api_find import FIND_ENDPOINTS
from hardmine.serve.asking import HitsQuery
from hardmine.serve.background import Background
from hardmine.serve.checks import CheckAnswer, ChecksQuery
from hardmine.serve.endpoint import (
    EXPORTED,
    Call,
    Endpoint,
    ExportQuery,
    PageQuery,
    download,
    status,
)
from hardmine.serve.questions import Key, Question, Row
from hardmine.serve.site import WAIT, Site
from hardmine.serve.thumbnails import Size
from hardmine.serve.workspace import Source


class TextQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that was kept."""

    text: Annotated[str, Meta(max_length=300)]


class VersionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is watched."""

    of: Literal["classes", "rounds", "draws", "conditions", "collect"]


class ImageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which index an image is of; ``run`` keeps apart what browsers cache."""

    of: Source = "index"
    run: Annotated[str, Meta(max_length=20)] = ""


def _workspace(site: Site, call: Call) -> Any:
    space = site.workspace
    return {
        "name": space.name,
        "num_images": len(space.index),
        "num_regions": space.index.num_regions,
        "clusters": space.index.clusters,
        "class_names": space.class_names,
        "has_labels": space.images is not None,
        "has_detections": space.detections is not None,
        "has_rounds": space.rounds is not None,
    }


def _ask(site: Site, call: Call) -> Any:
    answer = site.asking.ask(call.body)
    order = answer.order
    return {
        "key": answer.question.key,
        "names": answer.question.names,
        "num_found": len(order),
        "highest": float(answer.scores[order[0]]) if len(order) else None,
        "lowest": float(answer.scores[order[-1]]) if len(order) else None,
        "seconds": round(answer.seconds, 4),
    }


def _hits(site: Site, call: Call) -> Any:
    return site.asking.hits(site.asking.answer(call.params["key"]), call.query)


def _ap(site: Site, call: Call) -> Any:
    answer = site.asking.answer(call.params["key"])
    state = site.live.matches.wait(WAIT)
    if state.value is None:
        return {"busy": state.busy, "error": state.error}
    return {"busy": False, "error": "", **site.asking.measure(answer, state.value)}


def _classes(site: Site, call: Call) -> Any:
    state = site.live.diagnosis.wait(WAIT)
    report = None if state.value is None else state.value.report
    return {**status(state), "report": None if report is None else to_json(report)}


def _rounds(site: Site, call: Call) -> Any:
    state = site.live.rounds_now()
    return {**status(state), "summary": summarize_run(state.value) if state.value else None}


def _draws(site: Site, call: Call) -> Any:
    state = site.live.draws.wait(WAIT)
    if state.value is None:
        return {**status(state), "total": 0, "images": []}
    drawn = site.live.drawn(state.value, call.query.offset, call.query.limit)
    shown = [
        {**(site.workspace.image(one["row"]) if one["row"] >= 0 else {}), **one} for one in drawn
    ]
    return {
        **status(state),
        "round": state.value.done.number,
        "total": len(state.value.order),
        "images": shown,
    }


def _checks(site: Site, call: Call) -> Any:
    queue, query = site.queue(), call.query
    if queue is None:
        state = site.live.diagnosis.state()
        return {**status(state), "total": 0, "checks": [], "counts": {}, "num_open": {}}
    of = site.decisions.of
    listed = [
        (one, decision)
        for one in queue.of_kind(query.kind)
        if (decision := of(one.image_id, one.class_name)) == query.decision
        or query.decision == "any"
    ]
    open_of_kind = {
        kind: sum(of(one.image_id, one.class_name) == "open" for one in queue.of_kind(kind))
        for kind in ("suspect", "confuser")
    }
    page = listed[query.offset : query.offset + query.limit]
    rows = site.workspace.index.rows_of([one.image_id for one, _ in page]).tolist()
    return {
        **status(site.live.diagnosis.state()),
        "total": len(listed),
        "num_open": open_of_kind,
        "counts": site.decisions.counts(),
        "checks": [
            _check(site, one, decision, row)
            for (one, decision), row in zip(page, rows, strict=True)
        ],
    }


def _check(site: Site, one: MinedImage, decision: str, row: int) -> dict[str, Any]:
    return {
        **site.workspace.image(row),
        "class_name": one.class_name,
        "kind": one.kind,
        "score": round(one.score, 4),
        "box": one.box,
        "decision": decision,
    }


def _decide(site: Site, call: Call) -> Any:
    queue = site.queue()
    if queue is None:
        raise InputError("there is nothing to check yet")
    site.decisions.add(queue.find(call.body.image_id, call.body.class_name), call.body.decision)
    return {"counts": site.decisions.counts()}


def _export_checks(site: Site, call: Call) -> Any:
    images = site.workspace.images
    if images is None:
        raise InputError("there are no labels to add to: start hardmine serve with --ann FILE")
    return download(
        site.decisions.missing(site.workspace.index),
        call.query.format,
        "missing-labels",
        "Labels that people found missing. A box is the region that matched, not a tight box of "
        "the object.",
        dict(zip(images.class_names, images.class_ids.tolist(), strict=True)),
    )


def _version(site: Site, call: Call) -> Any:
    # Only what is watched is made: a training may need the machine.
    values: dict[str, Background[Any]] = {
        "classes": site.live.diagnosis,
        "rounds": site.live.rounds,
        "draws": site.live.draws,
        "conditions": site.live.conditions,
        "collect": site.live.wishes,
    }
    return status(values[call.query.of].state())


def _image(site: Site, call: Call) -> Any:
    size = call.params["size"]
    jpeg = site.thumbnails.get(site.workspace.path(call.params["row"], call.query.of), size)
    headers = {"cache-control": "private, max-age=3600"}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def _add_contexts(site: Site, call: Call) -> Any:
    for text in call.body.texts:
        names = site.workspace.class_names
        if len(named := named_classes(text, names)):
            raise InputError(
                f"a context is combined with every weak class, but {text!r} names "
                f"{names[named[0]]!r}: ask for the context alone, such as 'at night'"
            )
    return _contexts(site.kept.add_contexts(call.body), site)


def _contexts(contexts: tuple[str, ...], site: Site) -> dict[str, Any]:
    return {"contexts": contexts, "file": str(site.kept.contexts_file)}


ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/workspace",
        "What is shown: name, num_images, num_regions, clusters, class_names, and whether there "
        "are labels, detections and rounds.",
        _workspace,
    ),
    Endpoint(
        "POST",
        "/api/questions",
        "Ask. Returns the key of the answer, num_found, the highest and lowest score, the seconds "
        "it took, and a name for each thing searched for.",
        _ask,
        body=Question,
    ),
    Endpoint(
        "GET",
        "/api/questions/{key}/hits",
        "A page of an answer: total and hits, each with row, id, path, score, its regions, aspect "
        "and labelled classes. 404 if the answer is no longer kept: ask again.",
        _hits,
        query=HitsQuery,
        params={"key": Key},
    ),
    Endpoint(
        "GET",
        "/api/questions/{key}/ap",
        "AP on the validation images that answer best and on the rest: ap_inside, ap_outside, gap "
        "with its 90 % interval (low, high) and p. busy while the detections are being matched.",
        _ap,
        params={"key": Key},
    ),
    Endpoint(
        "POST",
        "/api/pictures",
        "Upload a picture to search by (JPEG, PNG, WEBP, BMP or GIF, at most 10 MB); returns its "
        "key for a question.",
        lambda site, call: {"key": site.asking.add_picture(call.body)},
        body=bytes,
    ),
    Endpoint(
        "GET",
        "/api/slices",
        "The questions kept as slices.",
        lambda site, call: {"slices": site.kept.slices()},
    ),
    Endpoint(
        "POST",
        "/api/slices",
        "Keep a question of texts as a slice.",
        lambda site, call: {"slices": site.kept.add_slice(call.body)},
        body=Question,
    ),
    Endpoint(
        "DELETE",
        "/api/slices/{number}",
        "Take the slice at a position out, counted from 0.",
        lambda site, call: {"slices": site.kept.remove_slice(call.params["number"])},
        params={"number": Annotated[int, Meta(ge=0, lt=10**9)]},
    ),
    Endpoint(
        "GET",
        "/api/contexts",
        "The contexts kept for the miner, and the file that holds them.",
        lambda site, call: _contexts(site.kept.contexts(), site),
    ),
    Endpoint(
        "POST",
        "/api/contexts",
        "Add each text of a question to the contexts; none may name a class.",
        _add_contexts,
        body=Question,
    ),
    Endpoint(
        "DELETE",
        "/api/contexts",
        "Take a context out.",
        lambda site, call: _contexts(site.kept.remove_context(call.query.text), site),
        query=TextQuery,
    ),
    Endpoint(
        "GET",
        "/api/classes",
        "The report of hardmine report --json as report, null without detections or while it is "
        "being made (busy).",
        _classes,
    ),
    Endpoint(
        "GET",
        "/api/rounds",
        "The rounds so far, as hardmine rounds --json gives them, in summary.",
        _rounds,
    ),
    Endpoint(
        "GET",
        "/api/draws",
        "Images of the last round, the most often drawn first: draws an epoch, balance, "
        "density_ratio and reasons.",
        _draws,
        query=PageQuery,
    ),
    Endpoint(
        "GET",
        "/api/checks",
        "Suspects or confusers, with the decision on each; num_open by kind, counts by decision.",
        _checks,
        query=ChecksQuery,
    ),
    Endpoint(
        "POST",
        "/api/checks",
        "Decide on one of them; decision open takes a decision back.",
        _decide,
        body=CheckAnswer,
    ),
    Endpoint(
        "GET",
        "/api/checks/export",
        "The labels found missing, as a COCO data set, Label Studio tasks or CVAT XML.",
        _export_checks,
        query=ExportQuery,
        media_types=EXPORTED,
    ),
    *FIND_ENDPOINTS,
    Endpoint(
        "GET",
        "/api/version",
        "version, busy and error of a page's values. The version grows when there is "
        "something new.",
        _version,
        query=VersionQuery,
    ),
    Endpoint(
        "GET",
        "/images/{row}/{size}",
        "An image as JPEG; size is small (320 pixels) or large (1280). Validation images and those "
        "of a pool have indexes of their own.",
        _image,
        query=ImageQuery,
        params={"row": Row, "size": Size},
        media_types=("image/jpeg",),
    ),
)
