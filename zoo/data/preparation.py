"""Preparing a registered set: from the first source that answers to the prepared files."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.data.facts import Facts, ImageSet, Row, Rows, Source
from zoo.data.fields import Text
from zoo.data.store import ImageData, NoSpace, Progress, home, lock, open_file, read_header, verify, write


def target(name: str, resolution: int | None, split: str) -> Path:
    """The path of a prepared file. ``resolution``: None for encoded images at native size."""
    return home() / "data" / f"{name}-{resolution or 'native'}" / f"{split}.safetensors"


def check_split(facts: Facts, split: str) -> None:
    """Raises ValueError if the set has no such split."""
    if split not in facts.splits:
        raise ValueError(f"{facts.name} has no split '{split}'; it has {', '.join(facts.splits)}")


def damage(path: Path, full: bool, expected: Facts | None = None) -> str:
    """What is wrong with a prepared file, '' if nothing. ``full`` reads all of it; ``expected``: facts whose keys it
    must have, and as many captions."""
    try:
        facts = read_header(path)[0]
        if full:
            verify(path)
    except OSError as error:
        return str(error)
    for key, field in expected.fields.items() if expected else ():
        if key not in facts.keys:
            return f"{path} has no '{key}': an earlier version prepared it"
        if isinstance(field, Text) and facts.fields[key] != field:
            return f"{path} has other captions: an earlier version prepared it"
    return ""


def prepare_set(
    entry: ImageSet,
    resolution: int | None,
    split: str,
    progress: Progress | None = None,
    check: bool = False,
) -> Path:
    """The prepared file of a registered set, written first if it is missing or damaged.

    Arguments and result as in :func:`zoo.data.prepare`. Raises ValueError for a wrong split or a missing resolution;
    OSError with the message of each source if none provides the set.
    """
    facts = entry.facts
    check_split(facts, split)
    resolution = resolution or facts.resolution
    if entry.large:
        resolution = None
    elif not resolution:
        raise ValueError(f"{facts.name} has images of many sizes: give a resolution, such as 64 or 128")
    path = target(facts.name, resolution, split)
    if path.exists() and not damage(path, check, facts):
        return path
    with lock(path.parent):
        messages = []
        if path.exists():
            problem = damage(path, check, facts)
            if not problem:
                return path  # another process was quicker
            path.unlink()
            messages.append(problem)
        for source in (*_native(entry, resolution, split), *entry.sources):
            message = _try_source(entry, source, resolution, split, progress)
            if not message:
                return path
            messages.append(message)
    raise OSError(f"{facts.name}: no source answered. " + "; ".join(messages))


def _native(entry: ImageSet, resolution: int | None, split: str) -> tuple[Source, ...]:
    """The prepared files at the published resolution as a source, if they exist."""
    facts = entry.facts
    native = facts.resolution
    if not native or native == resolution:
        return ()
    path = target(facts.name, native, split)
    if not path.exists() or damage(path, False, facts):
        return ()

    def read(folder: Path, split: str) -> Rows:
        data = open_file(folder / f"{split}.safetensors")
        return Rows(_rows(data), len(data))

    return (Source("prepared", lambda folder: path.parent, read),)


def _rows(data: ImageData) -> Iterator[Row]:
    """The rows of a prepared file as a source yields them."""
    arrays = {key: value.numpy() for key, value in data.arrays.items()}
    for key in data.facts.images:
        arrays[key] = arrays[key].transpose(0, 2, 3, 1)  # [N, H, W, C]
    for i in range(len(data)):
        row = {key: value[i] for key, value in arrays.items()}
        yield {key: row[key] if key in row else data.texts[key][i] for key in data.facts.keys}


def _try_source(entry: ImageSet, source: Source, resolution: int | None, split: str, progress: Progress | None) -> str:
    """Write the prepared file of ``split``, and of the other splits, from one source. Returns '', or why it failed."""
    parent = target(entry.facts.name, resolution, split).parent
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as folder:
            _write_splits(entry, source, Path(folder), resolution, split, progress)
    except NoSpace:
        raise
    except Exception as error:  # a source runs other people's code, which may raise anything
        text = " ".join(str(error).split())
        return f"{source.name}: {text or type(error).__name__}"
    return ""


def _write_splits(
    entry: ImageSet, source: Source, folder: Path, resolution: int | None, first: str, progress: Progress | None
) -> None:
    """Fetch into ``folder`` and write the split ``first``, then those that came with it."""
    facts = entry.facts
    if progress:
        progress(0, facts.splits[first], f"fetching {facts.name}: {source.name}")
    files = source.fetch(folder)
    for split in (first, *(s for s in facts.splits if s != first and entry.together)):
        path = target(facts.name, resolution, split)
        if split != first and path.exists():
            continue
        if source.name == "prepared" and not (files / path.name).exists():
            continue
        incoming = source.read(files, split)
        if incoming.exact:
            incoming = dataclasses.replace(incoming, count=facts.splits[split])
        write(
            path, facts, incoming, resolution=resolution, source=source.name, progress=progress,
            digest=source.digest.get(split), mean=entry.mean if split == "train" else (),
        )  # fmt: skip
