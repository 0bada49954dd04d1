"""The paper's protocols: their files, the published figures, rows that cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardmine.errors import InputError
from hardmine.evaluation.protocol import SystemRow, load_protocol, published_figures

PAPER = Path(__file__).parents[3] / "configs" / "paper"
TABLES = ["coco.yaml", "lvis.yaml", "lvis_rare.yaml", "nuimages.yaml"]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_the_paper_is_there(name) -> None:
    protocol, rows = load_protocol(PAPER / name)
    assert len(rows) == 23
    assert len({row.folder for row in rows}) == 23
    for row in rows:
        figures = published_figures(row, protocol.published)
        assert (figures is None) == (protocol.published is None)


def test_published_figures() -> None:
    _, rows = load_protocol(PAPER / "coco.yaml")
    [row] = [row for row in rows if row.system == "Cluster-CLIP K.M."]
    coco = published_figures(row, "coco")
    assert coco is not None
    assert (coco.map_at_50, coco.map, coco.map_at_50_small_medium) == (78.67, 63.66, 46.69)
    rare = published_figures(row, "lvis_rare")
    assert rare is not None
    assert (rare.map_at_50, rare.map, rare.map_at_50_small_medium) == (51.66, 52.45, None)


def test_a_system_that_is_not_in_the_paper_has_no_figures() -> None:
    assert published_figures(SystemRow("new", "RN50", "RN50/openai", "tree"), "coco") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "missing required field `systems`"),
        ("name: x\nsystems: s.yaml\nprompts: y\n", "unknown field `prompts`"),
        ("name: x\nsystems: ../s.yaml\n", "file in the same folder"),
        ("name: x\nsystems: nothing.yaml\n", "cannot read .*nothing.yaml"),
        ("name: [", "while parsing"),
    ],
)
def test_bad_files(tmp_path, text, message) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_protocol(file)


def test_a_bad_clustering_is_found_before_any_work(tmp_path) -> None:
    (tmp_path / "table.yaml").write_text("name: x\nsystems: s.yaml\n")
    (tmp_path / "s.yaml").write_text(
        "[{system: a, backbone: b, encoder: tiny, clusters: 'kmeans:ten'}]"
    )
    with pytest.raises(InputError, match="ten"):
        load_protocol(tmp_path / "table.yaml")
