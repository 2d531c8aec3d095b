"""ComboGAN: translation between any two of n domains, each with an encoder, a decoder and a discriminator of its own.

A. Anoosheh, E. Agustsson, R. Timofte, L. Van Gool, ComboGAN: Unrestrained Scalability for Image Domain Translation,
2017, arXiv 1712.06909. A round draws two domains and trains them as CycleGAN does, in the order of the authors' code: a
step of their encoders and decoders on a joint loss, then one of their discriminators, whose fakes come from pools.

Differences from the authors' code: a batch has one pair of domains (with more than one image in a batch their code
draws a pair for each and uses the networks of the first). Left out: two of the terms that are off by default (identity,
latent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, smooth_l1_loss

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn
from zoo.games.cyclegan import ImagePool
from zoo.networks.interfaces import Translators
from zoo.registry import GAMES, Spec


@GAMES.register("combogan")
class ComboGAN(Game):
    """G, with ``encode(x, k)`` and ``decode(code, k)``, and D, a network for each domain k, which has several scores.

    With a and b of the two domains A and B of the round, y_B = decode(encode(a, A), B) and y_A likewise, G minimizes
    gan(D_B(y_B), 1) + gan(D_A(y_A), 1) + cycle (|a - decode(encode(y_B, B), A)| + ...) + forward (|a - y_B| + ...) with
    the smooth L1 distance, in the last term between images of half the size; the D of each domain half of
    gan(D(x), 1) + gan(D(old fake), 0); see :func:`gan`.

    Args:
        networks: G and D.
        channels, resolution: of the images, for the pools.
        domains: the names of the domains, at least two; by default "0", "1", ... for as many as G has. The images of
            domain k are the batch's ``xk``.
        cycle: weight of the way back.
        forward: weight of the distance of a translation to its image. It keeps colors; 0 in the paper.
        pool: fakes in each discriminator's pool.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x0``, ``x1``, ... of two domains; writes ``pair``, their numbers, and ``fake0``, ..., ``old0``,
    ...
    """

    takes = ("G", "D")
    G: Translators

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        channels: int,
        resolution: int,
        domains: Sequence[str] = (),
        cycle: float = 10.0,
        forward: float = 0.0,
        pool: int = 50,
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        if not domains and isinstance(self.G, nn.ModuleList):
            domains = tuple(map(str, range(len(self.G))))
        if len(domains) < 2 or len({*domains}) < len(domains):
            raise ValueError(f"game.domains={domains}: must be two or more different names")
        for name in self.takes:
            network = getattr(self, name)
            count = len(network) if isinstance(network, nn.ModuleList) else None
            if count != len(domains):
                raise ValueError(f"networks.{name}.domains={count}: must be the number of domains, {len(domains)}")
        if pool < 0:
            raise ValueError(f"game.pool={pool}: must be 0 or more")
        self.domains, self.cycle, self.forward_weight = tuple(domains), cycle, forward
        self.needs = tuple(f"x{k}" for k in range(len(domains)))
        self.pairs = list(permutations(range(len(domains)), 2))
        self.pools = nn.ModuleList(ImagePool(pool, channels, resolution) for _ in domains)

    def turns(self) -> Sequence[Turn]:
        G, D = ([f"{name}.{k}" for k in range(len(self.domains))] for name in "GD")
        return [
            Turn(G, self.loss_G, streams=self.choose),
            Turn(D, self.loss_D, draw="last", streams=self.streams, before=self.sample_pools),
        ]

    def choose(self, batch: Batch) -> Sequence[str]:
        """The streams of two domains at random."""
        batch["pair"] = self.pairs[batch.choose(len(self.pairs))]
        return self.streams(batch)

    def streams(self, batch: Batch) -> Sequence[str]:
        """The streams of the round's two domains."""
        return [f"x{k}" for k in batch["pair"]]

    def loss_G(self, batch: Batch) -> Tensor:
        discriminate, (a, b) = Discriminate(self, batch), batch["pair"]
        adversarial = cycle = forward = batch[f"x{a}"].new_zeros(()).float()
        for source, target in ((a, b), (b, a)):
            x = batch[f"x{source}"]
            fake = self.G.decode(self.G.encode(x, source), target)
            batch[f"fake{target}"] = fake.detach()
            back = self.G.decode(self.G.encode(fake, target), source)
            adversarial = adversarial + gan(discriminate(fake, D=f"D.{target}").scores, 1.0)
            cycle = cycle + smooth_l1_loss(back.float(), x.float())
            if self.forward_weight:
                forward = forward + smooth_l1_loss(avg_pool2d(fake.float(), 3, 2), avg_pool2d(x.float(), 3, 2))
        batch.log("G/adversarial", adversarial)
        batch.log("G/cycle", cycle)
        if self.forward_weight:
            batch.log("G/forward", forward)
        return adversarial + self.cycle * cycle + self.forward_weight * forward

    def sample_pools(self, batch: Batch) -> None:
        """The fakes that the discriminators get. A pool takes those of the whole batch, one after the other."""
        for k in batch["pair"]:
            batch[f"old{k}"] = self.pools[k](batch[f"fake{k}"], batch)

    def loss_D(self, batch: Batch) -> Tensor:
        discriminate = Discriminate(self, batch)
        loss = batch[self.streams(batch)[0]].new_zeros(()).float()
        for k in batch["pair"]:
            real, fake = discriminate.both(Inputs(batch[f"x{k}"]), Inputs(batch[f"old{k}"]), D=f"D.{k}")
            assert real.output is not None and fake.output is not None
            loss = loss + 0.5 * (gan(real.output.scores, 1.0) + gan(fake.output.scores, 0.0))
        return loss

    def ships(self) -> dict[str, Any]:
        """A direction for each ordered pair of domains, ``"0-1"``, with a name."""
        to = {
            f"{a}-{b}": {"network": "G", "parts": [a, b], "source": f"x{a}", "target": f"x{b}"} for a, b in self.pairs
        }
        names = {f"{a}-{b}": f"{self.domains[a]}-{self.domains[b]}" for a, b in self.pairs}
        return {"kind": "translate", "networks": ["G"], "to": to, "domains": names}


def gan(scores: Mapping[str, Tensor], target: float) -> Tensor:
    """The mean over m maps of the mean squared distance to the target, weighted 1, 2, ..., m - 1, m + 1, and divided by
    m once more, as in the authors' code; in float32."""
    m = len(scores)
    weights = [*range(1, m), m + 1]
    squares = [(score.float() - target).square().mean() for score in scores.values()]
    total: Tensor = sum(w * s for w, s in zip(weights, squares, strict=True))
    return total / (m * sum(weights))
