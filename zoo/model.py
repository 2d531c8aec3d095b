"""Models: what a run writes and ``zoo.load`` returns. Networks, prior, value range and one verb a kind.

A model is built from a *model spec*, plain JSON that travels in the Card of its weights:

    {"kind": "image", "networks": {"G": {"name": ..., "kwargs": {...}}}, "prior": {"name": ..., "kwargs": {...}},
     "range": [-1, 1], "resolution": 32, "channels": 3, "classes": ["airplane", ...]}
    {"kind": "autoencoder", "networks": {"G": ..., "E": ...}, ...}     # as image, with an encoder second
    {"kind": "image", "networks": {"G": ..., "D": ..., "Q": ...}, "recognition": ["D", "Q"], "prior": codes, ...}
    {"kind": "image", "networks": {"G": ..., "C": ...}, "classifier": "C", ...}, {"kind": "classify", ...}
    {"kind": "translate", "networks": {"G": ..., "F": ...}, "to": {"b": "G", "a": "F"},
     "domains": {"a": "twitter", "b": "google"}, "range": ..., "resolution": ..., "channels": ...}
    {"kind": "coupled", "networks": {"G": ...}, "prior": ..., "domains": {"a": "digits", "b": "edges"}, ...}

No game is imported. Nothing here changes the global random state.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.images import to_array, to_pil
from zoo.files import Json
from zoo.networks.interfaces import Growing
from zoo.priors import Codes, build_prior
from zoo.recipe import decode
from zoo.registry import NETWORKS, Registry, Spec, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = Registry("kind of model", "zoo.model")
SEEDS = 2**32  # torch's CPU generator uses 32 bits of a seed

Images: TypeAlias = "Tensor | Image | Sequence[Tensor | Image]"
Classes: TypeAlias = int | str | Sequence[int | str] | Tensor | np.ndarray  # one for all images, or one for each
CodeValues: TypeAlias = Mapping[str, float | Sequence[float] | Tensor]


def build_model(
    spec: Mapping[str, Any],
    networks: Mapping[str, nn.Module] | None = None,
    card: Json | None = None,
) -> Model:
    """The model of a spec, without its pretrained networks (:func:`zoo.pretrained.attach`). ``networks``: existing ones
    (a run's own); without them new ones are built, from a fixed seed and without a change of the global random state.
    Raises ValueError if the spec is not a model spec."""
    for key in ("kind", "networks", "range", "resolution", "channels"):
        if key not in spec:
            raise ValueError(f"model spec: '{key}' is missing")
    model: Model = KINDS[spec["kind"]](spec, networks, card)
    if "level" in spec:
        set_level(model, spec["level"])
    return model


def set_level(model: Model, level: Any) -> None:
    """Set the networks that grow to a level. Raises ValueError if they do not have it."""
    if not isinstance(level, int) or isinstance(level, bool) or level < 0:
        raise ValueError(f"model spec: level={level!r}: must be a whole number from 0")
    for network in model.networks.values():
        if isinstance(network, Growing):
            network.at(level)


class Model(nn.Module):
    """Networks by name, the range of their values, and the Card.

    ``spec``: the model spec. ``card``: the Card of the weights file (empty for an untrained model).
    """

    verb = ""

    def __init__(self, spec: Json, networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__()
        self.spec, self.card = dict(spec), dict(card or {})
        self.low, self.high = spec["range"]
        self.resolution, self.channels = spec["resolution"], spec["channels"]
        if networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                specs = {n: Spec(s["name"], **decode(s["kwargs"])) for n, s in spec["networks"].items()}
                networks = {n: NETWORKS.build(s) for n, s in specs.items()}
        for name in spec["networks"]:
            self.add_module(name, networks[name])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name; they are the model's children (one network may have two names)."""
        return {name: getattr(self, name) for name in self.spec["networks"]}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Images for a grid of samples, and its number of columns. ``reals``: real images in the networks' range, by
        the batch's keys, for models whose input is images."""
        raise TypeError(f"a {self.spec['kind']} model has no preview")

    @contextlib.contextmanager
    def _eval_mode(self) -> Iterator[None]:
        """Eval mode and no gradient. Afterwards each module has its former mode, so that a run can sample while it
        trains."""
        training = [m for m in self.modules() if m.training]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for m in training:
                m.training = True

    def classify(self, images: Images, chunk: int = 256) -> Tensor:
        """The probability of each class, float32 [N, K]. ``images``: as :meth:`TranslateModel.translate` takes them.
        Raises ValueError if the model has no classifier (``spec["classifier"]`` names the network)."""
        if "classifier" not in self.spec:
            raise ValueError(f"this model has no classifier; it has {', '.join(self.networks)}")
        C, x = getattr(self, self.spec["classifier"]), as_batch(images, self.channels)
        with self._eval_mode():
            parts = [C.logits(self.from_unit(part.to(self.device))) for part in x.split(chunk)]
        return torch.cat(parts).float().softmax(1)

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
    """Components beyond ``limit`` are sampled again until none is (Brock et al. 2019, section 3.1)."""
    z = draw()
    while (far := z.abs() > limit).any():
        z = torch.where(far, draw(), z)
    return z


def _great_circle(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a to b along the sphere, with the length interpolated; a straight line has points of much smaller norm."""
    cos = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    angle = math.acos(cos.item())
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, t)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@KINDS.register("image")
class ImageModel(Model):
    """Noise -> images, one generator ``G``; class-conditional if G takes ``y``; point sets if the resolution is 0.

    Image k of a sample depends on its own seed only: the noise (and the class, unless ``y`` sets it) come from a CPU
    generator with that seed, and G always gets batches of ``chunk`` images, the last one filled up, because convolution
    libraries round differently for different batch sizes. For a fixed ``chunk`` the bits do not depend on n or on the
    place in the batch; another ``chunk``, thread count or device may differ by rounding (below 1e-4).
    """

    verb = "sample"

    def __init__(self, spec: Json, networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        if "prior" not in spec:
            raise ValueError("model spec: 'prior' is missing")
        self.prior_spec = Spec(spec["prior"]["name"], **spec["prior"]["kwargs"])
        self.prior = build_prior(self.prior_spec, self.generator)
        self.class_count = getattr(self.generator, "classes", 0) or 0  # 0: unconditional
        self.classes = tuple(spec.get("classes", ()))[: self.class_count] if self.class_count else ()

    @property
    def generator(self) -> nn.Module:
        """The generator: the first network of the spec."""
        return getattr(self, next(iter(self.spec["networks"])))

    def render(self, z: Tensor, **inputs: Tensor) -> Tensor:
        """The generator's images, in its own range."""
        return self.generator(z, **inputs)

    def latents(
        self, seeds: Sequence[int], y: Classes | None = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The noise [N, ...] and classes (int64 [N], or None for an unconditional G) of the seeds, on the CPU."""
        seeds = [_seed(s) for s in seeds]
        if truncation is not None:
            if self.prior_spec.name != "normal":
                prior = self.prior_spec.name
                raise ValueError(f"truncation={truncation}: the prior '{prior}' must be 'normal'")
            if not truncation > 0:
                raise ValueError(f"truncation={truncation}: must be above 0 (standard deviations)")
        classes = self._classes(y, len(seeds))
        zs, ys = [], []
        generator = torch.Generator()
        draw = functools.partial(self.prior, 1, generator, "cpu")
        for seed in seeds:
            generator.manual_seed(seed)
            zs.append(draw() if truncation is None else _truncated(draw, truncation))
            if self.class_count and classes is None:
                ys.append(torch.randint(self.class_count, (1,), generator=generator))
        z = torch.cat(zs) if zs else self.prior(0, generator, "cpu")
        return z, torch.cat(ys) if ys else classes

    def decode(self, z: Tensor, y: Tensor | None = None, chunk: int = 16) -> Iterator[Tensor]:
        """Images of the noise z, ``chunk`` at a time: float32 [<= chunk, C, H, W] in [0, 1] (points: [.., D])."""
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be at least 1")
        ys = [None] * -(-len(z) // chunk) if y is None else y.split(chunk)
        for z_part, y_part in zip(z.split(chunk), ys, strict=False):
            full = [len(z_part) - 1] * (chunk - len(z_part))
            index = torch.tensor([*range(len(z_part)), *full])
            inputs = {} if y_part is None else {"y": y_part[index].to(self.device)}
            try:
                with self._eval_mode():
                    x = self.render(z_part[index].to(self.device), **inputs)
            except torch.OutOfMemoryError:
                raise RuntimeError(
                    f"chunk={chunk}: out of memory; {self._chunk_that_fits(z_part, y_part, chunk)}"
                ) from None
            yield self.to_unit(x[: len(z_part)])

    def _chunk_that_fits(self, z: Tensor, y: Tensor | None, chunk: int) -> str:
        """The first of chunk / 2, chunk / 4, ... that fits, in words."""
        while (chunk := chunk // 2) >= 1:
            with contextlib.suppress(torch.OutOfMemoryError), self._eval_mode():
                inputs = {} if y is None else {"y": y[:1].expand(chunk).to(self.device)}
                self.render(z[:1].expand(chunk, *z.shape[1:]).to(self.device), **inputs)
                return f"chunk={chunk} fits"
        return "not even one image fits"

    def iter_samples(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: Classes | None = None,
        truncation: float | None = None,
        codes: CodeValues | None = None,
        chunk: int = 16,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time on the model's device; memory does not grow with n."""
        seeds = _seeds(n, seed, seeds)
        all_classes = self._classes(y, len(seeds))
        all_codes = self._codes(codes, len(seeds))
        for start in range(0, len(seeds), chunk) if chunk > 0 else [0]:
            part = slice(start, start + chunk)
            z, classes = self.latents(seeds[part], None if all_classes is None else all_classes[part], truncation)
            if isinstance(self.prior, Codes) and all_codes:
                z = self.prior.place(z, {name: values[part] for name, values in all_codes.items()})
            yield from self.decode(z, classes, chunk)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: Classes | None = None,
        truncation: float | None = None,
        codes: CodeValues | None = None,
        chunk: int = 16,
    ) -> Tensor:
        """n images: float32 [n, C, H, W] in [0, 1] (point sets: [n, D], raw), on the model's device.

        Args:
            n: how many; by default 1, or as many as ``seeds``.
            seed: image k has the seed ``seed + k``.
            seeds: the seed of each image, instead of ``n`` and ``seed``.
            y: a class (number or name) for all images, or one for each; by default it comes from the image's seed.
            truncation: noise beyond so many standard deviations is sampled again (normal priors).
            codes: values of the prior's codes, ``{"c1": 3, "c2": [-1.0, 1.0]}``, one for all images or one for each;
                the others come from the image's seed.
            chunk: images in one pass of G.

        Raises ValueError for an invalid class, seed, code or number.
        """
        chunks = self.iter_samples(n, seed=seed, seeds=seeds, y=y, truncation=truncation, codes=codes, chunk=chunk)
        return torch.cat(list(chunks))

    # Codes of InfoGAN's prior ------------------------ -------------------------------------------------------------

    @property
    def codes(self) -> dict[str, int]:
        """The prior's codes by name: how many values a categorical one has, 0 for a continuous one."""
        return dict(self.prior.sizes) if isinstance(self.prior, Codes) else {}

    def traverse(
        self, code: str, seeds: Sequence[int], values: Sequence[float] | None = None, chunk: int = 16
    ) -> tuple[Tensor, int]:
        """Images with a row for each seed, in which only this code changes, and the number of columns.

        ``values``: by default all of a categorical code, or ten from -2 to 2, twice the range of training.
        Raises ValueError if the prior has no such code.
        """
        if code not in self.codes:
            names = ", ".join(self.codes) or "none"
            raise ValueError(f"code '{code}': no such code{nearest(code, self.codes)}; this model has {names}")
        if values is None:
            values = range(self.codes[code]) if self.codes[code] else torch.linspace(-2, 2, 10).tolist()
        each = [seed for seed in seeds for _ in values]
        return self.sample(seeds=each, codes={code: [*values] * len(seeds)}, chunk=chunk), len(values)

    def recognize(self, images: Images, chunk: int = 64) -> dict[str, Tensor]:
        """The codes that Q finds in images: by name the probabilities [N, K] of a categorical code, the mean [N] of a
        continuous one. ``images``: as :meth:`TranslateModel.translate` takes them. Raises ValueError if the model has
        no such network."""
        if "recognition" not in self.spec or not isinstance(self.prior, Codes):
            raise ValueError(f"this model has no network that recognizes codes; it has {', '.join(self.networks)}")
        D, Q = (getattr(self, name) for name in self.spec["recognition"])
        x, parts = as_batch(images, self.channels), []
        with self._eval_mode():
            for part in x.split(chunk):
                outputs = self.prior.read(Q(D.features(self.from_unit(part.to(self.device)))))
                parts.append({name: value.exp() if self.codes[name] else value for name, value in outputs.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in self.codes}

    def _codes(self, codes: CodeValues | None, n: int) -> dict[str, Tensor]:
        """Values [n] by name. Raises ValueError for an invalid code or value."""
        expanded = {}
        for name, value in (codes or {}).items():
            if name not in self.codes:
                names = ", ".join(self.codes) or "none"
                raise ValueError(f"codes: no '{name}'{nearest(name, self.codes)}; this model has {names}")
            values = torch.as_tensor(value, dtype=torch.float32).cpu()
            k = self.codes[name]
            if values.dim() > 1 or (values.dim() == 1 and len(values) != n):
                raise ValueError(
                    f"codes.{name}: must be one value, or one for each of {n} images, got {values.numel()}"
                )
            if k and not all(v in range(k) for v in values.flatten().tolist()):
                raise ValueError(f"codes.{name}={value}: must be whole numbers from 0 to {k - 1}")
            if not torch.isfinite(values).all():
                raise ValueError(f"codes.{name}={value}: must be finite numbers")
            expanded[name] = values.expand(n)
        return expanded

    def interpolate(
        self,
        seeds: Sequence[int],
        steps: int,
        *,
        y: Classes | None = None,
        truncation: float | None = None,
        chunk: int = 16,
    ) -> Iterator[Tensor]:
        """A closed path through the noise of ``seeds``, ``steps`` images from each to the next, ``chunk`` at a time.
        Great circles for a normal prior, straight lines for others. All images have one class: ``y``, or the first
        seed's. Raises ValueError for fewer than two seeds or one step."""
        if steps < 1:
            raise ValueError(f"steps={steps}: must be at least 1")
        if len(seeds) < 2:
            raise ValueError(f"seeds={list(seeds)}: must be at least two seeds")
        z, classes = self.latents(seeds, y, truncation)
        between = _great_circle if self.prior_spec.name == "normal" else torch.lerp
        path = torch.stack(
            [between(a, b, i / steps) for a, b in zip(z, z.roll(-1, 0), strict=True) for i in range(steps)]
        )
        yield from self.decode(path, None if classes is None else classes[:1].expand(len(path)), chunk)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """64 images in rows of 8; a conditional model has a row for each class (the first ten); a model with codes has
        two rows for each of the first five codes; a point set has 4,096 points."""
        if not self.resolution:
            return self.sample(4096, chunk=1024), 1
        if self.codes:
            columns = max(self.codes.values()) or 10
            values = {c: [i % k for i in range(columns)] if k else torch.linspace(-2, 2, columns).tolist()
                      for c, k in list(self.codes.items())[:5]}  # fmt: skip
            return torch.cat([self.traverse(c, (0, 1), v)[0] for c, v in values.items()]), columns
        if not self.class_count:
            return self.sample(64), 8
        rows = min(self.class_count, 10)
        return self.sample(seeds=[*range(8)] * rows, y=[i // 8 for i in range(8 * rows)]), 8

    def _classes(self, y: Classes | None, n: int) -> Tensor | None:
        """Class numbers int64 [n] from a number, a name, or n of them. Raises ValueError for an invalid class."""
        if y is None:
            return None
        if not self.class_count:
            raise ValueError(f"y={y!r}: this model is not class-conditional")
        plain: Any = y.tolist() if isinstance(y, (Tensor, np.ndarray)) else y
        one = isinstance(plain, str) or not isinstance(plain, Sequence)
        values = [plain] if one else [*plain]
        if not one and len(values) != n:
            raise ValueError(f"y: must be one class, or one for each of {n} images, got {len(values)} classes")
        numbers = torch.tensor([self._class(v) for v in values], dtype=torch.int64)
        return numbers.expand(n) if one else numbers

    def _class(self, value: Any) -> int:
        count = self.class_count
        if isinstance(value, str):
            if value in self.classes:
                return self.classes.index(value)
            if not value.lstrip("-").isdigit():
                names = ", ".join(self.classes[:20]) or f"numbers 0 to {count - 1}"
                raise ValueError(f"y='{value}': no such class{nearest(value, self.classes)}; the model has {names}")
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if isinstance(value, (bool, float)) or not 0 <= number < count:
            raise ValueError(f"y={value}: must be a class number from 0 to {count - 1}, or a class name")
        return number


@KINDS.register("coupled")
class CoupledModel(ImageModel):
    """Noise -> two images of one z in two domains, ``a`` and ``b``, by one generator that returns both."""

    def __init__(self, spec: Json, networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        self.domains = dict(spec.get("domains", {"a": "a", "b": "b"}))

    def direction(self, to: str) -> str:
        """The domain ("a", "b") of a letter or a domain's name. Raises ValueError if there is none."""
        return _domain(to, list(self.domains), self.domains, "makes")

    def render(self, z: Tensor, **inputs: Tensor) -> Tensor:
        """Both domains' images, [N, 2, C, H, W]."""
        return torch.stack(self.generator(z, **inputs), 1)

    def pairs(self, n: int | None = None, **options: Any) -> Tensor:
        """n pairs of images of one z: float32 [n, 2, C, H, W] in [0, 1]. Arguments as :meth:`ImageModel.sample`."""
        return torch.cat(list(super().iter_samples(n, **options)))

    def sample(self, n: int | None = None, *, to: str | None = None, **options: Any) -> Tensor:
        """n images of the domain ``to``, by default the first: float32 [n, C, H, W] in [0, 1]; ``to="both"``: pairs
        side by side, [n, C, H, 2 W]. Other arguments as :meth:`ImageModel.sample`. The same seed gives the same
        pair."""
        return torch.cat(list(self.iter_samples(n, to=to, **options)))

    def iter_samples(self, n: int | None = None, *, to: str | None = None, **options: Any) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time."""
        yield from self._of(super().iter_samples(n, **options), to)

    def interpolate(
        self, seeds: Sequence[int], steps: int, *, to: str | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As :meth:`ImageModel.interpolate`, in the domain ``to``."""
        yield from self._of(super().interpolate(seeds, steps, **options), to)

    def _of(self, chunks: Iterator[Tensor], to: str | None) -> Iterator[Tensor]:
        both = to == "both"
        place = 0 if both or to is None else list(self.domains).index(self.direction(to))
        for pairs in chunks:
            yield torch.cat([pairs[:, 0], pairs[:, 1]], -1) if both else pairs[:, place]

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """32 pairs: a row of eight images of the first domain, below it their pairs in the second, four times."""
        return self.pairs(32).unflatten(0, (4, 8)).transpose(1, 2).flatten(0, 2), 8


@KINDS.register("autoencoder")
class AutoencoderModel(ImageModel):
    """An image model with an encoder: the networks are a generator and, second, E(x) -> the code [N, latent] of G, or a
    tuple whose first entry is the code's mean."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder: the second network of the spec."""
        return getattr(self, list(self.spec["networks"])[1])

    def encode(self, images: Images, chunk: int = 16) -> Tensor:
        """The codes of images: float32 [N, latent], on the model's device; the mean if the code is a distribution.

        ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images, of the spec's
        resolution. ``chunk``: images in one pass of E. Raises ValueError if the images do not fit.
        """
        x = as_batch(images, self.channels)
        if tuple(x.shape[-2:]) != (self.resolution,) * 2:
            height, width = x.shape[-2:]
            raise ValueError(f"images of {width}x{height}: this model takes {self.resolution}x{self.resolution}")
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be at least 1")
        codes = []
        for part in x.split(chunk):
            with self._eval_mode():
                code = self.encoder(self.from_unit(part.to(self.device)))
            codes.append((code[0] if isinstance(code, tuple) else code).float())
        return torch.cat(codes)

    def reconstruct(self, images: Images, shift: Tensor | None = None, chunk: int = 16) -> Tensor:
        """G(E(images)): float32 [N, C, H, W] in [0, 1]. ``shift`` [latent] (such as an attribute's vector) is added to
        the codes."""
        codes = self.encode(images, chunk)
        return torch.cat(list(self.decode(codes if shift is None else codes + shift.to(codes), chunk=chunk)))

    def attribute(self, having: Images, lacking: Images, chunk: int = 16) -> Tensor:
        """The vector [latent] of an attribute: the mean code of images that have it (``having``) minus that of images
        that do not (``lacking``) (Larsen et al. 2015, section 4.1)."""
        return self.encode(having, chunk).mean(0) - self.encode(lacking, chunk).mean(0)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """As an image model, then a row of real images and a row of their reconstructions."""
        samples, columns = super().preview(reals)
        real = next((x for x in reals.values() if x.ndim == 4), None)
        if real is None:
            return samples, columns
        real = self.to_unit(real[:columns].to(samples.device))
        if len(real) < columns:
            return samples, columns
        return torch.cat([samples, real, self.reconstruct(real)]), columns


@KINDS.register("translate")
class TranslateModel(Model):
    """Images -> images of another domain, one generator a direction (``spec["to"]``: domain -> network)."""

    verb = "translate"

    def __init__(self, spec: Json, networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        if not spec.get("to"):
            raise ValueError("model spec: 'to' is missing")
        self.to_network = dict(spec["to"])
        self.domains = dict(spec.get("domains", {}))

    def direction(self, to: str) -> str:
        """The domain ("a", "b") of a letter or a domain's name. Raises ValueError if there is none."""
        return _domain(to, list(self.to_network), self.domains, "translates to")

    def network(self, to: str) -> nn.Module:
        """The generator that makes images of the domain ``to``."""
        return getattr(self, self.to_network[self.direction(to)])

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """For each direction a row of real images and a row of their translations."""
        rows = []
        for to in self.to_network:
            source = next(x for key, x in reals.items() if key != to and x.ndim == 4)
            source = self.to_unit(source)
            rows += [source, self.translate(source, to).to(source.device)]
        return torch.cat(rows), len(rows[0])

    def translate(self, images: Images, to: str, chunk: int = 16) -> Tensor:
        """The images translated to the domain ``to``: float32 [N, C, H, W] in [0, 1].

        ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images of one size
        (transparent pixels become white). Height and width: multiples of 4, or the spec's if the network is not fully
        convolutional. ``chunk``: images in one pass. Raises ValueError if the images do not fit.
        """
        G = self.network(to)
        x = as_batch(images, self.channels)
        height, width = x.shape[-2:]
        fixed = getattr(G, "resolution", None)
        if fixed and (height, width) != (fixed, fixed):
            raise ValueError(f"images of {width}x{height}: this model takes {fixed}x{fixed}")
        if height % 4 or width % 4:
            size = f"{max(4, round(width / 4) * 4)}x{max(4, round(height / 4) * 4)}"
            raise ValueError(f"images of {width}x{height}: height and width must be multiples of 4; resize to {size}")
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be at least 1")
        outputs = []
        for part in x.split(chunk):
            try:
                with self._eval_mode():
                    outputs.append(self.to_unit(G(self.from_unit(part.to(self.device)))))
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory for images of {width}x{height}; lower it") from None
            except (RuntimeError, ValueError) as error:
                message = f"images of {width}x{height}: too small, or of a shape that the network does not take"
                raise ValueError(f"{message} ({str(error).splitlines()[0]})") from error
        return torch.cat(outputs)


@KINDS.register("classify")
class ClassifyModel(Model):
    """Images -> classes, by the network that ``spec["classifier"]`` names: a classifier without a generator."""

    verb = "classify"

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Real images, in the order of their predicted classes."""
        x = self.to_unit(next(x for x in reals.values() if x.ndim == 4))
        return x[self.classify(x).argmax(1).argsort(stable=True)], len(x)


def _domain(to: str, domains: Sequence[str], names: Mapping[str, str], verb: str) -> str:
    """The one of ``domains`` whose letter or name (by ``names``) is ``to``. Raises ValueError if there is none."""
    for domain in domains:
        if to in (domain, names.get(domain)):
            return domain
    options = [*domains, *(names[d] for d in domains if names.get(d, d) != d)]
    raise ValueError(f"to='{to}': no such domain{nearest(to, options)}; this model {verb} {', '.join(options)}")


def as_batch(images: Images, channels: int) -> Tensor:
    """A tensor, PIL image or list of either -> float32 [N, C, H, W] in [0, 1]. Raises ValueError for anything else."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("images: the list is empty")
        parts = [as_batch(i, channels) for i in images]
        sizes = {tuple(p.shape[-2:]) for p in parts}
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
            raise ValueError(f"images: must have one size, got {listed}")
        return torch.cat(parts)
    if isinstance(images, Tensor):
        x = images.float()
        x = x[None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"images of shape {list(images.shape)}: must be [N, {channels}, H, W]")
        if not images.is_floating_point() or x.min() < 0 or x.max() > 1:
            raise ValueError("images: must be float, from 0 (black) to 1 (white)")
        return x
    from PIL.Image import Image as PILImage

    if not isinstance(images, PILImage):
        raise ValueError(f"images: must be a tensor, a PIL image or a list of them, got {type(images).__name__}")
    if channels not in (1, 3):
        raise ValueError(f"images: must be a tensor, since the model has {channels} channels, got a PIL image")
    return torch.from_numpy(to_array(to_pil(images, channels)))[None].float() / 255


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed}: must be a whole number from 0 to {SEEDS - 1}")
    return int(seed)


def _seeds(n: int | None, seed: int, seeds: Sequence[int] | None) -> Sequence[int]:
    if seeds is not None:
        if n not in (None, len(seeds)):
            raise ValueError(f"n={n}: must be the number of seeds, got {len(seeds)} seeds")
        if not len(seeds):
            raise ValueError("seeds: the list is empty")
        return seeds
    n = 1 if n is None else n
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")
    _seed(seed)
    _seed(seed + n - 1)
    return range(seed, seed + n)
