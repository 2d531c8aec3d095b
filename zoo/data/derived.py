"""Derived fields: what a network computes from a field of each row, once, kept under the hashes of rows and network.

    columns = {"embedding": derive(data, "embedding", "caption", encoder, key)}
    Loader(DerivedData(data, columns), seed=0).next(64)["embedding"]      # float32 [64, K]

The values of rows that are in a prepared file are kept in ``$ZOO_HOME/derived/HASH.safetensors``, written under a
temporary name and renamed, and memory-mapped; HASH is that of the prepared file, the field and the network. Those of
other rows (a user's Dataset) are computed for each run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from zoo.data.fields import Image, Text, Vector
from zoo.data.store import ImageData, Progress, check_disk, home, lock
from zoo.files import beside

if TYPE_CHECKING:
    import torch

    from zoo.data.loader import Loader

CHUNK = 64  # rows in one pass of the network


class Vectors(Sequence["torch.Tensor"]):
    """The vectors of each row: [K], or of a Text field one for each caption, [captions, K].

    Args:
        values: of all rows, float32 [M, K], which may be memory-mapped.
        rows: the first vector of each row, and the end, int64 [N + 1]; None if every row has one.
        of: the field that they are computed from.
        mean: a batch has the mean of so many vectors of a row.
    """

    def __init__(self, values: torch.Tensor, rows: torch.Tensor | None, of: str, mean: int = 1):
        self.values, self.starts, self.of, self.mean = values, rows, of, mean

    def __len__(self) -> int:
        return len(self.values) if self.starts is None else len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...

    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        if self.starts is None:
            return self.values[index]
        return self.values[int(self.starts[index]) : int(self.starts[index + 1])]

    @property
    def field(self) -> Vector:
        """The type of the field in a batch."""
        several = self.starts is not None
        return Vector(self.values.shape[1], of=self.of if several else "", mean=self.mean if several else 1)


class DerivedData(ImageData):
    """Data with derived fields beside their own. ``columns``: by name."""

    def __init__(self, data: ImageData, columns: Mapping[str, Vectors]):
        fields = {**data.facts.fields, **{name: column.field for name, column in columns.items()}}
        facts = dataclasses.replace(data.facts, keys=tuple(fields), fields=fields)
        several = {name: column for name, column in columns.items() if column.starts is not None}
        one = {name: column.values for name, column in columns.items() if column.starts is None}
        super().__init__(
            facts,
            {**data.stored, **one} if data.stored else {},
            data.hash,
            data.path,
            {**data.texts, **several},
            data.blocks,
        )
        self.data, self.columns = data, dict(columns)

    def __len__(self) -> int:
        return len(self.data)

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """As in ImageData; of a field with one vector a caption a list of tensors [captions, K]."""
        return {**self.data.rows(indices), **self._own_rows(indices)}

    def read(self, indices: torch.Tensor, start: int, loader: Loader) -> dict[str, Any]:
        """As in ImageData."""
        return {**self.data.read(indices, start, loader), **self._own_rows(indices)}

    def _own_rows(self, indices: torch.Tensor) -> dict[str, Any]:
        own: dict[str, Any] = {}
        for name, column in self.columns.items():
            one = column.starts is None
            own[name] = column.values.index_select(0, indices) if one else [column[i] for i in indices.tolist()]
        return own

    def labels(self, key: str) -> torch.Tensor:
        """As in ImageData."""
        return self.data.labels(key)


def derive(
    data: ImageData,
    name: str,
    of: str,
    network: Callable[[Any], torch.Tensor],
    key: str,
    *,
    range: tuple[float, float] = (-1.0, 1.0),
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Vectors:
    """The vectors that ``network`` computes from the field ``of`` of each row, from the store if they are there.

    Args:
        name: of the derived field, for messages.
        network: values as a batch has them (a list of strings, images [n, C, H, W] in ``range``, ...) -> [n, K].
        key: a hash of the network.
        device: of the network.
        progress: called as ``progress(rows, rows in all, message)``.

    Raises ValueError if the network gives something else, or the data have no access by index; NoSpace if the disk is
    full.
    """
    if type(data).feed is not ImageData.feed:
        raise ValueError(
            f"derived '{name}': {data.facts.name} is read as it streams, so its rows have no derived fields"
        )
    field = data.facts.fields[of]
    content = [data.hash, of, key, list(range) if isinstance(field, Image) else None]
    path = home() / "derived" / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.safetensors"
    if data.path is None:
        return _in_memory(_compute(data, name, of, network, range, device, progress), of, isinstance(field, Text))
    if not path.exists():
        with lock(path.parent):
            if not path.exists():  # another process was quicker
                blocks = _compute(data, name, of, network, range, device, progress)
                _write(path, blocks, {"field": name, "of": of, "rows": data.hash, "network": key})
    return _open(path, of, isinstance(field, Text))


def _compute(
    data: ImageData,
    name: str,
    of: str,
    network: Callable[[Any], torch.Tensor],
    range: tuple[float, float],
    device: torch.device | str,
    progress: Progress | None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The rows in blocks: how many vectors each row has, and the vectors, float32 [m, K] on the CPU."""
    import torch

    field, n = data.facts.fields[of], len(data)
    for start in _starts(n):
        values: Any = _values(data, of, start, min(n, start + CHUNK))
        counts = [1] * (min(n, start + CHUNK) - start)
        if isinstance(field, Text):
            captions = [(row,) if isinstance(row, str) else tuple(row) or ("",) for row in values]
            counts, values = [len(row) for row in captions], [text for row in captions for text in row]
        elif isinstance(field, Image):
            low, high = range
            values = values.to(device).float().mul_((high - low) / 255).add_(low)
        else:
            values = values.to(device) if isinstance(field, Vector) else values.to(device).long()
        with torch.no_grad():
            vectors = check_vectors(name, network(values), sum(counts))
        yield counts, vectors.float().cpu().contiguous()
        if progress:
            progress(min(n, start + CHUNK), n, f"computing {name} of {data.facts.name}")


