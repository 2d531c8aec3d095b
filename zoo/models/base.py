"""The base of all tasks: networks, value range, Card, and what the rest of the zoo asks of any Model.

A model is built from a *model spec*, plain JSON that travels in the Card of its weights; ``kind`` names the task:

    {"kind": "image", "networks": {"G": {"name": ..., "kwargs": {...}}}, "prior": {"name": ..., "kwargs": {...}},
     "range": [-1, 1], "resolution": 32, "channels": 3, "classes": ["airplane", ...]}

``classifier``: the network that classifies, if there is one. ``sampling``: how the networks run, if not as in
evaluation mode (:class:`zoo.models.inference.Sampling`). Each task's module says which keys it adds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checks import check_whole, excerpt
from zoo.files import Json, shell_word
from zoo.models.arguments import Images, as_batch, check_chunk, check_size, check_unit
from zoo.models.inference import inference, sampling_of
from zoo.models.request import Request
from zoo.networks.interfaces import Growing, end_fade
from zoo.recipe import decode
from zoo.registry import NETWORKS, TASKS, Spec

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.metrics.images import Images as ScoredImages
    from zoo.metrics.inputs import ScoreInputs

KEYS = ("kind", "networks", "range", "resolution", "channels")


def build_model(
    spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None = None, card: Json | None = None
) -> Model:
    """The model of a spec, without its pretrained networks (:func:`zoo.pretrained.attach`). ``networks``: existing ones
    (a run's own); without them new ones are built, from a fixed seed and without a change of the global random state.
    Raises ValueError if the spec is not a model spec."""
    for key in KEYS:
        if key not in spec:
            raise ValueError(f"model spec: '{key}' is missing")
    model = task_of(spec)(spec, networks, card)
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


def task_of(spec: Mapping[str, Any]) -> type[Model]:
    """The class of a model spec. Raises ValueError if no task has its name."""
    task = TASKS[spec["kind"]]
    assert isinstance(task, type) and issubclass(task, Model)
    return task


@dataclass
class Program:
    """What ``zoo export`` writes: a module of tensors in, one tensor out.

    ``inputs``: a function that samples n inputs. ``names``: of the inputs. ``output``: name of the output. ``free``: of
    an input by its name the axes beside the first that may have any size, with their names.
    """

    network: nn.Module
    inputs: Callable[[int], tuple[Tensor, ...]]
    names: list[str]
    output: str = "images"
    free: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, list[int | str]]:
        """Of each input its sizes, with the name of those that are free; the first is ``N``."""
        shapes = {name: [*x.shape] for name, x in zip(self.names, self.inputs(1), strict=True)}
        axes = {name: {0: "N", **self.free.get(name, {})} for name in shapes}
        return {name: [axes[name].get(i, size) for i, size in enumerate(sizes)] for name, sizes in shapes.items()}


class Pairs(NamedTuple):
    """Images to be compared one by one with what they should be. ``generated``: whether the targets are generated
    too."""

    outputs: ScoredImages
    targets: ScoredImages
    generated: bool


class AttributeGoals(NamedTuple):
    """What the scored images of a translator of attributes should have. ``changed``: the value of each attribute that
    it sets; ``others``: of those that it should keep the labels of all its inputs, bool [N]."""

    changed: Mapping[str, bool]
    others: Mapping[str, Tensor]


@dataclass(frozen=True)
class Bench:
    """How ``zoo bench quality`` scores a task.

    Args:
        metrics: names from ``zoo.registry.METRICS``.
        main: the metric that decides whether weights are better.
        bars: of a metric the names of the baselines that shipped weights must beat in it, if the data have what the
            metric needs.
        least: the least values of scores, if the data have what they need.
        max_copies: at most such a share of near-copies, None if they do not count.
        max_noise: the noise of the main score is at most such a share of it, None if it does not count.
    """

    metrics: tuple[str, ...] = ("fd", "kid", "is", "precision", "recall", "density", "coverage", "near-copies")
    main: str = "fd"
    bars: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    max_copies: float | None = None
    max_noise: float | None = None


class Model(nn.Module):
    """Networks by name, the range of their values, and the Card.

    ``spec``: the model spec. ``card``: the Card of the weights file (empty for an untrained model).

    Each task sets:

        verb: its main method, in one word.
        words: its outputs, for tables.
        keys: what its spec must have beside ``kind``, ``networks``, ``range``, ``resolution``, ``channels``.
        generates: whether its outputs are images that can be scored.
        seeded: whether they come from seeds.
        draws: whether they depend on a seed; others than seeded ones may, by dropout or noise.
        translates: whether its outputs show what is on the images that it is given, in another domain.
        reads_captions: whether images and captions can be compared: it has :meth:`captioned_images`.
        test_rule: why it is scored on the split ``test`` whatever its size, in words; "" if it is not.
        watched: the metrics of ``zoo train --eval-every``.
        bench: how ``zoo bench quality`` scores it.
    """

    verb: ClassVar[str] = ""
    words: ClassVar[str] = ""
    keys: ClassVar[tuple[str, ...]] = ()
    generates: ClassVar[bool] = True
    seeded: ClassVar[bool] = False
    translates: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = False
    test_rule: ClassVar[str] = ""
    watched: ClassVar[tuple[str, ...]] = ("fd", "kid")
    bench: Bench = Bench()
    class_count = 0  # classes that can be requested
    recognizes = False  # whether it reads categorical codes off images

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__()
        for key in self.keys:
            if not spec.get(key):
                raise ValueError(f"model spec: '{key}' is missing")
        self.spec, self.card = dict(spec), dict(card or {})
        self.low, self.high = spec["range"]
        self.resolution, self.channels = spec["resolution"], spec["channels"]
        self.sampling = sampling_of(spec.get("sampling"))
        if networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                specs = {n: Spec(s["name"], **decode(s["kwargs"])) for n, s in spec["networks"].items()}
                networks = {n: NETWORKS.build(s) for n, s in specs.items()}
        for name in spec["networks"]:
            self.add_module(name, networks[name])
        if self.classifies and spec["classifier"] not in [*spec["networks"]]:
            raise ValueError(f"model spec: classifier: must name a network, got {excerpt(spec['classifier'])}")

    @property
    def draws(self) -> bool:
        return self.seeded

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name; they are the model's children (one network may have two names)."""
        return {name: getattr(self, name) for name in self.spec["networks"]}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def to_unit(self, x: Tensor) -> Tensor:
        """The networks' values -> float32 in [0, 1]. Points (resolution 0) stay as they are."""
        x = x.float()
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1) if self.resolution else x

    def from_unit(self, x: Tensor) -> Tensor:
        """[0, 1] -> the networks' values."""
        return x * (self.high - self.low) + self.low

    def extra_repr(self) -> str:
        return f"{self.spec['kind']}, {self.channels} channels, {self.resolution} pixels"

    def inference(self, seeds: Sequence[int] = ()) -> AbstractContextManager[None]:
        """The networks as they run when the model is used: evaluation mode, changed as the spec's ``sampling`` says,
        and no gradient. ``seeds``: of the images of the pass, for dropout."""
        return inference(self, self.sampling, seeds)

    def accumulate_statistics(self) -> None:
        """Replace batch norm's running averages by standing statistics, before the weights are scored or shipped.
        Raises ValueError if its images do not come from seeds."""
        raise ValueError(f"sampling.mode=standing: must be a model that samples, got one with the verb {self.verb}")

    def at(self, level: int) -> Model:
        """Set the networks that grow to a level, from 0, without a fade; images then have this level's size. The layer
        to images of a lower level is as it was when training left it. Raises ValueError if no network grows, or there
        is no such level. Returns the model."""
        growing: list[Any] = [n for n in self.networks.values() if isinstance(n, Growing)]
        if not growing:
            raise ValueError(f"level={level}: must be a model whose networks grow, got {', '.join(self.networks)}")
        set_level(self, level)
        for network in growing:
            end_fade(network)
        self.resolution = growing[0].side
        self.spec |= {"level": level, "resolution": self.resolution}
        return self

    # Domains ----------------------------------------------------------------------------------------------------------

    @property
    def directions(self) -> tuple[str, ...]:
        """The domains that it makes images of, one at a time, by letter; () if there is no choice."""
        return ()

    @property
    def direction_names(self) -> tuple[str, ...]:
        """The names of ``directions``."""
        names = self.spec.get("domains", {})
        return tuple(str(names.get(domain, domain)) for domain in self.directions)

    def direction(self, to: str | None) -> str | None:
        """The domain that a letter or a domain's name means; None if there is no choice. Raises ValueError for a name
        that is none, or if one has to be named."""
        if to is not None:
            raise ValueError(f"to={to}: a model with the verb {self.verb} does not translate and has one domain; "
                             f"leave it out (--to)")  # fmt: skip
        return None

    # What a task shows ------------------------------------------------------------------------------------------------

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Images for a grid of samples, and its number of columns. ``reals``: real images in the networks' range, by
        the batch's keys, for models whose input is images."""
        raise TypeError(f"a {self.spec['kind']} model has no preview")

    def preview_from(self, reals: Mapping[str, Tensor], seed: int) -> tuple[Tensor, int]:
        """As :meth:`preview`, with the seeds from ``seed`` on. A task that ``draws`` and is not ``seeded`` has it."""
        return self.preview(reals)

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """n images of the seeds from ``seed`` on; for models with inputs all that it makes of ``inputs``, images
        [N, C, H, W] in [0, 1] by the batch's keys. Raises ValueError if it needs inputs and has none."""
        raise ValueError(f"a model with the verb {self.verb} makes no images")

    def grid(
        self, n: int = 16, *, seed: int = 0, columns: int | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Image:
        """A grid of n images with the seeds from ``seed`` on, as a PIL image; for models with inputs: rows of inputs
        and of what it makes of them.

        ``columns``: by default the square root of n. ``inputs``: images [N, C, H, W] in [0, 1] by the keys of the
        batch. Raises ValueError if it needs inputs and has none, and for inputs or a seed on which nothing depends.
        """
        from zoo.pictures import grid_picture

        if columns is not None:
            check_whole("columns", columns)
        if seed and not self.draws:
            raise ValueError(f"seed={seed}: the images of this model depend on no seed; leave it out")
        if self.seeded:
            if inputs is not None:
                raise ValueError("inputs: the grid of this model shows images of seeds; leave it out")
            return grid_picture(self.outputs(n, seed).cpu(), columns)
        given = {} if inputs is None else inputs
        if not isinstance(given, Mapping) or not all(isinstance(x, Tensor) for x in given.values()):
            got = type(inputs).__name__
            raise ValueError(f"inputs: must be tensors by the keys of the batch, {{'x': ...}}, got {got}")
        if not given:
            raise ValueError(f"a model with the verb {self.verb} needs images: pass inputs={{'x': ...}}")
        for key, x in given.items():
            if x.ndim == 4:  # images; labels have fewer axes
                check_unit(f"inputs: {key}", x)
        reals = {key: self.from_unit(x[:n]).to(self.device) for key, x in given.items()}
        images, across = self.preview_from(reals, seed)
        return grid_picture(images.cpu(), columns or across)

    # What the rest of the zoo asks ------------------------------------------------------------------------------------

    def describe(self) -> str:
        """What it can do, in words, for tables."""
        words = self.words + (" by class" if self.class_count else "")
        return f"{words}, classifier" if self.classifies and self.generates else words

    @classmethod
    def commands(cls, spec: Mapping[str, Any], name: str) -> list[str]:
        """The commands that use the weights ``name``, a path or a name."""
        return [f"zoo eval {shell_word(name)}"]

    def probe(self) -> Iterator[Tensor]:
        """Outputs in [0, 1] on fixed inputs: two files whose probes are equal are the same to users."""
        raise ValueError(f"a model with the verb {self.verb} has no probe")

    def program(self, to: str | None) -> Program:
        """What ``zoo export`` writes. ``to``: as for :meth:`direction`. Raises ValueError if it cannot be exported."""
        raise ValueError(f"this model makes no images, its verb is {self.verb}: it cannot be exported")

    def write(self, request: Request) -> None:
        """Do what ``zoo sample`` asks. Raises ValueError for options that do not fit the task."""
        name, verb = request.name, self.verb
        raise ValueError(f"'{name}' makes no images: its verb is {verb} (zoo.load('{name}').{verb})")

    # Scores -----------------------------------------------------------------------------------------------------------

    def scored_images(self, inputs: ScoreInputs) -> ScoredImages | None:
        """The images to score; None: those of ``iter_samples``."""
        return None

    def scored_rows(self, inputs: ScoreInputs, split: str) -> Tensor | None:
        """Which rows of a split the images are compared with, int64; None: those of the stream of their domain."""
        return None

    def reference_images(self, inputs: ScoreInputs) -> ScoredImages | None:
        """The real images that the scored images are compared with; None: those of ``scored_rows``, as squares."""
        return None

    def input_images(self, inputs: ScoreInputs) -> ScoredImages:
        """The images that the scored images were made from, in the same order. A task with ``translates`` has it."""
        raise ValueError(f"a model that can {self.verb} was given no images")

    def captioned_images(self, inputs: ScoreInputs) -> tuple[ScoredImages, list[str]]:
        """Images, and what each should show: of different captions of held-out rows. A task with ``reads_captions`` has
        it."""
        raise ValueError(f"a model that can {self.verb} knows no captions")

    def scored_pairs(self, inputs: ScoreInputs) -> Pairs | None:
        """Images and what they should be; None if nothing says it."""
        return None

    @property
    def changes_attributes(self) -> bool:
        """Whether it is a translator whose scored images should have some attributes."""
        return False

    def scored_attributes(self, inputs: ScoreInputs) -> AttributeGoals | None:
        """Which attributes the scored images should have; None if nothing says it."""
        return None

    def weights_hash(self) -> str:
        """The SHA-256 of all parameters and buffers (names, types, shapes, bytes), in hexadecimal."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def baselines(self, inputs: Callable[[str], ScoreInputs]) -> Iterator[tuple[str, Model]]:
        """Trivial models of the same task and data, by name; none: those of :mod:`zoo.metrics.baselines`.
        ``inputs(to)``: the score inputs of this model's direction ``to`` on the training images."""
        return iter(())

    # Classes ----------------------------------------------------------------------------------------------------------

    @property
    def classifies(self) -> bool:
        """Whether it has a classifier."""
        return "classifier" in self.spec

    def classify(self, images: Images, chunk: int = 256) -> Tensor:
        """The probability of each class, float32 [N, K]. ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL
        image, or a list of PIL images. Raises ValueError if the model has no classifier (``spec["classifier"]`` names
        the network)."""
        if not self.classifies:
            raise ValueError(f"this model has no classifier; it has {', '.join(self.networks)}")
        C, x = getattr(self, self.spec["classifier"]), as_batch(images, self.channels)
        check_size(x, self.resolution)
        with inference(self):
            parts = [C.logits(self.from_unit(part.to(self.device))) for part in x.split(check_chunk(chunk))]
        return torch.cat(parts).float().softmax(1)


def probe_images(model: Model) -> Tensor:
    """Eight smooth images that every process draws alike, [8, C, H, W] in [0, 1]."""
    coarse = torch.rand(8, model.channels, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (model.resolution,) * 2, mode="bilinear")
