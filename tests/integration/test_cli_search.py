"""``hardmine search`` over an index of six small images with known vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hardmine.cli.main import main
from hardmine.cli.search import _show
from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.index import build_index, index_from_regions

# Classes of each image; an image's regions are unit vectors along the axes of its classes.
CLASSES = [("cat",), ("dog",), ("cat", "dog"), ("bus",), ("bus", "cat"), ("dog", "bus")]
NAMES = ("cat", "dog", "bus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with labels, an encoder from files and an index built with it."""
    place = tmp_path_factory.mktemp("search")
    (place / "images").mkdir()
    paths = [f"{number}.jpg" for number in range(5)] + ["<b>&.jpg"]
    vectors = np.zeros((6, 2, 4), np.float32)
    images, annotations = [], []
    for row, (path, classes) in enumerate(zip(paths, CLASSES, strict=True)):
        Image.new("RGB", (40, 30), (40 * row, 90, 200)).save(place / "images" / path)
        images.append({"id": 10 + row, "file_name": path, "height": 30, "width": 40})
        for region in range(2):
            # A later image has a lower similarity to its own classes.
            vectors[row, region, NAMES.index(classes[region % len(classes)])] = 1
            vectors[row, region, 3] = 0.1 * (row + 1)
        for name in classes:
            category = NAMES.index(name) + 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + row,
                    "category_id": category,
                    "bbox": [1, 1, 9, 9],
                    "area": 81,
                    "iscrowd": 0,
                }
            )
    boxes = np.tile(np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32), (6, 1, 1))
    np.savez(
        place / "encoder.npz",
        images=paths,
        vectors=vectors,
        texts=list(NAMES),
        text_vectors=np.eye(4, dtype=np.float32)[:3],
        boxes=boxes,
    )
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (place / "labels.json").write_text(json.dumps(labels))
    image_set = load_images(place / "images", annotations=place / "labels.json")
    encoder = load_encoder(f"precomputed:{place / 'encoder.npz'}")
    build_index(image_set, encoder, place / "index", clusters="none", workers=1)
    return place


