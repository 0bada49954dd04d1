"""The page of a search: its queries, the images found, and the region that matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from hardmine.index.base import Index
from hardmine.records import Hits, ImageSet
from hardmine.report.page import Mark, Thumbnail, render_page, thumbnail_of
from hardmine.report.units import count


@dataclass(frozen=True)
class FoundImage:
    """One hit with its picture and the region that matched."""

    path: str
    score: float
    thumbnail: Thumbnail
    marks: tuple[Mark, ...]

    @property
    def name(self) -> str:
        """File name without folders."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class QueryHits:
    """All hits of one query; ``summary`` is their number and range of scores."""

    query: str
    summary: str
    found: tuple[FoundImage, ...]


def search_page(
    index: Index,
    queries: Sequence[str],
    hits: Hits,
    *,
    images: ImageSet | None = None,
    about: Sequence[tuple[str, str]] = (),
    progress: Callable[[], None] | None = None,
) -> str:
    """Make the page of a search: for each query its pictures, best first.

    Args:
        index: Has the paths of the pictures; a missing file is shown as such.
        queries: C texts, or names of the queries.
        hits: Of the queries.
        images: The indexed images, which open the pictures; by path below the index's root if None.
        about: Label and value of each fact about the search.
        progress: Called after each picture.
    """
    source = index.root if images is None else images
    results = [
        _query_hits(index, query, hits, row, source, progress) for row, query in enumerate(queries)
    ]
    title = queries[0] if len(queries) == 1 else f"{len(queries)} searches"
    return render_page("search_page.html", title=title, results=results, about=about)


def _query_hits(
    index: Index,
    query: str,
    hits: Hits,
    row: int,
    source: Path | ImageSet,
    progress: Callable[[], None] | None,
) -> QueryHits:
    found = []
    for column in np.flatnonzero(hits.found[row]).tolist():
        path = index.paths[hits.image_rows[row, column]]
        box = hits.boxes[row, column]
        # The whole image needs no frame.
        marks = () if _is_whole(box) else (Mark(box.tolist()),)
        score = float(hits.scores[row, column])
        found.append(FoundImage(path, score, thumbnail_of(source, path), marks))
        if progress is not None:
            progress()
    if not found:
        return QueryHits(query, "", ())
    spread = f"score {found[0].score:.3f} to {found[-1].score:.3f}"
    return QueryHits(query, f"{count(len(found), 'image')}, {spread}", tuple(found))


def _is_whole(box: npt.NDArray[np.float32]) -> bool:
    return bool((box[:2] <= 0.005).all() and (box[2:] >= 0.995).all())
