"""The page of a search: what was asked, what was found, and where in each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from hardmine.index.base import Index
from hardmine.records import Hits
from hardmine.report.page import Mark, Thumbnail, render_page, thumbnail


@dataclass(frozen=True)
class FoundImage:
    """One hit, ready to be shown."""

    path: str
    score: float
    thumbnail: Thumbnail
    marks: tuple[Mark, ...]

    @property
    def name(self) -> str:
        """File name alone."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Answer:
    """All hits of one query; ``summary`` says in a line how they scored."""

    query: str
    summary: str
    found: tuple[FoundImage, ...]


def search_page(
    index: Index,
    queries: Sequence[str],
    hits: Hits,
    *,
    about: Sequence[tuple[str, str]] = (),
    progress: Callable[[], None] | None = None,
) -> str:
    """Make the page of a search: one wall of pictures a query, best first.

    Args:
        index: Says where the pictures lie; one that is missing is shown as such.
        queries: C texts, or whatever names each query.
        hits: What was found for them.
        about: Label and value of what to say about the search.
        progress: Called after each picture.
    """
    answers = [_answer(index, query, hits, place, progress) for place, query in enumerate(queries)]
    title = queries[0] if len(queries) == 1 else f"{len(queries)} searches"
    return render_page("search_page.html", title=title, answers=answers, about=about)


def _answer(
    index: Index, query: str, hits: Hits, place: int, progress: Callable[[], None] | None
) -> Answer:
    found = []
    for column in np.flatnonzero(hits.found[place]).tolist():
        path = index.paths[hits.image_rows[place, column]]
        box = hits.boxes[place, column]
        # The whole image needs no frame.
        marks = () if _is_whole(box) else (Mark(box.tolist()),)
        score = float(hits.scores[place, column])
        found.append(FoundImage(path, score, thumbnail(index.root / path), marks))
        if progress is not None:
            progress()
    if not found:
        return Answer(query, "", ())
    images = "1 image" if len(found) == 1 else f"{len(found)} images"
    spread = f"score {found[0].score:.3f} to {found[-1].score:.3f}"
    return Answer(query, f"{images}, {spread}", tuple(found))


def _is_whole(box: npt.NDArray[np.float32]) -> bool:
    return bool((box[:2] <= 0.005).all() and (box[2:] >= 0.995).all())
