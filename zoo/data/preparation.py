"""Preparing a set: from the first source that answers into the store."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from zoo.data.facts import Facts, ImageSet, Rows, Source
from zoo.data.store import NoSpace, Progress, home, lock, open_prepared, read_header, verify, write


def target(name: str, resolution: int, split: str) -> Path:
    """Where a split lies once it is prepared."""
    return home() / "data" / f"{name}-{resolution}" / f"{split}.safetensors"


def check_split(facts: Facts, split: str) -> None:
    """ValueError where the set has no such split."""
    if split not in facts.splits:
        raise ValueError(f"{facts.name} has no split '{split}'; it has {', '.join(facts.splits)}")


def damage(path: Path, full: bool) -> str:
    """What is wrong with a prepared file, '' if nothing. ``full`` reads it all."""
    try:
        verify(path) if full else read_header(path)
    except OSError as error:
        return str(error)
    return ""


def prepare_set(
    entry: ImageSet,
    resolution: int | None,
    split: str,
    progress: Progress | None = None,
    check: bool = False,
) -> Path:
    """The prepared file of a registered set, made where it is missing or damaged. ``check`` reads it all to
    find damage.

    ValueError for a wrong split or a missing resolution; OSError with what each source said where none holds
    the set.
    """
    facts = entry.facts
    check_split(facts, split)
    resolution = resolution or facts.resolution
    if not resolution:
        raise ValueError(f"{facts.name} has images of many sizes: give a resolution, such as 64 or 128")
    path = target(facts.name, resolution, split)
    if path.exists() and not damage(path, check):
        return path
    with lock(path.parent):
        found = path.exists() and damage(path, check)
        if path.exists() and not found:
            return path  # another process was quicker
        path.unlink(missing_ok=True)
        said = [found] if found else []
        for source in (*_native(entry, resolution, split), *entry.sources):
            try:
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
                    _from_source(entry, source, Path(folder), resolution, split, progress)
                return path
            except NoSpace:
                raise
            except Exception as error:  # a source is other people's code: it may say no in any way
                text = " ".join(str(error).split())
                said.append(f"{source.name}: {text or type(error).__name__}")
    raise OSError(f"{facts.name}: no source answered. " + "; ".join(said))


def _native(entry: ImageSet, resolution: int, split: str) -> tuple[Source, ...]:
    """The unresized set as a source, where it is prepared already."""
    path = entry.facts.resolution and target(entry.facts.name, entry.facts.resolution, split)
    if not path or entry.facts.resolution == resolution or not path.exists() or damage(path, False):
        return ()

    def read(folder: Path, split: str) -> Rows:
        data = open_prepared(target(entry.facts.name, entry.facts.resolution, split))
        arrays = {key: value.numpy() for key, value in data.arrays.items() if key != "caption"}
        arrays["x"] = arrays["x"].transpose(0, 2, 3, 1)  # [N, H, W, C]
        if data.captions:
            arrays["caption"] = data.captions
        return Rows(({key: value[i] for key, value in arrays.items()} for i in range(len(data))), len(data))

    return (Source("prepared", lambda folder: folder, read),)


def _from_source(
    entry: ImageSet, source: Source, folder: Path, resolution: int, split: str, progress: Progress | None
) -> None:
    """Fetch from one source and write ``split``, and where it holds them all the other splits too."""
    facts = entry.facts
    if progress:
        progress(0, facts.splits[split], f"fetching {facts.name}: {source.name}")
    files = source.fetch(folder)
    others = [s for s in facts.splits if s != split] if entry.together else []
    for each in (split, *others):
        path = target(facts.name, resolution, each)
        if each != split and path.exists():
            continue
        if source.name == "prepared" and not target(facts.name, facts.resolution, each).exists():
            continue
        incoming = source.read(files, each)
        incoming = dataclasses.replace(incoming, count=facts.splits[each])
        write(
            path, facts, incoming, resolution=resolution, source=source.name, progress=progress,
            digest=source.digest.get(each), mean=entry.mean if each == "train" else (),
        )  # fmt: skip
