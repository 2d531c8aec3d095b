"""Recipes: all that a paper fixes, as frozen data. No torch here, so that ``zoo list`` and ``zoo show`` are quick.

A recipe file (``recipes/wgan_gp.py`` for the model ``wgan-gp``) has a docstring (citation, then the differences from
the paper and the reasons) and one function a setting::

    @setting("cifar10", "small")              # the recipe wgan-gp-cifar10-small
    def cifar10_small():
        "One line that `zoo list` shows."
        return Recipe(
            networks={"G": Spec("resnet-generator", width=32), "D": Spec("resnet-discriminator", width=32)},
            stages=(Stage(
                game=Spec("adversarial", loss=Spec("wasserstein"), n_critic=5,
                          penalties=(Spec("gradient-penalty", weight=10.0),)),
                optimizers={"G": Adam(lr=2e-4, betas=(0.0, 0.9)), "D": Adam(lr=2e-4, betas=(0.0, 0.9))},
                images=10_000 * 5 * 32,       # 10k generator steps, 5 critic batches of 32
                batch=32, resolution=32,
            ),),
        )

The first setting of a file is the paper's main one. For data that have no setting of their own the one that fits them
best is adapted (:mod:`zoo.adapt`); a function with an argument such as ``domain=("noto", "twemoji")``, named after a
field of the data, is called with their names.
Network arguments ``channels`` and ``resolution`` are filled in from the data if the spec does not set them;
``classes="data"`` becomes the number of the data set's classes, and a head's ``features`` those of D.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.registry import FrozenDict, Spec, nearest

__all__ = [
    "SGD",
    "Adam",
    "Data",
    "Derived",
    "Ema",
    "Pretrained",
    "RMSProp",
    "Recipe",
    "Rounds",
    "Sampling",
    "Schedule",
    "Spec",
    "Stage",
    "Stream",
    "decode",
    "encode",
    "from_json",
    "to_json",
]


@dataclass(frozen=True)
class _Data:
    """Base of frozen dataclasses: mappings become FrozenDicts and lists tuples, so that a recipe can be hashed."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mapping) and not isinstance(value, FrozenDict):
                object.__setattr__(self, f.name, FrozenDict(value))
            elif isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))


@dataclass(frozen=True, kw_only=True)
class _Optimizer(_Data):
    """What happens to a player's gradient, the mean over all processes, before its step, in this order.

    ``nan_to_num``: NaN becomes 0, and an infinite value this number, with its sign. ``clip``: the largest norm of the
    gradient of all of the player's weights; a longer one is scaled down.
    """

    nan_to_num: float | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Adam(_Optimizer):
    """Adam (Kingma & Ba 2015). ``weight_decay`` is the L2 term added to the gradient, as in the original code."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class SGD(_Optimizer):
    """Gradient descent with classical momentum. ``dampening``: 1 minus the weight with which a gradient enters the
    momentum, after the first step. The default is torch's; Torch7's default is ``momentum``."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0


@dataclass(frozen=True)
class RMSProp(_Optimizer):
    """RMSProp with torch's defaults. ``weight_decay``: the L2 term added to the gradient."""

    lr: float
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Schedule(_Data):
    """A value as a function of the real images seen in the stage, written before each round.

    ``target``: ``optimizers.D.lr`` (a field of a player's optimizer; ``optimizers.*.lr`` for all,
    ``optimizers.D.betas.0`` for one of a pair), ``game.PATH`` (a buffer of the game: ``game.penalties.0.weight``) or
    ``ema.G.halflife``. ``points``: (images, value), ascending; constant before the first and after the last.
    ``shape``: the interpolation: ``linear``, ``cosine`` (half a period), ``geometric`` (values > 0), ``steps``.
    """

    target: str
    points: tuple[tuple[float, float], ...]
    shape: Literal["linear", "cosine", "geometric", "steps"] = "linear"

    def optimizers(self, players: Iterable[str]) -> tuple[list[str], str] | None:
        """Of a target ``optimizers.PLAYER.FIELD`` those of ``players`` that it means, of which names may have dots, and
        the field with its index; None if it means none of them."""
        kind, _, rest = self.target.partition(".")
        players = [*players]
        for player in sorted((*players, "*"), key=len, reverse=True) if kind == "optimizers" else ():
            if rest.startswith(f"{player}."):
                return (players if player == "*" else [player]), rest[len(player) + 1 :]
        return None

    def at(self, images: float) -> float:
        """The value after ``images`` real images of this stage."""
        (left, value), *rest = self.points
        for right, after in rest:
            if images < right:
                if images <= left or self.shape == "steps":
                    return value
                t = (images - left) / (right - left)
                if self.shape == "geometric":
                    return value * (after / value) ** t
                if self.shape == "cosine":
                    t = (1 - math.cos(math.pi * t)) / 2
                return value + (after - value) * t
            left, value = right, after
        return value


