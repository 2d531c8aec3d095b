"""Models: what a run leaves behind and ``zoo.load`` returns. Networks, prior, value range and one verb a kind.

A model is built from a *model spec*, plain JSON that travels in the Card of its weights:

    {"kind": "image", "networks": {"G": {"name": ..., "kwargs": {...}}}, "prior": {"name": ..., "kwargs": {...}},
     "range": [-1, 1], "resolution": 32, "channels": 3, "classes": ["airplane", ...]}
    {"kind": "translate", "networks": {"G": ..., "F": ...}, "to": {"b": "G", "a": "F"},
     "domains": {"a": "twitter", "b": "google"}, "range": ..., "resolution": ..., "channels": ...}

No game is needed, and none is imported but its priors. Nothing here touches the global random state.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.game import build_prior
from zoo.registry import NETWORKS, Registry, Spec, nearest

KINDS = Registry("kind of model", "zoo.model")
SEEDS = 2**32  # torch's CPU generator keeps 32 bits of a seed


def build_model(
    spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None = None, card: Mapping[str, Any] | None = None
) -> Model:
    """The model of a spec. ``networks``: those that exist already (a run's own); without them they are built anew, from
    a fixed seed and without touching the global random state. ValueError where the spec is not one."""
    for key in ("kind", "networks", "range", "resolution", "channels"):
        if key not in spec:
            raise ValueError(f"model spec: '{key}' is missing")
    return KINDS[spec["kind"]](spec, networks, card)


class Model(nn.Module):
    """Networks by name, the range of their values, and the Card.

    ``spec``: the model spec. ``card``: what the weights file says of itself (empty for an untrained model).
    """

    verb = ""

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Mapping | None):
        super().__init__()
        self.spec, self.card = dict(spec), dict(card or {})
        self.low, self.high = spec["range"]
        self.resolution, self.channels = spec["resolution"], spec["channels"]
        if networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                networks = {n: NETWORKS.build(Spec(s["name"], **s["kwargs"])) for n, s in spec["networks"].items()}
        for name in spec["networks"]:
            self.add_module(name, networks[name])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name; they are the model's children (one may bear two names)."""
        return {name: getattr(self, name) for name in self.spec["networks"]}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Images for a grid that shows the model at a glance, and its number of columns. ``reals``: real images in the
        networks' own range, by the batch's keys, for models that begin from some."""
        raise TypeError(f"a {self.spec['kind']} model shows nothing")

    @contextlib.contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Eval mode and no gradient; each module's own mode comes back afterwards, so that a run may look at itself."""
        training = [m for m in self.modules() if m.training]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for m in training:
                m.training = True

    def to_unit(self, x: Tensor) -> Tensor:
        """The networks' values -> float32 in [0, 1]. Points (resolution 0) stay as they are."""
        x = x.float()
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1) if self.resolution else x

    def from_unit(self, x: Tensor) -> Tensor:
        """[0, 1] -> the networks' values."""
        return x * (self.high - self.low) + self.low

    def extra_repr(self) -> str:
        return f"{self.spec['kind']}, {self.channels} channels, {self.resolution} pixels"


def _truncated(draw: Callable[[], Tensor], limit: float) -> Tensor:
    """Components beyond ``limit`` are drawn again until none is (Brock et al. 2019, section 3.1)."""
    z = draw()
    while (far := z.abs() > limit).any():
        z = torch.where(far, draw(), z)
    return z