def found(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[list[int]]:
    """Ids of the hits of each query."""
    assert main(["search", str(folder / "index"), *words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    return [[hit["id"] for hit in query["hits"]] for query in answer["queries"]]


def test_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(folder, capsys, "cat", "bus", "-k", "3") == [[10, 12, 14], [13, 14, 15]]


def test_region_and_score_of_each_hit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(folder / "index"), "cat", "-k", "3", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["queries"][0]["hits"]
    assert [hit["box"] for hit in hits] == [[0, 0, 0.5, 1], [0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    truth = [1 / np.hypot(1, 0.1 * rank) for rank in (1, 3, 5)]
    assert [hit["score"] for hit in hits] == pytest.approx(truth, abs=1e-3)
    assert hits[0]["path"] == "0.jpg"


def test_excluded_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(folder, capsys, "cat", "--not", "dog", "-k", "2") == [[10, 14]]
    assert found(folder, capsys, "cat", "--not", "dog", "--not", "bus", "-k", "1") == [[10]]


def test_a_query_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(folder / "images" / "3.jpg")
    assert found(folder, capsys, "--image", image, "-k", "2") == [[13, 14]]


def test_classes_and_ids_restrict_the_search(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--ann", str(folder / "labels.json"), "--images", str(folder / "images"))
    assert found(folder, capsys, "cat", "--class", "dog", *labels) == [[12, 11, 15]]
    listed = folder / "ids.txt"
    listed.write_text("15\n14\n99\n")
    assert found(folder, capsys, "cat", "--ids", str(listed)) == [[14, 15]]
    assert found(folder, capsys, "cat", "--ids", str(listed), "--class", "dog", *labels) == [[15]]


def test_classes_need_the_labels_alone_not_their_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "annotations" / "instances_train2017.json"
    labels.parent.mkdir()
    labels.write_text((folder / "labels.json").read_text())
    assert found(folder, capsys, "cat", "--class", "dog", "--ann", str(labels)) == [[12, 11, 15]]


def test_hits_for_a_labelling_tool(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(folder / "index"), "cat", "-k", "3"]
    assert main([*words, "--export", "labelstudio", "--out", str(folder / "tasks.json")]) == 0
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"]["image_id"] for task in tasks] == [10, 12, 14]
    box = tasks[2]["predictions"][0]["result"][0]["value"]
    assert (box["x"], box["width"], box["rectanglelabels"]) == (50.0, 50.0, ["cat"])
    assert '<Label value="cat" />' in capsys.readouterr().err
    assert main([*words, "--export", "cvat"]) == 2
    assert "--export FORMAT and --out FILE go together" in capsys.readouterr().err


def test_output_in_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(folder / "index"), "dog", "-k", "2"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] + line[3:] for line in lines] == [
        ["dog", "1", "11", "1.jpg"],
        ["dog", "2", "12", "2.jpg"],
    ]
    assert [float(line[2]) for line in lines] == pytest.approx([0.9806, 0.9578], abs=5e-4)


@pytest.mark.parametrize("backend", ["faiss:flat", "faiss:hnsw"])
def test_another_backend(folder: Path, capsys: pytest.CaptureFixture[str], backend: str) -> None:
    pytest.importorskip("faiss")
    assert found(folder, capsys, "cat", "-k", "3", "--backend", backend) == [[10, 12, 14]]


def test_the_page_is_complete_and_escaped(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["search", str(folder / "index"), "dog", "bus", "--html", str(page)]) == 0
    text = page.read_text()
    assert text.count('<figure class="tile"') == 12
    assert text.count("data:image/jpeg;base64,") == 12
    assert "&lt;b&gt;&amp;.jpg" in text
    assert "<b>&.jpg" not in text
    assert "left:50.00%;top:0.00%;width:50.00%;height:100.00%" in text
    for request in ("http://", "https://", "<link", 'src="/'):
        assert request not in text.replace("http://www.w3.org", "")


def test_a_page_with_missing_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "page.html"
    words = ["search", str(folder / "index"), "dog", "--html", str(page), "-k", "2"]
    assert main([*words, "--images", str(tmp_path / "gone")]) == 0
    assert page.read_text().count("cannot be shown") == 2
    warning = f"2 of 2 pictures cannot be shown; they were looked for in {tmp_path / 'gone'}"
    assert warning in capsys.readouterr().err


def test_pages_of_images_that_are_no_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = pytest.importorskip("datasets")
    files = [*(f"{number}.jpg" for number in range(5)), "<b>&.jpg"]
    image = [{"bytes": (folder / "images" / f).read_bytes(), "path": f} for f in files]
    objects = [{"bbox": [[1, 1, 9, 9]] * len(each), "category": list(each)} for each in CLASSES]
    dataset = hf.Dataset.from_dict({"image": image, "objects": objects})
    dataset.cast_column("image", hf.Image()).save_to_disk(tmp_path / "saved")
    images, encoder = load_images(tmp_path / "saved"), load_encoder("tiny")
    build_index(images, encoder, tmp_path / "index", clusters="none", workers=1)
    (tmp_path / "metrics.json").write_text('{"dog": 0.1, "cat": 0.6, "bus": 0.6}')
    monkeypatch.chdir(tmp_path)
    for words in (
        ["search", "index", "dog", "-k", "2", "--images", "saved", "--html"],
        ["report", "--metrics", "metrics.json", "--ann", "saved", "--index", "index", "--out"],
    ):
        assert main([*words, "page.html"]) == 0
        assert Path("page.html").read_text().count("data:image/jpeg;base64,") >= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "nothing to search for", id="no query"),
        pytest.param([" "], "a TEXT is empty", id="empty text"),
        pytest.param(["a/cat.JPG"], "--image a/cat.JPG", id="a picture as text"),
        pytest.param(["cat", "--class", "dog"], "--ann", id="class without labels"),
        pytest.param(["cat", "--ids", "nowhere.txt"], "nowhere.txt", id="no such list"),
        pytest.param(["cat", "-k", "0"], "at least 1", id="k of zero"),
        pytest.param(["cat", "--backend", "magic"], "faiss:KIND", id="no such backend"),
        pytest.param(["--image", "nowhere.jpg"], "nowhere.jpg", id="no such image"),
        pytest.param(["horse"], "horse", id="a text the encoder lacks"),
    ],
)
def test_errors_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["search", str(folder / "index"), *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_an_unknown_class_gets_a_suggestion(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--ann", str(folder / "labels.json"), "--images", str(folder / "images")]
    assert main(["search", str(folder / "index"), "cat", "--class", "dgo", *labels]) == 2
    assert "did you mean 'dog'" in capsys.readouterr().err


def test_another_encoder_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(folder / "encoder.npz") as stored:
        np.savez(tmp_path / "other.npz", **(dict(stored) | {"texts": ["cat", "dog", "lorry"]}))
    words = ["search", str(folder / "index"), "cat", "--encoder"]
    assert main([*words, f"precomputed:{tmp_path / 'other.npz'}"]) == 2
    assert "built with the encoder" in capsys.readouterr().err


def test_a_name_with_line_ends_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["two\nlines.jpg", "a\tb\\c\r.jpg"]
    index = index_from_regions(np.eye(2), np.arange(3), ids=paths, paths=paths)
    _show(index, ["a\tquery"], index.search(np.array([[1.0, 0.5]]), 2))
    rows = [line.split("\t") for line in capsys.readouterr().out.split("\n")]
    assert rows == [
        [r"a\tquery", "1", "1.0000", r"two\nlines.jpg", r"two\nlines.jpg"],
        [r"a\tquery", "2", "0.5000", r"a\tb\\c\r.jpg", r"a\tb\\c\r.jpg"],
        [""],
    ]
