"""Images -> images of another domain: one generator a direction, or one for all of them.

Keys of the spec: ``to``, what makes each domain's images: a network, ``{"b": "G", "a": "F"}``, or a network and what it
gets beside the images, ``{"blond": {"network": "G", "domain": 1}}``:

- ``domain``: an index or a list of numbers, G(x, domain). None in the list stands for an attribute that the images
  keep: ``recognizer`` names the network whose ``logits(x)`` say whether they have it.
- ``parts``: names or numbers of G's parts that make the images, as they are: G(x, 0, 1).

``source`` and ``target`` beside it: the batch's keys of the images that it translates and of those of its domain, by
default any other key, and the domain itself. Or, for scores, ``where``: the labels of the real images of the domain,
``{"attributes.Blond_Hair": 1}``, and ``of``, a list of those of the domains that it translates; without it all other
images; and ``keep``, the names of attributes that a translation does not change, ``["attributes.Male"]``.

``domains``: names of the domains. ``paired``: it was trained on pairs, so that previews show what outputs should be.

A network may have noise inputs, ``noise_shapes`` by name, the shape for one image each: it also gets ``noise``, drawn
from the image's seed.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.files import Json, shell_word
from zoo.models.arguments import Images, as_batch, check_chunk, find_domain, seed_list
from zoo.models.base import AttributeGoals, Bench, Model, Pairs, Program, build_model, probe_images
from zoo.models.inference import use_batch_statistics
from zoo.models.latents import noise_inputs
from zoo.models.request import Request
from zoo.networks.interfaces import Classifier
from zoo.registry import TASKS

if TYPE_CHECKING:
    from zoo.metrics.images import Images as ScoredImages
    from zoo.metrics.inputs import ScoreInputs

Domain = int | list[float | None]
SCORED = ("where", "of", "source", "target", "keep")  # keys of an entry that say what a direction is scored on


@TASKS.register("translate")
class TranslateModel(Model):
    """A translator. ``to_network``: from a domain to the name of the network that makes its images. ``conditions``,
    ``parts``: from a domain to what its network gets beside the images, if it gets something."""

    verb = "translate"
    words = "translation"
    keys = ("to",)
    translates = True
    test_rule = "held-out pairs"
    bench = Bench(
        (
            "fd",
            "precision",
            "recall",
            "input-retrieval",
            "attribute-accuracy",
            "attribute-preservation",
            "l1",
            "psnr",
            "ssim",
        ),
        main="fd",
        bars={
            "fd": ("identity", "mean color"),
            "input-retrieval": ("nearest training image",),
            "attribute-accuracy": ("identity",),
            "attribute-preservation": ("nearest training image",),
            "l1": ("identity", "mean color"),
        },
    )

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        entries: dict[str, Json] = {d: {"network": e} if isinstance(e, str) else dict(e) for d, e in spec["to"].items()}
        for domain, entry in entries.items():
            if entry.get("network") not in spec["networks"]:
                raise ValueError(f"model spec: to.{domain}: must name a network, got {entry.get('network')!r}")
            values = entry.get("domain")
            if isinstance(values, list) and None in values and entry.get("recognizer") not in spec["networks"]:
                raise ValueError(f"model spec: to.{domain}.recognizer: must name a network, since its domain has None")
        self.entries = entries
        self.to_network: dict[str, str] = {d: e["network"] for d, e in entries.items()}
        self.conditions: dict[str, Domain] = {d: e["domain"] for d, e in entries.items() if "domain" in e}
        self.parts: dict[str, list[int | str]] = {d: e.get("parts", []) for d, e in entries.items()}
        if spec.get("paired"):  # its targets say what it has to keep
            bars = {"input-retrieval": (), "l1": ("identity", "mean color", "nearest training image")}
            self.bench = dataclasses.replace(self.bench, bars={**self.bench.bars, **bars})
        self.where = {d: e["where"] for d, e in entries.items() if "where" in e}
        self.domains = dict(spec.get("domains", {}))

    @property
    def draws(self) -> bool:
        noise = any(getattr(self.network(to), "noise_shapes", {}) for to in self.directions)
        return noise or self.sampling.mode == "dropout"

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(self.to_network)

    def direction(self, to: str | None) -> str:
        """The domain of a letter or a domain's name; of None the only one. Raises ValueError if there is none, or for
        None if there are several."""
        if to is None:
            if len(self.directions) > 1:
                raise ValueError(f"--to: must be a domain of this model, {' or '.join(self.direction_names)}")
            return self.directions[0]
        return find_domain(to, self.directions, self.domains, "translates to")

    def network(self, to: str) -> nn.Module:
        """The generator that makes images of the domain ``to``."""
        return getattr(self, self.to_network[self.direction(to)])

    def render(self, x: Tensor, to: str, **noise: Mapping[str, Tensor]) -> Tensor:
        """Images x [N, C, H, W] translated to the domain ``to``, both in the networks' range. ``noise``: the argument
        of that name, if the network takes it."""
        domain = self.direction(to)
        G = self.network(domain)
        if domain not in self.conditions:
            return G(x, *self.parts[domain], **noise)
        return G(x, self.condition(x, domain), **noise)

    def recognizer(self, to: str) -> Classifier | None:
        """The network that says which attributes images have, if a direction keeps some of theirs."""
        values = self.conditions.get(to)
        return getattr(self, self.entries[to]["recognizer"]) if isinstance(values, list) and None in values else None

    def condition(self, x: Tensor, to: str) -> Tensor:
        """What the network of a direction gets beside x [N, C, H, W]: int64 [N], or float [N, K]."""
        values, recognizer = self.conditions[to], self.recognizer(to)
        plain = [math.nan if v is None else v for v in values] if isinstance(values, list) else values
        condition = torch.tensor(plain, device=x.device)
        condition = condition.expand(x.shape[0], *condition.shape)  # not len(x), which an exported file would keep
        if recognizer is None:
            return condition
        return torch.where(condition.isnan(), (recognizer.logits(x) > 0).to(condition.dtype), condition)

    def forward(self, images: Images, to: str | None = None) -> Tensor:
        """As :meth:`translate`."""
        return self.translate(images, to)

    def translate(self, images: Images, to: str | None = None, chunk: int = 16, *, seed: int = 0) -> Tensor:
        """The images translated to the domain ``to``: float32 [N, C, H, W] in [0, 1].

        Args:
            images: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images of one size
                (transparent pixels become white). Height and width: multiples of 4, or the spec's if the network is not
                fully convolutional or another one recognizes the attributes that stay.
            to: a domain, by its letter or name; not needed if there is one only.
            chunk: images in one pass; the recipe's number if it samples with batch statistics.
            seed: of the first image's noise or dropout, for models that have one; image k has ``seed + k``.

        Raises ValueError if the images do not fit, or for a number that is no seed.
        """
        to = self.direction(to)
        x = as_batch(images, self.channels)
        own_seeds = seed_list(len(x), seed, None)
        height, width = x.shape[-2:]
        fixed = self.side(to)
        if fixed and (height, width) != (fixed, fixed):
            raise ValueError(f"images of {width}x{height}: this model takes {fixed}x{fixed}")
        if height % 4 or width % 4:
            size = f"{max(4, round(width / 4) * 4)}x{max(4, round(height / 4) * 4)}"
            raise ValueError(f"images of {width}x{height}: height and width must be multiples of 4; resize to {size}")
        outputs: list[Tensor] = []
        for part in x.split(self.sampling.together or check_chunk(chunk)):
            first = sum(len(y) for y in outputs)
            try:
                seeds = own_seeds[first : first + len(part)]
                noise = {k: v.to(self.device) for k, v in noise_inputs(self.network(to), seeds).items()}
                with self.inference(seeds):
                    x = self.from_unit(part.to(self.device))
                    outputs.append(self.to_unit(self.render(x, to, **({"noise": noise} if noise else {}))))
            except torch.OutOfMemoryError:
                raise RuntimeError(f"chunk={chunk}: out of memory for images of {width}x{height}; lower it") from None
            except (RuntimeError, ValueError) as error:
                message = f"images of {width}x{height}: too small, or of a shape that the network does not take"
                raise ValueError(f"{message} ({str(error).splitlines()[0]})") from error
        return torch.cat(outputs)

    def side(self, to: str) -> int | None:
        """The height and width that a direction's network takes, None if it takes any. What recognizes attributes takes
        those of the spec."""
        domain = self.direction(to)
        return getattr(self.network(domain), "resolution", None) if self.recognizer(domain) is None else self.resolution

    # What it shows ----------------------------------------------------------------------------------------------------

    def _source(self, to: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The images that a direction translates: those of the key ``source`` of its entry, or of another key than its
        domain's."""
        images = {key: x for key, x in inputs.items() if x.ndim == 4}
        others = [x for key, x in images.items() if key != to]
        return images.get(self.entries[to].get("source", ""), (others or [*images.values()])[0])

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """For each direction a row of real images, if they are not those of the direction before, a row of their
        translations and, if it was trained on pairs, a row of the real images that these should be."""
        return self.preview_from(reals, 0)

    def preview_from(self, reals: Mapping[str, Tensor], seed: int) -> tuple[Tensor, int]:
        rows, before = list[Tensor](), None
        for to in self.directions:
            images = self._source(to, reals)
            source = self.to_unit(images)
            rows += [source] if images is not before else []
            rows.append(self.translate(source, to, seed=seed).to(source.device))
            before = images
            if self.spec.get("paired") and to in reals:
                rows.append(self.to_unit(reals[to]))
        return torch.cat(rows), len(rows[0])

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        if not inputs:
            raise ValueError("a translator needs images: pass inputs={'a': ...}")
        return torch.cat([self.translate(self._source(to, inputs), to, seed=seed) for to in self.directions])

    # What the rest of the zoo asks ------------------------------------------------------------------------------------

    @classmethod
    def commands(cls, spec: Mapping[str, Any], name: str) -> list[str]:
        to = [shell_word(str(spec.get("domains", {}).get(d, d))) for d in spec["to"]]
        return [f"zoo sample {shell_word(name)} --input image.png --to {d} --out translated.png" for d in to]

    def probe(self) -> Iterator[Tensor]:
        x = probe_images(self)
        for to in self.directions:
            yield self.translate(x, to)

    def program(self, to: str | None) -> Program:
        domain = self.direction(to)
        if self.sampling.mode == "dropout":
            raise ValueError("this model samples with dropout, which a file cannot draw: it cannot be exported")
        model = use_batch_statistics(copy.deepcopy(self)) if self.sampling.together else self

        class Translator(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.G, self.recognizer = model.network(domain), model.recognizer(domain)

            def forward(self, *tensors: Tensor) -> Tensor:
                images, *rest = tensors
                noise = {"noise": dict(zip(shapes, rest, strict=True))} if rest else {}
                return model.to_unit(model.render(model.from_unit(images), domain, **noise))

        def inputs(n: int) -> tuple[Tensor, ...]:
            size, generator = (n, self.channels, *(self.resolution,) * 2), torch.Generator().manual_seed(n)
            return (torch.rand(size, generator=generator), *noise_inputs(model.network(domain), range(n)).values())

        shapes = getattr(model.network(domain), "noise_shapes", {})
        return Program(Translator().eval().requires_grad_(False), inputs, ["images", *shapes], "translated")

    def write(self, request: Request) -> None:
        if request.source is None:
            raise ValueError(f"--input: '{request.name}' translates images; give an image or a folder of images")
        seed = ("seed",) if self.draws else ()
        request.only("source", "to", "scale", *seed)
        to = self.direction(request.to)
        request.remake(
            lambda image, seed: self.translate(image, to, seed=seed)[0],
            self.side(to),
            self.channels,
            half=int(to == "a") if self.spec.get("paired") else None,
            check=functools.cache(functools.partial(self._check_size, to, copy.deepcopy(self).to("meta"))),
        )

    def _check_size(self, to: str, shapes: TranslateModel, width: int, height: int) -> None:
        """Raises ValueError if the network of a direction does not take images of this size. ``shapes``: this model on
        the meta device, which computes shapes alone; what it cannot compute is tried with a black image."""
        size, network = (1, self.channels, height, width), shapes.network(to)
        try:
            noise = {k: v.to("meta") for k, v in noise_inputs(network, [0]).items()}
            with shapes.inference([0]):
                shapes.render(torch.empty(size, device="meta"), to, **({"noise": noise} if noise else {}))
        except (RuntimeError, ValueError):
            self.translate(torch.zeros(size), to)

    # Scores -----------------------------------------------------------------------------------------------------------

    def _domain_rows(self, inputs: ScoreInputs, split: str) -> tuple[Tensor, Tensor, bool]:
        """The rows of a split that a direction translates, those of its domain, int64, and whether they are pairs, of
        the split that is scored: then row k of both shows the same thing, and rows without a pair are left out. Raises
        ValueError if neither the spec nor the Card's streams say which they are."""
        to = self.direction(inputs.to)
        if to in self.where:
            return self._labeled_rows(inputs, split, to)
        ends = {key: stream.where for stream in inputs.source.streams for key in stream.keys.values()}
        source, target = self.entries[to].get("source"), self.entries[to].get("target", to)
        if target not in ends or len(ends) < 2:
            streams = ", ".join(ends) or "none"
            raise ValueError(
                f"'{inputs.source.name}': its Card must have a stream for each of two domains, got {streams}"
            )
        others = [where for key, where in ends.items() if key == source or (source is None and key != target)]
        sources = torch.cat([inputs.rows(split, where) for where in others]).unique()
        targets = inputs.rows(split, ends[target])
        if len(others) > 1 or not inputs.facts.paired or split != inputs.split:
            return sources, targets, False
        sources, targets = inputs.paired(split, sources, targets)
        return sources, targets, len(sources) == len(targets)

    def _labeled_rows(self, inputs: ScoreInputs, split: str, to: str) -> tuple[Tensor, Tensor, bool]:
        """The same if the spec says which rows they are. Of several domains that are translated each has its pairs."""
        targets, of = inputs.rows(split, self.where[to]), self.entries[to].get("of", ())
        if not of:
            every = torch.ones(inputs.count(split), dtype=torch.bool)
            every[targets] = False
            return every.nonzero().flatten(), targets, False
        sides = [(inputs.rows(split, where), targets) for where in of]
        if not inputs.facts.paired or split != inputs.split:
            return torch.cat([sources for sources, _ in sides]), targets, False
        pairs = [inputs.paired(split, *both) for both in sides]
        sources, targets = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        return sources, targets, len(sources) == len(targets)

    def input_images(self, inputs: ScoreInputs) -> ScoredImages:
        sources, _, _ = self._domain_rows(inputs, inputs.split)
        return inputs.real(inputs.split, sources)

    def scored_images(self, inputs: ScoreInputs) -> ScoredImages:
        to = self.direction(inputs.to)
        return inputs.changed(
            self.input_images(inputs), lambda x, first: self.translate(x, to, seed=inputs.seed + first)
        )

    def scored_rows(self, inputs: ScoreInputs, split: str) -> Tensor:
        rows = self._domain_rows(inputs, split)[1]
        return rows if len(self.entries[self.direction(inputs.to)].get("of", ())) < 2 else rows.unique()

    @property
    def changes_attributes(self) -> bool:
        return any(entry.get("keep") for entry in self.entries.values())

    def scored_attributes(self, inputs: ScoreInputs) -> AttributeGoals | None:
        to = self.direction(inputs.to)
        keep: list[str] = self.entries[to].get("keep", [])
        if not keep:
            return None
        rows = self._domain_rows(inputs, inputs.split)[0]
        data = inputs.open(inputs.split, self.resolution)
        changed = {label: bool(value) for label, value in self.where[to].items()}
        return AttributeGoals(changed, {label: data.labels(label)[rows] > 0 for label in keep})

    def scored_pairs(self, inputs: ScoreInputs) -> Pairs | None:
        _, targets, paired = self._domain_rows(inputs, inputs.split)
        if not paired:
            return None
        return Pairs(inputs.images, inputs.real(inputs.split, targets).at_most(inputs.images.count), generated=False)

    def baselines(self, inputs: Callable[[str], ScoreInputs]) -> Iterator[tuple[str, Model]]:
        """One leaves images as they are, one shifts their mean color, one returns the training image of the other
        domain that is nearest to its input (of paired data: the partner of the nearest input), one returns any."""
        makers: dict[str, Callable[[Tensor, Tensor, bool], nn.Module]] = {
            "identity": lambda source, target, paired: Shift(0 * color(source, target)),
            "mean color": lambda source, target, paired: Shift(color(source, target)),
            "nearest training image": lambda source, target, paired: NearestImage(source if paired else target, target),
            "training images copied": lambda source, target, paired: PickImage(2 * target - 1),
        }
        images = {to: self._domain_images(inputs(to)) for to in self.directions}
        for label, make in makers.items():
            networks = {f"to_{to}": make(*several) for to, several in images.items()}
            spec = {**self.spec, "range": [-1, 1], "to": {to: self._scored_as(to, f"to_{to}") for to in images}}
            yield label, build_model({**spec, "networks": {name: {} for name in networks}}, networks, self.card)

    def _scored_as(self, to: str, network: str) -> Json:
        """The entry of a network that is scored as this direction is."""
        return {"network": network, **{k: v for k, v in self.entries[to].items() if k in SCORED}}

    def _domain_images(self, inputs: ScoreInputs) -> tuple[Tensor, Tensor, bool]:
        """All images that a direction translates, and all of its domain: float [N, C, H, W] in [0, 1]; whether they are
        pairs."""
        sources, targets, paired = self._domain_rows(inputs, inputs.split)
        return inputs.tensor(sources), inputs.tensor(targets), paired


# Trivial translators --------------------------------------------------------------------------------------------------


def color(source: Tensor, target: Tensor) -> Tensor:
    """The difference of the mean colors of images in [0, 1], in the range [-1, 1]: [C, 1, 1]."""
    return 2 * (target.mean((0, 2, 3)) - source.mean((0, 2, 3)))[:, None, None]


class PickImage(nn.Module):
    """A translator that returns one of some images [N, C, H, W] in [-1, 1], which depends on the sum of its input."""

    def __init__(self, images: Tensor):
        super().__init__()
        self.images = nn.Parameter(images, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.images[(x.flatten(1).double().sum(1) * 1e6).long() % len(self.images)]


class NearestImage(nn.Module):
    """A translator that finds the image of ``keys`` that is nearest to its input by the sum of squares, and returns the
    one of ``images`` at its place: both [N, C, H, W] in [0, 1]."""

    def __init__(self, keys: Tensor, images: Tensor):
        super().__init__()
        self.keys = nn.Parameter(2 * keys - 1, requires_grad=False)
        self.images = self.keys if images is keys else nn.Parameter(2 * images - 1, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.images[torch.cdist(x.flatten(1), self.keys.flatten(1)).argmin(1)]


class Shift(nn.Module):
    """A translator that adds a color, [C, 1, 1], to images in [-1, 1]."""

    def __init__(self, by: Tensor):
        super().__init__()
        self.by = nn.Parameter(by)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.by).clamp(-1, 1)