def _great_circle(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a to b along the sphere, length interpolated with it: a straight line would leave a normal's shell."""
    cos = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    angle = math.acos(cos.item())
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, t)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@KINDS.register("image")
class ImageModel(Model):
    """Noise -> images, one generator ``G``; class-conditional where G takes ``y``; point sets where resolution is 0.

    Image k of a sample is a function of its own seed: noise (and the class, where none is given) come from a CPU
    generator seeded with it, and G always sees batches of ``chunk`` images, the last one filled up, because convolution
    libraries round differently for different batch sizes. For a given ``chunk`` the bits do not depend on n or on the
    place in the batch; another ``chunk``, thread count or device may differ by rounding (below 1e-4).
    """

    verb = "sample"

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Mapping | None):
        super().__init__(spec, networks, card)
        if "prior" not in spec:
            raise ValueError("model spec: 'prior' is missing")
        self.prior_spec = Spec(spec["prior"]["name"], **spec["prior"]["kwargs"])
        self.prior = build_prior(self.prior_spec, self.generator)
        self.class_count = getattr(self.generator, "classes", 0) or 0  # 0: unconditional
        self.classes = tuple(spec.get("classes", ())) if self.class_count else ()

    @property
    def generator(self) -> nn.Module:
        """The network that makes the images: the first that the spec names."""
        return getattr(self, next(iter(self.spec["networks"])))

    def latents(
        self, seeds: Sequence[int], y: int | str | Sequence | None = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The noise [N, ...] and classes (int64 [N], or None for an unconditional G) of some seeds, on the CPU."""
        seeds = [_seed(s) for s in seeds]
        if truncation is not None:
            if self.prior_spec.name != "normal":
                raise ValueError(f"truncation={truncation}: the prior '{self.prior_spec.name}' has no tails to cut")
            if not truncation > 0:
                raise ValueError(f"truncation={truncation}: must be above 0 (deviations of the normal prior)")
        given = self._classes(y, len(seeds))
        zs, ys = [], []
        generator = torch.Generator()
        draw = functools.partial(self.prior, 1, generator, "cpu")
        for seed in seeds:
            generator.manual_seed(seed)
            zs.append(draw() if truncation is None else _truncated(draw, truncation))
            if self.class_count and given is None:
                ys.append(torch.randint(self.class_count, (1,), generator=generator))
        y = torch.cat(ys) if ys else given
        return (torch.cat(zs) if zs else self.prior(0, generator, "cpu")), y

    def decode(self, z: Tensor, y: Tensor | None = None, chunk: int = 16) -> Iterator[Tensor]:
        """Images of given noise, ``chunk`` at a time: float32 [<= chunk, C, H, W] in [0, 1] (points: [.., D])."""
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be at least 1")
        for z_part, y_part in zip(z.split(chunk), y.split(chunk) if y is not None else _nones(), strict=False):
            full = [len(z_part) - 1] * (chunk - len(z_part))
            index = torch.tensor([*range(len(z_part)), *full])
            inputs = {} if y_part is None else {"y": y_part[index].to(self.device)}
            try:
                with self._at_rest():
                    x = self.generator(z_part[index].to(self.device), **inputs)
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory; {self._fitting(z_part, y_part, chunk)}") from None
            yield self.to_unit(x[: len(z_part)])

    def _fitting(self, z: Tensor, y: Tensor | None, chunk: int) -> str:
        """Which chunk fits, found by halving."""
        while (chunk := chunk // 2) >= 1:
            with contextlib.suppress(torch.OutOfMemoryError), self._at_rest():
                some = {} if y is None else {"y": y[:1].expand(chunk).to(self.device)}
                self.generator(z[:1].expand(chunk, *z.shape[1:]).to(self.device), **some)
                return f"chunk={chunk} fits"
        return "not even one image fits"

    def iter_samples(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: int | str | Sequence | None = None,
        truncation: float | None = None,
        chunk: int = 16,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time on the model's device: memory does not grow with n."""
        seeds = _seeds(n, seed, seeds)
        y = self._classes(y, len(seeds))
        for at in range(0, len(seeds), chunk) if chunk > 0 else [0]:
            z, classes = self.latents(seeds[at : at + chunk], None if y is None else y[at : at + chunk], truncation)
            yield from self.decode(z, classes, chunk)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: int | str | Sequence | None = None,
        truncation: float | None = None,
        chunk: int = 16,
    ) -> Tensor:
        """n images: float32 [n, C, H, W] in [0, 1] (point sets: [n, D], raw), on the model's device.

        ``seed``: image k has the seed ``seed + k``; or ``seeds`` names each image's own. ``y``: a class (number or
        name) for all, or one an image; without it a conditional model draws it from the image's seed. ``truncation``:
        noise beyond so many deviations is drawn again (normal priors). ``chunk``: images in one pass of G.
        ValueError for a class, seed or number that cannot be.
        """
        return torch.cat(list(self.iter_samples(n, seed=seed, seeds=seeds, y=y, truncation=truncation, chunk=chunk)))

    def interpolate(
        self,
        seeds: Sequence[int],
        steps: int,
        *,
        y: int | str | None = None,
        truncation: float | None = None,
        chunk: int = 16,
    ) -> Iterator[Tensor]:
        """A closed walk through the noise of ``seeds``, ``steps`` images from each to the next, ``chunk`` at a time.
        Great circles for a normal prior, straight lines for others. One class throughout: ``y``, or the first seed's."""
        if steps < 1:
            raise ValueError(f"steps={steps}: must be at least 1")
        if len(seeds) < 2:
            raise ValueError(f"seeds={list(seeds)}: a walk needs at least two")
        z, classes = self.latents(seeds, y, truncation)
        between = _great_circle if self.prior_spec.name == "normal" else torch.lerp
        path = torch.stack(
            [between(a, b, i / steps) for a, b in zip(z, z.roll(-1, 0), strict=True) for i in range(steps)]
        )
        yield from self.decode(path, None if classes is None else classes[:1].expand(len(path)), chunk)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """64 images, 8 a row; a conditional model's rows are its classes (the first ten); 4,096 points of a point set."""
        if not self.resolution:
            return self.sample(4096, chunk=1024), 1
        if not self.class_count:
            return self.sample(64), 8
        rows = min(self.class_count, 10)
        return self.sample(seeds=[*range(8)] * rows, y=[i // 8 for i in range(8 * rows)]), 8

    def _classes(self, y: Any, n: int) -> Tensor | None:
        """Class numbers int64 [n] from a number, a name, or n of them."""
        if y is None:
            return None
        if not self.class_count:
            raise ValueError(f"y={y!r}: this model is not class-conditional")
        if isinstance(y, (Tensor, np.ndarray)):
            y = y.tolist()
        one = isinstance(y, str) or not isinstance(y, Sequence)
        values = [y] if one else list(y)
        if not one and len(values) != n:
            raise ValueError(f"y: {len(values)} classes for {n} images; give one, or one an image")
        numbers = torch.tensor([self._class(v) for v in values], dtype=torch.int64)
        return numbers.expand(n) if one else numbers

    def _class(self, value: Any) -> int:
        count = self.class_count
        if isinstance(value, str):
            if value in self.classes:
                return self.classes.index(value)
            if not value.lstrip("-").isdigit():
                known = ", ".join(self.classes[:20]) or f"numbers 0 to {count - 1}"
                raise ValueError(f"y='{value}': no such class{nearest(value, self.classes)}; it has {known}")
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if isinstance(value, (bool, float)) or not 0 <= number < count:
            raise ValueError(f"y={value}: must be a class number from 0 to {count - 1}, or a class name")
        return number


@KINDS.register("translate")
class TranslateModel(Model):
    """Images -> images of another domain, one generator a direction (``spec["to"]``: domain -> network)."""

    verb = "translate"

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Mapping | None):
        super().__init__(spec, networks, card)
        if not spec.get("to"):
            raise ValueError("model spec: 'to' is missing")
        self.to_network = dict(spec["to"])
        self.domains = dict(spec.get("domains", {}))

    def direction(self, to: str) -> str:
        """The domain ("a", "b") that a domain or its name means. ValueError where it is none."""
        if to in self.to_network:
            return to
        for domain, name in self.domains.items():
            if name == to and domain in self.to_network:
                return domain
        known = [*self.to_network, *(self.domains[d] for d in self.to_network if d in self.domains)]
        raise ValueError(f"to='{to}': no such domain{nearest(to, known)}; this model translates to {', '.join(known)}")

    def network(self, to: str) -> nn.Module:
        """The generator that makes images of the domain ``to``."""
        return getattr(self, self.to_network[self.direction(to)])

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """For each direction a row of real images and below it their translations."""
        rows = []
        for to in self.to_network:
            source = next(x for key, x in reals.items() if key != to and x.ndim == 4)
            source = self.to_unit(source)
            rows += [source, self.translate(source, to).to(source.device)]
        return torch.cat(rows), len(rows[0])

    def translate(self, images: Any, to: str, chunk: int = 16) -> Tensor:
        """The images as the domain ``to`` would have them: float32 [N, C, H, W] in [0, 1].

        ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images of one size (alpha is
        laid on white). Height and width: multiples of 4; where the network is not fully convolutional, the spec's.
        ``chunk``: images in one pass. ValueError where the images do not fit.
        """
        G = self.network(to)
        x = as_batch(images, self.channels)
        height, width = x.shape[-2:]
        fixed = getattr(G, "resolution", None)
        if fixed and (height, width) != (fixed, fixed):
            raise ValueError(f"images of {width}x{height}: this model takes {fixed}x{fixed}")
        if height % 4 or width % 4:
            near = f"{max(4, round(width / 4) * 4)}x{max(4, round(height / 4) * 4)}"
            raise ValueError(f"images of {width}x{height}: height and width must be multiples of 4; resize to {near}")
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be at least 1")
        made = []
        for part in x.split(chunk):
            try:
                with self._at_rest():
                    made.append(self.to_unit(G(self.from_unit(part.to(self.device)))))
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory for images of {width}x{height}; lower it") from None
            except (RuntimeError, ValueError) as error:
                small = f"images of {width}x{height}: too small or of a shape that the network cannot do"
                raise ValueError(f"{small} ({str(error).splitlines()[0]})") from error
        return torch.cat(made)


def as_batch(images: Any, channels: int) -> Tensor:
    """A tensor, PIL image or list of either -> float32 [N, C, H, W] in [0, 1]. ValueError where it cannot be."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("images: the list is empty")
        parts = [as_batch(i, channels) for i in images]
        sizes = {tuple(p.shape[-2:]) for p in parts}
        if len(sizes) > 1:
            said = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
            raise ValueError(f"images: sizes differ ({said}); give those of one size at a time")
        return torch.cat(parts)
    if isinstance(images, Tensor):
        x = images.float()
        x = x[None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"images of shape {list(images.shape)}: must be [N, {channels}, H, W]")
        if not images.is_floating_point() or x.min() < 0 or x.max() > 1:
            raise ValueError("images: must be float, from 0 (black) to 1 (white)")
        return x
    if not hasattr(images, "convert"):
        raise ValueError(f"images: must be a tensor, a PIL image or a list of them, not {type(images).__name__}")
    from PIL import Image

    if images.mode in ("RGBA", "LA", "PA") or "transparency" in images.info:
        images = images.convert("RGBA")
        images = Image.alpha_composite(Image.new("RGBA", images.size, "white"), images)
    if channels not in (1, 3):
        raise ValueError(f"images: PIL images have 1 or 3 channels, this model {channels}; give a tensor")
    array = np.asarray(images.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).reshape(*array.shape[:2], channels).permute(2, 0, 1)[None].contiguous()


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed}: must be a whole number from 0 to {SEEDS - 1}")
    return int(seed)


def _seeds(n: int | None, seed: int, seeds: Sequence[int] | None) -> Sequence[int]:
    if seeds is not None:
        if n not in (None, len(seeds)):
            raise ValueError(f"n={n}: {len(seeds)} seeds are given")
        if not len(seeds):
            raise ValueError("seeds: the list is empty")
        return seeds
    n = 1 if n is None else n
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")
    _seed(seed)
    _seed(seed + n - 1)
    return range(seed, seed + n)


def _nones() -> Iterator[None]:
    while True:
        yield None
