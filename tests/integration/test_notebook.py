"""The notebook runs from top to bottom as a user would run it, offline."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the notebook's server, not of hardmine
def test_the_notebook_shows_hits_and_draws_before_and_after(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [output_kinds(cell) for cell in notebook.cells]
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert [output_kinds(cell) for cell in notebook.cells] == kept
    assert sum(kinds.count("image/jpeg") for kinds in kept) == 3
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stdout"
    )
    assert "one epoch before: each image 1 time" in printed
    assert "more than once" in printed
    assert "need" in printed
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "[1, 2, 3]"


def output_kinds(cell: nbformat.NotebookNode) -> list[str]:
    """What kinds of output a cell has, without warnings on stderr."""
    return [
        "image/jpeg" if "image/jpeg" in output.get("data", {}) else output.output_type
        for output in cell.get("outputs", ())
        if output.get("name") != "stderr"
    ]
