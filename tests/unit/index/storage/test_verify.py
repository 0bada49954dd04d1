"""Damage: ``verify_index`` finds every byte of it, ``open_index`` never answers from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pixel_images import PixelEncoder, folder_bytes, reseal, write_images

from hardmine.errors import IndexDamaged
from hardmine.index import build_index, open_index, verify_index
from hardmine.index.storage import read, shard_files


@pytest.fixture
def out(tmp_path: Path) -> Path:
    images = write_images(tmp_path / "images", 7, broken=[2])
    build_index(
        images, PixelEncoder(), tmp_path / "out", clusters="none", quantize="int8", shard_size=4
    )
    return tmp_path / "out"


def test_a_whole_index_has_no_problems(out: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert verify_index(out, progress=lambda done, total: steps.append((done, total))) == ()
    total = sum(map(len, folder_bytes(out).values())) - (out / "manifest.json").stat().st_size
    assert steps[-1] == (total, total)
    assert len(steps) == 5


def test_bytes_flipped_anywhere_are_found(out: Path) -> None:
    generator = np.random.default_rng(0)
    for name, content in folder_bytes(out).items():
        # Headers, padding and directories are at the ends, values in the middle.
        near = [*range(12), *range(len(content) - 12, len(content))]
        places = {*near, *generator.integers(0, len(content), 25).tolist()}
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << generator.integers(8)
            (out / name).write_bytes(damaged)
            problems = verify_index(out)
            assert len(problems) == 1
            assert Path(name).name in problems[0]
            with pytest.raises(IndexDamaged):
                open_index(out)
        (out / name).write_bytes(content)
    assert verify_index(out) == ()


def test_truncated_lengthened_and_missing_files_are_found(out: Path) -> None:
    for name, content in folder_bytes(out).items():
        for damaged in (b"", content[:-1], content + b"\0", None):
            (out / name).unlink()
            if damaged is not None:
                (out / name).write_bytes(damaged)
            assert len(verify_index(out)) == 1
            with pytest.raises(IndexDamaged):
                open_index(out, verify=False)
            (out / name).write_bytes(content)


def test_swapped_shards_are_found(out: Path) -> None:
    # Both have the same shape: only their content differs.
    first, second = out / "shards" / "00000.vectors.npy", out / "shards" / "00001.vectors.npy"
    one, other = first.read_bytes(), second.read_bytes()
    assert len(one) == len(other)
    first.write_bytes(other)
    second.write_bytes(one)
    assert len(verify_index(out)) == 2
    with pytest.raises(IndexDamaged, match="its content has changed"):
        open_index(out)


def test_large_vectors_are_hashed_on_request_only(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = out / "shards" / "00001.vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(read, "HASHED_AT_OPEN", 100)
    assert len(open_index(out)) == 6
    with pytest.raises(IndexDamaged, match=r"00001\.vectors\.npy is damaged"):
        open_index(out, verify=True)
    assert len(verify_index(out)) == 1


@pytest.mark.parametrize("scale", [np.float32(1e30), np.float32(0.5)])
def test_vectors_without_unit_length_are_reported(out: Path, scale: np.float32) -> None:
    path = out / "shards" / "00000.regions.npz"
    content = path.read_bytes()
    with np.load(path) as layout:
        scales = layout["scales"]
    path.write_bytes(content.replace(scales.tobytes(), (scales * 0 + scale).tobytes()))
    with pytest.raises(IndexDamaged):
        open_index(out)
    # As an attacker would, who also updates the checksums in the archive and the manifest.
    layout_of = dict(np.load(out / "shards" / "00001.regions.npz"))
    layout_of["scales"] = np.full_like(layout_of["scales"], scale)
    (out / "shards" / "00001.regions.npz").write_bytes(shard_files._pack(layout_of))
    path.write_bytes(content)
    reseal(out)
    (problem,) = verify_index(out)
    assert "00001.vectors.npy holds vectors that are not of unit length" in problem
    with pytest.raises(IndexDamaged, match=r"00001\.vectors\.npy holds vectors that are not"):
        open_index(out, verify=True)


def test_a_folder_without_an_index_is_a_problem(tmp_path: Path) -> None:
    (problem,) = verify_index(tmp_path)
    assert "is not an index" in problem
