"""The manifest: every changed byte is found, and other files are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.files import FileRecord
from hardmine.index.storage.manifest import (
    FORMAT,
    ClustersRecord,
    EncoderRecord,
    ImagesRecord,
    Manifest,
    ShardRecord,
    read_manifest,
    write_manifest,
)


def file(name: str, size: int = 100) -> FileRecord:
    return FileRecord(name=name, bytes=size, sha256=hashlib.sha256(name.encode()).hexdigest())


def manifest(**changes: Any) -> Manifest:
    shards = tuple(
        ShardRecord(
            number=number,
            images=4,
            regions=9,
            vectors=file(f"shards/{number:05d}.vectors.npy"),
            layout=file(f"shards/{number:05d}.regions.npz"),
        )
        for number in (0, 2)
    )
    plain = Manifest(
        format=FORMAT,
        hardmine="1.2.3",
        generation=3,
        encoder=EncoderRecord(fingerprint="é", dim=8, spec={"name": "RN50", "image_size": [8, 8]}),
        clusters=ClustersRecord(spec="kmeans:2", seed=-1),
        dtype="int8",
        images=ImagesRecord(
            fingerprint="f", root="/photos", count=8, broken=1, table=file("images-3.parquet")
        ),
        shards=shards,
    )
    return msgspec.structs.replace(plain, **changes)


def test_round_trip(tmp_path: Path) -> None:
    for spec in (None, {}, {"name": "tiny", "size": 0.1, "nested": [None, True, {"a": 1e300}]}):
        written = manifest(encoder=EncoderRecord(fingerprint="x", dim=1, spec=spec))
        write_manifest(tmp_path, written, scratch=tmp_path)
        assert read_manifest(tmp_path) == written
    assert written.next_number == 3
    assert len(written.files) == 5


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(), scratch=tmp_path)
    path = tmp_path / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for flip in (0x01, 0x20):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
            )
            with pytest.raises((IndexDamaged, IndexMismatch)):
                read_manifest(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text[: len(text) // 2],
        lambda text: text + " ",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "[" * 200_000,
        lambda text: "[]",
        lambda text: text.replace('"count": 8', '"count": 8, "count": 8'),
        lambda text: text.replace('"count": 8', '"count": -8'),
        lambda text: text.replace('"count": 8', f'"count": {"9" * 5000}'),
        lambda text: text.replace('"count": 8', '"count": 8, "more": 1'),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: Any) -> None:
    write_manifest(tmp_path, manifest(), scratch=tmp_path)
    path = tmp_path / "manifest.json"
    changed = damage(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed, newline="")
    with pytest.raises(IndexDamaged):
        read_manifest(tmp_path)


def shard(number: int, vectors: str, layout: str) -> ShardRecord:
    return ShardRecord(
        number=number, images=1, regions=1, vectors=file(vectors), layout=file(layout)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": manifest().shards[::-1]}, "are not ascending"),
        ({"shards": manifest().shards[:1] * 2}, "are not ascending"),
        (
            {"shards": (shard(0, "/etc/passwd", "shards/00000.regions.npz"),)},
            "unexpected file name",
        ),
        (
            {"shards": (shard(0, "shards/00000.vectors.npy", "../00000.regions.npz"),)},
            "unexpected file name",
        ),
        (
            {"shards": (shard(0, "shards/00000.vectors.npy", "shards/00000.vectors.npy"),)},
            "listed twice",
        ),
        ({"generation": 4}, "unexpected file name"),
        (
            {"images": msgspec.structs.replace(manifest().images, broken=9)},
            "more broken images than images",
        ),
        ({"images": msgspec.structs.replace(manifest().images, root="a\0b")}, "a NUL in its name"),
        (
            {"clusters": ClustersRecord(spec="none", seed=2**63)},
            r"is damaged .*`int` <= .*clusters\.seed",
        ),
        (
            {"encoder": EncoderRecord(fingerprint="x", dim=2**60)},
            r"is damaged .*`int` <= .*encoder\.dim",
        ),
        (
            {"shards": (msgspec.structs.replace(manifest().shards[0], number=2**80),)},
            r"is damaged .*out of range|is damaged .*`int` <= ",
        ),
    ],
)
def test_an_inconsistent_manifest_is_refused_though_its_checksum_fits(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_manifest(tmp_path, manifest(**change), scratch=tmp_path)
    with pytest.raises(IndexDamaged, match=message):
        read_manifest(tmp_path)


def test_another_format_is_named_though_its_fields_are_unknown(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(format=FORMAT + 1), scratch=tmp_path)
    with pytest.raises(IndexMismatch, match=f"format {FORMAT + 1}, hardmine .* format {FORMAT}"):
        read_manifest(tmp_path)
    future = {"manifest": {"format": 9, "all": "new"}}
    (tmp_path / "manifest.json").write_text(json.dumps(future))
    with pytest.raises(IndexMismatch, match="format 9"):
        read_manifest(tmp_path)


def test_a_missing_index_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        IndexDamaged, match=r"no index at .*: No such .*; make one with .*hardmine index build"
    ):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(IndexDamaged, match=r"is not an index: it has no manifest\.json; make one"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(IndexDamaged, match=r"manifest\.json cannot be read: it is not a regular"):
        read_manifest(tmp_path)
