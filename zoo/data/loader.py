"""The loader: batches in an order that is a function of seed and position, from the device's memory if the data fit.

Position counts the real images that all processes together have consumed. Each epoch's permutation comes from a
generator seeded by (seed, epoch), so the loader can jump to any position; batches run across the ends of epochs.
Process r of w reads part r of the joint batch: the images do not depend on the number of processes.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zoo.data.fields import Attributes, Field, Text, Vector
from zoo.data.store import Feed, ImageData, Where
from zoo.data.views import VIEWS
from zoo.seeds import seed_for

if TYPE_CHECKING:
    import torch

# Sets up to this size stay in the device's memory; on CUDA sets up to a quarter of its free memory.
RESIDENT_BYTES = 4 << 30


class Loader:
    """Batches of ``data`` without end.

    Args:
        data: as :func:`zoo.data.open_data` returns it.
        seed: of the order.
        device: of the batches.
        rank, world: this process and the number of processes.
        keys: which keys to yield and under which names, {"x": "a"}; None yields all.
        where: only rows with these labels, {"domain": 0} or {"y": (0, 1)}, or attributes, {"attributes.Smiling": 1}.
        rows: only these, an index tensor int64 in the order of an epoch before it is shuffled; ``where`` then says only
            which order follows from ``seed``.
        part: (k, n): of those only rows k, k + n, k + 2n, ...
        balanced: (count, seed): of those ``count`` rows, as many of each class ``y``, chosen by this seed.
        range: the values of pixels 0 and 255.
        pad: black borders to images of this side.
        crop: a random square of this side.
        flip: mirror left and right, with probability 1/2; crop and flip are the same for all images of a row.
        dequantize: pixel k of 256 becomes uniform in [k, k + 1) / 256 of the range instead of one value.
        view: of the images, a name in :mod:`zoo.data.views`.
        workers: threads that read in advance if the data do not fit on the device.
        order_seed: of the order of the rows; by default it follows from ``seed``, ``where`` and ``part``. Loaders with
            the same ``seed`` and ``order_seed`` whose rows correspond yield pairs, if they are at the same position
            and ``next`` gets no generator.

    ``position``: real images consumed by all processes together; set it to resume. ``resolution``: side of the images
    in a batch; 0 for points. ``count``: rows in an epoch; None if the data have no access by index. Raises ValueError
    if the arguments do not fit the data.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        keys: Mapping[str, str] | None = None,
        where: Where | None = None,
        rows: torch.Tensor | None = None,
        part: tuple[int, int] = (0, 1),
        balanced: tuple[int, int] | None = None,
        range: tuple[float, float] = (-1.0, 1.0),
        pad: int | None = None,
        crop: int | None = None,
        flip: bool = False,
        dequantize: bool = False,
        view: str | None = None,
        workers: int = 0,
        order_seed: int | None = None,
    ):
        import torch

        self.data, self.seed, self.device = data, seed, torch.device(device)
        self.rank, self.world = rank, world
        self.range, self.pad, self.crop = range, pad, crop
        self.flip, self.dequantize, self.view = flip, dequantize, view
        self.position = 0
        facts = data.facts
        for key in keys or ():
            if key not in facts.keys:
                raise ValueError(f"{facts.name} yields no '{key}'; it yields {', '.join(facts.keys)}")
        self.keys = dict(keys) if keys else {key: key for key in facts.keys}
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"part={part}: must be (k, n) with 0 <= k < n")
        self.images = {key: facts.fields[key] for key in self.keys if key in facts.images}
        self.texts = [key for key in self.keys if has_captions(facts.fields[key])]
        self.resolution = self._check_sides()
        feed = data.feed(self, where, part, workers)
        if feed and balanced:
            raise ValueError(f"{facts.name} is read as it streams: a balanced subset can't be chosen from it")
        if feed and order_seed is not None:
            raise ValueError(f"{facts.name} is read as it streams: its rows can't be aligned with others")
        self.count: int | None = None
        if feed:
            self._open: Callable[[], Feed] = lambda: feed
        else:
            rows = select_rows(data, where, rows, part, balanced)
            self.count = len(rows)
            if order_seed is None:
                order_seed = seed_of_order(seed, where, part)
            self._open = functools.partial(open_feed, self, rows, order_seed, workers)

    @functools.cached_property
    def _feed(self) -> Feed:
        """Opened with the first batch: a loader that is only checked reads no images."""
        return self._open()

    def _check_sides(self) -> int:
        """Raises ValueError if the images can't be cropped or padded as asked. Returns the side of the result."""
        name, side = self.data.facts.name, self.data.resolution
        options = [option for option in ("pad", "crop", "flip", "dequantize", "view") if getattr(self, option)]
        if side == 0 and options:
            raise ValueError(f"{options[0]}: must have images, but {name} has points; leave it out")
        if self.crop and self.crop > side:
            raise ValueError(f"crop={self.crop}: must be at most the side of the images of {name}, {side}")
        side = self.crop or side
        if self.pad and self.pad < side:
            raise ValueError(f"pad={self.pad}: must be at least the side of the images of {name}, {side}")
        return self.pad or side

    def next(self, size: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The next ``size`` rows of this process (``size * world`` of all together), on the device.

        Images float32 [size, C, H, W] in ``range``, points and vectors float32 [size, K], labels int64 [size],
        attributes int64 [size, K]; of a Text field a list of ``size`` strings, one caption of each row.
        Crops, flips and noise are sampled for the whole joint batch with ``generator``, by default with one seeded by
        (seed, position). No value is read back from the device.
        """
        import torch

        start = self.position + self.rank * size
        batch = self._feed.take(start, size)
        for key in self.keys:
            if isinstance(self.data.facts.fields[key], Attributes):
                batch[key] = batch[key].long()
        if self.images:
            if generator is None:
                generator = torch.Generator(self.device).manual_seed(seed_for(self.seed, "augment", self.position))
            batch.update(self._augment({key: batch[key] for key in self.images}, generator))
        for key in self.texts:
            field = self.data.facts.fields[key]
            if isinstance(field, Vector):
                captions = self._choose_captions(batch[key], field.mean)
                means = [row[0] if len(row) == 1 else torch.stack(row).mean(0) for row in captions]
                batch[key] = torch.stack(means).to(self.device, non_blocking=True)  # [size, K]
            else:
                batch[key] = [row[0] for row in self._choose_captions(batch[key])]
        self.position += size * self.world
        return {name: batch[key] for key, name in self.keys.items()}

    def _choose_captions(self, rows: list[Any], count: int = 1) -> list[list[Any]]:
        """``count`` different captions of each row, or all if it has fewer, or the vectors of the same captions, chosen
        for the whole joint batch by (seed, position). The first one does not depend on ``count``."""
        values: list[list[float]] = []
        for k in range(count):
            generator = random.Random(seed_for(self.seed, "caption", self.position, *([k] if k else [])))
            values.append([generator.random() for _ in range(len(rows) * self.world)][self.rank * len(rows) :])
        chosen = []
        for i, row in enumerate(rows):
            captions = [row] if isinstance(row, str) else list(row) or [""]
            picks = min(count, len(captions))
            chosen.append([captions.pop(int(values[k][i] * len(captions))) for k in range(picks)])
        return chosen

    def _augment(self, images: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """uint8 [n, C, H, W] to float32 in ``range``: crop, flip, pad, view, normalize. All images of a row get the
        same crop and flip."""
        import torch
        import torch.nn.functional as F

        n = len(next(iter(images.values())))

        def uniform(*shape: int) -> torch.Tensor:
            """This process's rows [n, *shape] of numbers in [0, 1) sampled for all processes."""
            values = torch.rand((n * self.world, *shape), generator=generator, device=generator.device)
            return values[self.rank * n : (self.rank + 1) * n].to(self.device)

        stored = next(iter(images.values())).shape[-1]
        side = self.crop or stored
        corner = mirrored = None
        if side != stored:
            space = stored - side
            corner = (uniform(2) * (space + 1)).long().clamp_(max=space)  # [n, 2]
        if self.flip:
            # Selecting whole images out of both is many times as fast on a CPU as torch.where with a mask.
            mirrored = torch.arange(n, device=self.device) + n * (uniform() < 0.5)
        for key, x in images.items():
            if corner is not None:
                windows = x.unfold(2, side, 1).unfold(3, side, 1)  # [n, C, space + 1, space + 1, side, side]
                x = windows[torch.arange(n, device=self.device), :, corner[:, 0], corner[:, 1]]  # [n, C, side, side]
            if mirrored is not None:
                x = torch.cat([x, x.flip(-1)]).index_select(0, mirrored)
            if self.pad and self.pad != x.shape[-1]:
                before = (self.pad - x.shape[-1]) // 2
                after = self.pad - x.shape[-1] - before
                x = F.pad(x, (before, after, before, after))  # black
            if self.view:
                x = VIEWS[self.view](x)
            low, high = self.range
            if self.dequantize:
                images[key] = (x.float() + uniform(*x.shape[1:])).mul_((high - low) / 256).add_(low)
            else:
                images[key] = x.float().mul_((high - low) / 255).add_(low)
        return images


def has_captions(field: Field) -> bool:
    """Whether a row has several values of a field, of which a batch has one."""
    return isinstance(field, Text) or (isinstance(field, Vector) and bool(field.of))


class Order:
    """The endless order of ``rows`` (an index tensor): one permutation for each epoch."""

    def __init__(self, seed: int, rows: torch.Tensor, device: torch.device):
        self.seed, self.rows, self.device = seed, rows, device
        self._epochs: dict[int, torch.Tensor] = {}

    def epoch(self, epoch: int) -> torch.Tensor:
        """The rows of one epoch in their order, on the device; the last two epochs are cached. The permutation is
        sampled on the CPU, so that it is the same for every device."""
        import torch

        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(seed_for(self.seed, "epoch", epoch))
            rows = self.rows[torch.randperm(len(self.rows), generator=generator)]
            if self.device.type == "cuda":
                rows = rows.pin_memory()
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = rows.to(self.device, non_blocking=True)
        return self._epochs[epoch]

    def indices(self, start: int, size: int) -> torch.Tensor:
        """The rows at positions start, ..., start + size - 1: int64 [size]."""
        return slice_epochs(self.epoch, len(self.rows), start, size)


def slice_epochs(epoch: Callable[[int], torch.Tensor], length: int, start: int, size: int) -> torch.Tensor:
    """Positions start, ..., start + size - 1 of the sequence epoch(0), epoch(1), ... of ``length`` rows each."""
    import torch

    parts = []
    while size > 0:
        index, offset = divmod(start, length)
        count = min(size, length - offset)
        parts.append(epoch(index)[offset : offset + count])
        start, size = start + count, size - count
    return parts[0] if len(parts) == 1 else torch.cat(parts)


# Which rows a loader reads, and how they reach the device.


def balanced_rows(data: ImageData, rows: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """``count`` of ``rows``, in ascending order, as many of each class among them, chosen by ``seed``. Raises
    ValueError if that is impossible."""
    import torch

    if "y" not in data.facts.keys:
        raise ValueError(f"balanced={count}: {data.facts.name} has no labels")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    y = data.labels("y")[rows]
    classes = [c for c in y.unique().tolist() if c >= 0]  # -1 is "no label"
    each, rest = divmod(count, len(classes))
    if rest:
        raise ValueError(f"balanced={count}: must be a multiple of the {len(classes)} classes of {data.facts.name}")
    parts = [rows[y == c][:each] for c in classes]
    if min(map(len, parts)) < each:
        raise ValueError(f"balanced={count}: {data.facts.name} has a class of fewer than {each} images")
    return torch.cat(parts).sort().values


def rows_with(data: ImageData, where: Where | None) -> torch.Tensor:
    """The indices of the rows with these labels, each with one of several values, int64. Raises ValueError if there is
    no such label."""
    import torch

    mask = torch.ones(len(data), dtype=torch.bool)
    for key, value in (where or {}).items():
        try:
            labels = data.labels(key)
        except ValueError as error:
            raise ValueError(f"where {key}={value}: {error}") from None
        mask &= torch.isin(labels.long(), torch.tensor(value))
    return mask.nonzero().squeeze(1)


def paired_rows(sides: Sequence[tuple[ImageData, torch.Tensor]]) -> list[torch.Tensor]:
    """The rows of several sides that show the same things: row k of one result is the pair of row k of another.

    ``sides``: of each the data, whose facts have a ``pair_key``, and some rows, int64. Those without a pair on every
    other side are left out, and the rest is in the order of the first side. Raises ValueError if a side has two rows
    of one pair.
    """
    import torch

    values = [data.labels(data.facts.pair_key)[rows] for data, rows in sides]
    for (data, _), value in zip(sides, values, strict=True):
        if len(value.unique()) < len(value):
            raise ValueError(f"{data.facts.name}: a side of pairs must have one row of each {data.facts.pair_key}")
    common = values[0]
    for value in values[1:]:
        common = common[torch.isin(common, value)]
    sorted_values = [value.sort() for value in values]
    places = [order[torch.searchsorted(value, common)] for value, order in sorted_values]
    return [rows[place] for (_, rows), place in zip(sides, places, strict=True)]


def select_rows(
    data: ImageData,
    where: Where | None,
    rows: torch.Tensor | None,
    part: tuple[int, int],
    balanced: tuple[int, int] | None,
) -> torch.Tensor:
    """The indices of the rows that a loader reads, int64; arguments as in :class:`Loader`. Raises ValueError if there
    are none."""
    if rows is None:
        rows = rows_with(data, where)
    rows = rows[part[0] :: part[1]]
    if balanced:
        rows = balanced_rows(data, rows, *balanced)
    if len(rows) == 0:
        raise ValueError(f"{data.facts.name} has no images with {dict(where or {})} in part {part}")
    return rows


def seed_of_order(seed: int, where: Where | None, part: tuple[int, int]) -> int:
    """The seed of the order of a stream's rows. Streams of different rows need different orders: otherwise unpaired
    domains would come in pairs."""
    if where or part != (0, 1):
        return seed_for(seed, "rows", repr(sorted((where or {}).items())), *part)
    return seed


def open_feed(loader: Loader, rows: torch.Tensor, seed: int, workers: int) -> Feed:
    """The feed of some rows of data with access by index, in an order by ``seed``: from the device's memory if they
    fit, else from the host by threads."""
    import torch

    data = loader.data
    limit = RESIDENT_BYTES
    if loader.device.type == "cuda":
        limit = torch.cuda.mem_get_info(loader.device)[0] // 4
    arrays = {key: data.stored[key] for key in loader.keys if key not in loader.texts} if data.stored else {}
    if data.stored and sum(value.nbytes for value in arrays.values()) <= limit:
        if loader.device.type != "cpu":
            data.check(arrays)  # all rows are read now; on the CPU they stay in the file
        arrays = {key: value.to(loader.device) for key, value in arrays.items()}
        return DeviceFeed(
            data, arrays, loader.texts, Order(seed, rows, loader.device), Order(seed, rows, torch.device("cpu"))
        )
    return HostFeed(loader, Order(seed, rows, torch.device("cpu")), workers)


class DeviceFeed:
    """Rows of ``arrays``, the fields of ``data`` in the device's memory; captions (``texts``: their keys) on the host,
    in the same order ``order_of_texts``."""

    def __init__(
        self,
        data: ImageData,
        arrays: dict[str, torch.Tensor],
        texts: Iterable[str],
        order: Order,
        order_of_texts: Order,
    ):
        self.data, self.arrays, self.order, self.order_of_texts = data, arrays, order, order_of_texts
        self.texts = {key: data.texts[key] for key in texts}

    def take(self, start: int, size: int) -> dict[str, Any]:
        indices = self.order.indices(start, size)
        if indices.device.type == "cpu":
            self.data.check(self.arrays, indices)
        rows: dict[str, Any] = {key: value.index_select(0, indices) for key, value in self.arrays.items()}
        return rows | self.captions(start, size) if self.texts else rows

    def captions(self, start: int, size: int) -> dict[str, list[Any]]:
        """The captions of ``size`` rows and their vectors; nothing is read from the device."""
        numbers = self.order_of_texts.indices(start, size).tolist()
        return {key: [captions[i] for i in numbers] for key, captions in self.texts.items()}


def to_device(rows: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Rows on the device; captions stay on the host."""
    return {k: v if isinstance(v, list) else v.to(device, non_blocking=True) for k, v in rows.items()}


class HostFeed:
    """Rows read on the host by ``workers`` threads, in advance: they expect batch sizes to follow each other as
    before."""

    def __init__(self, loader: Loader, order: Order, workers: int):
        self.loader, self.order, self.workers = loader, order, workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self.pending: dict[tuple[int, int], Future[dict[str, Any]]] = {}  # by (start, size)
        self.size_after: dict[int, int] = {}
        self.last_size: int | None = None

    def read(self, start: int, size: int) -> dict[str, Any]:
        rows = self.loader.data.read(self.order.indices(start, size), start, self.loader)
        if self.loader.device.type == "cuda":
            rows = {key: value if isinstance(value, list) else value.pin_memory() for key, value in rows.items()}
        return rows

    def take(self, start: int, size: int) -> dict[str, Any]:
        future = self.pending.pop((start, size), None)
        if future is None:  # another size than expected, or a new position
            for other in self.pending.values():
                other.cancel()
            self.pending.clear()
        if self.pool:
            self._prefetch(self.pool, start, size)
        rows = future.result() if future else self.read(start, size)
        return to_device(rows, self.loader.device)

    def _prefetch(self, pool: ThreadPoolExecutor, start: int, size: int) -> None:
        """Read the batches that are expected after the one at ``start``."""
        if self.last_size is not None:
            self.size_after[self.last_size] = size
        self.last_size = size
        rank, world = self.loader.rank, self.loader.world
        joint_start = start - rank * size  # of the joint batch
        for _ in range(self.workers):
            joint_start, size = joint_start + size * world, self.size_after.get(size, size)
            key = (joint_start + rank * size, size)
            if key not in self.pending:
                self.pending[key] = pool.submit(self.read, *key)
