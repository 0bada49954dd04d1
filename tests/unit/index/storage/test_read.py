"""Hostile files of an index are refused before they do harm.

In every case the manifest has the hashes of the hostile files.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_images import PixelEncoder, folder_bytes, reseal, write_images

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index import build_index, open_index, read_manifest, stored_encoder, verify_index
from hardmine.index.storage import read
from hardmine.index.storage.columns import TextColumn
from hardmine.index.storage.manifest import Manifest, write_manifest
from hardmine.index.storage.read import read_store

COUNT = 5


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    images = write_images(folder / "images", COUNT)
    build_index(images, PixelEncoder(), folder / "out", clusters="kmeans:2", quantize="int8")
    return folder_bytes(folder / "out")


@pytest.fixture
def index(sound: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    for name, content in sound.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


VECTORS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "no array": lambda content: b"\x80\x04" + content[2:],
    "pickle": lambda content: header("'|O'", "(10, 8)") + pickle.dumps([print] * 10),
    "huge count": lambda content: header("'|i1'", "(1152921504606846976, 8)") + content[128:],
    "negative count": lambda content: header("'|i1'", "(-10, -8)") + content[128:],
    "other shape": lambda content: header("'|i1'", "(8, 10)") + content[128:],
    "other type": lambda content: header("'<f2'", "(10, 8)") + content[128:] * 2,
    "no literal": lambda content: header("__import__('os').abort()", "(10, 8)") + content[128:],
    "deep header": lambda content: header("[" * 90, "(10, 8)") + content[128:],
    "newer header": lambda content: b"\x93NUMPY\x03\x00" + content[8:],
    "too short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
}


@pytest.mark.parametrize("case", VECTORS)
def test_hostile_vectors_are_refused(index: Path, case: str) -> None:
    path = index / "shards" / "00000.vectors.npy"
    path.write_bytes(VECTORS[case](path.read_bytes()))
    reseal(index)
    with pytest.raises(IndexDamaged, match=r"00000\.vectors\.npy is damaged"):
        read_store(index)


def savez(arrays: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array))
            archive.writestr(f"{name}.npy", member.getvalue())
    return packed.getvalue()


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], bytes]:
    return lambda arrays: savez(arrays | {name: change(arrays[name])})


def at(place: int, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        copy = array.copy()
        copy.reshape(-1)[place] = value
        return copy

    return change


LAYOUTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda arrays: b"",
    "no archive": lambda arrays: b"PK\x03\x04" + bytes(100),
    "compressed": lambda arrays: savez(arrays, zipfile.ZIP_DEFLATED),
    "array missing": lambda arrays: savez({k: arrays[k] for k in ("offsets", "boxes", "mass")}),
    "array more": lambda arrays: savez(arrays | {"more": np.zeros(3)}),
    "pickle": changed("mass", lambda array: np.array([print] * len(array), object)),
    "first offset": changed("offsets", at(0, 1)),
    "negative offset": changed("offsets", at(1, -1)),
    "offset beyond": changed("offsets", at(2, 1 << 40)),
    "offsets descend": changed("offsets", at(1, 6)),
    "last offset": changed("offsets", at(COUNT, 9)),
    "fewer boxes": changed("boxes", lambda array: array[:-1]),
    "box not finite": changed("boxes", at(3, np.nan)),
    "mass not finite": changed("mass", at(0, np.inf)),
    "scale not finite": changed("scales", at(0, np.nan)),
    "wide boxes": changed("boxes", lambda array: array.astype(np.float64)),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_hostile_layouts_are_refused(index: Path, case: str) -> None:
    path = index / "shards" / "00000.regions.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    path.write_bytes(LAYOUTS[case](arrays))
    reseal(index)
    with pytest.raises(IndexDamaged, match=r"00000\.regions\.npz is damaged"):
        read_store(index)


def column(name: str, values: list[Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        return table.set_column(
            table.schema.get_field_index(name), field, pa.array(values, field.type)
        )

    return change


def paths(bad: str) -> Callable[[pa.Table], pa.Table]:
    return column("path", ["a.jpg", bad, "c.jpg", "d.jpg", "e.jpg"])


TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "absolute path": paths("/etc/passwd"),
    "path upwards": paths("images/../../secret.jpg"),
    "path upwards, other slashes": paths("images\\..\\..\\secret.jpg"),
    "path on a drive": paths("C:\\secret.jpg"),
    "path on a share": paths("\\\\host\\secret.jpg"),
    "path with NUL": paths("a.jpg\0.png"),
    "no path": paths(""),
    "id twice": column("id", [0, 10, 20, 30, 30]),
    "place twice": column("slot", [0, 1, 2, 3, 3]),
    "no such slot": column("slot", [0, 1, 2, 3, 5]),
    "negative slot": column("slot", [0, 1, 2, 3, -2]),
    "no such shard": column("shard", [0, 0, 0, 0, 1]),
    "negative shard": column("shard", [0, 0, 0, 0, -7]),
    "stored and broken": column("problem", ["", "", "", "", "gone"]),
    "neither stored nor broken": column("shard", [0, 0, 0, 0, -1]),
    "negative size": column("height", [1, 1, 1, 1, -1]),
    "empty cell": column("height", [1, 1, 1, 1, None]),
    "row missing": lambda table: table.slice(0, 4),
    "column missing": lambda table: table.drop_columns(["problem"]),
    "column more": lambda table: table.append_column("more", table["id"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_hostile_tables_are_refused(index: Path, case: str) -> None:
    path = index / "images-0.parquet"
    table = TABLES[case](pq.read_table(path))
    pq.write_table(table, path, compression="none", use_dictionary=False)
    reseal(index)
    with pytest.raises(IndexDamaged, match=r"images-0\.parquet"):
        read_store(index)


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"use_dictionary": True}])
def test_a_compressed_table_is_refused(index: Path, options: dict[str, Any]) -> None:
    path = index / "images-0.parquet"
    plain = {"compression": "none", "use_dictionary": False}
    table = column("path", ["a" * 50_000] * COUNT)(pq.read_table(path))
    pq.write_table(table, path, **plain | options)
    assert path.stat().st_size < 100_000
    reseal(index)
    with pytest.raises(IndexDamaged, match="it is compressed"):
        read_store(index)


def test_an_unknown_codec_is_refused(index: Path) -> None:
    # In a process of its own, which pyarrow would abort if it looked up the codec's name.
    path = index / "images-0.parquet"
    content = bytearray(path.read_bytes())
    script = (
        "import sys; from hardmine.index.storage.read import read_store\n"
        "from hardmine.errors import IndexDamaged\n"
        "try: read_store(sys.argv[1])\n"
        "except IndexDamaged: sys.exit(3)"
    )
    codec = content.rindex(b"\x19\x18\x02id\x15\x00") + 6
    content[codec] = 0x20  # 16 in Thrift's zigzag
    path.write_bytes(content)
    reseal(index)
    process = subprocess.run([sys.executable, "-c", script, str(index)], capture_output=True)
    assert process.returncode == 3, process.stderr


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(500) + b"PAR1"])
def test_a_file_that_is_no_table_is_refused(index: Path, content: bytes) -> None:
    (index / "images-0.parquet").write_bytes(content)
    reseal(index)
    with pytest.raises(IndexDamaged, match=r"images-0\.parquet"):
        read_store(index)


@pytest.mark.parametrize("count", [0, COUNT - 1, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("what", ["images", "regions"])
def test_wrong_counts_allocate_no_memory(index: Path, what: str, count: int) -> None:
    shard = read_manifest(index).shards[0]
    reseal(index, shards=(msgspec.structs.replace(shard, **{what: count}),))
    with pytest.raises(IndexDamaged):
        read_store(index)


def test_a_count_of_images_beyond_the_table_is_refused(index: Path) -> None:
    images = msgspec.structs.replace(read_manifest(index).images, count=1 << 40)
    reseal(index, images=images)
    with pytest.raises(IndexDamaged, match="the manifest says"):
        open_index(index)


@pytest.mark.parametrize("length", [None, 0])
def test_a_pipe_in_place_of_a_file_is_refused(index: Path, length: int | None) -> None:
    """It would block the reader for ever."""
    manifest = read_manifest(index)
    shard = manifest.shards[0]
    for name in ("images-0.parquet", "shards/00000.vectors.npy", "shards/00000.regions.npz"):
        content = (index / name).read_bytes()
        (index / name).unlink()
        os.mkfifo(index / name)
        if length is not None:
            # The pipe has the length that the manifest says.
            vectors, layout, table = (
                msgspec.structs.replace(record, bytes=0 if record.name == name else record.bytes)
                for record in (shard.vectors, shard.layout, manifest.images.table)
            )
            images = msgspec.structs.replace(manifest.images, table=table)
            shards = (msgspec.structs.replace(shard, vectors=vectors, layout=layout),)
            changed = msgspec.structs.replace(manifest, images=images, shards=shards)
            write_manifest(index, changed, scratch=index)
        with pytest.raises(IndexDamaged, match=r"it is not a regular|0 bytes cannot hold 5 images"):
            open_index(index)
        (index / name).unlink()
        (index / name).write_bytes(content)
        write_manifest(index, manifest, scratch=index)
    assert len(open_index(index)) == COUNT
    (index / "manifest.json").unlink()
    os.mkfifo(index / "manifest.json")
    with pytest.raises(IndexDamaged, match=r"manifest\.json cannot be read: it is not a regular"):
        open_index(index)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "tiny", "model": "x"}, "unknown field `model`"),
        ({"name": "tiny", "device": "meta"}, "unknown field `device`"),
        ({"name": ["tiny"]}, r"got `array` - at `\$\.name`"),
        ({"name": "tiny", "image_size": {"a": 1}}, r"at `\$\.image_size`"),
        ({"name": "tiny", "image_size": 10**9}, r"image_size 1000000000 is not in 1 to 65536"),
        ({"name": "tiny", "image_size": [64, -1]}, r"image_size \(64, -1\) is not in 1 to 65536"),
        ({"name": "tiny", "compile": "yes"}, r"at `\$\.compile`"),
        ({}, "missing required field `name`"),
    ],
)
def test_a_strange_encoder_spec_is_refused(index: Path, spec: Any, message: str) -> None:
    encoder = msgspec.structs.replace(read_manifest(index).encoder, spec=spec)
    reseal(index, encoder=encoder)
    with pytest.raises(IndexMismatch, match=message):
        stored_encoder(index)


def test_an_update_while_the_index_is_opened_does_not_matter(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between manifest and shards, the writer replaces the one and removes the others."""
    updates = iter(range(3))
    read_images = read.read_images

    def update_meanwhile(folder: Path, manifest: Manifest) -> Any:
        if next(updates, None) is not None:
            table = msgspec.structs.replace(
                manifest.images.table, name=f"images-{manifest.generation + 1}.parquet"
            )
            (folder / manifest.images.table.name).rename(folder / table.name)
            changed = msgspec.structs.replace(
                manifest,
                images=msgspec.structs.replace(manifest.images, table=table),
                generation=manifest.generation + 1,
            )
            write_manifest(folder, changed, scratch=folder)
        return read_images(folder, manifest)

    monkeypatch.setattr(read, "read_images", update_meanwhile)
    assert len(open_index(index)) == COUNT
    updates = iter(range(3))
    assert verify_index(index) == ()
    (index / "shards" / "00000.vectors.npy").unlink()
    with pytest.raises(IndexDamaged, match=r"00000\.vectors\.npy cannot be read"):
        open_index(index)


