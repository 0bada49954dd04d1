"""The streaming JSON reader against Python's json module."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardmine.datasets.json_rows import read_records
from hardmine.errors import InputError

# Text made of characters that could confuse a scanner.
_text = st.text(st.sampled_from('ab"\\{}[],: \né€'), max_size=8)
_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=8,
)
_records = st.lists(st.dictionaries(_text, _value, max_size=4), max_size=6)


def collect(path: Path, *names: str, block: int = 1 << 20) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, start, records in read_records(path, dict.fromkeys(names, dict), block=block):
        assert start == len(found.setdefault(name, []))
        found[name] += records
    return found


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "file.json"


@given(
    content=st.fixed_dictionaries({"a": _records, "skipped": _value, "b": _records, "c": _value}),
    block=st.integers(1, 80),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_records_equal_json_s_for_any_block_size(
    scratch: Path, content: dict[str, Any], block: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    scratch.write_text(text, encoding="utf-8")
    assert collect(scratch, "a", "b", block=block) == {"a": content["a"], "b": content["b"]}


@given(records=_records, cut=st.integers(0, 10_000), block=st.sampled_from([7, 64, 4096]))
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_an_input_error(
    scratch: Path, records: list[Any], cut: int, block: int
) -> None:
    text = json.dumps({"skipped": {"a": [1, "}"]}, "a": records})
    scratch.write_text(text[: cut % len(text)])
    with pytest.raises(InputError, match=r"file\.json: malformed JSON at line 1, byte \d+"):
        collect(scratch, "a", block=block)


@given(
    records=_records,
    place=st.integers(0, 10_000),
    byte=st.sampled_from(list(b'"\\{}[],:x \xff')),
    block=st.sampled_from([9, 4096]),
)
@settings(max_examples=150, deadline=None)
def test_an_altered_byte_gives_json_s_result_or_an_input_error(
    scratch: Path, records: list[Any], place: int, byte: int, block: int
) -> None:
    content = bytearray(json.dumps({"a": records, "b": [{"x": 1}, {"x": 2}]}).encode())
    content[place % len(content)] = byte
    scratch.write_bytes(content)
    try:
        expected = json.loads(content)
    except ValueError:
        expected = None
    try:
        got = collect(scratch, "a", "b", block=block)
    except InputError:
        return
    assert expected is not None, "accepted a file that json refuses"
    assert got == {name: expected[name] for name in ("a", "b") if name in expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        (" [ { } ] ", [{}]),
        ('\ufeff[{"a": 1}]', [{"a": 1}]),
        ("[" + ",".join(['{"a": [{}, {}]}'] * 50) + "]", [{"a": [{}, {}]}] * 50),
    ],
    ids=["empty", "spaces", "byte order mark", "nested objects at every cut"],
)
def test_a_file_that_is_one_array(tmp_path: Path, text: str, expected: list[Any]) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="utf-8")
    assert collect(path, "", block=64).get("") == expected


class _Box(msgspec.Struct):
    id: int
    bbox: tuple[float, float] | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1, byte 0: expected an object, got 'an empty file'"),
        ("[{}]", r"n\.json: this is a list, such as a COCO results file; expected .* with a,"),
        ("3", r"byte 0: expected an object, got '3'"),
        ('{"a": {}}', r"byte 6: 'a' must be an array of objects"),
        ('{"a": [1, 2]}', r"a\[0\]: Expected `object`, got `int`"),
        ('{"a": [{"id": 1}, {"id": "x"}]}', r"a\[1\] \(id x\): Expected `int`, got `str`.*\$\.id"),
        ('{"a": [{"bbox": [1, 2]}]}', r"a\[0\]: Object missing required field `id`"),
        ('{"a": [{"id": 1},\n {"id": 2},,]}', r"line 2, byte 29: Expecting value in a\[2\]"),
        ('{"a": [{"id": 1} {"id": 2}]}', r"byte 16: expected ',' or '\]' after a\[0\]"),
        ('{"a": [{"id": 1}],}', r"byte 18: expected the name of a member after ','"),
        ('{"a": [{"id": 1}], "a": []}', r"'a' appears twice"),
        ('{"a": [{"id": 1}]} {}', r"byte 19: expected the end of the file, got '\{'"),
        ('{"a": [{"id": 1, "deep": ' + "[" * 10**5 + "]" * 10**5 + "}]}", r"recursion.* in a\[0\]"),
        ('{"a": [{"id": ' + "9" * 5000 + "}]}", r"in a\[0\]|a\[0\]"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", value)[:24],
)
def test_errors_name_the_file_and_the_position(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        list(read_records(path, {"a": _Box}, block=64))
    assert "broken.json" in str(error.value)


def test_nan_and_infinity_as_python_writes_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "nan.json"
    path.write_text(json.dumps({"a": [{"id": 1, "bbox": [float("nan"), float("inf")]}, {"id": 2}]}))
    (_, _, records), *rest = read_records(path, {"a": _Box})
    assert not rest
    assert [record.id for record in records] == [1, 2]
    assert str(records[0].bbox) == "(nan, inf)"


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        list(read_records(tmp_path / "none.json", {"a": _Box}))
