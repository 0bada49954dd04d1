"""Opening images: orientation, colour modes and broken files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from hardmine.datasets import open_image
from hardmine.errors import InputError
from hardmine.image_files.decode import decode_image, decode_reduced, image_size


def gradient() -> Image.Image:
    """A 30 × 50 image without symmetry."""
    y, x = np.mgrid[:30, :50]
    return Image.fromarray(np.stack([5 * x, 8 * y, x + y], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_by_pillow(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    gradient().save(path, exif=exif)
    image = open_image(path)
    with Image.open(path) as raw:
        expected = ImageOps.exif_transpose(raw)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    assert image_size(path) == (image.height, image.width)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_where_little_is_wanted(orientation: int) -> None:
    """While both sides stay twice what is wanted, and even; the size told is the full one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    gradient().resize((400, 240), Image.Resampling.BICUBIC).save(file, "jpeg", exif=exif)
    content = file.getvalue()
    whole = decode_image(content, "a.jpg")
    for side, divisor in ((60, 2), (30, 4), (10, 8), (61, 1)):
        image, hw = decode_reduced(content, "a.jpg", (side, side))
        assert hw == (whole.height, whole.width)
        assert image.size == (whole.width // divisor, whole.height // divisor)
        small, expected = (
            np.asarray(one.resize((10, 10), Image.Resampling.BICUBIC), int)
            for one in (image, whole)
        )
        assert np.abs(small - expected).max() <= 3
    with pytest.raises(InputError, match="truncated"):
        decode_reduced(content[:-400], "a.jpg", (10, 10))


def test_a_jpeg_with_odd_sides_is_decoded_in_full() -> None:
    """At a half, its last column would stand for one column, not two: all others were shifted."""
    file = io.BytesIO()
    gradient().resize((401, 240)).save(file, "jpeg")
    assert decode_reduced(file.getvalue(), "a.jpg", (10, 10))[0].size == (401, 240)


def test_other_formats_are_decoded_in_full() -> None:
    file = io.BytesIO()
    gradient().save(file, "png")
    image, hw = decode_reduced(file.getvalue(), "a.png", (4, 4))
    assert hw == (30, 50)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(gradient()))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    converted = gradient().convert(mode)
    path = tmp_path / "picture.tiff"
    converted.save(path)
    image = open_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(converted.convert("RGB")))


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [25700, 65280, 65535]], np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    image = np.asarray(open_image(path))
    np.testing.assert_array_equal(image, np.repeat(values[..., None] // 256, 3, axis=2))


def test_palette_transparency_is_dropped_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    picture = gradient().convert("P")
    picture.save(path, transparency=bytes([0, 128]))
    np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(picture.convert("RGB")))


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    gradient().save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert open_image(path).size == (50, 30)


def broken(path: Path, kind: str) -> None:
    gradient().save(path, quality=95)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"<html>404 Not Found</html>",
            "cut in the header": content[:40],
            "cut in the pixels": content[: len(content) // 2],
        }[kind]
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut in the header", "cut in the pixels"])
def test_a_broken_file_is_an_input_error(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"broken.{suffix}"
    broken(path, kind)
    with pytest.raises(InputError, match=rf"broken\.{suffix}: cannot be decoded: \S"):
        open_image(path)


def test_an_unknown_format_has_the_same_reason_where_ultralytics_is_imported(
    tmp_path: Path,
) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(b"this is no image")
    script = (
        "import sys; {}\n"
        "from hardmine.image_files.decode import decode_image, image_size\n"
        "for read in (image_size, lambda path: decode_image(open(path, 'rb').read(), path)):\n"
        "    try:\n"
        "        read(sys.argv[1])\n"
        "    except Exception as error:\n"
        "        print(error)\n"
    )
    if find_spec("ultralytics") is None:  # to import it here would change other tests
        pytest.skip("needs pip install ultralytics")
    for imported in (
        "",
        "import ultralytics.utils.patches, PIL.Image as P; "
        "assert P.open.__module__ == 'ultralytics.utils.patches'",
    ):
        done = subprocess.run(
            [sys.executable, "-c", script.format(imported), str(path)],
            env=os.environ | {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith(str(path))]
        assert lines == [f"{path}: cannot be decoded: it is no image of a known format"] * 2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    gradient().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"bomb\.png: .*exceeds limit"):
        open_image(path)


def test_floats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(path)
    with pytest.raises(InputError, match=r"depth\.tiff: .*floats without a fixed range"):
        open_image(path)


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, problem in (("none.jpg", "no such"), (".", "regular"), ("pipe.jpg", "regular")):
        with pytest.raises(InputError, match=f"{problem}.* file"):
            open_image(tmp_path / name)


def test_photos_decode_as_with_opencv(photos: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for path in sorted((photos / "images").iterdir())[:20]:
        peer = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        # Two JPEG decoders round differently, by a level or two.
        difference = np.abs(np.asarray(open_image(path)).astype(int) - peer)
        assert difference.mean() < 1.0