def test_vectors_stay_on_disk_and_no_file_stays_open(index: Path) -> None:
    """A process may have fewer files open than an index has."""
    path = index / "shards" / "00000.vectors.npy"
    open_files = set(Path("/proc/self/fd").iterdir())
    store = read_store(index, verify=False)
    assert set(Path("/proc/self/fd").iterdir()) == open_files
    vectors = store.shards[0].vectors
    assert not vectors.flags.writeable
    for value in (7, 8):
        with path.open("r+b") as file:
            file.seek(128)
            file.write(bytes([value]))
        assert vectors[0, 0] == value
    path.unlink()
    assert vectors[0, 0] == 8
    mapped = Path("/proc/self/maps")
    assert str(path) in mapped.read_text()
    del store, vectors
    assert str(path) not in mapped.read_text()


def test_a_large_index_checks_its_paths_when_they_are_first_needed(index: Path) -> None:
    path = index / "images-0.parquet"
    hostile = paths("../secret.jpg")(pq.read_table(path))
    pq.write_table(hostile, path, compression="none", use_dictionary=False)
    reseal(index)
    assert verify_index(index) == (
        f"{path} is damaged (the path '../secret.jpg' is not below the folder of the images); "
        "restore it, or build again",
    )
    store = read_store(index, verify=False)
    for columns in (store.paths, TextColumn.joined([store.paths], ["part"])):
        with pytest.raises(IndexDamaged, match=r"'\.\./secret\.jpg' is not below"):
            columns[0]


def test_numpy_reads_and_writes_the_same_bytes(index: Path) -> None:
    vectors = index / "shards" / "00000.vectors.npy"
    rewritten = io.BytesIO()
    np.save(rewritten, np.load(vectors, allow_pickle=False))
    assert rewritten.getvalue() == vectors.read_bytes()
    with np.load(index / "shards" / "00000.regions.npz", allow_pickle=False) as layout:
        shard = read_store(index).shards[0]
        assert sorted(layout.files) == ["boxes", "mass", "offsets", "scales"]
        for name in layout.files:
            np.testing.assert_array_equal(layout[name], getattr(shard, name))
