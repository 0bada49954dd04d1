"""Searches a store on a GPU: vectors stay there, and the host waits once for each batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block, iter_blocks, region_rows
from hardmine.index.search.candidates import CandidateFilter, Candidates
from hardmine.index.search.product import MAX_NORM
from hardmine.index.search.scan import find_best
from hardmine.index.search.staging import Staging
from hardmine.index.search.top_k import TopK
from hardmine.index.storage.store import Store

# Share of the device's free memory that vectors may take; the rest is for a training beside it.
_SHARE = 0.25
# Regions multiplied at a time: 32 k x 512 float32 are 67 MB.
_ROWS = 1 << 15
# Queries multiplied at a time.
_COLUMNS = 64
# Queries whose images are all scored at a time.
_QUERIES = 256
# Regions kept over all queries, 12 bytes each; for one query, the k best and some that are as good.
_KEPT = 1 << 24
_SPARE = 256


@dataclass(frozen=True)
class _Part:
    """Some images, and their regions on the device.

    Attributes:
        block: The images, without vectors.
        vectors: (r, D) as they are stored.
        scales: (r,) float32 for int8 vectors, else None.
        offsets: As those of ``block``.
        owners: As those of ``block``.
    """

    block: Block
    vectors: torch.Tensor
    scales: torch.Tensor | None
    offsets: torch.Tensor
    owners: torch.Tensor


class DeviceSearch:
    """Finds on a device what ``find_best`` finds on the CPU.

    The vectors are sent at the first search and stay, as they are stored, if they fit into a
    quarter of the memory that is then free; else each search sends them in chunks. Scores, the
    maximum over an image's regions and the choice of candidates stay on the device. The
    candidates come down in one copy and are scored exactly on the CPU.

    Args:
        store: The images.
        device: Not the CPU.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self._store, self._device = store, device
        self._staging = Staging(device)
        # All images, once sent; empty if they do not fit.
        self._sent: list[_Part] | None = None
        # Buffers and stream are shared.
        self._lock = threading.Lock()

    def find_best(
        self, queries: npt.NDArray[np.float32], k: int, rows: npt.NDArray[np.int64] | None = None
    ) -> TopK:
        """Find the k best images of each query; see ``scan.find_best``."""
        best = TopK(self._store, queries, k)
        # A region that may be the best of its image is nearly always the only one.
        width = k + k // 4 + _SPARE
        step = max(_KEPT // width, 1)
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            with self._lock:
                if rows is None or 2 * len(rows) >= len(self._store):
                    self._send()
                found, complete = self._find(part, k, rows, width)
            best.replace(np.arange(start, start + len(part)), found)
            again = start + np.flatnonzero(~complete)
            if len(again):
                # More regions look alike than were kept, such as those of one image many times.
                best.replace(again, find_best(self._store, queries[again], k, rows))
        return best

    def score_images(
        self,
        queries: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
    ) -> None:
        """Write scores of consecutive image rows to ``out``; see ``scan.score_images``."""
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            with self._lock:
                self._send()
                product = _Product(part, self._staging, self._device)
                places, scores = [], []
                for piece in self._parts(rows):
                    places.append(piece.block.rows - rows[0])
                    scores.append(_best_of_images(product(piece), piece))
                if scores:
                    chosen = np.concatenate(places)
                    out[start : start + len(part), chosen] = torch.cat(scores, 1).cpu().numpy()

    def _find(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        rows: npt.NDArray[np.int64] | None,
        width: int,
    ) -> tuple[TopK, npt.NDArray[np.bool_]]:
        """The k best images of each query, and whether they are surely those."""
        product = _Product(queries, self._staging, self._device)
        best, blocks, regions = TopK(self._store, queries, k), [], 0
        kept: tuple[torch.Tensor, torch.Tensor] | None = None
        for part in self._parts(rows):
            scores = product(part)
            # Those that may be the best of their image.
            least = (_best_of_images(scores, part) - product.margins).index_select(1, part.owners)
            scores.masked_fill_(scores < least, -torch.inf)
            values, ids = scores.topk(min(width, scores.shape[1]), sorted=False)
            ids += regions
            if kept is not None:
                values, ids = torch.cat([kept[0], values], 1), torch.cat([kept[1], ids], 1)
                values, places = values.topk(min(width, values.shape[1]), sorted=False)
                ids = ids.gather(1, places)
            kept = values, ids
            blocks.append(part.block)
            regions += scores.shape[1]
        if kept is None:
            return best, np.ones(len(queries), bool)
        ids, order = kept[1].sort(1)
        bits = kept[0].gather(1, order).view(torch.int32)
        down = torch.stack([ids, bits.long()]).cpu()
        scores_found = down[1].to(torch.int32).view(torch.float32).numpy()
        # Regions that are not kept score at most so much.
        missed = np.full(len(queries), -np.inf)
        if regions > width:
            missed = scores_found.min(1) + 1.01 * product.errors
        guess = np.nextafter(missed.astype(np.float32), np.float32(np.inf))
        guess[np.isneginf(missed)] = -np.inf
        candidates = _candidates(down[0].numpy(), scores_found, blocks)
        chosen = CandidateFilter(
            best,
            absolute=product.errors,
            relative=2.0**-23,
            max_pending=len(candidates),
            guess=guess,
        )
        chosen.add(candidates)
        chosen.rescore()
        return best, chosen.complete

    def _send(self) -> None:
        """Send all vectors, if they fit."""
        if self._sent is not None:
            return
        store = self._store
        row = store.dim * (store.shards[0].tensor.element_size() if store.shards else 0)
        # With a scale and an owner for each region.
        size = store.num_regions * (row + 12)
        fits = size <= _SHARE * _free_memory(self._device)
        self._sent = [self._upload(block) for block in _not_empty(store, None)] if fits else []

    def _parts(self, rows: npt.NDArray[np.int64] | None) -> Iterator[_Part]:
        if not self._sent:
            yield from map(self._upload, _not_empty(self._store, rows))
            return
        wanted = np.full(len(self._store), rows is None)
        if rows is not None:
            wanted[rows] = True
        for part in self._sent:
            images = np.flatnonzero(wanted[part.block.rows])
            if len(images) == len(part.block):
                yield part
            elif np.diff(part.block.offsets)[images].any():
                yield self._some(part, images)

    def _upload(self, block: Block) -> _Part:
        scales = () if block.scales is None else (torch.from_numpy(block.scales),)
        offsets, owners = torch.from_numpy(block.offsets), torch.from_numpy(block.owners)
        vectors, sent_offsets, sent_owners, *rest = self._staging.send(
            block.pieces, [offsets], [owners], *([scales] if scales else [])
        )
        layout = replace(block, pieces=(), scales=None)
        return _Part(layout, vectors, rest[0] if rest else None, sent_offsets, sent_owners)

    def _some(self, part: _Part, images: npt.NDArray[np.int64]) -> _Part:
        """Some images of a part, copied on the device."""
        whole = part.block
        counts = np.diff(whole.offsets)[images]
        block = Block(
            rows=whole.rows[images],
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            shards=whole.shards[images],
            starts=whole.starts[images],
            pieces=(),
            scales=None,
        )
        arrays = region_rows(whole.offsets, images), block.offsets, block.owners
        chosen, offsets, owners = self._staging.send(*([torch.from_numpy(x)] for x in arrays))
        scales = None if part.scales is None else part.scales.index_select(0, chosen)
        return _Part(block, part.vectors.index_select(0, chosen), scales, offsets, owners)


class _Product:
    """Scores of regions for C queries, on a device.

    float32 cannot overflow here, but a device may round its factors to 11 significant bits (TF32),
    as a training often tells it to. float16 and int8 vectors have no more. Each query is the sum of
    two vectors that have no more either, so that each product is exact, and a sum has the error of
    float32. All matrices that are multiplied have one shape, so a query scores the same beside any
    others.

    Attributes:
        errors: (C,) largest error of a score.
        margins: (C, 1) on the device: how far below its image's best score the region with the
            best exact score may be.

    Args:
        queries: (C, D) float32, with norms up to 2.
        staging: Sends them.
        device: Where they are sent.
    """

    def __init__(
        self, queries: npt.NDArray[np.float32], staging: Staging, device: torch.device
    ) -> None:
        self._count, dim = queries.shape
        self.errors, first, second = _split(queries)
        groups = max(-(-self._count // _COLUMNS), 1)
        both = torch.zeros((groups, 2, _COLUMNS, dim))
        for number, rows in enumerate((first, second)):
            padded = torch.zeros((groups * _COLUMNS, dim))
            padded[: self._count] = rows
            both[:, number] = padded.view(groups, _COLUMNS, dim)
        # Each of the two scores that are compared has an error, and the difference is rounded.
        margins = torch.from_numpy(2.02 * self.errors + 2.0**-22)[:, None].float()
        sent, self.margins = staging.send([both.view(-1, 2 * _COLUMNS, dim)], [margins])
        self._queries = sent.unbind()
        self._vectors = torch.zeros((_ROWS, dim), device=device)
        self._scores = torch.empty((2 * _COLUMNS, _ROWS), device=device)

    def __call__(self, part: _Part) -> torch.Tensor:
        """(C, r) float32 scores of a part's regions."""
        count = len(part.vectors)
        scores = self._vectors.new_empty(len(self._queries) * _COLUMNS, count)
        for start in range(0, count, _ROWS):
            rows = part.vectors[start : start + _ROWS]
            # The rows behind them are left from before, and so are their scores.
            self._vectors[: len(rows)].copy_(rows)
            for group, queries in enumerate(self._queries):
                # Autocast leaves a product alone that is written to given memory.
                torch.mm(queries, self._vectors.T, out=self._scores)
                twice = self._scores[:, : len(rows)]
                place = scores[group * _COLUMNS : (group + 1) * _COLUMNS, start : start + _ROWS]
                torch.add(twice[:_COLUMNS], twice[_COLUMNS:], out=place)
        scores = scores[: self._count]
        return scores if part.scales is None else scores.mul_(part.scales)


def _split(
    queries: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], torch.Tensor, torch.Tensor]:
    """Queries as the sum of two parts of 11 significant bits, and the errors of their scores.

    Of D products each is exact. A device adds them, in any order, to sums of 24 bits and may cut
    instead of rounding: an error of at most 2**-23 of the largest partial sum for each product and
    for each addition. No partial sum exceeds the product of the lengths.
    """
    wide = torch.from_numpy(queries)
    first = wide.half().float()
    # Larger by a power of two, so that float16 has all its bits.
    second = ((wide - first) * 2.0**11).half().float() * 2.0**-11
    exact = queries.astype(np.float64)
    parts = first.double().numpy(), second.double().numpy()
    lengths = sum(np.linalg.norm(part, axis=1) for part in parts)
    rounded = np.linalg.norm(parts[0] + parts[1] - exact, axis=1)
    # Three more roundings: the sum of both parts, the scale of int8, and the comparison.
    errors = MAX_NORM * (rounded + (2 * queries.shape[1] + 4) * 2.0**-23 * lengths)
    return np.asarray(errors + 2.0**-100), first, second


def _best_of_images(scores: torch.Tensor, part: _Part) -> torch.Tensor:
    """Maximum over each image's regions: (C, r) to (C, n); -inf for an image without any."""
    offsets = part.offsets.expand(len(scores), -1).contiguous()
    return torch.segment_reduce(scores, "max", offsets=offsets, axis=1, unsafe=True)


def _not_empty(store: Store, rows: npt.NDArray[np.int64] | None) -> Iterator[Block]:
    return (block for block in iter_blocks(store, _ROWS, rows) if block.offsets[-1])


def _candidates(
    ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], blocks: list[Block]
) -> Candidates:
    """Candidates from what was kept of each query.

    Args:
        ids: (C, K) numbers of regions, ascending, counted over all blocks.
        scores: (C, K); -inf for a region that is none.
        blocks: All blocks, in their order.
    """
    queries, places = np.nonzero(scores > -np.inf)
    ids, scores = ids[queries, places], scores[queries, places]
    counts = np.concatenate([np.diff(block.offsets) for block in blocks])
    ends = np.cumsum(counts)
    images = np.searchsorted(ends, ids, side="right")
    rows, shards, starts = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("rows", "shards", "starts")
    )
    firsts = np.flatnonzero(
        (np.diff(images, prepend=-1) != 0) | (np.diff(queries, prepend=-1) != 0)
    )
    image_scores = np.maximum.reduceat(scores, firsts) if len(firsts) else scores
    return Candidates(
        queries.astype(np.int16),
        shards[images].astype(np.int32),
        starts[images] + ids - (ends - counts)[images],
        rows[images],
        np.repeat(image_scores, np.diff(firsts, append=len(ids))),
    )


def _free_memory(device: torch.device) -> int:
    """Bytes; 0 where torch does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
