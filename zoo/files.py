"""Atomic files (written next to their target, flushed to the disk, renamed over it) and their hashes. No torch here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]  # a JSON object


class NoSpace(OSError):
    """The disk is full: not a user's mistake, and no reason to try another source."""


@contextlib.contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A path to write instead of ``path``; at the end of the block it is flushed and renamed. If the process is killed,
    the old file or the new one is there; after an exception the old one, and nothing else.

    The path is in a folder of its own: a library that writes (safetensors) may create temporary files next to it, which
    a killed process would leave.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # from a killed process with the same id
        folder.mkdir()
        partial = folder / path.name
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        parent = os.open(path.parent, os.O_RDONLY)  # the new name must survive a power cut too
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_partials(folder: str | Path) -> None:
    """Remove the temporary folders of killed writers."""
    for partial in list(Path(folder).rglob(".*.partial")):
        shutil.rmtree(partial)


def check_new(folder: str | Path) -> None:
    """Raises ValueError if the folder exists and has files other than those of a killed writer."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(p.suffix != ".partial" for p in folder.iterdir())):
        advice = f"name another folder with --out, or continue the run with zoo resume {folder}"
        raise ValueError(f"out='{folder}': exists already; {advice}")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of the tensors in a safetensors file (names, types, shapes, bytes), in hexadecimal. The metadata in
    its header do not matter. Raises ValueError if it is not a safetensors file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in sorted(header.items()):
                first, end = entry["data_offsets"]
                digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                file.seek(8 + length + first)
                content = file.read(end - first)
                if len(content) != end - first:
                    raise ValueError("cut short")
                digest.update(content)
        except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError, struct.error) as error:
            raise ValueError(f"file '{path}': truncated or no safetensors file ({error})") from None
    return digest.hexdigest()
