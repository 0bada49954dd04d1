"""The tiny CLIP's vocabulary: a part of CLIP's own."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer, default_bpe

_COMMON_MERGES = 600


def write_vocabulary(texts: Iterable[str], path: Path) -> int:
    """Write a merge file for open_clip's tokenizer; returns the vocabulary's size.

    Words of ``texts`` get the same tokens as with CLIP's tokenizer. Any other word is split into
    common English syllables and letters, so no word is unknown.
    """
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    tokenizer = SimpleTokenizer()
    merge_of = {"".join(merge.split()): merge for merge in merges}
    kept = set(merges[:_COMMON_MERGES])
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    needed = [piece for word in words for piece in tokenizer.bpe(word).split(" ")]
    while needed:
        merge = merge_of.get(needed.pop())
        if merge is not None and merge not in kept:
            kept.add(merge)
            needed += merge.split()
    body = "\n".join(["hardmine tiny", *(merge for merge in merges if merge in kept)])
    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as out,
    ):
        out.write(body.encode())
    return int(SimpleTokenizer(str(path)).vocab_size)
