"""The contract: Game, Turn, Batch.

A game is an ``nn.Module``. Its children are the networks, its buffers are all its memory. It lists its turns and writes
the losses; it never calls backward, step, item, cuda or cpu: only the engine (``engine/step.py``) learns.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from zoo.priors import Prior
from zoo.registry import AUGMENTATIONS, Spec
from zoo.seeds import seed_for

if TYPE_CHECKING:
    from zoo.heads import Head

Loss = Tensor | Mapping[str, Tensor | tuple[Tensor, Tensor]]
Draw = Literal["fresh", "last"] | None
Sampler = Callable[[int], Tensor]  # random numbers for n samples


class Batch(dict[str, Any]):
    """The dict that lives one round: real data by key (``x``, ``y``, ``a``, ``b``, ...), and whatever one turn leaves
    for the next (``batch["fake"]``).

    ``size``: samples of this process in the turn being played. Noise is drawn for all processes' samples together
    on one generator and sliced by rank, so that no result depends on the number of processes. ``round``: of the stage,
    from 0; ``images``: real images that the stage has consumed before this round. Both are known to the host and read
    by streams and precompute functions; a loss reads them from buffers (a compiled loss would be traced anew).
    """

    def __init__(
        self,
        size: int,
        *,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        rank: int = 0,
        world: int = 1,
        round: int = 0,
        images: int = 0,
        seed: int = 0,
        stage: int = 0,
    ):
        super().__init__()
        self.size, self.device, self.generator = size, torch.device(device), generator
        self.rank, self.world = rank, world
        self.round, self.images = round, images
        self._choices, self._position = 0, (seed, stage)
        self._whole: tuple[Batch, slice] | None = None  # of a slice: the whole batch, and its rows
        self.logs: dict[str, Tensor] = {}
        # For compiled losses: a generator in them would break the graph. The first loss, in eager mode, records how it
        # draws; before each later one the engine draws the same in advance.
        self.recorded: list[Sampler] | None = None
        self.queue: list[Tensor] = []

    def log(self, name: str, value: Tensor) -> None:
        """Log a scalar. It stays on the device; the engine reads it once a tick."""
        self.logs[name] = value.detach()

    def choose(self, n: int) -> int:
        """A random number in [0, n), known to the host and the same in every process: which streams are drawn, which
        networks play. Each call gives another one; leave it in the batch for the rest of the round."""
        seed, stage = self._position
        self._choices += 1
        return seed_for(seed, "choose", stage, self.round, self._choices - 1) % n

    def draw(self, sampler: Sampler) -> Tensor:
        """``sampler(n)`` for the n samples of all processes; returns this process's ``size`` of them."""
        if self.queue:
            return self.queue.pop(0)
        if self.recorded is not None:
            self.recorded.append(sampler)
        if self._whole is not None:
            batch, rows = self._whole
            return batch.draw(sampler)[rows]
        whole = sampler(self.size * self.world)
        return whole if self.world == 1 else whole[self.rank * self.size : (self.rank + 1) * self.size]

    def latent(self, prior: Prior) -> Tensor:
        """Fresh noise, [size, ...]."""
        generator, device = self.generator, self.device  # a recorded sampler must not keep the batch in memory
        return self.draw(lambda n: prior(n, generator, device))

    def rand(self, *shape: int) -> Tensor:
        """U(0, 1), [size, *shape]."""
        generator, device = self.generator, self.device
        return self.draw(lambda n: torch.rand(n, *shape, generator=generator, device=device))

    def once(self, *shape: int) -> Tensor:
        """U(0, 1), [size, *shape], the same for all samples of all processes."""
        generator, device = self.generator, self.device
        return self.draw(lambda n: torch.rand(1, *shape, generator=generator, device=device).expand(n, *shape))

    def randn(self, *shape: int) -> Tensor:
        """N(0, 1), [size, *shape]."""
        generator, device = self.generator, self.device
        return self.draw(lambda n: torch.randn(n, *shape, generator=generator, device=device))

    def randint(self, high: int) -> Tensor:
        """Whole numbers in [0, high), int64 [size]."""
        generator, device = self.generator, self.device
        return self.draw(lambda n: torch.randint(high, (n,), generator=generator, device=device))

    def noise(self, name: str, *, again: bool = False) -> Noise:
        """For noise inputs and dropout masks inside a network: ``G(a, noise=batch.noise("masks"))``. With ``again`` the
        numbers of the last pass with this name, so that a later turn plays with the same fakes."""
        return Noise(self, name, again)

    def slices(self, k: int) -> Iterator[Batch]:
        """The batch in ``k`` equal slices; with k = 1 the batch itself.

        Slice i has rows i, i + k, i + 2k, ... of every tensor and list, so that all processes' slices i together do not
        depend on the number of processes. It draws its share of the whole batch's noise: the generator is set back
        before each slice. Once the loop is over, what the losses wrote and removed in the slices is written and removed
        here: rows in their order, scalars, also logged ones, averaged; without gradient.
        """
        if k == 1:
            yield self
            return
        state = None if self.generator is None else self.generator.get_state()
        changes: list[dict[str, Any]] = []
        logs: list[dict[str, Tensor]] = []
        for i in range(k):
            if state is not None and self.generator is not None:
                self.generator.set_state(state)
            part = copy.copy(self)
            part.size, part.logs, part.queue, part._whole = self.size // k, {}, [], (self, slice(i, None, k))
            rows = {key: _rows(value, i, k) for key, value in self.items()}
            part.update(rows)
            yield part
            changes.append({key: v for key, v in part.items() if key not in rows or v is not rows[key]})
            logs.append(part.logs)
        for key in [key for key in self if key not in part]:
            del self[key]
        self.update({key: _join([change[key] for change in changes]) for key in changes[-1]})
        self.logs.update({name: _join([log[name] for log in logs]) for name in logs[-1]})


