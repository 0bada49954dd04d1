"""Contents of a built index, and arguments that a build refuses."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from pixel_images import (
    PixelEncoder,
    as_nobody,
    folder_bytes,
    list_images,
    write_image,
    write_images,
)

from hardmine.clusters import cluster
from hardmine.datasets import load_images, open_image
from hardmine.encoders.base import DenseFeatures
from hardmine.errors import HardmineError, IndexMismatch, InputError
from hardmine.index import (
    build_index,
    open_index,
    read_manifest,
    update_index,
)
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.update import find_changes
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.read import read_images
from hardmine.records import ImageSet


def regions_of(index: ExactIndex, row: int) -> tuple[Any, Any, Any]:
    """Stored vectors (as float32), boxes and mass of one image."""
    shard_of, slot_of = index.store.locations
    shard, place = index.store.shards[shard_of[row]], slot_of[row]
    regions = slice(shard.offsets[place], shard.offsets[place + 1])
    vectors = np.asarray(shard.vectors[regions], np.float32)
    if shard.scales is not None:
        vectors = vectors * shard.scales[regions, None]
    return vectors, shard.boxes[regions], shard.mass[regions]


@pytest.mark.parametrize("clusters", ["whole", "none", "kmeans:3+whole", "agglomerative:t=0.5"])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_every_image_is_stored_as_if_it_were_encoded_alone(
    tmp_path: Path, clusters: str, quantize: Any
) -> None:
    images = write_images(tmp_path / "images", 11, broken=[4])
    encoder = PixelEncoder()
    index = build_index(
        images,
        encoder,
        tmp_path / "out",
        clusters=clusters,
        quantize=quantize,
        batch_size=3,
        shard_size=4,
    )
    assert isinstance(index, ExactIndex)
    assert index.ids.tolist() == [10 * number for number in range(11) if number != 4]
    assert index.sizes.tolist() == [[24, 32]] * 10
    assert (index.clusters, index.encoder_fingerprint, index.dim) == (clusters, "pixels-0", 8)
    for row, path in enumerate(index.paths):
        features = encoder.encode_images(encoder.preprocess(open_image(images.root / path))[None])
        expected = cluster(features.patches, clusters, whole=features.whole)
        vectors, boxes, mass = regions_of(index, row)
        # float16 rounds to 2^-11 of a number, int8 to half a 127th of the largest in its row.
        tolerance = 0.5 / 127 + 1e-6 if quantize else 2**-11
        np.testing.assert_allclose(vectors, expected.vectors, atol=tolerance)
        np.testing.assert_allclose(boxes, expected.boxes, atol=2**-11)
        np.testing.assert_allclose(mass, expected.mass, atol=1e-6)


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 9)
    for workers in (1, 5):
        build_index(images, PixelEncoder(), tmp_path / str(workers), workers=workers, shard_size=4)
    assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "5")


def test_broken_images_are_listed_with_the_problem(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 6, broken=[0, 3])
    (tmp_path / "images" / "5.jpg").unlink()
    seen: list[Progress] = []
    index = build_index(
        images, PixelEncoder(), tmp_path / "out", shard_size=3, batch_size=2, progress=seen.append
    )
    assert index.paths == ("1.jpg", "2.jpg", "4.jpg")
    assert index.rows_of([0, 10, 30]).tolist() == [-1, 0, -1]
    assert [(step.done, step.total, step.skipped) for step in seen] == [
        (2, 6, 1),
        (3, 6, 1),
        (5, 6, 2),
        (6, 6, 3),
    ]
    assert seen[-1].rate == pytest.approx(6 / seen[-1].seconds)
    assert seen[-1].seconds_left == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.images.broken == 3
    facts = read_images(tmp_path / "out", manifest).facts
    assert "cannot be decoded" in facts[0].problem
    assert facts[5].problem == "no such image file"
    assert [fact.problem != "" for fact in facts] == [True, False, False, True, False, True]


def test_a_shard_of_broken_images_holds_nothing(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 5, broken=[0, 1])
    for quantize in (None, "int8"):
        index = build_index(
            images,
            PixelEncoder(),
            tmp_path / str(quantize),
            quantize=quantize,  # type: ignore[arg-type]
            shard_size=2,
        )
        assert index.paths == ("2.jpg", "3.jpg", "4.jpg")
        hits = index.search(PixelEncoder().encode_texts(["a"]), 9)
        assert sorted(hits.image_rows[hits.found].tolist()) == [0, 1, 2]


def test_what_is_no_image_file_is_one_broken_image(tmp_path: Path) -> None:
    files = tmp_path / "images"
    write_images(files, 2)
    os.mkfifo(files / "pipe.jpg")
    with (files / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)  # without a single block on the disk
    (files / os.fsdecode(b"caf\xe9.jpg")).write_bytes((files / "0.jpg").read_bytes())
    write_image(files / "two\nlines.jpg", 3)
    images = load_images(files)
    index = build_index(images, PixelEncoder(), tmp_path / "out", clusters="none")
    assert index.paths == ("0.jpg", "1.jpg", "two\nlines.jpg")
    table = read_images(tmp_path / "out", read_manifest(tmp_path / "out"))
    facts = zip(table.paths, table.facts, strict=True)
    problems = {path: fact.problem for path, fact in facts if fact.problem}
    assert problems == {
        "caf\\udce9.jpg": "its name is not UTF-8: rename it",
        "huge.jpg": f"it has {1 << 40} bytes, more than any image that is decoded",
        "pipe.jpg": "it is not a regular file",
    }
    assert len(open_index(tmp_path / "out", images=images)) == 3
    assert str(find_changes(table, images)) == "0 added, 0 changed, 0 removed"
    # A pipe is looked at, not read, whatever took its place before; a file that can be read now is.
    os.utime(files / "pipe.jpg", ns=(1, 1))
    (files / "huge.jpg").write_bytes((files / "0.jpg").read_bytes())
    assert str(find_changes(table, images)) == "0 added, 1 changed, 0 removed"


def test_a_folder_without_permission_is_explained() -> None:
    # Not tmp_path: its parents are closed to other users.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = write_images(folder / "images", 3)
        (folder / "images").chmod(0)
        folder.chmod(0o777)
        with as_nobody(), pytest.raises(InputError, match=r"none of the 3 images .* denied"):
            build_index(images, PixelEncoder(), folder / "out")
        (folder / "images").chmod(0o755)


def test_sizes_in_the_labels_that_contradict_the_picture_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = write_images(tmp_path / "images", 4)
    turned = PIL.Image.open(tmp_path / "images" / "2.jpg")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images" / "2.jpg", exif=exif)
    sizes = np.array([[24, 32], [0, 0], [24, 32], [480, 640]], np.int32)
    build_index(replace(images, sizes=sizes), PixelEncoder(), tmp_path / "out")
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert message.startswith(
        "2 of 4 images have another size than the labels say (2.jpg: 32 x 24 in the labels, "
        "24 x 32 in the picture), so their boxes may lie elsewhere; 1 of them"
    )


def test_text_ids_and_paths_in_subfolders_are_kept(tmp_path: Path) -> None:
    names = ("a/ü 1.jpg", "b/c/2.jpg")
    for seed, name in enumerate(names):
        write_image(tmp_path / "images" / name, seed)
    images = ImageSet(
        tmp_path / "images", np.array(["x", "日本"]), names, np.zeros((2, 2), np.int32)
    )
    index = build_index(images, PixelEncoder(), tmp_path / "out")
    assert index.ids.tolist() == ["x", "日本"]
    assert index.paths == names
    assert index.root == tmp_path / "images"


def test_a_finished_index_is_only_opened(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    build_index(images, PixelEncoder(), tmp_path / "out")
    before = folder_bytes(tmp_path / "out")

    def never(progress: Progress) -> None:
        raise AssertionError("an image was encoded")

    assert len(build_index(images, PixelEncoder(), tmp_path / "out", progress=never)) == 4
    assert folder_bytes(tmp_path / "out") == before


def test_a_finished_index_is_written_to_only_to_remove_unused_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images", 4)
    out = tmp_path / "out"
    build_index(images, PixelEncoder(), out)
    before = folder_bytes(out)
    with pytest.raises(IndexMismatch, match="seed 0, not 1"):
        build_index(images, PixelEncoder(), out, seed=1)
    for name in ("shards/00009.vectors.npy", "images-7.parquet", ".lock"):
        (out / name).touch()
        build_index(images, PixelEncoder(), out)
        assert folder_bytes(out) == before
    # In a read-only folder, or beside another writer, they stay.
    lock_calls = []

    def locked(folder: Path) -> Any:
        lock_calls.append(folder)
        raise HardmineError("read-only")

    monkeypatch.setattr("hardmine.index.builder.build.locked", locked)
    assert len(build_index(images, PixelEncoder(), out)) == 4
    assert lock_calls == []
    (out / ".lock").touch()
    assert len(build_index(images, PixelEncoder(), out)) == 4
    with pytest.raises(HardmineError, match="read-only"):
        build_index(images, PixelEncoder(), out, resume=False)
    assert len(lock_calls) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": "none"}, r"clusters kmeans:10,context=0\.4\+whole, not none"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"quantize": "int8"}, "dtype float16, not int8"),
        ({"encoder": PixelEncoder(1)}, "encoder pixels-0, not pixels-1"),
        ({"images": 3}, "update_index"),
    ],
)
def test_another_build_into_a_finished_index_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    images = write_images(tmp_path / "images", 4)
    plain: dict[str, Any] = {"images": images, "encoder": PixelEncoder()}
    build_index(**plain, out=tmp_path / "out")
    if "images" in options:
        options = {"images": images.subset(range(options["images"]))}
    with pytest.raises(IndexMismatch, match=message):
        build_index(**plain | options, out=tmp_path / "out")
    # The message advises to replace the index.
    again = build_index(**plain | options, out=tmp_path / "out", resume=False)
    assert len(again) == len(options.get("images", images))
    build_index(**plain | options, out=tmp_path / "fresh")
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "fresh")


class FailingEncoder(PixelEncoder):
    """Fails at the third batch."""

    calls = 0

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        self.calls += 1
        if self.calls == 3:
            raise MemoryError("out of memory")
        return super().encode_images(batch)


def test_another_build_over_an_unfinished_one_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 6)
    with pytest.raises(MemoryError):
        build_index(images, FailingEncoder(), tmp_path / "out", shard_size=2, batch_size=2)
    with pytest.raises(
        IndexMismatch, match=r"clusters was 'kmeans:10,context=0\.4\+whole', is now 'none'"
    ):
        build_index(images, PixelEncoder(), tmp_path / "out", shard_size=2, clusters="none")
    # A user whose memory was full may continue with a smaller batch.
    index = build_index(images, PixelEncoder(), tmp_path / "out", shard_size=2, batch_size=1)
    assert len(index) == 6


class NaNEncoder(PixelEncoder):
    """Returns NaN, as half precision does after an overflow."""

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        features = super().encode_images(batch)
        return DenseFeatures(features.patches * torch.nan, features.whole)


class NaNOnceEncoder(PixelEncoder):
    """Returns NaN for the second batch only."""

    calls = 0

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        self.calls += 1
        features = super().encode_images(batch)
        return DenseFeatures(
            features.patches * (torch.nan if self.calls == 2 else 1), features.whole
        )


def test_no_finished_shard_lacks_a_batch_that_failed(tmp_path: Path) -> None:
    # Three batches per shard: the third is in progress when the second fails.
    images = write_images(tmp_path / "images", 12)
    with pytest.raises(InputError, match="NaN"):
        build_index(images, NaNOnceEncoder(), tmp_path / "out", shard_size=6, batch_size=2)
    assert not list((tmp_path / "out" / "shards").iterdir())
    for name in ("out", "whole"):
        build_index(images, PixelEncoder(), tmp_path / name, shard_size=6, batch_size=2)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


class NamedEncoder(PixelEncoder):
    spec = {"name": object()}  # noqa: RUF012


class OwnShapeEncoder(PixelEncoder):
    """Keeps the shape of each image."""

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        return torch.zeros(3, image.height, image.width)


def test_images_of_several_shapes_in_a_batch_are_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "images" / "1.jpg")
    of_a_batch = r"\(3, 24, 32\) torch.float32 and \(3, 20, 30\) torch.float32 in a batch"
    with pytest.raises(InputError, match=f"of one shape and type, got {of_a_batch}"):
        build_index(images, OwnShapeEncoder(), tmp_path / "out", workers=1)


def test_invalid_arguments_are_refused_before_work_begins(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    out = tmp_path / "out"
    for options, message in (
        ({"clusters": "kmean:3"}, 'did you mean "kmeans"'),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 1"),
        ({"quantize": "int4"}, "quantize must be"),
        ({"encoder": NamedEncoder()}, "JSON values only"),
        ({"images": images.subset([])}, "no images to index"),
        ({"images": list_images(tmp_path / "nowhere", range(3))}, "none of the 3 images"),
        ({"images": ImageSet(tmp_path, np.arange(1), ("../1.jpg",), images.sizes[:1])}, "below"),
    ):
        arguments: dict[str, Any] = {"images": images, "encoder": PixelEncoder()} | options
        with pytest.raises(InputError, match=message):
            build_index(**arguments, out=out)
        assert not out.exists() or not list(out.rglob("*"))
    with pytest.raises(InputError, match="NaN"):
        build_index(images, NaNEncoder(), tmp_path / "blind")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    with pytest.raises(InputError, match=r"neither empty nor an index \(it holds 0\.jpg"):
        build_index(images, PixelEncoder(), tmp_path / "images")
    with pytest.raises(InputError, match="neither empty nor an index"):
        build_index(images, PixelEncoder(), tmp_path / "images", resume=False)
    assert len(list((tmp_path / "images").iterdir())) == 3
    with pytest.raises(HardmineError, match=r"0\.jpg: File exists; a file has this name: choose"):
        build_index(images, PixelEncoder(), tmp_path / "images" / "0.jpg")


def test_an_index_opens_only_with_its_own_encoder_clusters_and_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 5)
    out = tmp_path / "out"
    build_index(images, PixelEncoder(), out, clusters="kmeans:2")
    opened = open_index(out, encoder=PixelEncoder(), images=images, clusters="kmeans:k=2")
    assert len(opened) == 5
    with pytest.raises(IndexMismatch, match="with the encoder pixels-0, got pixels-7; use that"):
        open_index(out, encoder=PixelEncoder(7))
    with pytest.raises(IndexMismatch, match="with clusters kmeans:2, expected none"):
        open_index(out, clusters="none")
    (tmp_path / "images" / "1.jpg").rename(tmp_path / "images" / "6.jpg")
    others = list_images(tmp_path / "images", [4, 3, 2, 6])
    with pytest.raises(IndexMismatch, match="1 were added, 2 removed, 0 moved"):
        open_index(out, images=others)
    with pytest.raises(IndexMismatch, match="the same images in another order"):
        open_index(out, images=images.subset([4, 3, 2, 1, 0]))
    with pytest.raises(InputError, match='backend must be "exact", '):
        open_index(out, backend="annoy")
    with pytest.raises(InputError, match="such as milvus:http://localhost:19530, got 'milvus'"):
        open_index(out, backend="milvus")
    assert open_index(out, root="/elsewhere").root == Path("/elsewhere")
    index = update_index(out, others, PixelEncoder())
    assert index.ids.tolist() == [40, 30, 20, 60]
