"""The prepared store: ``$ZOO_HOME/data/NAME-RESOLUTION/SPLIT.safetensors``.

One file a split: ``x`` uint8 [N, C, H, W], labels int64 [N] (or [N, K]), captions as UTF-8 bytes uint8 [N,
L] padded with zeros. It is written row by row into a file beside its target, hashed on the way, synced and
renamed, so that a file with the target's name is always whole. The header says what is in it, where it came
from and the SHA-256 of its content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, Rows
from zoo.data.images import square, to_array, to_pil
from zoo.files import NoSpace, beside

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, str], None]  # images done, images in all, what is being done


def home() -> Path:
    """Where the zoo keeps what it fetches: ``$ZOO_HOME``, by default ``~/.cache/zoo``."""
    return Path(os.environ.get("ZOO_HOME") or "~/.cache/zoo").expanduser()


class ImageData:
    """Images and their labels in random access.

    ``facts``: of what is there. ``arrays``: CPU tensors, "x" uint8 [N, C, H, W], labels int64, memory-mapped
    where they come from the store; empty where the images are made one at a time (a Dataset, a toy set,
    shards). ``hash``: of the content. ``exact``: the order can be resumed exactly.
    """

    exact = True

    def __init__(self, facts: Facts, arrays: dict[str, torch.Tensor], hash: str, path: Path | None = None):
        self.facts, self.arrays, self.hash, self.path = facts, arrays, hash, path

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def rows(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rows by a CPU index tensor int64 [n]: "x" uint8 [n, C, H, W] and the labels."""
        return {key: value.index_select(0, indices) for key, value in self.arrays.items()}

    def labels(self, key: str) -> torch.Tensor:
        """All values of one label, int64 [N]."""
        return self.arrays[key]

    @property
    def captions(self) -> list[str]:
        """The captions as text, [] where the set has none."""
        if "caption" not in self.arrays:
            return []
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in self.arrays["caption"].numpy()]


# Locking and space.


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One process at a time prepares what lies in ``folder``, which is made, and removed again if it stays
    empty.

    The lock is on the folder itself, so nothing is left behind and a killed process holds nothing.
    """
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            same = os.fstat(handle).st_ino == folder.stat().st_ino
        except FileNotFoundError:  # its last holder failed and removed it
            same = False
        if same:
            break
        os.close(handle)
    try:
        for stale in folder.glob(".*"):  # what a killed process left
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if empty
        os.close(handle)


def check_disk(folder: Path, needed: int, what: str) -> None:
    """NoSpace where ``folder``'s disk has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoSpace(
            f"no space for {what}: {needed / 1e9:.2f} GB needed in {folder}, {free / 1e9:.2f} GB free; "
            "free some, or set ZOO_HOME to a folder on a larger disk"
        )


# Writing.


def write(
    path: Path,
    facts: Facts,
    incoming: Rows,
    *,
    resolution: int,
    source: str,
    progress: Progress | None = None,
    digest: str | None = None,
    mean: tuple[float, ...] = (),
) -> None:
    """Write ``incoming`` as the prepared file ``path`` (named after its split). Nothing is left where
    anything goes wrong.

    ``digest`` and ``mean`` are what the images as they come, before they are resized, must have. OSError
    where count, labels, mean or digest are not what they should be; NoSpace on a full disk.
    """
    try:
        with beside(path) as partial:
            _write(partial, path.stem, facts, incoming, resolution, source, progress, digest, mean)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"no space left in {path.parent} while preparing {facts.name}; "
                "free some, or set ZOO_HOME to a folder on a larger disk"
            ) from error
        raise