def _starts(n: int) -> Sequence[int]:
    return range(0, n, CHUNK)


def check_vectors(name: str, vectors: Any, count: int) -> torch.Tensor:
    """The output of a network, float [count, K]. Raises ValueError if it is something else, or not finite."""
    import torch

    if not isinstance(vectors, torch.Tensor) or vectors.dim() != 2 or len(vectors) != count:
        shape = list(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise ValueError(f"derived '{name}': the network must give [{count}, K] for {count} values, got {shape}")
    if vectors.device.type != "meta" and not vectors.isfinite().all():
        raise ValueError(f"derived '{name}': the network must give finite numbers")
    return vectors


def _values(data: ImageData, of: str, start: int, end: int) -> Any:
    """Rows of one field, as stored."""
    import torch

    if of in data.texts:
        return data.texts[of][start:end]
    if of in data.stored:
        data.check([of], slice(start, end))
        return data.stored[of][start:end]
    return data.rows(torch.arange(start, end))[of]


def _in_memory(blocks: Iterator[tuple[list[int], torch.Tensor]], of: str, several: bool) -> Vectors:
    import torch

    counts, vectors = zip(*blocks, strict=True)
    rows = torch.tensor([0, *(count for block in counts for count in block)]).cumsum(0)
    return Vectors(torch.cat(vectors), rows if several else None, of)


def _write(path: Path, blocks: Iterator[tuple[list[int], torch.Tensor]], metadata: Mapping[str, str]) -> None:
    """Write the vectors block by block, and the first vector of each row after them."""
    import numpy as np

    header_bytes = 4096  # of the header, which is known last
    with beside(path) as partial:
        rows, k = [0], 0
        with open(partial, "wb") as file:
            file.write(b" " * (8 + header_bytes))
            for counts, vectors in blocks:
                k = vectors.shape[1]
                check_disk(partial.parent, vectors.nbytes, f"the derived field {metadata['field']}")
                file.write(vectors.numpy().astype("<f4").tobytes())
                rows += [rows[-1] + total for total in np.cumsum(counts).tolist()]
            end = 4 * rows[-1] * k
            padding = -end % 8  # integers start at multiples of eight bytes
            file.write(bytes(padding) + np.asarray(rows, "<i8").tobytes())
            tensors = {
                "values": {"dtype": "F32", "shape": [rows[-1], k], "data_offsets": [0, end]},
                **(
                    {"_padding": {"dtype": "U8", "shape": [padding], "data_offsets": [end, end + padding]}}
                    if padding
                    else {}
                ),
                "rows": {
                    "dtype": "I64",
                    "shape": [len(rows)],
                    "data_offsets": [end + padding, end + padding + 8 * len(rows)],
                },
            }
            header = json.dumps({"__metadata__": dict(metadata), **tensors}).encode()
            assert len(header) <= header_bytes, "the header is longer than the space left for it"
            file.seek(0)
            file.write(header_bytes.to_bytes(8, "little") + header)


def _open(path: Path, of: str, several: bool) -> Vectors:
    """Memory-map the vectors of a file. Raises OSError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return Vectors(file.get_tensor("values"), file.get_tensor("rows") if several else None, of)
    except SafetensorError as error:
        raise OSError(f"{path} is damaged: {error}; delete it, and it is computed again") from error
