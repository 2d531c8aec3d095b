"""The header of a safetensors file, read without torch and checked before a tensor is read.

    8 bytes: length of the header (little endian), the header (JSON), the tensors' bytes without gaps

The header has an entry for each tensor, ``name -> {"dtype", "shape", "data_offsets"}``, and under ``__metadata__``
strings by name. ``checksum`` is the SHA-256 of the whole file, computed with zeros in place of its own 64 digits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from zoo.files import Json

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 4 << 20  # parsed, a header takes up to 30 times as much memory
MAX_DIMENSIONS = 8
MAX_DEPTH = 64  # of JSON in a header
CHECKSUM, ZEROS = "checksum", "0" * 64
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor in the file; ``start`` and ``end``: its bytes, from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header. ``content``: the offset in bytes of the first tensor; ``size``: bytes of the file."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    content: int
    size: int


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with a checksum. ``tensors``: contiguous, on the CPU, none of them shared. Raises
    OSError if the disk does not take it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={**metadata, CHECKSUM: ZEROS})
    except SafetensorError as error:  # it has the number of an OSError only in its text
        match = re.search(r"os error (\d+)", str(error))
        if match is None:
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from None
    with open(path, "rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        header = file.read(int.from_bytes(file.read(8), "little"))
        at = 8 + header.index(f'"{CHECKSUM}":"{ZEROS}"'.encode()) + len(f'"{CHECKSUM}":"')
        file.seek(at)
        file.write(digest.encode())


def verify(path: str | Path, header: Header) -> None:
    """Read all of a file and compare it with its checksum. Raises ValueError if it differs or there is none."""
    digest = header.metadata.get(CHECKSUM)
    if digest is None or len(digest) != len(ZEROS):
        raise ValueError("it has no checksum: an earlier version of the zoo wrote it")
    with open(path, "rb") as file:
        content = hashlib.sha256(file.read(header.content).replace(digest.encode(), ZEROS.encode()))
        while block := file.read(1 << 20):
            content.update(block)
    if content.hexdigest() != digest:
        raise ValueError("its content has changed: the checksum differs")


class NotFinite(RuntimeError):
    """A tensor that is to be written has NaN or infinite values."""


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises NotFinite, with the name of the tensor, if one of ``tensors`` has a value that is NaN or infinite.
    ``what``: that was to be written."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NotFinite(f"{what}: {name} has values that are NaN or infinite; the last good file stays")


def parse_json(text: str | bytes) -> Json:
    """A JSON object. Raises ValueError for anything else, for numbers that are not finite, and for deep nesting."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} in its header")

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("its header is not a JSON object")
    check_depth(value)
    return value


def check_depth(value: object, most: int = MAX_DEPTH) -> None:
    """Raises ValueError if JSON has more than ``most`` levels."""
    level = [value]
    for _ in range(most):
        level = [p for v in level for p in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())]
    if level:
        raise ValueError(f"it is nested too deeply, in more than {most} levels")


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file. Raises ValueError with the reason, in a few words, if the file is cut short or
    its header is not one: unknown types, wrong shapes, offsets that overlap or leave gaps."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError("too short")
        length = int.from_bytes(prefix, "little")
        if length > size - 8:
            raise ValueError("the header is longer than the file")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes; must be at most {MAX_HEADER_BYTES}")
        entries = parse_json(file.read(length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not strings")
    tensors = {name: _entry(name, entry) for name, entry in entries.items()}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise ValueError(f"tensor '{name[:80]}' must begin at byte {end}, got {tensor.start}")
        end = tensor.end
    if size != 8 + length + end:
        raise ValueError(f"{size} of {8 + length + end} bytes")
    return Header(metadata, tensors, 8 + length, size)


def _entry(name: str, entry: object) -> Entry:
    """One tensor's entry. Raises ValueError if it is not one."""

    def counts(values: object, most: int) -> bool:
        return (
            isinstance(values, list)
            and len(values) <= most
            and all(type(v) is int and 0 <= v < 1 << 48 for v in values)
        )

    where = f"tensor '{name[:80]}'"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"{where} has an unknown type")
    if not counts(shape, MAX_DIMENSIONS) or not counts(offsets, 2) or len(offsets) != 2:
        raise ValueError(f"{where} has a wrong shape or wrong offsets")
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(
            f"{where} must have {math.prod(shape) * ITEM_BYTES[dtype]} bytes, got {offsets[1] - offsets[0]}"
        )
    return Entry(dtype, tuple(shape), *offsets)
