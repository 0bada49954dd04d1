"""Streams the records of large JSON arrays, one block of the file at a time.

An annotation file has a few arrays of very many small objects. Loading it whole makes a dict for
each object. Here at most one block is in memory, and msgspec decodes it directly into typed
structs; fields that the structs do not have (masks, captions) are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from hardmine.errors import InputError

_BLOCK = 1 << 23  # bytes
# A string or a bracket. A single quote mark is a string that continues after the block.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]*")
_NEXT_RECORD = re.compile(rb"\s*,\s*\{")
_SEPARATOR = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_records(
    path: Path, structs: Mapping[str, type], *, block: int = _BLOCK
) -> Iterator[tuple[str, int, list[Any]]]:
    """Decode the named arrays of a JSON file in one pass, slice by slice.

    The file is an object whose members are arrays of objects, or one such array, whose name is then
    ``""``. Other members are skipped.

    Args:
        path: The file, UTF-8.
        structs: Member name -> msgspec struct of its records.
        block: Bytes to read at a time; grows only if one record is larger.

    Yields:
        Member name, position of the slice's first record in that array, records. A member that
        exists yields at least once, without records if it is empty.

    Raises:
        InputError: If the file is missing or malformed, or a record has the wrong type.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, file, block).members(structs)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Reader:
    """A position in a JSON file, and the parsing steps that ``read_records`` needs."""

    def __init__(self, path: Path, file: BinaryIO, block: int) -> None:
        self.path = path
        self.file = file
        self.block = block
        self.position = 0

    def members(self, structs: Mapping[str, type]) -> Iterator[tuple[str, int, list[Any]]]:
        if self._peek(3) == b"\xef\xbb\xbf":
            self.position = 3
        opening = self._next()
        is_array = "" in structs
        if opening == b"[" and not is_array:
            raise InputError(
                f"{self.path}: this is a list, such as a COCO results file; expected an object "
                f"with {', '.join(structs)}, such as an annotation file"
            )
        if opening != (b"[" if is_array else b"{"):
            self._malformed(
                f"expected {'an array' if is_array else 'an object'}, "
                f"got {opening.decode('latin-1') or 'an empty file'!r}"
            )
        if is_array:
            yield from self._array("", structs[""])
        else:
            self.position += 1
            yield from self._object(structs)
        if rest := self._next():
            self._malformed(f"expected the end of the file, got {rest.decode('latin-1')!r}")

    def _object(self, structs: Mapping[str, type]) -> Iterator[tuple[str, int, list[Any]]]:
        """Read the members of an object; the position is just after its opening bracket."""
        seen: set[str] = set()
        next_byte = self._next()
        while next_byte != b"}":
            if next_byte != b'"':
                self._malformed("expected the name of a member")
            name = self._name()
            if name in structs and name in seen:
                self._malformed(f"{name!r} appears twice")
            seen.add(name)
            if self._next() != b":":
                self._malformed("expected ':'")
            self.position += 1
            opening = self._next()
            if name not in structs:
                self._skip_value()
            elif opening == b"[":
                yield from self._array(name, structs[name])
            else:
                self._malformed(f"{name!r} must be an array of objects")
            next_byte = self._next()
            if next_byte == b",":
                self.position += 1
                next_byte = self._next()
                if next_byte == b"}":
                    self._malformed("expected the name of a member after ','")
            elif next_byte != b"}":
                self._malformed("expected ',' or '}'")
        self.position += 1

    def _name(self) -> str:
        start = self.position
        self._skip_value()
        self.file.seek(start)
        text = self._text(self.file.read(self.position - start))
        try:
            return str(json.loads(text))
        except json.JSONDecodeError as error:
            self._malformed(error.msg)

    def _array(self, name: str, struct: type) -> Iterator[tuple[str, int, list[Any]]]:
        """Decode the array at the position, slice by slice."""
        decoder = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]
        self.position += 1
        done, size = 0, self.block
        if self._next() == b"]":
            self.position += 1
            yield name, 0, []
            return
        while True:
            block = self._peek(size)
            records, used = _decode_fast(block, decoder) if len(block) == size else (None, 0)
            if records is None:
                used = self._end_of_records(block)
                if used == 0 and len(block) == size:
                    size *= 2  # a record is larger than the block
                    continue
                try:
                    records = decoder.decode(b"[" + block[:used] + b"]") if used else None
                except _BAD_JSON:
                    records = None
                if records is None:
                    records = self._one_by_one(block[: used or None], name, done, struct)
            self.position += used
            yield name, done, records
            done, size = done + len(records), self.block
            next_byte = self._next()
            if next_byte not in (b",", b"]"):
                self._malformed(f"expected ',' or ']' after {name}[{done - 1}]")
            self.position += 1
            if next_byte == b"]":
                return
            self._next()

    def _end_of_records(self, block: bytes) -> int:
        """Number of bytes up to the end of the last complete record in a block; 0 if none.

        Counts brackets outside strings. If records are not objects, returns the array's end.
        """
        depth = end = 0
        for token in _TOKEN.finditer(block):
            mark = token[0]
            if mark == b'"':
                break
            if mark in b"[{":
                depth += 1
            elif mark in b"]}":
                depth -= 1
                if depth == 0:
                    end = token.end()
                elif depth < 0:
                    return token.start()
        return end

    def _one_by_one(self, block: bytes, name: str, done: int, struct: type) -> list[Any]:
        """Decode records that msgspec refused: report the bad one, or accept NaN and Infinity.

        Python's json module writes and reads NaN and Infinity. The caller decides what they mean.
        """
        text = self._text(block)
        decoder = json.JSONDecoder()
        records: list[Any] = []
        at = 0
        while True:
            row = done + len(records)
            try:
                found, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                self.position += len(text[: error.pos].encode())
                self._malformed(f"{error.msg} in {name}[{row}]")
            except (RecursionError, ValueError) as error:
                self._malformed(f"{error} in {name}[{row}]")
            try:
                records.append(msgspec.convert(found, struct))
            except msgspec.ValidationError as error:
                label = f" (id {found['id']})" if isinstance(found, dict) and "id" in found else ""
                raise InputError(f"{self.path}: {name}[{row}]{label}: {error}") from None
            separator = _SEPARATOR.match(text, at)
            if separator is None:
                if text[at:].strip():
                    self.position += len(text[:at].encode())
                    self._malformed(f"expected ',' or ']' after {name}[{row}]")
                return records
            at = separator.end()

    def _skip_value(self) -> None:
        """Move past the value at the position, whatever its type."""
        start, depth, size = self.position, 0, self.block
        while True:
            block = self._peek(size)
            if block[:1] not in (b'"', b"[", b"{") and depth == 0:
                scalar = _SCALAR.match(block)
                assert scalar is not None  # the pattern also matches the empty string
                if scalar.end() == size:
                    size *= 2
                    continue
                if not scalar[0]:
                    self._malformed("expected a value")
                self.position += scalar.end()
                return
            end = 0
            for token in _TOKEN.finditer(block):
                mark = token[0]
                if mark == b'"':
                    break
                end = token.end()
                depth += (mark in b"[{") - (mark in b"]}")
                if depth == 0:
                    self.position += end
                    return
            else:
                end = len(block)
            if len(block) < size:
                self.position = start
                self._malformed("the value that starts here has no end")
            size = self.block if end else 2 * size
            self.position += end

    def _next(self) -> bytes:
        """Skip white space; return the next byte, or b"" at the end of the file."""
        while block := self._peek(4096):
            rest = block.lstrip(b" \t\r\n")
            self.position += len(block) - len(rest)
            if rest:
                return rest[:1]
        return b""

    def _peek(self, size: int) -> bytes:
        self.file.seek(self.position)
        return self.file.read(size)

    def _text(self, block: bytes) -> str:
        try:
            return block.decode()
        except UnicodeDecodeError as error:
            self.position += error.start
            self._malformed("a byte that is not UTF-8")

    def _malformed(self, what: str) -> NoReturn:
        self.file.seek(max(self.position - 20, 0))
        near = self.file.read(self.position - self.file.tell() + 20).decode("utf-8", "replace")
        self.file.seek(0)
        line = 1
        for start in range(0, self.position, _BLOCK):
            line += self.file.read(min(_BLOCK, self.position - start)).count(b"\n")
        raise InputError(
            f"{self.path}: malformed JSON at line {line}, byte {self.position}: {what}; "
            f"near {near!r}"
        )


def _decode_fast(
    block: bytes, decoder: msgspec.json.Decoder[list[Any]]
) -> tuple[list[Any] | None, int]:
    """Guess that a record ends at the last ``}, {`` of a block, and decode up to there.

    The guess is right if and only if it decodes: a cut inside a record or a string, or after the
    array's end, leaves brackets open. This avoids scanning every byte.

    Returns:
        The records and the number of bytes they take; (None, 0) if the guess was wrong.
    """
    end = len(block)
    for _ in range(8):
        end = block.rfind(b"}", 0, end)
        if end < 0:
            break
        if _NEXT_RECORD.match(block, end + 1):
            try:
                return decoder.decode(b"[" + block[: end + 1] + b"]"), end + 1
            except _BAD_JSON:
                break
    return None, 0