@dataclass(frozen=True)
class Rounds(_Data):
    """How often a turn is played in a round: ``base`` times, except: ``first=(n, k)``: k times in the first n rounds;
    ``every=(n, k)``: k times in each round whose number is a multiple of n (WGAN: 100 critic steps every 500). Raises
    ValueError for numbers that are too small."""

    base: int
    first: tuple[int, int] | None = None
    every: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, values in (("base", (1, self.base)), ("first", self.first), ("every", self.every)):
            if values is not None and not (len(values) == 2 and values[0] >= 1 and values[1] >= 0):
                raise ValueError(f"{key}={getattr(self, key)}: rounds must be at least 1, and times at least 0")

    def __call__(self, round: int) -> int:
        if self.first and round < self.first[0]:
            return self.first[1]
        if self.every and round % self.every[0] == 0:
            return self.every[1]
        return self.base


@dataclass(frozen=True)
class Ema(_Data):
    """An exponential moving average (EMA) of a network's weights, which are sampled, scored and shipped. Units: real
    images.

    ``halflife``: after so many images an old weight counts half. Before ``start`` the average equals the network.
    ``rampup``: the half-life is at most this fraction of the images seen (0.05 as in StyleGAN2; None: no limit).
    """

    halflife: float
    start: float = 0.0
    rampup: float | None = None


@dataclass(frozen=True)
class Pretrained(_Data):
    """A frozen network that a recipe uses and does not train: a loss network, a text encoder, a teacher.

    ``network``: Spec in NETWORKS; nothing is filled in from the data. ``source``: of its weights
    (:mod:`zoo.pretrained`): ``NAME`` (shipped, or a file in ``$ZOO_HOME/pretrained``), ``hf:OWNER/NAME[/FILE]``,
    ``timm:NAME``, ``torchvision:WEIGHTS`` or ``package:MODULE/FILE``; "" if it has none. ``prefix``: of the names of
    its tensors there (``features.``); other tensors are not read. ``hash``: SHA-256 of its tensors; "" takes what the
    source has, and a run records it.
    """

    network: Spec
    source: str = ""
    prefix: str = ""
    hash: str = ""


@dataclass(frozen=True)
class Derived(_Data):
    """A field that a pretrained network computes from another field, once for all rows of a data set.

    ``network``: a name in the recipe's ``pretrained``; it gets values as a batch has them (captions: a list of
    strings; images: as stored, without crop, flip and noise) and returns [N, K]. ``of``: the data set's field. Of a
    Text field each caption has a vector, and a batch the one of the caption that it has, or the mean of the vectors of
    ``mean`` captions: of that one and of others of the row, as many as it has.
    """

    network: str
    of: str
    mean: int = 1


@dataclass(frozen=True)
class Sampling(_Data):
    """How the networks run when the trained model is used.

    ``mode``: ``running``, evaluation mode; ``batch``, batch normalization uses the statistics of the images that are
    drawn together; ``standing``, evaluation mode with batch statistics that are computed of many images before the
    weights are scored or shipped; ``dropout``, dropout stays active, with a mask from each image's own seed.
    ``chunk``: the images that are drawn together: 64 by default with ``batch`` and in each pass of ``standing``; with
    ``dropout``, batch statistics too if it is set; without effect on ``running``. Raises ValueError for another mode or
    a number below 1.
    """

    mode: Literal["running", "batch", "standing", "dropout"] = "running"
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("running", "batch", "standing", "dropout"):
            raise ValueError(f"sampling.mode={self.mode}: must be running, batch, standing or dropout")
        if self.chunk is not None and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise ValueError(f"sampling.chunk={self.chunk}: must be a whole number of at least 1, or None")

    @property
    def together(self) -> int | None:
        """How many images share their statistics; None if an image does not depend on others."""
        return {"running": None, "standing": None, "batch": self.chunk or 64, "dropout": self.chunk}[self.mode]

    @property
    def standing(self) -> int:
        """The images of each pass for standing statistics; 0 if there are none."""
        return (self.chunk or 64) if self.mode == "standing" else 0

    @property
    def words(self) -> str:
        """The mode in words; "" for evaluation mode."""
        parts = ["dropout"] if self.mode == "dropout" else []
        parts += [f"standing statistics of batches of {self.standing} images"] if self.standing else []
        parts += [f"the batch statistics of {self.together} images"] if self.together else []
        return " and ".join(parts)


