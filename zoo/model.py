"""Models: what a run leaves behind and ``zoo.load`` returns. Networks, prior, value range and one verb a kind.

A model is built from a *model spec*, plain JSON that travels in the Card of its weights:

    {"kind": "image", "networks": {"G": {"name": ..., "kwargs": {...}}}, "prior": {"name": ..., "kwargs": {...}},
     "range": [-1, 1], "resolution": 32, "channels": 3, "classes": ["airplane", ...]}
    {"kind": "autoencoder", "networks": {"G": ..., "E": ...}, ...}     # as image, with an encoder second
    {"kind": "image", "networks": {"G": ..., "D": ..., "Q": ...}, "recognition": ["D", "Q"], "prior": codes, ...}
    {"kind": "image", "networks": {"G": ..., "C": ...}, "classifier": "C", ...}, {"kind": "classify", ...}
    {"kind": "translate", "networks": {"G": ..., "F": ...}, "to": {"b": "G", "a": "F"},
     "domains": {"a": "twitter", "b": "google"}, "range": ..., "resolution": ..., "channels": ...}
    {"kind": "coupled", "networks": {"G": ...}, "prior": ..., "domains": {"a": "digits", "b": "edges"}, ...}

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

from zoo.priors import Codes, build_prior
from zoo.recipe import decode
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
                specs = {n: Spec(s["name"], **decode(s["kwargs"])) for n, s in spec["networks"].items()}
                networks = {n: NETWORKS.build(s) for n, s in specs.items()}
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
    def _eval_mode(self) -> Iterator[None]:
        """Eval mode and no gradient; each module's own mode comes back afterwards, so that a run may look at itself."""
        training = [m for m in self.modules() if m.training]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for m in training:
                m.training = True

    def classify(self, images: Any, chunk: int = 256) -> Tensor:
        """The probability of each class, float32 [N, K]. ``images``: as :meth:`TranslateModel.translate` takes them.
        ValueError where the model has no classifier (``spec["classifier"]`` names the network)."""
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
        self.classes = tuple(spec.get("classes", ()))[: self.class_count] if self.class_count else ()

    @property
    def generator(self) -> nn.Module:
        """The network that makes the images: the first that the spec names."""
        return getattr(self, next(iter(self.spec["networks"])))

    def render(self, z: Tensor, **inputs: Tensor) -> Tensor:
        """The generator's images, in its own range."""
        return self.generator(z, **inputs)

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
                with self._eval_mode():
                    x = self.render(z_part[index].to(self.device), **inputs)
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory; {self._fitting(z_part, y_part, chunk)}") from None
            yield self.to_unit(x[: len(z_part)])

    def _fitting(self, z: Tensor, y: Tensor | None, chunk: int) -> str:
        """Which chunk fits, found by halving."""
        while (chunk := chunk // 2) >= 1:
            with contextlib.suppress(torch.OutOfMemoryError), self._eval_mode():
                some = {} if y is None else {"y": y[:1].expand(chunk).to(self.device)}
                self.render(z[:1].expand(chunk, *z.shape[1:]).to(self.device), **some)
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
        codes: Mapping[str, Any] | None = None,
        chunk: int = 16,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time on the model's device: memory does not grow with n."""
        seeds = _seeds(n, seed, seeds)
        y = self._classes(y, len(seeds))
        given = self._codes(codes, len(seeds))
        for at in range(0, len(seeds), chunk) if chunk > 0 else [0]:
            z, classes = self.latents(seeds[at : at + chunk], None if y is None else y[at : at + chunk], truncation)
            if given:
                z = self.prior.place(z, {name: value[at : at + chunk] for name, value in given.items()})
            yield from self.decode(z, classes, chunk)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: int | str | Sequence | None = None,
        truncation: float | None = None,
        codes: Mapping[str, Any] | None = None,
        chunk: int = 16,
    ) -> Tensor:
        """n images: float32 [n, C, H, W] in [0, 1] (point sets: [n, D], raw), on the model's device.

        ``seed``: image k has the seed ``seed + k``; or ``seeds`` names each image's own. ``y``: a class (number or
        name) for all, or one an image; without it a conditional model draws it from the image's seed. ``truncation``:
        noise beyond so many deviations is drawn again (normal priors). ``codes``: values of some of the prior's codes,
        ``{"c1": 3, "c2": [-1.0, 1.0]}``, one for all or one an image; the others come from the image's seed.
        ``chunk``: images in one pass of G. ValueError for a class, seed, code or number that cannot be.
        """
        more = dict(y=y, truncation=truncation, codes=codes, chunk=chunk)
        return torch.cat(list(self.iter_samples(n, seed=seed, seeds=seeds, **more)))

    # Codes: what InfoGAN's prior has beside the noise -------------------------------------------------------------

    @property
    def codes(self) -> dict[str, int]:
        """The prior's codes by name: how many values a categorical one has, 0 for a continuous one."""
        return dict(self.prior.sizes) if isinstance(self.prior, Codes) else {}

    def traverse(
        self, code: str, seeds: Sequence[int], values: Sequence[float] | None = None, chunk: int = 16
    ) -> tuple[Tensor, int]:
        """What a code does: a row for each seed, in which only this code changes. Images and the number of columns.

        ``values``: by default all of a categorical code, or ten from -2 to 2, twice the range of training.
        """
        if code not in self.codes:
            known = ", ".join(self.codes) or "none"
            raise ValueError(f"code '{code}': no such code{nearest(code, self.codes)}; this model has {known}")
        if values is None:
            values = range(self.codes[code]) if self.codes[code] else torch.linspace(-2, 2, 10).tolist()
        each = [seed for seed in seeds for _ in values]
        return self.sample(seeds=each, codes={code: [*values] * len(seeds)}, chunk=chunk), len(values)

    def recognize(self, images: Any, chunk: int = 64) -> dict[str, Tensor]:
        """Which codes Q reads off images: by name the probabilities [N, K] of a categorical code, the mean [N] of a
        continuous one. ``images``: as :meth:`TranslateModel.translate` takes them. ValueError without such a network."""
        if "recognition" not in self.spec:
            raise ValueError(f"this model has no network that recognizes codes; it has {', '.join(self.networks)}")
        D, Q = (getattr(self, name) for name in self.spec["recognition"])
        x, found = as_batch(images, self.channels), []
        with self._eval_mode():
            for part in x.split(chunk):
                said = self.prior.read(Q(D.features(self.from_unit(part.to(self.device)))))
                found.append({name: value.exp() if self.codes[name] else value for name, value in said.items()})
        return {name: torch.cat([part[name] for part in found]) for name in self.codes}

    def _codes(self, codes: Mapping[str, Any] | None, n: int) -> dict[str, Tensor]:
        """Values [n] by name. ValueError for a code or value that cannot be."""
        given = {}
        for name, value in (codes or {}).items():
            if name not in self.codes:
                known = ", ".join(self.codes) or "none"
                raise ValueError(f"codes: no '{name}'{nearest(name, self.codes)}; this model has {known}")
            values = torch.as_tensor(value, dtype=torch.float32).cpu()
            k = self.codes[name]
            if values.dim() > 1 or (values.dim() == 1 and len(values) != n):
                raise ValueError(f"codes.{name}: {values.numel()} values for {n} images; give one, or one an image")
            if k and not all(v in range(k) for v in values.flatten().tolist()):
                raise ValueError(f"codes.{name}={value}: must be whole numbers from 0 to {k - 1}")
            if not torch.isfinite(values).all():
                raise ValueError(f"codes.{name}={value}: must be finite numbers")
            given[name] = values.expand(n)
        return given

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
        """64 images, 8 a row; a conditional model's rows are its classes (the first ten); with codes two rows of each of
        the first five, traversed; 4,096 points of a point set."""
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


