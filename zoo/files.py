"""Files that are whole or not there: written beside their target, flushed to the disk, renamed over it. No torch here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class NoSpace(OSError):
    """The disk is full: nobody's mistake, and no reason to try another source."""


@contextlib.contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A path to write in place of ``path``; at the end of the block it is flushed and renamed. A kill at any instant
    leaves the old file or the new one; an exception leaves the old one and nothing else."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)  # the new name must survive a power cut too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder: str | Path) -> None:
    """Remove what writers that were killed left beside their targets."""
    for partial in Path(folder).rglob(".*.partial"):
        partial.unlink(missing_ok=True)
