"""Asks an index: embeds a question, ranks, filters, pages, and measures AP where it answers."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from PIL import Image

from hardmine.datasets import open_image
from hardmine.detections import Matches, answering, measure_mean_gap
from hardmine.errors import InputError
from hardmine.mining.contexts import ANSWERING_SHARE
from hardmine.report.text_slices import named_classes
from hardmine.serve.questions import Answer, Kept, Key, Question, content_key, rank
from hardmine.serve.workspace import Workspace

_NUM_ANSWERS = 32  # kept; 0.9 MB each for 118,000 images
_NUM_PICTURES = 64  # vectors of uploaded pictures
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # decoded by Pillow itself, without other programs
_MAX_PIXELS = 50_000_000


class HitsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which hits of an answer to list.

    Attributes:
        offset: Position of the first, from 0.
        limit: Number of hits.
        class_name: Only images labelled with this class, or without, as ``labels`` says.
        labels: "with" or "without" a label of the class, or, without a class, any label.
        min_score: Only images that score at least this.
        folder: Only images in this folder, such as "val2017", or below.
    """

    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 60
    class_name: Annotated[str, Meta(max_length=300)] = ""
    labels: Literal["any", "with", "without"] = "any"
    min_score: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    folder: Annotated[str, Meta(max_length=300)] = ""


class NotKept(InputError):
    """An answer, or an uploaded picture, was dropped to make room for later ones."""


