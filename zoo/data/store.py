"""Prepared files: ``$ZOO_HOME/data/NAME-RESOLUTION/SPLIT.safetensors``, one for each split.

Each field is stored in its type (:mod:`zoo.data.fields`): images uint8 [N, C, H, W], labels int64 [N], attributes uint8
[N, K], vectors float32 [N, K], captions as UTF-8 bytes (``caption``) with the offsets of the captions
(``caption.offsets``) and of the rows (``caption.rows``). A file is written row by row under a temporary name, hashed on
the way, synced and renamed, so a file under its final name is always complete. The header contains the facts, the
source and the SHA-256 of the content.

Each tensor is divided into blocks of whole rows, of about ``BLOCK_BYTES``, and the SHA-256 of each block is in the
tensor ``BLOCKS``, in the order of the tensors. A block is compared when it is first read; header and ``BLOCKS`` when
the file is opened.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from zoo import tensor_file
from zoo.data.facts import Facts, Rows
from zoo.data.fields import Captions, Field, Image, Label, Text, infer, pack, pack_text
from zoo.data.images import square, to_array, to_bytes, to_pil
from zoo.files import NoSpace, beside

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zoo.data.loader import Loader

FORMAT = "2"  # of prepared files; those of another format are prepared again
BLOCK_BYTES = 1 << 20
BLOCKS = "_blocks"  # the SHA-256 of each block, uint8 [blocks, 32]
CHECKSUM, ZEROS = "checksum", "0" * 64

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
        blocks: the checksums of each of the ``arrays``, if they come from a prepared file.

    ``resolution``: side of the images in pixels; 0 for points. ``arrays``: all of them, compared with their checksums
    when this is first asked for; ``stored``: the same, compared by :meth:`check` only. ``is_stream``: whether the
    images come one after the other without a length (shards).
    """

    is_stream = False

    def __init__(
        self,
        facts: Facts,
        arrays: dict[str, torch.Tensor],
        hash: str,
        path: Path | None = None,
        texts: Mapping[str, Sequence[Any]] | None = None,
        blocks: Mapping[str, Blocks] | None = None,
    ):
        assert facts.resolution is not None, f"{facts.name}: open data have one resolution"
        self.facts, self.stored, self.hash, self.path = facts, arrays, hash, path
        self.texts: dict[str, Sequence[Any]] = dict(texts or {})
        self.blocks = dict(blocks or {})
        self.resolution = facts.resolution

    def __len__(self) -> int:
        return len(self.stored[next(iter(self.stored))])  # of the first field

    @property
    def arrays(self) -> dict[str, torch.Tensor]:
        self.check()
        return self.stored

    @arrays.setter
    def arrays(self, arrays: dict[str, torch.Tensor]) -> None:
        self.stored = arrays

    def check(self, keys: Iterable[str] | None = None, rows: torch.Tensor | slice | None = None) -> None:
        """Compare the blocks of some ``rows`` (a CPU index tensor or a range; None: all) of some fields (None: all)
        with their checksums, each once. Raises OSError if one differs."""
        for key in self.blocks if keys is None else keys:
            if key in self.blocks:
                self.blocks[key].check(rows)

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """Rows by a CPU index tensor int64 [n], as stored: images uint8 [n, C, H, W], labels, ...; of a Text field the
        captions of each row."""
        self.check(self.stored, indices)
        rows: dict[str, Any] = {key: value.index_select(0, indices) for key, value in self.stored.items()}
        for key, captions in self.texts.items():
            rows[key] = [captions[i] for i in indices.tolist()]
        return rows

    def whole(self, index: int) -> torch.Tensor:
        """The image of one row, uint8 [C, H, W], without a cut to a square if it is stored at native size."""
        import torch

        image: torch.Tensor = self.rows(torch.tensor([index]))[self.facts.images[0]][0]
        return image

    def read(self, indices: torch.Tensor, start: int, loader: Loader) -> dict[str, Any]:
        """The rows at positions ``start``, ``start + 1``, ... of a loader's order, which are ``indices``."""
        return self.rows(indices)

    def labels(self, key: str) -> torch.Tensor:
        """All values of one label ("y"), or of one attribute ("attributes.Smiling"): [N], whole numbers. Raises
        ValueError if there is no such label."""
        name, column = self.facts.column(key)
        self.check([name])
        return self.stored[name] if column is None else self.stored[name][:, column]

    def feed(self, loader: Loader, where: Where | None, part: tuple[int, int], workers: int) -> Feed | None:
        """The data's own feed for ``loader``, if they have no access by index; None otherwise."""
        return None

    @property
    def captions(self) -> list[str]:
        """The first caption of each row; [] if the set has none."""
        return ["".join(row[:1]) for row in self.texts.get("caption", ())]


