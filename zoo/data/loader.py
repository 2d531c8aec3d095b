"""The loader: batches in an order that is a function of seed and position, from the device where they fit.

Position counts the images that all processes together have taken. An epoch's permutation comes from a
generator seeded by a hash of (seed, epoch), so any position can be gone to at once; batches run across the
ends of epochs. Process r takes part r of the joined batch: the same images come whatever the number of
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zoo.data.store import ImageData
from zoo.data.views import VIEWS
from zoo.seeds import seed_for

if TYPE_CHECKING:
    import torch

# Sets up to this size live on the device; on CUDA sets up to a quarter of its free memory.
RESIDENT_BYTES = 4 << 30


class Loader:
    """Batches of ``data`` without end.

    ``rank`` of ``world``: the process's part. ``keys``: which keys to yield and under which names, {"x":
    "a"}; None yields all. ``where``: only rows with these labels, {"domain": 0} or {"y": (0, 1)}. ``part`` (k, n): of those
    only rows k, k + n, k + 2n, ... ``balanced`` (count, seed): of those ``count``, as many of each class ``y``, chosen by
    ``seed``. ``range``: where pixels 0 and 255 go. ``load``: images are resized to
    this side first, where they don't have it (antialiased bilinear); ``crop``: a random square of this side;
    ``flip``: left and right at random; ``pad``: black borders to this side. ``dequantize``: pixel k of 256
    becomes uniform in [k, k + 1) / 256 of the range rather than a point. ``view``: of the images, a name in
    :mod:`zoo.data.views`. ``workers``: threads that read ahead, for sets that don't fit on the device.

    ``position``: images consumed by all processes together; set it to resume. ValueError for arguments that
    don't fit the data.
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
        where: Mapping[str, int | tuple[int, ...]] | None = None,
        part: tuple[int, int] = (0, 1),
        balanced: tuple[int, int] | None = None,
        range: tuple[float, float] = (-1.0, 1.0),
        pad: int | None = None,
        load: int | None = None,
        crop: int | None = None,
        flip: bool = False,
        dequantize: bool = False,
        view: str | None = None,
        workers: int = 0,
    ):
        import torch

        self.data, self.seed, self.device = data, seed, torch.device(device)
        self.rank, self.world = rank, world
        self.range, self.pad, self.load, self.crop = range, pad, load, crop
        self.flip, self.dequantize, self.view = flip, dequantize, view
        self.position = 0
        facts = data.facts
        for key in keys or ():
            if key not in facts.keys:
                raise ValueError(f"{facts.name} yields no '{key}'; it yields {', '.join(facts.keys)}")
        self.keys = dict(keys) if keys else {key: key for key in facts.keys}
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"part={part}: wants (k, n) with 0 <= k < n")
        side = self._check_sides()
        self.resolution = side  # of the images that come out; 0 for toy points
        feed = getattr(data, "feed", None)  # sets without random access bring their own
        if feed and balanced:
            raise ValueError(f"{facts.name} is read as it streams: a balanced subset can't be chosen from it")
        self._feed = feed(self, where, part, workers) if feed else _feed(self, where, part, balanced, workers)
        self.exact = data.exact

    def _check_sides(self) -> int:
        facts, side = self.data.facts, self.load or self.data.facts.resolution
        asked = [n for n in ("pad", "load", "crop", "flip", "dequantize", "view") if getattr(self, n)]
        if facts.resolution == 0 and asked:
            raise ValueError(f"{facts.name} yields points, not images: {asked[0]} does not apply")
        if self.crop and self.crop > side:
            raise ValueError(f"crop={self.crop} is larger than the images of {facts.name}, {side}x{side}")
        side = self.crop or side
        if self.pad and self.pad < side:
            raise ValueError(f"pad={self.pad} is smaller than the images of {facts.name}, {side}x{side}")
        return self.pad or side

    def next(self, size: int, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """The next ``size`` images of this process (``size * world`` of all together), on the device.

        "x" float32 [size, C, H, W] in ``range`` (toys: [size, D]), labels int64 [size], captions uint8
        [size, L]. Crops, flips and noise are drawn for the whole joined batch on ``generator``, by default
        on one seeded by (seed, position). Nothing is read back from the device.
        """
        import torch

        start = self.position + self.rank * size
        batch = self._feed.take(start, size)
        if self.data.facts.resolution and "x" in self.keys:
            if generator is None and (self.crop or self.flip or self.dequantize):
                generator = torch.Generator(self.device).manual_seed(seed_for(self.seed, "augment", self.position))
            batch["x"] = self._finish(batch["x"], generator)
        self.position += size * self.world
        return {name: batch[key] for key, name in self.keys.items()}

    def _finish(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """uint8 [n, C, H, W] to float32 in range: resize, crop, flip, pad, view, normalize."""
        import torch
        import torch.nn.functional as F

        def uniform(*shape: int) -> torch.Tensor:
            """This process's rows of numbers in [0, 1) drawn for all processes."""
            n = len(x)
            draw = torch.rand((n * self.world, *shape), generator=generator, device=generator.device)
            return draw[self.rank * n : (self.rank + 1) * n].to(self.device)

        if self.load and self.load != x.shape[-1]:
            x = F.interpolate(x.float(), size=(self.load, self.load), mode="bilinear", antialias=True)
            x = x.round_().clamp_(0, 255).to(torch.uint8)
        if self.crop and self.crop != x.shape[-1]:
            space = x.shape[-1] - self.crop
            corner = (uniform(2) * (space + 1)).long().clamp_(max=space)  # [n, 2]
            windows = x.unfold(2, self.crop, 1).unfold(3, self.crop, 1)  # [n, C, space + 1, space + 1, crop, crop]
            images = torch.arange(len(x), device=self.device)
            x = windows[images, :, corner[:, 0], corner[:, 1]]  # [n, C, crop, crop]
        if self.flip:
            # Whole images picked out of both: many times as fast on a CPU as torch.where with a mask.
            side = torch.arange(len(x), device=self.device) + len(x) * (uniform() < 0.5)
            x = torch.cat([x, x.flip(-1)]).index_select(0, side)
        if self.pad and self.pad != x.shape[-1]:
            before = (self.pad - x.shape[-1]) // 2
            after = self.pad - x.shape[-1] - before
            x = F.pad(x, (before, after, before, after))  # black
        if self.view:
            x = VIEWS[self.view](x)
        low, high = self.range
        if self.dequantize:
            return (x.float() + uniform(*x.shape[1:])).mul_((high - low) / 256).add_(low)
        return x.float().mul_((high - low) / 255).add_(low)


class Order:
    """The endless order of ``rows`` (an index tensor): a permutation an epoch."""

    def __init__(self, seed: int, rows: torch.Tensor, device: torch.device):
        self.seed, self.rows, self.device = seed, rows, device
        self._epochs: dict[int, torch.Tensor] = {}

    def epoch(self, epoch: int) -> torch.Tensor:
        """The rows of one epoch in their order, on the device; the last two are kept. Drawn on the CPU, so
        that the order is the same on every device."""
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
        return pieces(self.epoch, len(self.rows), start, size)


def pieces(epoch: Any, length: int, start: int, size: int) -> torch.Tensor:
    """Positions start to start + size of a sequence made of epochs of ``length`` rows, ``epoch(e)`` each."""
    import torch

    found = []
    while size > 0:
        e, offset = divmod(start, length)
        taken = min(size, length - offset)
        found.append(epoch(e)[offset : offset + taken])
        start, size = start + taken, size - taken
    return found[0] if len(found) == 1 else torch.cat(found)


def balanced_rows(data: ImageData, rows: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """``count`` of ``rows``, in ascending order, as many of each class that they hold, chosen by ``seed``. ValueError where
    that can't be."""
    import torch

    if "y" not in data.facts.keys:
        raise ValueError(f"balanced={count}: {data.facts.name} has no labels")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    y = data.labels("y")[rows]
    classes = [c for c in y.unique().tolist() if c >= 0]  # -1 is "no label"
    each, rest = divmod(count, len(classes))
    if rest:
        raise ValueError(f"balanced={count}: must be a multiple of the {len(classes)} classes of {data.facts.name}")
    chosen = [rows[y == c][:each] for c in classes]
    if min(map(len, chosen)) < each:
        raise ValueError(f"balanced={count}: {data.facts.name} has a class of fewer than {each} images")
    return torch.cat(chosen).sort().values


def _feed(
    loader: Loader,
    where: Mapping[str, Any] | None,
    part: tuple[int, int],
    balanced: tuple[int, int] | None,
    workers: int,
) -> Any:
    """How rows get to the device: from the device itself where they fit, else from the host through
    threads."""
    import torch

    data = loader.data
    rows = torch.arange(len(data))
    if where:
        keep = torch.ones(len(data), dtype=torch.bool)
        for key, value in where.items():
            if key not in data.facts.keys or key == "x":
                raise ValueError(f"where {key}={value}: {data.facts.name} has no label '{key}'")
            keep &= torch.isin(data.labels(key), torch.tensor(value))
        rows = keep.nonzero().squeeze(1)
    rows = rows[part[0] :: part[1]]
    if balanced:
        rows = balanced_rows(data, rows, *balanced)
    if len(rows) == 0:
        raise ValueError(f"{data.facts.name} has no images with {dict(where or {})} in part {part}")
    # Streams that see different rows must not go in step: unpaired domains would come in pairs.
    seed = loader.seed
    if where or part != (0, 1):
        seed = seed_for(seed, "rows", repr(sorted((where or {}).items())), *part)
    limit = RESIDENT_BYTES
    if loader.device.type == "cuda":
        limit = torch.cuda.mem_get_info(loader.device)[0] // 4
    arrays = {key: data.arrays[key] for key in loader.keys} if data.arrays else {}
    if arrays and sum(value.nbytes for value in arrays.values()) <= limit:
        return Resident({k: v.to(loader.device) for k, v in arrays.items()}, Order(seed, rows, loader.device))
    return Streamed(loader, Order(seed, rows, torch.device("cpu")), workers)


class Resident:
    """Rows indexed on the device itself."""

    def __init__(self, arrays: dict[str, torch.Tensor], order: Order):
        self.arrays, self.order = arrays, order

    def take(self, start: int, size: int) -> dict[str, torch.Tensor]:
        indices = self.order.indices(start, size)
        return {key: value.index_select(0, indices) for key, value in self.arrays.items()}


class Streamed:
    """Rows read on the host, by threads that read ahead: they guess that sizes follow each other as they did
    before."""

    def __init__(self, loader: Loader, order: Order, workers: int):
        self.loader, self.order, self.workers = loader, order, workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self.precompute: dict[tuple[int, int], Future] = {}
        self.follows: dict[int, int] = {}
        self.last: int | None = None

    def read(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = self.loader.data.rows(indices)
        if self.loader.device.type == "cuda":
            rows = {key: value.pin_memory() for key, value in rows.items()}
        return rows

    def take(self, start: int, size: int) -> dict[str, torch.Tensor]:
        waiting = self.precompute.pop((start, size), None)
        if waiting is None:  # a wrong guess, or a new position
            for future in self.precompute.values():
                future.cancel()
            self.precompute.clear()
        if self.pool:
            self._read_ahead(start, size)
        rows = waiting.result() if waiting else self.read(self.order.indices(start, size))
        return {key: value.to(self.loader.device, non_blocking=True) for key, value in rows.items()}

    def _read_ahead(self, start: int, size: int) -> None:
        if self.last is not None:
            self.follows[self.last] = size
        self.last = size
        rank, world = self.loader.rank, self.loader.world
        joined = start - rank * size  # where the joined batch starts
        for _ in range(self.workers):
            joined, size = joined + size * world, self.follows.get(size, size)
            place = (joined + rank * size, size)
            if place not in self.precompute:
                self.precompute[place] = self.pool.submit(self.read, self.order.indices(*place))
