"""What is written is read back, and an update follows any change of a data set."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pixel_images import (
    FAST_FOLDER,
    PixelEncoder,
    folder_bytes,
    list_images,
    reseal,
    write_image,
    write_images,
)

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index import build_index, compact_index, open_index, update_index, verify_index
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.commit import commit
from hardmine.index.builder.plan import Plan
from hardmine.index.storage.image_table import FileFacts, ImageTable
from hardmine.index.storage.manifest import ClustersRecord, EncoderRecord, read_manifest
from hardmine.index.storage.read import read_store
from hardmine.index.storage.shard_files import write_shard
from hardmine.index.storage.store import quantize_rows


@given(
    counts=st.lists(st.lists(st.integers(0, 4), max_size=5), max_size=4),
    dim=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "int8"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_shards_of_any_shape_are_read_as_they_were_written(
    counts: list[list[int]], dim: int, dtype: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    total = sum(map(len, counts))
    shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), [len(c) for c in counts])
    slots = np.concatenate([np.zeros(0, np.int32), *(np.arange(len(c)) for c in counts)])
    # Rows of the data set in any order over the shards.
    order = generator.permutation(total)
    table = ImageTable(
        ids=generator.permutation(total) - 3,
        paths=tuple(f"{row}.jpg" for row in range(total)),
        facts=tuple(FileFacts(row, 2 * row, 1, 2, "ab") for row in range(total)),
        shards=shard_of[order],
        slots=slots[order].astype(np.int32),
    )
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as folder:
        build_folder = BuildFolder(Path(folder))
        build_folder.begin(Plan(-1, "e", "none", 0, dtype, "i", "", total, 1, 0))
        written, records = [], []
        for number, shard in enumerate(counts):
            regions = sum(shard)
            wide = generator.normal(size=(regions, dim)).astype(np.float32)
            wide /= np.linalg.norm(wide, axis=1, keepdims=True)
            layout = {
                "offsets": np.cumsum([0, *shard], dtype=np.int64),
                "boxes": generator.random((regions, 4)).astype(np.float16),
                "mass": generator.random(regions).astype(np.float32),
            }
            stored: np.ndarray = wide.astype(np.float16)
            if dtype == "int8":
                stored, layout["scales"] = quantize_rows(wide)
            cut = int(generator.integers(0, regions + 1))
            records.append(
                write_shard(
                    build_folder.folder,
                    number,
                    [stored[:cut], stored[cut:]],
                    layout,
                    dim=dim,
                    dtype=dtype,
                    scratch=build_folder.path,
                )
            )
            written.append((stored, layout))
        commit(
            build_folder,
            table,
            tuple(records),
            generation=0,
            encoder=EncoderRecord(fingerprint="e", dim=dim),
            clusters=ClustersRecord(spec="none", seed=0),
            dtype=dtype,
            fingerprint="i",
            root=Path("/images"),
            pixels="exact",
        )
        store = read_store(folder)
        assert verify_index(folder) == ()
        assert store.ids.tolist() == table.ids.tolist()
        assert store.paths == table.paths
        np.testing.assert_array_equal(store.sizes, table.sizes)
        for number, (stored, layout) in enumerate(written):
            shard_read = store.shards[number]
            np.testing.assert_array_equal(shard_read.vectors, stored)
            for name, array in layout.items():
                np.testing.assert_array_equal(getattr(shard_read, name), array)
            in_order = np.flatnonzero(table.shards == number)
            np.testing.assert_array_equal(
                shard_read.rows, in_order[np.argsort(table.slots[in_order])]
            )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    images = write_images(folder / "images", 6, broken=[1])
    build_index(images, PixelEncoder(), folder / "out", clusters="kmeans:2", shard_size=3)
    return folder / "out"


@given(
    name=st.integers(0, 5),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=6),
    sealed=st.booleans(),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_anywhere_are_refused_or_make_a_sound_index(
    sound: Path, name: int, place: float, junk: bytes, sealed: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as copy:
        out = Path(copy) / "out"
        shutil.copytree(sound, out)
        files = folder_bytes(out)
        path = out / sorted(files)[name]
        start = int(place * path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[start : start + len(junk)] = junk
        changed = bytes(content) != path.read_bytes()
        path.write_bytes(content)
        if sealed and path.name != "manifest.json":
            reseal(out)
            try:
                index = open_index(out)
            except IndexDamaged:
                return
            # Only values can have changed, and the index is still sound.
            assert len(index) == 5
            index.search(PixelEncoder().encode_texts(["a"]), 3)
        elif changed:
            with pytest.raises((IndexDamaged, IndexMismatch)):
                open_index(out)
            assert verify_index(out) != ()


class DataSetLife(RuleBasedStateMachine):
    """Images are added, removed and changed; the index is updated and compacted in between."""

    encoder = PixelEncoder()
    queries = encoder.encode_texts(["a", "b", "c"])

    @initialize(quantize=st.sampled_from([None, "int8"]))
    def build(self, quantize: None) -> None:
        self.place = Path(tempfile.mkdtemp(dir=FAST_FOLDER))
        self.numbers = [0, 1, 2]
        self.clock = 3
        images = write_images(self.place / "images", 3)
        self.options = {"clusters": "kmeans:2", "quantize": quantize}
        self.index = build_index(images, self.encoder, self.place / "out", **self.options)  # type: ignore[arg-type]
        self.current = True

    @rule(broken=st.booleans())
    def add(self, broken: bool) -> None:
        path = self.place / "images" / f"{self.clock}.jpg"
        if broken:
            path.write_bytes(b"broken")
        else:
            write_image(path, self.clock)
        self.numbers.append(self.clock)
        self.clock += 1
        self.current = False

    @precondition(lambda self: len(self.numbers) > 2)
    @rule(which=st.integers(0, 99))
    def remove(self, which: int) -> None:
        self.numbers.pop(which % len(self.numbers))
        self.current = False

    @rule(which=st.integers(0, 99))
    def change(self, which: int) -> None:
        number = self.numbers[which % len(self.numbers)]
        write_image(self.place / "images" / f"{number}.jpg", 1000 + self.clock)
        self.clock += 1
        self.current = False

    @rule(seed=st.integers(0, 9))
    def shuffle(self, seed: int) -> None:
        np.random.default_rng(seed).shuffle(self.numbers)
        self.current = False

    @rule(shard_size=st.integers(1, 4))
    def update(self, shard_size: int) -> None:
        images = list_images(self.place / "images", self.numbers)
        self.index = update_index(self.place / "out", images, self.encoder, shard_size=shard_size)
        self.current = True

    @rule(shard_size=st.integers(1, 4))
    def compact(self, shard_size: int) -> None:
        manifest = compact_index(self.place / "out", shard_size=shard_size)
        stored = sum(shard.images for shard in manifest.shards)
        assert stored == manifest.images.count - manifest.images.broken
        before = self.index.scores(self.queries)
        self.index = open_index(self.place / "out")
        np.testing.assert_array_equal(self.index.scores(self.queries), before)

    @precondition(lambda self: self.current)
    @invariant()
    def answers_like_a_fresh_build(self) -> None:
        images = list_images(self.place / "images", self.numbers)
        fresh = build_index(
            images,
            self.encoder,
            self.place / "fresh",
            resume=False,
            **self.options,  # type: ignore[arg-type]
        )
        assert self.index.ids.tolist() == fresh.ids.tolist()
        np.testing.assert_array_equal(self.index.scores(self.queries), fresh.scores(self.queries))
        manifest = read_manifest(self.place / "out")
        on_disk = folder_bytes(self.place / "out")
        assert sorted(on_disk) == sorted(["manifest.json", *(f.name for f in manifest.files)])

    def teardown(self) -> None:
        shutil.rmtree(self.place)


TestDataSetLife = DataSetLife.TestCase
TestDataSetLife.settings = settings(max_examples=8, stateful_step_count=12)
