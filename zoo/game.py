"""The contract: Game, Turn, Batch, latent priors.

A game is an ``nn.Module``. Its children are the networks, its buffers are all its memory. It lists its turns and writes
the losses; it never calls backward, step, item, cuda or cpu: only the engine (``engine/step.py``) learns.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.registry import PRIORS, Spec

Prior = Callable[[int, torch.Generator | None, torch.device | str], Tensor]
Loss = Tensor | Mapping[str, Tensor | tuple[Tensor, Tensor]]


def seed_for(seed: int, *position: int | str) -> int:
    """A 63-bit seed for a place in a run: ``seed_for(seed, "round", 7)``. All randomness of a round comes from such
    seeds, so that a resumed run needs no generator's state and ranks can agree or differ by name."""
    text = repr((seed, *position)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Batch(dict):
    """What one round works on: real data by key (``x``, ``y``, ``a``, ``b``, ...), and whatever one turn leaves for the
    next (``batch["fake"]``). It lives one round.

    ``size``: samples of this process in the turn being played. Noise is drawn for all processes' samples together
    on one generator and sliced by rank, so that the play does not depend on the number of processes.
    """

    def __init__(
        self,
        size: int,
        *,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__()
        self.size, self.device, self.generator = size, torch.device(device), generator
        self.rank, self.world = rank, world
        self.logs: dict[str, Tensor] = {}

    def log(self, name: str, value: Tensor) -> None:
        """Keep a scalar for the log. It stays on the device; the engine reads it once a tick."""
        self.logs[name] = value.detach()

    def draw(self, draw: Callable[[int], Tensor]) -> Tensor:
        """``draw(n)`` for the n samples of all processes; this process's ``size`` of them come back."""
        whole = draw(self.size * self.world)
        return whole if self.world == 1 else whole[self.rank * self.size : (self.rank + 1) * self.size]

    def latent(self, prior: Prior) -> Tensor:
        """Fresh noise, [size, ...]."""
        return self.draw(lambda n: prior(n, self.generator, self.device))

    def rand(self, *shape: int) -> Tensor:
        """U(0, 1), [size, *shape]."""
        return self.draw(lambda n: torch.rand(n, *shape, generator=self.generator, device=self.device))

    def randn(self, *shape: int) -> Tensor:
        """N(0, 1), [size, *shape]."""
        return self.draw(lambda n: torch.randn(n, *shape, generator=self.generator, device=self.device))

    def randint(self, high: int) -> Tensor:
        """Whole numbers in [0, high), int64 [size]."""
        return self.draw(lambda n: torch.randint(high, (n,), generator=self.generator, device=self.device))


@dataclass(frozen=True)
class Turn:
    """Which players learn from which loss, how often, on what.

    ``players``: dotted paths of submodules (``"G"``, ``"G.levels.2"``). ``loss(batch)`` returns one scalar, which all of
    the players lower together, or a dict {player: scalar}, each lowered by its own player alone, all from the same
    old weights (a simultaneous turn). In the dict a value may be ``(scalar, gate)``: where the 0/1 tensor ``gate`` is 0
    the player skips this step (of several processes with gates of their own most decide).
    ``repeat``: times a round, a number or a function of the round's number. ``every``: only in rounds that are a
    multiple of it (lazy regularization). ``batch``: its own size over all processes, where the paper has one.
    ``draw``: ``"fresh"`` reals, the ``"last"`` ones again, or ``None``: it looks at no reals and consumes none.
    ``before(batch)``, ``after(batch)``: updates of state without gradient, before each step (weight clipping) and after
    it (BEGAN's k_t).
    ``precompute(batch, n)``: before n steps of a repeated turn, without gradient: what each of them finds in its batch, for what
    does not change while its players learn (the fakes of n critic steps from one pass of G).
    """

    players: Sequence[str]
    loss: Callable[[Batch], Loss]
    repeat: int | Callable[[int], int] = 1
    every: int = 1
    batch: int | None = None
    draw: Literal["fresh", "last"] | None = "fresh"
    before: Callable[[Batch], None] | None = None
    after: Callable[[Batch], None] | None = None
    precompute: Callable[[Batch, int], Sequence[Mapping[str, Any]]] | None = None

    def times(self, round: int) -> int:
        """How often it is played in this round."""
        if round % self.every:
            return 0
        return self.repeat(round) if callable(self.repeat) else self.repeat


class Game(nn.Module, abc.ABC):
    """Children: the networks, by the names that the recipe gives them. Buffers: all the game's memory, which must come
    out the same in every process (``parallel.mean`` of a loss, ``parallel.gather`` of the fakes).

    ``takes``: names of the networks that it cannot do without; ValueError where one is missing. ``needs``: keys that the data
    must yield.
    """

    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("x",)

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        for name in self.takes:
            if name not in networks:
                kind = type(self).__name__.lower()
                wanted = " and ".join(filter(None, (", ".join(self.takes[:-1]), self.takes[-1])))
                raise ValueError(f"networks.{name}: the {kind} game needs networks {wanted}, got {', '.join(networks)}")
        for name, network in networks.items():
            self.add_module(name, network)

    @abc.abstractmethod
    def turns(self) -> Sequence[Turn]:
        """The turns of a round, in order. Asked once a stage."""

    @abc.abstractmethod
    def ships(self) -> dict[str, Any]:
        """The Model it leaves behind: ``{"kind": "image", "networks": ["G"], "prior": Spec}``, ``{"kind": "autoencoder",
        "networks": ["G", "E"], "prior": Spec}``, or for a translator
        ``{"kind": "translate", "networks": ["G", "F"], "to": {"b": "G", "a": "F"}}``. Names are children of the game.
        ``"resolution"``, where its images are not of the size of the stage's."""

    def prepare(self, batch: Batch) -> None:
        """Before the first round of the stage, without gradient, in training mode: data-dependent initialization.
        ``batch`` holds up to 1,024 real images, the same on every process. A G that sets itself from noise (``initialize``)
        is given 500 draws of the game's prior."""
        if hasattr(self, "prior") and hasattr(getattr(self, "G", None), "initialize"):
            self.G.initialize(self.prior(500, batch.generator, batch.device))

    def finish(self, draw: Callable[[], Batch]) -> None:
        """Before export, without gradient, on a copy, in one process alone: standing statistics and the like. ``draw()``
        gives a batch with reals."""

    def score(self, x: Tensor, batch: Batch) -> Tensor:
        """D's raw score of images under the batch's conditions: what penalties differentiate.
        Games whose discriminator sees more, or that have several, override it."""
        return self.D(x, y=batch["y"]) if "y" in batch and self.conditional else self.D(x)

    @property
    def conditional(self) -> bool:
        """Whether the discriminator takes the class ``y``."""
        return bool(getattr(self.D, "classes", 0))


def mixes_batch(network: nn.Module) -> bool:
    """Whether a layer of the network looks across the batch (batch norm): then real and fake must not share a pass."""
    across = nn.modules.batchnorm._BatchNorm
    return any(isinstance(m, across) or getattr(m, "mixes_batch", False) for m in network.modules())


# Latent priors: (n, generator, device) -> [n, dim] ------------------------------------------------------------------


@PRIORS.register("normal")
def normal(dim: int) -> Prior:
    """N(0, 1) in ``dim`` dimensions."""
    return lambda n, generator, device: torch.randn(n, dim, generator=generator, device=device)


@PRIORS.register("uniform")
def uniform(dim: int, low: float = -1.0, high: float = 1.0) -> Prior:
    """U(low, high) in ``dim`` dimensions."""
    return lambda n, generator, device: torch.rand(n, dim, generator=generator, device=device) * (high - low) + low


@PRIORS.register("codes")
class Codes:
    """Noise with codes beside it (Chen et al. 2016, section 4): [n, dim] holds z ~ U(-1, 1)^``noise``, then a one-hot block
    for each categorical code, all K values alike, then ``continuous`` codes ~ U(-1, 1).

    ``categorical``: the number of values of each. Codes are called c1, c2, ..., the categorical ones first. ``dim``: of the
    generator's input, where it is known; ValueError where the parts do not add up to it.
    """

    def __init__(self, noise: int, categorical: Sequence[int] = (), continuous: int = 0, dim: int | None = None):
        self.noise, self.categorical, self.continuous = noise, tuple(categorical), continuous
        whole = noise + sum(self.categorical) + continuous
        if dim not in (None, whole):
            raise ValueError(
                f"prior 'codes': noise and codes have {whole} dimensions, the generator takes latent={dim}"
            )
        sizes = [*self.categorical, *[0] * continuous]
        self.sizes = {
            f"c{i + 1}": k for i, k in enumerate(sizes)
        }  # values of a categorical code; 0 of a continuous one
        self.places, at = {}, noise
        for name, k in self.sizes.items():
            self.places[name] = slice(at, at + max(k, 1))
            at += max(k, 1)

    def __call__(self, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        def uniform(dim: int) -> Tensor:
            return torch.rand(n, dim, generator=generator, device=device) * 2 - 1

        parts = [uniform(self.noise)]
        for k in self.categorical:
            value = torch.randint(k, (n,), generator=generator, device=device)
            parts.append((value[:, None] == torch.arange(k, device=device)).to(parts[0].dtype))
        return torch.cat([*parts, uniform(self.continuous)], 1)

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The codes in z [n, dim], by name: one-hot [n, K], or values [n]."""
        return {n: z[:, at] if self.sizes[n] else z[:, at.start] for n, at in self.places.items()}

    def place(self, z: Tensor, codes: Mapping[str, Tensor]) -> Tensor:
        """A copy of z [n, dim] in which some codes have other values, [n] each (of a categorical code its number)."""
        z = z.clone()
        for name, value in codes.items():
            k, at = self.sizes[name], self.places[name]
            z[:, at] = (value[:, None] == torch.arange(k)).to(z) if k else value[:, None].to(z)
        return z

    @property
    def outputs(self) -> int:
        """How many numbers say Q(c|x): K logits a categorical code, mean and spread a continuous one."""
        return sum(self.categorical) + 2 * self.continuous

    def read(self, outputs: Tensor) -> dict[str, Tensor]:
        """Q's outputs [n, outputs], by code: log-probabilities [n, K], or means [n], float32. All logits come first, then
        all means, then all spreads, which nothing here reads: the deviation is 1."""
        found, at, outputs = {}, 0, outputs.float()
        for name, k in self.sizes.items():
            found[name] = outputs[:, at : at + k].log_softmax(1) if k else outputs[:, at]
            at += max(k, 1)
        return found


def build_prior(spec: Spec, network: nn.Module) -> Prior:
    """The prior of a generator; its dimension is the generator's ``latent`` where the spec is silent."""
    return PRIORS.build(spec, defaults={"dim": getattr(network, "latent", None)})


__all__ = [
    "Batch",
    "Codes",
    "Game",
    "Loss",
    "Prior",
    "Turn",
    "build_prior",
    "mixes_batch",
    "seed_for",
]