def _write(partial, split, facts, incoming, resolution, source, progress, digest, mean) -> None:
    import numpy as np

    channels, classes = facts.channels, incoming.classes or facts.classes
    check_disk(
        partial.parent,
        incoming.count * channels * resolution**2,
        f"{facts.name} at {resolution}x{resolution}",
    )
    labels: dict[str, list] = {}
    content, raw = hashlib.sha256(), hashlib.sha256()
    total, pixels, count = np.zeros(channels), 0, 0
    every = max(1, incoming.count // 200)
    # The header comes first but is known last: leave room, fill it with spaces.
    room = -(-(4096 + 2 * len(json.dumps(json.dumps(classes)))) // 4096) * 4096

    with open(partial, "wb", buffering=1 << 20) as file:

        def put(block: bytes) -> None:
            file.write(block)
            content.update(block)

        file.write(b" " * (8 + room))
        for row in incoming.rows:
            image = to_pil(row["x"], channels)
            if digest or mean:
                native = to_array(image)
                raw.update(native.tobytes() + int(row["y"]).to_bytes(8, "little"))
                total += native.sum((1, 2), dtype=np.int64)
                pixels += native[0].size
            put(to_array(square(image, resolution)).tobytes())  # [C, H, W]
            for key, value in row.items():
                if key != "x":
                    labels.setdefault(key, []).append(value)
            count += 1
            if progress and count % every == 0:
                progress(count, incoming.count, f"preparing {facts.name} {split}")

        arrays = {key: _label_array(values) for key, values in labels.items()}
        _check(facts, split, incoming, count, classes, arrays)
        if digest and raw.hexdigest() != digest:
            raise OSError(f"corrupt: SHA-256 of {split} is {raw.hexdigest()[:12]}..., not {digest[:12]}...")
        if mean and np.abs(total / pixels / 255 - mean).max() > 1e-3:
            raise OSError(f"corrupt: mean of {split} is {(total / pixels / 255).round(4).tolist()}, not {list(mean)}")

        header: dict[str, Any] = {}
        size = count * channels * resolution**2
        header["x"] = {
            "dtype": "U8",
            "shape": [count, channels, resolution, resolution],
            "data_offsets": [0, size],
        }
        padding = -size % 8  # integers lie at multiples of eight bytes
        if padding:
            header["_padding"] = {"dtype": "U8", "shape": [padding], "data_offsets": [size, size + padding]}
            put(bytes(padding))
            size += padding
        # Captions last: their bytes need no alignment.
        for key in sorted(arrays, key=lambda key: arrays[key].dtype == np.uint8):
            array = arrays[key]
            dtype = "U8" if array.dtype == np.uint8 else "I64"
            header[key] = {
                "dtype": dtype,
                "shape": list(array.shape),
                "data_offsets": [size, size + array.nbytes],
            }
            put(array.tobytes())
            size += array.nbytes
        there = dataclasses.replace(
            facts, resolution=resolution, classes=classes, splits={split: count}, keys=("x", *arrays)
        )
        header["__metadata__"] = {
            "format": "pt",
            "facts": json.dumps(dataclasses.asdict(there)),
            "source": source,
            "sha256": content.hexdigest(),
        }
        text = json.dumps(header).encode()
        assert len(text) <= room, "the header outgrew its room"
        file.seek(0)
        file.write(room.to_bytes(8, "little") + text)


def _label_array(values: list) -> Any:
    import numpy as np

    if not isinstance(values[0], str):
        return np.ascontiguousarray(np.asarray(values, dtype="<i8"))
    texts = [value.encode() for value in values]
    width = max(1, max(map(len, texts)))
    return np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), dtype=np.uint8).reshape(-1, width)


def _check(facts, split, incoming, count, classes, arrays) -> None:
    if count == 0:
        raise OSError(f"no images in {split}")
    if incoming.exact and count != incoming.count:
        raise OSError(f"short: {count} images in {split}, {incoming.count} expected")
    if "y" in arrays and classes and arrays["y"].ndim == 1:
        low, high = arrays["y"].min(), arrays["y"].max()
        if low < -1 or high >= len(classes):  # -1 is "no label"
            raise OSError(f"corrupt: labels of {split} lie in [{low}, {high}], {len(classes)} classes")


# Reading.


def read_header(path: Path) -> tuple[Facts, dict[str, str], int]:
    """Facts, metadata and the offset of the content of a prepared file. OSError where it is damaged: it
    looks at the header and the size only, which takes no time; ``verify`` reads it all."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= path.stat().st_size - 8:
                raise ValueError("its header is cut short")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__")
        facts = Facts(**json.loads(metadata["facts"]))
        size = max(entry["data_offsets"][1] for entry in header.values())
        if path.stat().st_size != 8 + length + size:
            raise ValueError(f"it has {path.stat().st_size} bytes, {8 + length + size} expected")
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    return facts, metadata, 8 + length


def verify(path: Path) -> None:
    """Read all of a prepared file and compare it with the SHA-256 in its header. OSError where they
    differ."""
    _, metadata, offset = read_header(path)
    content = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            content.update(block)
    if content.hexdigest() != metadata["sha256"]:
        raise OSError(f"{path} is damaged: its content is not what was written; delete it and prepare the set again")


def open_prepared(path: Path) -> ImageData:
    """Memory-map a prepared file. OSError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    facts, metadata, _ = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {key: file.get_tensor(key) for key in facts.keys}
    except SafetensorError as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    return ImageData(facts, arrays, metadata["sha256"], path)


def prepared() -> list[tuple[str, int, str, int, Path]]:
    """What is prepared: (name, resolution, split, bytes, path), by name. Damaged files are left out."""
    found = []
    for path in sorted((home() / "data").glob("*/*.safetensors")):
        with contextlib.suppress(OSError):
            facts = read_header(path)[0]
            found.append((facts.name, facts.resolution, path.stem, path.stat().st_size, path))
    return found