class Noise:
    """What a network that draws numbers of its own draws them from: ``rand(*shape)`` and ``randn(*shape)`` as those of
    a :class:`Batch`, [size, *shape], in the order of the network's layers. They are left in the batch."""

    def __init__(self, batch: Batch, name: str, again: bool):
        self.batch, self.name, self.again = batch, name, again
        self._count = 0

    def rand(self, *shape: int) -> Tensor:
        """U(0, 1)."""
        return self._next(self.batch.rand, shape)

    def randn(self, *shape: int) -> Tensor:
        """N(0, 1)."""
        return self._next(self.batch.randn, shape)

    def _next(self, sample: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        key = f"{self.name}/{self._count}"
        self._count += 1
        if not self.again:
            self.batch[key] = sample(*shape)
        value: Tensor = self.batch[key]
        return value


def _rows(value: Any, i: int, k: int) -> Any:
    """Slice ``i`` of ``k`` of a tensor or a list; others, and what an earlier turn of another size left, as a whole."""
    has_rows = isinstance(value, list) or (isinstance(value, Tensor) and value.dim() > 0)
    return value[i::k] if has_rows and len(value) % k == 0 else value


def _join(values: Sequence[Any]) -> Any:
    """The value of the whole batch from those of its slices."""
    if isinstance(values[0], Tensor):
        parts = [v.detach() for v in values]
        return interleave(parts) if parts[0].dim() else torch.stack(parts).float().mean()
    if isinstance(values[0], list):
        return [row for rows in zip(*values, strict=True) for row in rows]
    return values[0]


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """The rows of the whole batch from those of its slices [n, ...]."""
    return torch.stack(list(parts), 1).flatten(0, 1)


@dataclass(frozen=True)
class Turn:
    """Which players learn from which loss, how often, on what.

    Args:
        players: dotted paths of submodules (``"G"``, ``"G.levels.2"``).
        loss: ``loss(batch)`` returns one scalar, which all of the players minimize together, or a dict with a scalar
            for each player, which it minimizes alone, all from the same old weights (a simultaneous turn). In the dict
            a value may be ``(scalar, gate)``: if the 0/1 tensor ``gate`` is 0 the player skips this step (of several
            processes with gates of their own most decide).
        repeat: times a round, a number or a function of the round's number.
        every: only in rounds that are a multiple of it (lazy regularization).
        batch: its own size over all processes, if the paper has one.
        draw: ``"fresh"`` reals, the ``"last"`` ones again, or ``None``: it uses no reals and consumes none.
        streams: names of the stage's streams that it draws, or a function ``streams(batch)`` that returns them, called
            once before the turn's first step (two of fourteen domains, by ``batch.choose``); None: all of them. The
            clock counts the rows of the first stream that the round's first drawing turn names.
        before, after: ``before(batch)``, ``after(batch)``: updates of state without gradient, before each step (weight
            clipping) and after it (BEGAN's k_t). They are not compiled and get the whole batch of the process, also
            with micro-batches: what needs other rows or the host (a permutation of the labels, an embedding of
            captions) is left in the batch by ``before``.
        precompute: ``precompute(batch, n)``, before n steps of a repeated turn, without gradient: what each of them
            gets in its batch, for what does not change while its players learn (the fakes of n critic steps from one
            pass of G).

    Raises ValueError for numbers below 1.
    """

    players: Sequence[str]
    loss: Callable[[Batch], Loss]
    repeat: int | Callable[[int], int] = 1
    every: int = 1
    batch: int | None = None
    draw: Draw = "fresh"
    streams: Sequence[str] | Callable[[Batch], Sequence[str]] | None = None
    before: Callable[[Batch], None] | None = None
    after: Callable[[Batch], None] | None = None
    precompute: Callable[[Batch, int], Sequence[Mapping[str, Any]]] | None = None

    def __post_init__(self) -> None:
        for key in ("repeat", "every", "batch"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise ValueError(
                    f"game: the {key} of a turn of {' and '.join(self.players)} must be at least 1, got {value}"
                )

    def times(self, round: int) -> int:
        """How often it is played in this round."""
        if round % self.every:
            return 0
        return self.repeat(round) if callable(self.repeat) else self.repeat


def usual(times: int | Callable[[int], int]) -> int:
    """How often a turn is played in a round, outside of bursts and warm-up."""
    return times(1_000_003) if callable(times) else times


class Game(nn.Module, abc.ABC):
    """Children: the networks, also pretrained ones, by the names that the recipe gives them. Buffers: all the game's
    memory, which must come out the same in every process (``parallel.mean`` of a loss, ``parallel.gather`` of the
    fakes).

    Arguments that the engine fills in from the data, if a game takes them: ``channels`` and ``resolution`` of the
    images, and ``label_names``, the names of the values of labels and of the columns of attributes, by key.

    ``takes``: names of the networks that it needs; raises ValueError if one is missing. ``needs``: keys that the data
    must have. For :class:`~zoo.discriminate.Discriminate`: ``joined``, whether D gets real and fake images in one pass:
    if no layer mixes the samples of a batch (``"auto"``), ``"always"`` or ``"never"``; ``heads`` on D's features,
    if there are any; ``augment(images, batch)``, which D's images pass, if there is one. ``adapts_augment``: whether
    the game adapts an augmentation's p that has a target; one with a target raises ValueError otherwise.
    ``takes_unlabeled``: whether the class ``y`` of an image may be -1, for one without a label.
    """

    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("x",)
    joined: Literal["auto", "always", "never"] = "auto"
    adapts_augment: bool = False
    adapts: bool = False  # whether this game's augmentation has a target
    takes_unlabeled: bool = False
    augment_spec: Spec | None = None
    heads: Sequence[Head]
    augment: Callable[[Sequence[Tensor], Batch], Sequence[Tensor]]
    G: nn.Module
    D: nn.Module

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        for name in self.takes:
            if name not in networks:
                kind = type(self).__name__
                names = " and ".join(filter(None, (", ".join(self.takes[:-1]), self.takes[-1])))
                raise ValueError(f"networks.{name}: the {kind} game needs networks {names}, got {', '.join(networks)}")
        for name, network in networks.items():
            self.add_module(name, network)
        self.mixing = paths_that_mix(self)
        self.conditional = bool(getattr(networks.get("D"), "classes", 0))  # whether D takes the class y

    def set_augment(self, spec: Spec | None) -> None:
        """D gets its images through this augmentation, if there is one. Raises ValueError if it has a target and the
        game adapts no p."""
        if spec is None:
            return
        self.augment_spec, self.augment = spec, AUGMENTATIONS.build(spec)
        target = getattr(self.augment, "target", None)
        self.adapts = target is not None
        if self.adapts and not self.adapts_augment:
            raise ValueError(
                f"game.augment.target={target}: must be null, with a value of p, since the "
                f"{type(self).__name__} game does not adapt p"
            )

    def continue_augment(self, before: Game) -> None:
        """An augmentation that adapts goes on from that of the stage ``before``, if both have the same."""
        if self.adapts and self.augment_spec == before.augment_spec:
            augment, earlier = cast(nn.Module, self.augment), cast(nn.Module, before.augment)
            augment.load_state_dict(earlier.state_dict())

    @abc.abstractmethod
    def turns(self) -> Sequence[Turn]:
        """The turns of a round, in order. Called once a stage."""

    @abc.abstractmethod
    def ships(self) -> dict[str, Any]:
        """The Model that a run leaves: ``{"kind": "image", "networks": ["G"], "prior": Spec}``, ``{"kind":
        "autoencoder", "networks": ["G", "E"], "prior": Spec}``, or for a translator
        ``{"kind": "translate", "networks": ["G", "F"], "to": {"b": "G", "a": "F"}}`` (more of ``to`` in
        :mod:`zoo.models.translate`). Names are children of the game.
        ``"resolution"``, if its images do not have the size of the stage's; ``"pretrained": ["T"]``, if it needs
        pretrained networks to run."""

    def prepare(self, batch: Batch) -> None:
        """Before the first round of the stage, without gradient, in training mode: data-dependent initialization.
        ``batch`` has up to 1,024 real images, the same in every process. Players of an earlier stage keep what they
        learned, whatever it does to them. A G with ``initialize`` gets 500 draws of the game's prior."""
        prior, initialize = getattr(self, "prior", None), getattr(getattr(self, "G", None), "initialize", None)
        if prior is not None and initialize is not None:
            initialize(prior(500, batch.generator, batch.device))

    def finish(self, draw: Callable[[], Batch]) -> None:
        """Before export, without gradient, on a copy, in one process alone: what the shipped weights need.
        ``draw()`` gives a batch with reals."""


def check_domains(domains: Sequence[str]) -> None:
    """Raises ValueError unless they are two different names."""
    if len(domains) != 2 or domains[0] == domains[1]:
        raise ValueError(f"game.domains={domains}: must be two different names")


def check_identity(identity: float, cycle: float) -> None:
    """Raises ValueError for a weight of an identity term that is relative to a cycle's weight of 0."""
    if identity and not cycle:
        raise ValueError(
            f"game.identity={identity}: must be 0 with game.cycle=0, since its weight is relative to cycle"
        )


def paths_that_mix(network: nn.Module) -> frozenset[str]:
    """The paths of all submodules, and "" for the network itself, whose output for a sample depends on the rest of the
    batch (batch norm): real and fake must not share a pass of them."""
    norms, paths = nn.modules.batchnorm._BatchNorm, {}
    for path, m in network.named_modules():
        if isinstance(m, norms) or getattr(m, "mixes_batch", False):
            parts = path.split(".") if path else []
            paths.update({".".join(parts[:i]): True for i in range(len(parts) + 1)})
    return frozenset(paths)


def whole_batch_parts(game: nn.Module) -> Iterator[str]:
    """The parts of a game, in words, without which a batch may be split into slices (``--micro-batch``).

    A game, a loss, a penalty or a layer whose result for a slice depends on the rest of the batch, or draws numbers
    that the batch does not give it, says so with an attribute ``whole_batch``: its name in words, or True. A network's
    layers count in training mode only.
    """
    norms, dropouts = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd
    for part in (game, *vars(game).values()):
        if name := getattr(part, "whole_batch", False):
            yield name if isinstance(name, str) else type(part).__name__
    for path, m in game.named_modules():
        if m is game or not m.training:
            continue
        name = getattr(m, "whole_batch", False)
        if isinstance(m, norms):
            name = "batch norm"
        elif isinstance(m, dropouts) and m.p:
            name = "dropout"
        if name:
            yield f"{name if isinstance(name, str) else type(m).__name__} in {path.partition('.')[0]}"