@dataclass(frozen=True)
class Stream(_Data):
    """One stream of real data.

    ``dataset``: a data set of the stream's own, instead of the recipe's. ``keys``: new names of the data set's fields
    ({"x": "a"}). ``where``: only rows with these labels ({"domain": 0}, {"y": (0, 1)}) or attributes
    ({"attributes.Smiling": 1}). ``part=(k, n)``: of those only row k, k+n, k+2n, ... (disjoint, unpaired halves).
    ``balanced``: of those so many in all, equally many of each class ``y``; they depend on the run's seed only, so that
    all streams and stages with the same number have the same rows. ``labeled``: the share of the rows of each class
    that keep their label ``y``, chosen by the run's seed; the others have -1. ``aligned``: the name of another stream:
    rows that show the same thing always come together, with the same crop and flip (pairs of two domains). They are
    those with the same label ``pair_key`` of the data set, and rows without a pair are not read; in data without such
    a label row k of the one comes with row k of the other, and both streams have as many.
    ``view``: turns the images into another domain (:mod:`zoo.data.views`). ``batch``: rows in a batch, if it is not the
    turn's number. ``derived``: more fields, by their names in the batch.
    """

    split: str = "train"
    keys: Mapping[str, str] = field(default_factory=FrozenDict)
    where: Mapping[str, int | tuple[int, ...]] = field(default_factory=FrozenDict)
    part: tuple[int, int] = (0, 1)
    view: Literal["edges", "inverse"] | None = None
    balanced: int | None = None
    labeled: float | None = None
    batch: int | None = None
    dataset: str | None = None
    aligned: str | None = None
    derived: Mapping[str, Derived] = field(default_factory=FrozenDict)


@dataclass(frozen=True)
class Data(_Data):
    """How real images are read.

    ``range``: the values of black and white. ``pad``: zero-pad smaller images to the stage's resolution instead of
    resizing them. ``load``: store at this size, then crop the stage's resolution at random. ``flip``: mirror half of
    the images. ``dequantize``: add uniform noise of one gray level. ``streams``: by name; images seen are counted on
    the first, unless turns name the streams that they draw.
    """

    range: tuple[float, float] = (-1.0, 1.0)
    pad: bool = False
    load: int | None = None
    flip: bool = False
    dequantize: bool = False
    streams: Mapping[str, Stream] = field(default_factory=lambda: FrozenDict(data=Stream()))


@dataclass(frozen=True)
class Stage(_Data):
    """One game at one resolution, one batch size, one budget.

    ``game``: Spec in GAMES. ``optimizers``: one for each player that learns. ``images``: the budget in real images,
    over all processes. ``batch``: real images in a batch, over all processes. ``accumulate``: the batch is split into
    so many parts, each a batch of its own with its own statistics; a step takes the mean of their gradients. ``level``:
    of the networks that grow, those that have ``at(level)``.
    """

    game: Spec
    optimizers: Mapping[str, Adam | SGD | RMSProp]
    images: int
    batch: int
    resolution: int
    data: Data = Data()
    schedules: tuple[Schedule, ...] = ()
    accumulate: int = 1
    level: int | None = None


def short_name(dataset: str) -> str:
    """The name of a data set inside others, in lower case, without spaces: of a folder its kind and its last part, of
    an object what it is."""
    kind, _, path = dataset.partition(":")
    last = re.split(r"[/\\]", path.partition("?")[0].rstrip("/\\"))[-1].rpartition(".zip")
    own = re.sub(r"[^a-z0-9]+", "-", (last[0] or last[2]).lower()).strip("-")[:40]
    if not own or kind not in ("folder", "object"):
        return kind
    return f"{kind}-{own}" if kind == "folder" else own


