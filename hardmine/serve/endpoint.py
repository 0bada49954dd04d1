"""An endpoint of the JSON interface, and what endpoints share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from hardmine.exports import FORMATS, MinedImage
from hardmine.exports.files import to_coco, to_cvat, to_label_studio
from hardmine.serve.background import State
from hardmine.serve.site import Site

JSON_LIMIT = 64 << 10  # bytes of a request
PICTURE_LIMIT = 10 << 20


Format = Literal["coco", "labelstudio", "cvat"]


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
        media_types: Of what it returns.
    """

    method: str
    path: str
    summary: str
    answer: Callable[[Site, Call], Any]
    query: type | None = None
    body: type | None = None
    params: dict[str, Any] = field(default_factory=dict)
    media_types: tuple[str, ...] = ("application/json",)

    @property
    def limit(self) -> int:
        """Bytes of the largest body."""
        return PICTURE_LIMIT if self.body is bytes else JSON_LIMIT


EXPORTED = ("application/json", "application/xml")  # media types of ``download``


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list."""

    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 60


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Format of a file for a labelling tool."""

    format: Format = "coco"


def status(state: State[Any]) -> dict[str, Any]:
    """Of a value that is made in the background."""
    return {"version": state.version, "busy": state.busy, "error": state.error}


def download(
    mined: Sequence[MinedImage],
    format: Format,
    name: str,
    about: str,
    class_ids: Mapping[str, int] | None = None,
) -> Response:
    """Found images as a file for a labelling tool.

    Args:
        mined: The images.
        format: Of the file.
        name: Of the file, without its ending.
        about: What it holds, for COCO's info.
        class_ids: Category id by class name, for COCO; numbered from 1 if None.
    """
    if format == "cvat":
        text = to_cvat(mined).encode()
    elif format == "labelstudio":
        text = msgspec.json.encode(to_label_studio(mined))
    else:
        text = msgspec.json.encode({**to_coco(mined, class_ids), "info": {"description": about}})
    ending = FORMATS[format].rpartition(".")[2]
    headers = {"content-disposition": f'attachment; filename="{name}.{ending}"'}
    return Response(text, media_type=f"application/{ending}", headers=headers)
