"""Atomic files (written next to their target, flushed to the disk, renamed over it) and their hashes. No torch here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
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


def hash_tensors(path: str | Path) -> str:
    """The SHA-256, in hexadecimal, of the tensors of a safetensors file: their names, types, shapes and values.

    A change of the metadata in the header leaves it as it is.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        content = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()
