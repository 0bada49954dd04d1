"""Records of the large arrays of a JSON file, a block at a time.

An annotation file holds a few arrays of very many small objects. Read whole, each object costs a
dict; here at most one block of the file is alive at once, decoded by msgspec straight into typed
structs, which passes over what they do not name (masks, captions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from hardmine.errors import InputError

_BLOCK = 1 << 23
# A string, or a bracket; a lone quote is a string that goes on past the block.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]*")
_NEXT_RECORD = re.compile(rb"\s*,\s*\{")
_SEPARATOR = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_records(
    path: Path, wanted: Mapping[str, type], *, block: int = _BLOCK
) -> Iterator[tuple[str, int, list[Any]]]:
    """Go through a JSON file once and decode its wanted arrays in slices.

    The file is one object whose members are arrays of objects, or one such array, which then goes
    by the name ``""``. Members that are not wanted are passed over unread.

    Args:
        path: The file, UTF-8.
        wanted: A msgspec struct for each member to decode.
        block: Bytes to hold at a time; grows only if one record is larger.

    Yields:
        Member name, position of the slice's first record in it, records. A member that is there
        yields at least once, with no records if it is empty.

    Raises:
        InputError: If the file is missing, malformed or a record has the wrong form.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, file, block).members(wanted)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Reader:
    """A place in a JSON file and the few moves over it that ``read_records`` needs."""

    def __init__(self, path: Path, file: BinaryIO, block: int) -> None:
        self.path = path
        self.file = file
        self.block = block
        self.place = 0

    def members(self, wanted: Mapping[str, type]) -> Iterator[tuple[str, int, list[Any]]]:
        if self._peek(3) == b"\xef\xbb\xbf":
            self.place = 3
        opening = self._next()
        alone = "" in wanted
        if opening != (b"[" if alone else b"{"):
            self._malformed(
                f"expected {'an array' if alone else 'an object'}, "
                f"got {opening.decode('latin-1') or 'an empty file'!r}"
            )
        if alone:
            yield from self._array("", wanted[""])
        else:
            self.place += 1
            yield from self._object(wanted)
        if rest := self._next():
            self._malformed(f"expected the end of the file, got {rest.decode('latin-1')!r}")

    def _object(self, wanted: Mapping[str, type]) -> Iterator[tuple[str, int, list[Any]]]:
        """Go through the members of the object whose opening bracket was just passed."""
        seen: set[str] = set()
        following = self._next()
        while following != b"}":
            if following != b'"':
                self._malformed("expected the name of a member")
            name = self._name()
            if name in wanted and name in seen:
                self._malformed(f"{name!r} appears twice")
            seen.add(name)
            if self._next() != b":":
                self._malformed("expected ':'")
            self.place += 1
            opening = self._next()
            if name not in wanted:
                self._skip_value()
            elif opening == b"[":
                yield from self._array(name, wanted[name])
            else:
                self._malformed(f"{name!r} must be an array of objects")
            following = self._next()
            if following == b",":
                self.place += 1
                following = self._next()
                if following == b"}":
                    self._malformed("expected the name of a member after ','")
            elif following != b"}":
                self._malformed("expected ',' or '}'")
        self.place += 1

    def _name(self) -> str:
        start = self.place
        self._skip_value()
        self.file.seek(start)
        text = self._text(self.file.read(self.place - start))
        try:
            return str(json.loads(text))
        except json.JSONDecodeError as error:
            self._malformed(error.msg)

    def _array(self, name: str, kind: type) -> Iterator[tuple[str, int, list[Any]]]:
        """Decode the array that starts here, slice by slice."""
        decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self.place += 1
        done, size = 0, self.block
        if self._next() == b"]":
            self.place += 1
            yield name, 0, []
            return
        while True:
            block = self._peek(size)
            records, used = _guess(block, decoder) if len(block) == size else (None, 0)
            if records is None:
                used = self._end_of_records(block)
                if used == 0 and len(block) == size:
                    size *= 2  # one record is larger than the block
                    continue
                try:
                    records = decoder.decode(b"[" + block[:used] + b"]") if used else None
                except _BAD_JSON:
                    records = None
                if records is None:
                    records = self._one_by_one(block[: used or None], name, done, kind)
            self.place += used
            yield name, done, records
            done, size = done + len(records), self.block
            following = self._next()
            if following not in (b",", b"]"):
                self._malformed(f"expected ',' or ']' after {name}[{done - 1}]")
            self.place += 1
            if following == b"]":
                return
            self._next()

    def _end_of_records(self, block: bytes) -> int:
        """Bytes up to the end of the last whole record in a block; 0 if there is none.

        Counts brackets outside strings. Records that are no objects end with the array.
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

    def _one_by_one(self, block: bytes, name: str, done: int, kind: type) -> list[Any]:
        """Decode records that msgspec refused: either name the bad one or accept NaN.

        Python's own json writes NaN and Infinity, and reads them; what they mean is for the
        caller to say.
        """
        text = self._text(block)
        decoder = json.JSONDecoder()
        records: list[Any] = []
        at = 0
        while True:
            position = done + len(records)
            try:
                found, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                self.place += len(text[: error.pos].encode())
                self._malformed(f"{error.msg} in {name}[{position}]")
            except (RecursionError, ValueError) as error:
                self._malformed(f"{error} in {name}[{position}]")
            try:
                records.append(msgspec.convert(found, kind))
            except msgspec.ValidationError as error:
                label = f" (id {found['id']})" if isinstance(found, dict) and "id" in found else ""
                raise InputError(f"{self.path}: {name}[{position}]{label}: {error}") from None
            separator = _SEPARATOR.match(text, at)
            if separator is None:
                if text[at:].strip():
                    self.place += len(text[:at].encode())
                    self._malformed(f"expected ',' or ']' after {name}[{position}]")
                return records
            at = separator.end()

    def _skip_value(self) -> None:
        """Move past the value that starts here, whatever it is."""
        start, depth, size = self.place, 0, self.block
        while True:
            block = self._peek(size)
            if block[:1] not in (b'"', b"[", b"{") and depth == 0:
                scalar = _SCALAR.match(block)
                assert scalar is not None  # it matches the empty string too
                if scalar.end() == size:
                    size *= 2
                    continue
                if not scalar[0]:
                    self._malformed("expected a value")
                self.place += scalar.end()
                return
            end = 0
            for token in _TOKEN.finditer(block):
                mark = token[0]
                if mark == b'"':
                    break
                end = token.end()
                depth += (mark in b"[{") - (mark in b"]}")
                if depth == 0:
                    self.place += end
                    return
            else:
                end = len(block)
            if len(block) < size:
                self.place = start
                self._malformed("a value that begins here has no end")
            size = self.block if end else 2 * size
            self.place += end

    def _next(self) -> bytes:
        """Move past white space; the byte there, or nothing at the end of the file."""
        while block := self._peek(4096):
            rest = block.lstrip(b" \t\r\n")
            self.place += len(block) - len(rest)
            if rest:
                return rest[:1]
        return b""

    def _peek(self, size: int) -> bytes:
        self.file.seek(self.place)
        return self.file.read(size)

    def _text(self, block: bytes) -> str:
        try:
            return block.decode()
        except UnicodeDecodeError as error:
            self.place += error.start
            self._malformed("a character that is not UTF-8")

    def _malformed(self, what: str) -> NoReturn:
        self.file.seek(max(self.place - 20, 0))
        near = self.file.read(self.place - self.file.tell() + 20).decode("utf-8", "replace")
        self.file.seek(0)
        line = 1
        for start in range(0, self.place, _BLOCK):
            line += self.file.read(min(_BLOCK, self.place - start)).count(b"\n")
        raise InputError(
            f"{self.path}: malformed JSON at line {line}, byte {self.place}: {what}; near {near!r}"
        )


def _guess(block: bytes, decoder: msgspec.json.Decoder[list[Any]]) -> tuple[list[Any] | None, int]:
    """Records up to the last ``}, {`` of a block, if that is where a record ends.

    A guess is right if and only if it decodes: cut inside a record or a string, or past the
    array's end, the brackets do not close. So records are found without looking at every byte.
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