@dataclass(frozen=True)
class Recipe(_Data):
    """Everything that the paper fixes. ``networks`` persist across the stages; ``ema`` by network; ``pretrained``:
    frozen networks by name; ``sampling`` is how the authors sample; ``model``, ``dataset``, ``variant`` are set by
    :func:`zoo.settings.setting`."""

    networks: Mapping[str, Spec]
    stages: tuple[Stage, ...]
    ema: Mapping[str, Ema] = field(default_factory=FrozenDict)
    pretrained: Mapping[str, Pretrained] = field(default_factory=FrozenDict)
    sampling: Sampling = Sampling()
    model: str = ""
    dataset: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """``model-dataset[-variant]``; of ``folder:my/Photos`` the data set is ``folder-photos``."""
        return "-".join(filter(None, (self.model, short_name(self.dataset), self.variant)))

    @property
    def images(self) -> int:
        """The budget of all stages, in real images."""
        return sum(s.images for s in self.stages)

    def replace(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, **changes)

    def rescaled(self, images: int) -> Recipe:
        """The same recipe with a total budget of ``images``; all stages and schedules, and where EMA weights start, are
        rescaled. Raises ValueError if it is below 1, or no number of images."""
        if not 1 <= images <= MAX_IMAGES:
            raise ValueError(f"images={str(images)[:50]}: must be from 1 to {MAX_IMAGES:.0e}")
        factor = images / self.images

        def stage(s: Stage) -> Stage:
            schedules = tuple(
                dataclasses.replace(r, points=tuple((at * factor, v) for at, v in r.points)) for r in s.schedules
            )
            return dataclasses.replace(s, images=max(1, round(s.images * factor)), schedules=schedules)

        ema = {name: dataclasses.replace(e, start=round(e.start * factor)) for name, e in self.ema.items()}
        return self.replace(stages=tuple(map(stage, self.stages)), ema=ema)


MAX_IMAGES = 10**15

# To and from JSON -------------------------------------------------------------------------------------------------

_PARTS = (Adam, SGD, RMSProp, Schedule, Rounds, Ema, Sampling, Pretrained, Derived, Stream, Data, Stage, Recipe)
_KINDS = {k.__name__: k for k in _PARTS}


def encode(value: Any) -> Any:
    """Recipes, specs and their parts as plain JSON values."""
    if isinstance(value, Spec):
        return {"@": "Spec", "name": value.name, "kwargs": encode(value.kwargs)}
    if isinstance(value, _Data):
        own_first = sorted(dataclasses.fields(value), key=lambda f: bool(f.kw_only))  # before those of all optimizers
        fields = {f.name: encode(getattr(value, f.name)) for f in own_first}
        return {"@": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, (list, tuple)) else value


def decode(value: Any) -> Any:
    """The inverse of :func:`encode`. Raises ValueError, with the key, for an unknown kind, a field that is unknown or
    missing, or a Spec without a name."""
    if isinstance(value, list):
        return tuple(map(decode, value))
    if not isinstance(value, Mapping):
        return value
    fields = {k: decode(v) for k, v in value.items() if k != "@"}
    kind = value.get("@")
    if kind is None:
        return FrozenDict(fields)
    if kind == "Spec":
        name, kwargs = fields.get("name"), fields.get("kwargs", {})
        if not isinstance(name, str) or not isinstance(kwargs, Mapping) or fields.keys() - {"name", "kwargs"}:
            raise ValueError(f"Spec: must have a name and kwargs, got {', '.join(map(str, fields)) or 'nothing'}")
        return Spec(name, **kwargs)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"unknown kind '{kind}'{nearest(str(kind), _KINDS)}")
    known = dataclasses.fields(_KINDS[kind])
    for key in fields:
        if key not in {f.name for f in known}:
            raise ValueError(f"{kind}: has no '{key}'{nearest(key, [f.name for f in known])}")
    for f in known:
        if f.name not in fields and f.default is f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{kind}: must have '{f.name}'")
    return _KINDS[kind](**fields)


def to_json(recipe: Recipe) -> str:
    """The recipe as indented JSON."""
    return json.dumps(encode(recipe), indent=2)


def from_json(text: str) -> Recipe:
    """The inverse of :func:`to_json`. Raises ValueError if the text is not JSON or has an unknown kind of object."""
    return decode(json.loads(text))
