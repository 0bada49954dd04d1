"""An encoder that looks up vectors computed elsewhere, e.g. by VSRN or PCME.

Reads one .npz file, or a folder of files, with these arrays:

=================  ========================================================================
``images``         N image names: the image set's paths, or any unique end of them, with or
                   without the suffix (in a folder: images.txt, one in each line)
``vectors``        (N, D) one per image, (N, R, D) one per region, or (N, H, W, D) a grid
``texts``          T texts that can be queried (in a folder: texts.txt, one in each line)
``text_vectors``   (T, D) in the same space
``whole``          (N, D), optional: whole-image vectors; else the mean of the image's vectors
``boxes``          (N, R, 4) or (N, H, W, 4), optional: the boxes of the vectors, xyxy as shares
                   of the image's width and height
=================  ========================================================================

Vectors are normalised on use. Those in a folder (vectors.npy and so on) are memory-mapped.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from hardmine.encoders.base import DenseFeatures, require_list
from hardmine.encoders.device import unit
from hardmine.errors import InputError

_HASH_BYTES = 1 << 24
_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|ppm)$", re.IGNORECASE)


class PrecomputedEncoder:
    """Looks up images by file name and texts by exact match.

    ``preprocess`` needs an image that knows its file name. Images from
    ``hardmine.datasets.open_image`` and ``PIL.Image.open`` do; converted copies do not.

    Args:
        images: N names, see the module's docstring.
        vectors: (N, D), (N, R, D) or (N, H, W, D).
        texts: T texts.
        text_vectors: (T, D).
        whole: (N, D); None uses the mean of each image's vectors.
        boxes: Boxes of the vectors, in the shape of ``vectors`` with 4 in place of D.
        name: Name for ``load_encoder``; None if the vectors have no file.

    Attributes:
        dim: D.
        fingerprint: Hash of names, texts and vectors.
        spec: Arguments of ``load_encoder`` that load this encoder again; None without a name.
    """

    def __init__(
        self,
        images: Sequence[str],
        vectors: npt.NDArray[Any],
        texts: Sequence[str],
        text_vectors: npt.NDArray[Any],
        *,
        whole: npt.NDArray[Any] | None = None,
        boxes: npt.NDArray[Any] | None = None,
        name: str | None = None,
    ) -> None:
        count, dim = len(images), vectors.shape[-1]
        if vectors.ndim not in (2, 3, 4) or len(vectors) != count:
            raise InputError(
                f"vectors must be ({count}, D), ({count}, R, D) or ({count}, H, W, D) for "
                f"{count} images, got {vectors.shape}"
            )
        _require_shape("text_vectors", text_vectors, (len(texts), dim))
        if whole is not None:
            _require_shape("whole", whole, (count, dim))
        if boxes is not None:
            _require_shape("boxes", boxes, (*vectors.shape[:-1], 4))
        self.dim = dim
        self._vectors, self._whole, self._boxes = vectors, whole, boxes
        self._grid = {2: (1, 1), 3: (1, *vectors.shape[1:2]), 4: vectors.shape[1:3]}[vectors.ndim]
        self._text_vectors = text_vectors
        self._text_rows = {str(text): row for row, text in enumerate(texts)}
        self.preprocess = ImageRowLookup(images)
        self.fingerprint = f"precomputed:{_hash(images, texts, vectors, text_vectors, whole)}"
        self.spec: dict[str, Any] | None = None if name is None else {"name": name}

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Look up a batch from ``preprocess``, (B, 3, 1, 1), which holds the rows of the images."""
        if batch.ndim != 4 or tuple(batch.shape[1:]) != (3, 1, 1):
            raise InputError(
                "batch must be (B, 3, 1, 1), a stack of what preprocess returns, got "
                f"{tuple(batch.shape)}"
            )
        rows = batch[:, 0, 0, 0].long().cpu().numpy()
        patches = unit(torch.from_numpy(np.asarray(self._vectors[rows], np.float32)))
        patches = patches.reshape(len(rows), *self._grid, self.dim)
        if self._whole is None:
            whole = unit(patches.mean((1, 2)))
        else:
            whole = unit(torch.from_numpy(np.asarray(self._whole[rows], np.float32)))
        if self._boxes is None:
            return DenseFeatures(patches, whole)
        boxes = torch.from_numpy(np.asarray(self._boxes[rows], np.float32))
        return DenseFeatures(patches, whole, boxes.reshape(len(rows), *self._grid, 4))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Look up T texts by exact match: (T, D) unit vectors, float32.

        Raises:
            InputError: If a text has no vector.
        """
        require_list(texts)
        for text in texts:
            if text not in self._text_rows:
                close = difflib.get_close_matches(text, self._text_rows, n=1, cutoff=0.0)
                raise InputError(
                    f"no precomputed vector for the text {text!r} among "
                    f"{len(self._text_rows)}; the nearest is {', '.join(map(repr, close))}. If the "
                    "texts are class names, use templates='plain'"
                )
        rows = [self._text_rows[text] for text in texts]
        return unit(torch.from_numpy(np.asarray(self._text_vectors[rows], np.float32)))


class ImageRowLookup:
    """Preprocessing that finds an image's row in a list of names, as a (3, 1, 1) tensor.

    A name matches every file whose path ends in it, at a slash, regardless of the suffix. If two
    names match, the longer one counts. A name that occurs twice is an error. Picklable without
    the vectors.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._rows: dict[str, int] = {}
        for row, name in enumerate(names):
            if self._rows.setdefault(_key(name), row) != row:
                raise InputError(f"image names must be unique, got {name!r} twice")

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Find the row of an image by its file name."""
        file = image.info.get("path") or getattr(image, "filename", "")
        if not file:
            raise InputError(
                "precomputed vectors are found by file name, and this image has none; open it "
                "with hardmine.datasets.open_image or PIL.Image.open"
            )
        parts = _key(file).split("/")
        for start in range(len(parts)):
            row = self._rows.get("/".join(parts[start:]))
            if row is not None:
                return torch.full((3, 1, 1), float(row))
        example = next(iter(self._rows), "nothing")
        raise InputError(
            f"no precomputed vector for {file} among {len(self._rows)} (such as {example!r}); "
            "names must be ends of the images' paths"
        )


def load_precomputed(source: str) -> PrecomputedEncoder:
    """Read an .npz file or a folder; its contents are described in the module's docstring.

    Raises:
        InputError: If an array is missing, has the wrong shape, or contains pickled objects.
    """
    path = Path(source).expanduser().resolve()
    arrays: dict[str, Any]
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, mmap_mode="r") for file in path.glob("*.npy")}
            for file in path.glob("*.txt"):
                arrays[file.stem] = file.read_text("utf-8").splitlines()
        else:
            with np.load(path) as stored:
                arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"precomputed vectors {path} cannot be read: {error}") from error
    missing = {"images", "vectors", "texts", "text_vectors"} - arrays.keys()
    if missing:
        raise InputError(
            f"{path} must have images, vectors, texts and text_vectors; missing: "
            f"{', '.join(sorted(missing))}"
        )
    return PrecomputedEncoder(
        [str(image) for image in arrays["images"]],
        arrays["vectors"],
        [str(text) for text in arrays["texts"]],
        arrays["text_vectors"],
        whole=arrays.get("whole"),
        boxes=arrays.get("boxes"),
        name=f"precomputed:{path}",
    )


def _key(name: str) -> str:
    return _SUFFIX.sub("", str(name).replace("\\", "/"))


def _require_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name} must have shape {shape}, got {array.shape}")


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            rows = max(1, _HASH_BYTES // max(1, part[:1].nbytes))
            for start in range(0, len(part), rows):
                digest.update(np.ascontiguousarray(part[start : start + rows]).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]
