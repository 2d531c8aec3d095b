"""Prepared files: ``$ZOO_HOME/data/NAME-RESOLUTION/SPLIT.safetensors``, one for each split.

Each field is stored in its type (:mod:`zoo.data.fields`): images uint8 [N, C, H, W], labels int64 [N], attributes uint8
[N, K], vectors float32 [N, K], captions as UTF-8 bytes (``caption``) with the offsets of the captions
(``caption.offsets``) and of the rows (``caption.rows``). A file is written row by row under a temporary name, hashed on
the way, synced and renamed, so a file under its final name is always complete. The header contains the facts, the
source and the SHA-256 of the content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from zoo.data.facts import Facts, Rows
from zoo.data.fields import Captions, Field, Image, Label, Text, infer, pack, pack_text, unpack_padded
from zoo.data.images import square, to_array, to_pil
from zoo.files import NoSpace, beside

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zoo.data.loader import Loader

Progress = Callable[[int, int, str], None]  # images done, images in all, message
Where = Mapping[str, int | tuple[int, ...]]  # labels (or single attributes) -> the values that a row must have
TensorHeader = dict[str, str | list[int]]  # safetensors: dtype, shape, data_offsets


def home() -> Path:
    """The folder of everything that the zoo fetches: ``$ZOO_HOME``, by default ``~/.cache/zoo``."""
    return Path(os.environ.get("ZOO_HOME") or "~/.cache/zoo").expanduser()


class Feed(Protocol):
    """Brings rows to the device: ``take(start, size)`` returns those at positions start, ..., start + size - 1."""

    def take(self, start: int, size: int) -> dict[str, Any]: ...


class ImageData:
    """Images and their labels, by index.

    Args:
        facts: of the data as opened, with a resolution.
        arrays: CPU tensors as :mod:`zoo.data.fields` stores them: images uint8 [N, C, H, W], labels int64 [N], ...;
            memory-mapped if they come from a prepared file. Empty if images are read or generated one at a time (a
            Dataset, shards, a toy set).
        hash: of the content.
        path: of the prepared file, if there is one.
        texts: the captions of each Text field, and the vectors of fields with one a caption.

    ``resolution``: side of the images in pixels; 0 for points.
    """

    def __init__(
        self,
        facts: Facts,
        arrays: dict[str, torch.Tensor],
        hash: str,
        path: Path | None = None,
        texts: Mapping[str, Sequence[Any]] | None = None,
    ):
        assert facts.resolution is not None, f"{facts.name}: open data have one resolution"
        self.facts, self.arrays, self.hash, self.path = facts, arrays, hash, path
        self.texts: dict[str, Sequence[Any]] = dict(texts or {})
        self.resolution = facts.resolution

    def __len__(self) -> int:
        return len(self.arrays[next(iter(self.arrays))])  # of the first field

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """Rows by a CPU index tensor int64 [n], as stored: images uint8 [n, C, H, W], labels, ...; of a Text field the
        captions of each row."""
        rows: dict[str, Any] = {key: value.index_select(0, indices) for key, value in self.arrays.items()}
        for key, captions in self.texts.items():
            rows[key] = [captions[i] for i in indices.tolist()]
        return rows

    def labels(self, key: str) -> torch.Tensor:
        """All values of one label ("y"), or of one attribute ("attributes.Smiling"): [N], whole numbers. Raises
        ValueError if there is no such label."""
        name, column = self.facts.column(key)
        return self.arrays[name] if column is None else self.arrays[name][:, column]

    def feed(self, loader: Loader, where: Where | None, part: tuple[int, int], workers: int) -> Feed | None:
        """The data's own feed for ``loader``, if they have no access by index; None otherwise."""
        return None

    @property
    def captions(self) -> list[str]:
        """The first caption of each row; [] if the set has none."""
        return ["".join(row[:1]) for row in self.texts.get("caption", ())]


# Locking and space.


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Only one process at a time prepares files in ``folder``. It is created, and removed at the end if it is empty.

    The folder itself is locked, so no lock file is left behind and the lock of a killed process ends with it.
    """
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            same = os.fstat(handle).st_ino == folder.stat().st_ino
        except FileNotFoundError:  # the process before this one failed and removed it
            same = False
        if same:
            break
        os.close(handle)
    try:
        for stale in folder.glob(".*"):  # files of a killed process
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if empty
        os.close(handle)


def check_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises NoSpace if the disk of ``folder`` has fewer than ``needed_bytes`` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NoSpace(
            f"no space for {what}: {needed_bytes / 1e9:.2f} GB needed in {folder}, {free / 1e9:.2f} GB free; "
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
    """Write ``incoming`` as the prepared file ``path``. If anything goes wrong, no file is left.

    Args:
        path: its stem is the name of the split.
        facts: of the whole set.
        incoming: the rows of the split.
        resolution: side of the images in the file, in pixels.
        source: name of the source, for the header.
        progress: see :func:`zoo.data.prepare`.
        digest: expected SHA-256 of the images before they are resized, with their labels ``y``.
        mean: expected mean of each channel of these, in [0, 1].

    Raises OSError if count, labels, mean or digest are wrong; NoSpace if the disk is full.
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