@KINDS.register("coupled")
class CoupledModel(ImageModel):
    """Noise -> the same z drawn in two domains, ``a`` and ``b``, by one generator that returns both."""

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Mapping | None):
        super().__init__(spec, networks, card)
        self.domains = dict(spec.get("domains", {"a": "a", "b": "b"}))

    def direction(self, to: str) -> str:
        """The domain ("a", "b") that a domain or its name means. ValueError where it is none."""
        return _domain(to, list(self.domains), self.domains, "makes")

    def render(self, z: Tensor, **inputs: Tensor) -> Tensor:
        """Both domains' images, [N, 2, C, H, W]."""
        return torch.stack(self.generator(z, **inputs), 1)

    def pairs(self, n: int | None = None, **how: Any) -> Tensor:
        """n pairs of images of one z: float32 [n, 2, C, H, W] in [0, 1]. Arguments as :meth:`ImageModel.sample`."""
        return torch.cat(list(super().iter_samples(n, **how)))

    def sample(self, n: int | None = None, *, to: str | None = None, **how: Any) -> Tensor:
        """n images of the domain ``to``, by default the first: float32 [n, C, H, W] in [0, 1]; ``to="both"``: pairs side by
        side, [n, C, H, 2 W]. Other arguments as :meth:`ImageModel.sample`. The same seed gives the same pair."""
        return torch.cat(list(self.iter_samples(n, to=to, **how)))

    def iter_samples(self, n: int | None = None, *, to: str | None = None, **how: Any) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time."""
        yield from self._of(super().iter_samples(n, **how), to)

    def interpolate(self, seeds: Sequence[int], steps: int, *, to: str | None = None, **how: Any) -> Iterator[Tensor]:
        """As :meth:`ImageModel.interpolate`, in the domain ``to``."""
        yield from self._of(super().interpolate(seeds, steps, **how), to)

    def _of(self, chunks: Iterator[Tensor], to: str | None) -> Iterator[Tensor]:
        both = to == "both"
        place = 0 if both or to is None else list(self.domains).index(self.direction(to))
        for pairs in chunks:
            yield torch.cat([pairs[:, 0], pairs[:, 1]], -1) if both else pairs[:, place]

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """32 pairs: rows of eight images of the first domain, below each its twin."""
        return self.pairs(32).unflatten(0, (4, 8)).transpose(1, 2).flatten(0, 2), 8


@KINDS.register("autoencoder")
class AutoencoderModel(ImageModel):
    """An image model with an encoder: the networks are a generator and, second, E(x) -> code [N, latent] of G, or a tuple that
    begins with the code's mean."""

    @property
    def encoder(self) -> nn.Module:
        """The network that finds codes: the second that the spec names."""
        return getattr(self, list(self.spec["networks"])[1])

    def encode(self, images: Any, chunk: int = 16) -> Tensor:
        """The codes of images: float32 [N, latent], on the model's device; of a code that is a distribution the mean.

        ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images, of the spec's resolution.
        ``chunk``: images in one pass of E. ValueError where the images do not fit.
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

    def reconstruct(self, images: Any, shift: Tensor | None = None, chunk: int = 16) -> Tensor:
        """G(E(images)): float32 [N, C, H, W] in [0, 1]. ``shift`` [latent] (an attribute's vector, say) is added to the codes."""
        codes = self.encode(images, chunk)
        return torch.cat(list(self.decode(codes if shift is None else codes + shift.to(codes), chunk=chunk)))

    def attribute(self, having: Any, lacking: Any, chunk: int = 16) -> Tensor:
        """The vector [latent] of what the images ``having`` have and ``lacking`` lack: the difference of their mean codes
        (Larsen et al. 2015, section 4.1)."""
        return self.encode(having, chunk).mean(0) - self.encode(lacking, chunk).mean(0)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """As an image model; below, a row of real images and a row of their reconstructions."""
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

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Mapping | None):
        super().__init__(spec, networks, card)
        if not spec.get("to"):
            raise ValueError("model spec: 'to' is missing")
        self.to_network = dict(spec["to"])
        self.domains = dict(spec.get("domains", {}))

    def direction(self, to: str) -> str:
        """The domain ("a", "b") that a domain or its name means. ValueError where it is none."""
        return _domain(to, list(self.to_network), self.domains, "translates to")

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
                with self._eval_mode():
                    made.append(self.to_unit(G(self.from_unit(part.to(self.device)))))
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory for images of {width}x{height}; lower it") from None
            except (RuntimeError, ValueError) as error:
                small = f"images of {width}x{height}: too small or of a shape that the network cannot do"
                raise ValueError(f"{small} ({str(error).splitlines()[0]})") from error
        return torch.cat(made)


@KINDS.register("classify")
class ClassifyModel(Model):
    """Images -> classes, by the network that ``spec["classifier"]`` names: what a classifier without a generator leaves."""

    verb = "classify"

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Real images, in the order of the classes that they are taken for."""
        x = self.to_unit(next(x for x in reals.values() if x.ndim == 4))
        return x[self.classify(x).argmax(1).argsort(stable=True)], len(x)


def _domain(to: str, known: Sequence[str], names: Mapping[str, str], does: str) -> str:
    """The one of the domains ``known`` that ``to`` or its name in ``names`` means. ValueError where there is none."""
    for domain in known:
        if to in (domain, names.get(domain)):
            return domain
    said = [*known, *(names[d] for d in known if names.get(d, d) != d)]
    raise ValueError(f"to='{to}': no such domain{nearest(to, said)}; this model {does} {', '.join(said)}")


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
