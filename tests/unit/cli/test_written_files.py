"""Files that commands write: in folders that they make, with an error where they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardmine.cli.files import write_page, write_text
from hardmine.errors import InputError

Captured = pytest.CaptureFixture[str]


def test_the_folder_is_made_and_the_size_said(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "new" / "[b]deep" / "x.csv"
    write_text(out, "a,é\n")
    assert out.read_bytes() == "a,é\n".encode()
    assert capsys.readouterr().err == f"wrote {out} (0 kB)\n"
    write_text(out, "a" * 2_340_000)
    assert capsys.readouterr().err == f"wrote {out} (2.3 MB)\n"


def test_a_name_that_is_not_utf_8_is_written_with_its_bytes_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "caf\udce9")
    assert (tmp_path / "x").read_text() == r"caf\udce9"


@pytest.mark.parametrize("below", ["a file/x.html", "."])
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, below: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(InputError, match=f"{tmp_path / below}: cannot be written: .*another file"):
        write_text(tmp_path / below, "")


def test_pictures_that_a_page_lacks_are_counted(tmp_path: Path, capsys: Captured) -> None:
    tile = '<figure class="tile"><img></figure>'
    write_page(tmp_path / "x.html", tile, [tmp_path])
    assert "warning" not in capsys.readouterr().err
    missing = tile.replace("<img>", '<span class="missing">cannot be shown</span>')
    write_page(tmp_path / "x.html", tile + 2 * missing, [Path("here"), Path("there"), Path("here")])
    assert (
        "warning: 2 of 3 pictures cannot be shown; they were looked for in here, there: "
        "give their folder with --images DIR" in capsys.readouterr().err
    )
