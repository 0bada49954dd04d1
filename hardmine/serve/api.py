"""The JSON interface: one table of endpoints, from which its OpenAPI description is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.report.gap_output import to_json
from hardmine.report.run_summary import summarize_run
from hardmine.report.text_slices import named_classes
from hardmine.serve.asking import HitsQuery
from hardmine.serve.background import Background, State
from hardmine.serve.checks import CheckAnswer, ChecksQuery
from hardmine.serve.questions import Question
from hardmine.serve.site import WAIT, Site
from hardmine.serve.thumbnails import SIZES

JSON_LIMIT = 64 << 10  # bytes of a request
PICTURE_LIMIT = 10 << 20


@dataclass(frozen=True)
class Call:
    """A request whose parts were checked.

    Attributes:
        params: From its path.
        query: Of the endpoint's type; None where it has none.
        body: Likewise.
    """

    params: dict[str, Any]
    query: Any = None
    body: Any = None


@dataclass(frozen=True)
class Endpoint:
    """A method and path with what answers it.

    Attributes:
        method: Of HTTP.
        path: As in OpenAPI, with names in braces.
        summary: What it is for, and the members of what it returns.
        answer: Gives JSON values, or a response.
        query: Struct of the query's parameters.
        body: Struct of the JSON body; bytes for a picture.
        params: Type by name in the path.
    """

    method: str
    path: str
    summary: str
    answer: Callable[[Site, Call], Any]
    query: type | None = None
    body: type | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """Bytes of the largest body."""
        return PICTURE_LIMIT if self.body is bytes else JSON_LIMIT


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list."""

    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 60


class TextQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that was kept."""

    text: Annotated[str, Meta(max_length=300)]


class VersionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is watched."""

    of: Literal["classes", "rounds", "draws"]


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
    return {**_status(state), "report": None if report is None else to_json(report)}


def _rounds(site: Site, call: Call) -> Any:
    state = site.live.rounds_now()
    return {**_status(state), "summary": summarize_run(state.value) if state.value else None}


def _draws(site: Site, call: Call) -> Any:
    state = site.live.draws.wait(WAIT)
    if state.value is None:
        return {**_status(state), "total": 0, "images": []}
    drawn = site.live.drawn(state.value, call.query.offset, call.query.limit)
    shown = [{**(site.asking.image(one["row"]) if one["row"] >= 0 else {}), **one} for one in drawn]
    return {
        **_status(state),
        "round": state.value.done.number,
        "total": len(state.value.order),
        "images": shown,
    }


def _checks(site: Site, call: Call) -> Any:
    queue, query = site.queue(), call.query
    if queue is None:
        state = site.live.diagnosis.state()
        return {**_status(state), "total": 0, "checks": [], "counts": {}, "num_open": {}}
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
        **_status(site.live.diagnosis.state()),
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
        **site.asking.image(row),
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


def _coco(site: Site, call: Call) -> Any:
    images = site.workspace.images
    if images is None:
        raise InputError("there are no labels to add to: start hardmine serve with --ann FILE")
    class_ids = dict(zip(images.class_names, images.class_ids.tolist(), strict=True))
    found = site.decisions.to_coco(site.workspace.index, class_ids)
    headers = {"content-disposition": 'attachment; filename="missing-labels.json"'}
    return Response(msgspec.json.encode(found), media_type="application/json", headers=headers)


def _version(site: Site, call: Call) -> Any:
    # Only what is watched is made: a training may need the machine.
    values: dict[str, Background[Any]] = {
        "classes": site.live.diagnosis,
        "rounds": site.live.rounds,
        "draws": site.live.draws,
    }
    return _status(values[call.query.of].state())


def _image(site: Site, call: Call) -> Any:
    size = call.params["size"]
    if size not in SIZES:
        raise InputError(f"size must be {' or '.join(SIZES)}, got {size!r}")
    jpeg = site.thumbnails.get(site.workspace.path(call.params["row"]), size)
    headers = {"cache-control": "private, max-age=3600"}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def _status(state: State[Any]) -> dict[str, Any]:
    return {"version": state.version, "busy": state.busy, "error": state.error}


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
        params={"key": str},
    ),
    Endpoint(
        "GET",
        "/api/questions/{key}/ap",
        "AP on the validation images that answer best and on the rest: ap_inside, ap_outside, gap "
        "with its 90 % interval (low, high) and p. busy while the detections are being matched.",
        _ap,
        params={"key": str},
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
        params={"number": int},
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
        "/api/checks/coco",
        "The labels found missing, as a COCO data set.",
        _coco,
    ),
    Endpoint(
        "GET",
        "/api/version",
        "version, busy and error of classes, rounds or draws. The version grows when there is "
        "something new.",
        _version,
        query=VersionQuery,
    ),
    Endpoint(
        "GET",
        "/images/{row}/{size}",
        "An image as JPEG; size is small (320 pixels) or large (1280).",
        _image,
        params={"row": int, "size": str},
    ),
)