class Blocks:
    """The checksums of the blocks of rows of one tensor in a prepared file.

    Args:
        value: the tensor, memory-mapped.
        rows: in a block.
        sums: the SHA-256 of each block, uint8 [blocks, 32].
        what: the file and the tensor, for messages.
    """

    def __init__(self, value: torch.Tensor, rows: int, sums: torch.Tensor, what: str):
        import torch

        self.value, self.rows, self.sums, self.what = value, rows, sums.numpy(), what
        self.unread = torch.ones(len(sums), dtype=torch.bool)
        self.complete = not len(sums)

    def check(self, rows: torch.Tensor | slice | None = None) -> None:
        """Compare the blocks of some ``rows``, None: all, that were not compared yet. Raises OSError if one differs."""
        if self.complete:
            return
        wanted = self.unread
        if rows is not None:
            wanted = self.unread.new_zeros(len(self.unread))
            if isinstance(rows, slice):
                wanted[rows.start // self.rows : -(-rows.stop // self.rows)] = True
            else:
                wanted[rows // self.rows] = True
            wanted &= self.unread
        for block in wanted.nonzero().flatten().tolist():
            content = self.value[block * self.rows : (block + 1) * self.rows].numpy()
            if hashlib.sha256(content.data).digest() != self.sums[block].tobytes():
                raise OSError(
                    f"{self.what} is damaged: block {block} has changed; delete the file and prepare it again"
                )
            self.unread[block] = False
        self.complete = rows is None or not self.unread.any()


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
    resolution: int | None,
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
        resolution: side of the images in the file, in pixels; None: encoded images at native size.
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
    resolution: int | None,
    source: str,
    progress: Progress | None,
    digest: str | None,
    mean: tuple[float, ...],
) -> None:
    channels, classes = facts.channels, incoming.classes or facts.classes
    if resolution:
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
            "format": FORMAT,
            "facts": json.dumps(file_facts.to_json()),
            "source": source,
            "sha256": content.hash.hexdigest(),
            "blocks": json.dumps(content.layout()),
            CHECKSUM: ZEROS,
        }
        sums = content.sums()
        tensors[BLOCKS] = {
            "dtype": "U8",
            "shape": [len(sums) // 32, 32],
            "data_offsets": [content.size, content.size + len(sums)],
        }
        file.write(sums)
        header = json.dumps({**tensors, "__metadata__": metadata}).encode()
        assert len(header) <= header_bytes, "the header is longer than the space left for it"
        header = header.replace(ZEROS.encode(), hashlib.sha256(header + sums).hexdigest().encode())
        file.seek(0)
        file.write(header_bytes.to_bytes(8, "little") + header)


class _Content:
    """The part of a file after its header: bytes are written and hashed, all together and by blocks. ``size``: bytes
    written."""

    def __init__(self, file: BinaryIO):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0
        self.tensors: dict[str, tuple[int, list[bytes]]] = {}  # by name: rows in a block, the digest of each block
        self.block, self.block_bytes, self.left = hashlib.sha256(), 0, 0

    def begin(self, name: str, row_bytes: int) -> None:
        """The bytes that follow are those of the tensor ``name``."""
        self._end_block()
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
        self.tensors[name] = (rows, [])
        self.block_bytes = self.left = rows * row_bytes

    def put(self, content: bytes) -> None:
        self.file.write(content)
        self.hash.update(content)
        self.size += len(content)
        rest = memoryview(content)
        while len(rest):
            self.block.update(rest[: self.left])
            rest, self.left = rest[self.left :], self.left - min(self.left, len(rest))
            if not self.left:
                self._end_block()

    def _end_block(self) -> None:
        if self.left < self.block_bytes:
            _, digests = self.tensors[next(reversed(self.tensors))]
            digests.append(self.block.digest())
        self.block, self.left = hashlib.sha256(), self.block_bytes

    def layout(self) -> dict[str, tuple[int, int]]:
        """By tensor: rows in a block, and the number of blocks."""
        self._end_block()
        return {name: (rows, len(digests)) for name, (rows, digests) in self.tensors.items()}

    def sums(self) -> bytes:
        """The digests of all blocks, in the order of :meth:`layout`."""
        return b"".join(digest for _, digests in self.tensors.values() for digest in digests)


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

    def __init__(self, facts: Facts, resolution: int | None, folder: Path):
        self.facts, self.resolution, self.folder, self.count = facts, resolution, folder, 0
        self.offsets: dict[str, list[int]] = {}  # of encoded images
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
            image = self._bytes(row[key], field.channels)
            if not self.resolution:
                offsets = self.offsets.setdefault(key, [0])
                offsets.append(offsets[-1] + len(image))
            if position == 0:
                if not self.count:
                    content.begin(key, len(image) if self.resolution else 1)
                content.put(image)
                continue
            if key not in self.files:
                self.files[key] = self._open.enter_context(tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115
            self.files[key].write(image)
        self.count += 1

    def _bytes(self, image: Any, channels: int) -> bytes:
        """One image as it is stored: uint8 [C, H, W], or encoded at native size."""
        if not self.resolution:
            return to_bytes(image, channels)
        return to_array(square(to_pil(image, channels), self.resolution)).tobytes()

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of all fields but images, as they are stored, and the offsets of encoded images. Raises
        ValueError if values do not fit."""
        import numpy as np

        arrays = {f"{key}.offsets": np.asarray(offsets, "<i8") for key, offsets in self.offsets.items()}
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
            side = self.resolution
            shape = [self.count, field.channels, side, side] if side else [self.offsets[key][-1]]
            if key in self.files:
                content.begin(key, field.channels * side**2 if side else 1)
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
        content.begin(key, len(block) // max(1, shape[0]))
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

    It reads the header, the sums of the blocks and the size only, which takes no time; :func:`verify` reads everything.
    Raises OSError if the file is damaged or of another format.
    """
    try:
        header = tensor_file.read_header(path)
        metadata = header.metadata
        if metadata["format"] != FORMAT:
            raise OSError(f"{path} is of an earlier format; delete it and prepare the set again")
        with open(path, "rb") as file:
            content = file.read(header.content)[8:].rstrip(b" ")
            file.seek(header.content + header.tensors[BLOCKS].start)
            sums = file.read(header.tensors[BLOCKS].end - header.tensors[BLOCKS].start)
        digest = metadata[CHECKSUM]
        if hashlib.sha256(content.replace(digest.encode(), ZEROS.encode()) + sums).hexdigest() != digest:
            raise ValueError("its header has changed")
        facts = Facts.from_json(json.loads(metadata["facts"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    return facts, metadata, header.content


def verify(path: Path) -> None:
    """Read all of a prepared file. Raises OSError if a block is not that of its checksum."""
    for tensor in open_tensors(path)[2].values():
        tensor.check()


def open_file(path: Path) -> ImageData:
    """Memory-map a prepared file of images of one size. Raises OSError if it is damaged."""
    facts, hash, blocks, texts = open_tensors(path)
    arrays = {key: blocks[key].value for key in facts.keys if key not in texts}
    return ImageData(facts, arrays, hash, path, texts, blocks)


def open_tensors(path: Path) -> tuple[Facts, str, dict[str, Blocks], dict[str, Captions]]:
    """Facts, hash, memory-mapped tensors and Text fields of a prepared file. Raises OSError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    facts, metadata, _ = read_header(path)
    blocks: dict[str, Blocks] = {}
    try:
        with safe_open(path, framework="pt") as file:
            sums, first = file.get_tensor(BLOCKS), 0
            for name, (rows, count) in json.loads(metadata["blocks"]).items():
                value = file.get_tensor(name)
                blocks[name] = Blocks(value, rows, sums[first : first + count], f"{path}, {name},")
                first += count
    except SafetensorError as error:
        raise OSError(f"{path} is damaged: {error}; delete it and prepare the set again") from error
    texts = {key: _captions(blocks, key) for key, field in facts.fields.items() if isinstance(field, Text)}
    return facts, metadata["sha256"], blocks, texts


def _captions(blocks: Mapping[str, Blocks], key: str) -> Captions:
    """A Text field of a prepared file. Its offsets are compared with their checksums here."""
    content, offsets, rows = (blocks[name] for name in (key, f"{key}.offsets", f"{key}.rows"))
    offsets.check()
    rows.check()
    return Captions(content.value, offsets.value, rows.value, content.check)


def remove_file(path: Path) -> None:
    """Delete a prepared file, and its folder if it is the last. Runs that have it open can go on."""
    with lock(path.parent):
        path.unlink(missing_ok=True)


def list_files() -> list[tuple[str, int | None, str, int, Path]]:
    """The prepared files as (name, resolution, split, bytes, path), sorted by path. Damaged files are left out."""
    files = []
    for path in sorted((home() / "data").glob("*/*.safetensors")):
        with contextlib.suppress(OSError):
            facts = read_header(path)[0]
            files.append((facts.name, facts.resolution, path.stem, path.stat().st_size, path))
    return files