def _write(
    partial: Path,
    split: str,
    facts: Facts,
    incoming: Rows,
    resolution: int,
    source: str,
    progress: Progress | None,
    digest: str | None,
    mean: tuple[float, ...],
) -> None:
    channels, classes = facts.channels, incoming.classes or facts.classes
    image_bytes = sum(f.channels for f in facts.fields.values() if isinstance(f, Image)) * resolution**2
    check_disk(partial.parent, incoming.count * image_bytes, f"{facts.name} at {resolution}x{resolution}")
    originals = _Originals(channels) if digest or mean else None
    progress_every = max(1, incoming.count // 200)
    # The header comes first in the file and is known last: leave space for it, filled with blanks.
    names = json.dumps(json.dumps([classes, facts.to_json()]))
    header_bytes = -(-(4096 + 2 * len(names)) // 4096) * 4096

    with open(partial, "wb", buffering=1 << 20) as file, _Columns(facts, resolution, partial.parent) as columns:
        file.write(b" " * (8 + header_bytes))
        content = _Content(file)
        for row in incoming.rows:
            if originals:
                originals.add(to_array(to_pil(row["x"], channels)), row["y"])
            columns.add(row, content)
            if progress and columns.count % progress_every == 0:
                progress(columns.count, incoming.count, f"preparing {facts.name} {split}")

        count = columns.count
        try:
            arrays = columns.arrays()
        except ValueError as error:
            raise OSError(f"corrupt: {split}: {error}") from error
        _check_rows(split, incoming, count, classes, arrays)
        if originals:
            originals.check(split, digest, mean)
        tensors = columns.write(content, arrays)
        file_facts = dataclasses.replace(
            facts,
            resolution=resolution,
            classes=classes,
            splits={split: count},
            keys=tuple(columns.fields),
            fields=columns.fields,
        )
        metadata = {
            "format": "pt",
            "facts": json.dumps(file_facts.to_json()),
            "source": source,
            "sha256": content.hash.hexdigest(),
        }
        header = json.dumps({**tensors, "__metadata__": metadata}).encode()
        assert len(header) <= header_bytes, "the header is longer than the space left for it"
        file.seek(0)
        file.write(header_bytes.to_bytes(8, "little") + header)


class _Content:
    """The part of a file after its header: bytes are written and hashed. ``size``: bytes written."""

    def __init__(self, file: BinaryIO):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def put(self, block: bytes) -> None:
        self.file.write(block)
        self.hash.update(block)
        self.size += len(block)


class _Originals:
    """Hash and mean of the images before they are resized."""

    def __init__(self, channels: int):
        import numpy as np

        self.hash, self.total, self.pixels = hashlib.sha256(), np.zeros(channels), 0

    def add(self, image: np.ndarray, y: int) -> None:
        """``image``: uint8 [C, H, W]."""
        import numpy as np

        self.hash.update(image.tobytes() + int(y).to_bytes(8, "little"))
        self.total += image.sum((1, 2), dtype=np.int64)
        self.pixels += image[0].size

    def check(self, split: str, digest: str | None, mean: tuple[float, ...]) -> None:
        """Raises OSError if the images are not those expected."""
        import numpy as np

        own_digest, own_mean = self.hash.hexdigest(), self.total / self.pixels / 255
        if digest and own_digest != digest:
            raise OSError(f"corrupt: SHA-256 of {split} must be {digest[:12]}..., got {own_digest[:12]}...")
        if mean and np.abs(own_mean - mean).max() > 1e-3:
            raise OSError(f"corrupt: mean of {split} must be {list(mean)}, got {own_mean.round(4).tolist()}")


class _Columns:
    """The fields of the rows of a file that is being written. The first image of a row is written at once; those of
    the others wait in temporary files in ``folder``, and all other values in memory, until all rows are known.

    ``fields``: by key, images first; ``count``: of rows.
    """

    def __init__(self, facts: Facts, resolution: int, folder: Path):
        self.facts, self.resolution, self.folder, self.count = facts, resolution, folder, 0
        self.fields: dict[str, Field] = {}
        self.values: dict[str, list[Any]] = {}
        self.files: dict[str, BinaryIO] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> _Columns:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def field_of(self, key: str, value: object) -> Field:
        """The field of a key: as declared, otherwise by its first value."""
        declared = self.facts.fields.get(key)
        return infer(value) if declared is None or declared == Label() else declared

    def add(self, row: Mapping[str, Any], content: _Content) -> None:
        """One row more. Raises OSError if its keys are not those of the rows before."""
        if not self.count:
            typed = {key: self.field_of(key, value) for key, value in row.items()}
            self.fields = dict(sorted(typed.items(), key=lambda item: not isinstance(item[1], Image)))
        elif row.keys() != self.fields.keys():
            raise OSError(f"corrupt: row {self.count} has {', '.join(row)}; must have {', '.join(self.fields)}")
        for position, (key, field) in enumerate(self.fields.items()):
            if not isinstance(field, Image):
                self.values.setdefault(key, []).append(row[key])
                continue
            image = to_array(square(to_pil(row[key], field.channels), self.resolution)).tobytes()  # [C, H, W]
            if position == 0:
                content.put(image)
                continue
            if key not in self.files:
                self.files[key] = self._open.enter_context(tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115
            self.files[key].write(image)
        self.count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of all fields but images, as they are stored. Raises ValueError if values do not fit."""
        arrays: dict[str, np.ndarray] = {}
        for key, values in self.values.items():
            field = self.fields[key]
            arrays |= pack_text(key, values) if isinstance(field, Text) else {key: pack(key, field, values)}
        return arrays

    def write(self, content: _Content, arrays: Mapping[str, np.ndarray]) -> dict[str, TensorHeader]:
        """Write what has waited. Returns the headers of all tensors."""
        headers: dict[str, TensorHeader] = {}
        images = {key: field for key, field in self.fields.items() if isinstance(field, Image)}
        end = 0
        for key, field in images.items():
            shape = [self.count, field.channels, self.resolution, self.resolution]
            if key in self.files:
                self.files[key].seek(0)
                while block := self.files[key].read(1 << 20):
                    content.put(block)
            start, end = end, content.size
            headers[key] = {"dtype": "U8", "shape": shape, "data_offsets": [start, end]}
        return {**headers, **_write_arrays(content, arrays)}


def _check_rows(
    split: str, incoming: Rows, count: int, classes: tuple[str, ...], arrays: Mapping[str, np.ndarray]
) -> None:
    """Raises OSError if rows are missing or labels out of range."""
    if count == 0:
        raise OSError(f"no images in {split}")
    if incoming.exact and count != incoming.count:
        raise OSError(f"short: {split} must have {incoming.count} images, got {count}")
    if "y" in arrays and classes and arrays["y"].ndim == 1:
        low, high = arrays["y"].min(), arrays["y"].max()
        if low < -1 or high >= len(classes):  # -1 is "no label"
            raise OSError(f"corrupt: labels of {split} must be in [-1, {len(classes) - 1}], got [{low}, {high}]")


def _write_arrays(content: _Content, arrays: Mapping[str, np.ndarray]) -> dict[str, TensorHeader]:
    """Write numbers after the images, the largest first. Returns the headers of their tensors."""
    headers: dict[str, TensorHeader] = {}

    def put(key: str, dtype: str, shape: list[int], block: bytes) -> None:
        start = content.size
        content.put(block)
        headers[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, content.size]}

    padding = -content.size % 8  # integers start at multiples of eight bytes
    if padding:
        put("_padding", "U8", [padding], bytes(padding))
    for key in sorted(arrays, key=lambda key: -arrays[key].itemsize):
        array = arrays[key]
        put(key, {8: "I64", 4: "F32", 1: "U8"}[array.itemsize], list(array.shape), array.tobytes())
    return headers


# Reading.


def read_header(path: Path) -> tuple[Facts, dict[str, str], int]:
    """Facts, metadata and the offset in bytes of the content of a prepared file.

    It reads the header and the size only, which takes no time; :func:`verify` reads everything. Raises OSError if the
    file is damaged.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= path.stat().st_size - 8:
                raise ValueError("its header is cut short")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__")
        facts = Facts.from_json(json.loads(metadata["facts"]))
        size = max(tensor["data_offsets"][1] for tensor in header.values())
        if path.stat().st_size != 8 + length + size:
            raise ValueError(f"it must have {8 + length + size} bytes, got {path.stat().st_size}")
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    return facts, metadata, 8 + length


def verify(path: Path) -> None:
    """Read all of a prepared file. Raises OSError if the SHA-256 in its header is not that of its content."""
    _, metadata, offset = read_header(path)
    content = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            content.update(block)
    if content.hexdigest() != metadata["sha256"]:
        raise OSError(f"{path} is damaged: its content has changed; delete it and prepare the set again")


def open_file(path: Path) -> ImageData:
    """Memory-map a prepared file. Raises OSError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    facts, metadata, _ = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            texts = {key for key, field in facts.fields.items() if isinstance(field, Text)}
            arrays = {key: file.get_tensor(key) for key in facts.keys if key not in texts}
            captions = {key: _captions(file, key) for key in texts}
    except SafetensorError as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    return ImageData(facts, arrays, metadata["sha256"], path, captions)


def _captions(file: Any, key: str) -> Captions:
    """A Text field of an open safetensors file."""
    if f"{key}.rows" not in file.keys():  # noqa: SIM118
        return unpack_padded(file.get_tensor(key))
    return Captions(*(file.get_tensor(name) for name in (key, f"{key}.offsets", f"{key}.rows")))


def list_files() -> list[tuple[str, int | None, str, int, Path]]:
    """The prepared files as (name, resolution, split, bytes, path), sorted by path. Damaged files are left out."""
    files = []
    for path in sorted((home() / "data").glob("*/*.safetensors")):
        with contextlib.suppress(OSError):
            facts = read_header(path)[0]
            files.append((facts.name, facts.resolution, path.stem, path.stat().st_size, path))
    return files