class Asking:
    """Answers questions about a workspace and keeps the last answers.

    Args:
        workspace: Has the index.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._answers: Kept[Answer] = Kept(_NUM_ANSWERS)
        self._pictures: Kept[npt.NDArray[np.float32]] = Kept(_NUM_PICTURES)
        # One at a time: a search takes all cores, and an encoder is not promised to be thread-safe.
        self._searching = threading.Lock()

    def ask(self, question: Question) -> Answer:
        """Answer a question, or find the answer given before.

        Raises:
            InputError: If nothing is asked for, or a region's image is gone.
        """
        kept = self._answers.get(question.key)
        if kept is not None:
            return kept
        if not question.names:
            raise InputError("nothing to search for: give a text, a picture or a region")
        with self._searching:
            started = time.perf_counter()
            vectors = self._vectors(question)
            excluded = self._embed_texts(question.without)
            scores = rank(self.workspace.index, question, vectors, excluded)
            seconds = time.perf_counter() - started
        answer = Answer(question, vectors, excluded, scores, seconds)
        self._answers.put(question.key, answer)
        return answer

    def answer(self, key: str) -> Answer:
        """An answer given before.

        Raises:
            NotKept: If it was dropped, or never given.
        """
        found = self._answers.get(key)
        if found is None:
            raise NotKept("this answer is no longer kept; ask again")
        return found

    def add_picture(self, content: bytes) -> Key:
        """Embed an uploaded picture and keep its vector; returns its key.

        Raises:
            InputError: If it is no picture of a known format, or has too many pixels.
        """
        try:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as header:
                pixels = header.width * header.height
        except Exception as error:  # decoders raise many types of exception
            raise InputError(
                f"this is no picture that can be read; expected {', '.join(_FORMATS)}"
            ) from error
        if pixels > _MAX_PIXELS:
            raise InputError(
                f"the picture has {pixels / 1e6:.0f} million pixels, at most "
                f"{_MAX_PIXELS / 1e6:.0f} are read; make it smaller"
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture"
            file.write_bytes(content)
            try:
                image = open_image(file)
            except InputError as error:
                raise InputError("the picture cannot be decoded; is the file complete?") from error
        key = content_key(content)
        with self._searching:
            self._pictures.put(key, self._embed_image(image))
        return key

    def rows(self, answer: Answer, query: HitsQuery) -> npt.NDArray[np.int32]:
        """Rows of an answer's images that a query's filters let through, best first."""
        keep = answer.scores >= query.min_score
        if query.labels != "any" or query.class_name:
            if query.class_name:
                has = self.workspace.has_class(query.class_name)
            else:
                has = self.workspace.class_counts.getnnz(axis=1) > 0
            keep = keep & (~has if query.labels == "without" else has)
        if query.folder:
            keep = keep & self.workspace.in_folder(query.folder)
        return answer.order[keep[answer.order]]

    def hits(self, answer: Answer, query: HitsQuery) -> dict[str, Any]:
        """A page of hits as JSON values, with the number of all that the filters let through."""
        rows = self.rows(answer, query)
        page = rows[query.offset : query.offset + query.limit].astype(np.int64)
        index, names = self.workspace.index, answer.question.names
        grid = np.broadcast_to(page, (len(names), len(page)))
        scores, boxes = index.best_regions(answer.vectors, grid)
        best = scores.argmax(axis=0) if len(page) else []
        hits = []
        for place, row in enumerate(page.tolist()):
            shown = range(len(names)) if answer.question.match == "all" else [int(best[place])]
            hits.append(
                {
                    **self.workspace.image(row),
                    "score": round(float(answer.scores[row]), 6),
                    "regions": [
                        {
                            "box": [round(float(edge), 4) for edge in boxes[one, place]],
                            "name": names[one],
                        }
                        for one in shown
                    ],
                }
            )
        return {"total": len(rows), "offset": query.offset, "hits": hits}

    def measure(self, answer: Answer, matches: Matches) -> dict[str, Any]:
        """AP on the validation images that answer best, and on the rest, as JSON values.

        Args:
            answer: Whose question is asked of the validation images.
            matches: Of the detector on them.
        """
        images, index = self.workspace.val_images, self.workspace.val_index
        assert images is not None
        if index is None:
            raise InputError(
                "AP where the question is answered needs an index of the images that the "
                "detections are on: build one, and give it with --val-index"
            )
        with self._searching:
            scored = rank(index, answer.question, answer.vectors, answer.excluded)
        rows = index.rows_of(images.ids)
        scores = np.where(rows >= 0, scored[rows], -np.inf)
        inside = answering(scores[None], share=ANSWERING_SHARE)[0]
        named = sorted(
            {
                int(row)
                for text in answer.question.texts
                for row in named_classes(text, images.class_names)
            }
        )
        gap = measure_mean_gap(
            matches,
            inside,
            ~inside & (rows >= 0),
            classes=np.array(named, np.int64) if named else None,
            rng=np.random.default_rng(0),
        )
        return {
            "num_images": int(inside.sum()),
            "share": ANSWERING_SHARE,
            "classes": [images.class_names[row] for row in gap.class_rows],
            "ap_inside": gap.ap_inside,
            "ap_outside": gap.ap_outside,
            "gap": gap.gap,
            "low": gap.low,
            "high": gap.high,
            "p": gap.p,
        }

    def _vectors(self, question: Question) -> npt.NDArray[np.float32]:
        """(C, D), in the order of the question's names."""
        parts = [self._embed_texts(question.texts)]
        for region in question.regions:
            image = open_image(self.workspace.path(region.row))
            left, top, right, bottom = region.box
            edges = (
                round(left * image.width),
                round(top * image.height),
                round(right * image.width),
                round(bottom * image.height),
            )
            if edges[2] - edges[0] < 2 or edges[3] - edges[1] < 2:
                raise InputError(
                    f"the region must be at least 2 pixels wide and high, got {region.box}"
                )
            parts.append(self._embed_image(image.crop(edges)))
        for key in question.pictures:
            vector = self._pictures.get(key)
            if vector is None:
                raise NotKept("the picture is no longer kept; upload it again")
            parts.append(vector)
        return np.concatenate(parts)

    def _embed_texts(self, texts: tuple[str, ...]) -> npt.NDArray[np.float32]:
        encoder = self.workspace.encoder
        if not texts:
            return np.zeros((0, encoder.dim), np.float32)
        return encoder.encode_texts([text.strip() for text in texts]).float().cpu().numpy()

    def _embed_image(self, image: Image.Image) -> npt.NDArray[np.float32]:
        encoder = self.workspace.encoder
        features = encoder.encode_images(encoder.preprocess(image)[None])
        return features.whole.float().cpu().numpy()
