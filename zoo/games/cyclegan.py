"""CycleGAN: translation in both directions between two domains, a and b, without pairs.

J.-Y. Zhu, T. Park, P. Isola, A. Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks,
2017, arXiv 1703.10593. The order is that of the authors' PyTorch code: one step of both generators on a joint loss,
then one of both discriminators, whose fakes come from a pool of earlier ones.

Differences from the paper: several processes have one pool, the same on all of them, for the whole batch, so that
nothing depends on their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn, check_domains, check_identity
from zoo.registry import GAMES, Spec


class ImagePool(nn.Module):
    """The last ``size`` fakes (Shrivastava et al. 2017, section 2.3). While the pool is not full it stores and returns
    every fake; then it returns, with probability 1/2, a random stored one and stores the new one in its place, else the
    new one.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, channels: int, resolution: int):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, resolution, resolution))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.int64))

    def forward(self, fakes: Tensor, batch: Batch) -> Tensor:
        """fakes [N, C, H, W], without gradient -> [N, C, H, W] for D. Two numbers are drawn for each in any state."""
        if not self.size:
            return fakes
        whole = parallel.gather(fakes.detach().to(self.images.dtype))  # [N * world, C, H, W]: the same pool everywhere
        keep = torch.rand(len(whole), generator=batch.generator, device=batch.device) < 0.5
        slots = torch.randint(self.size, (len(whole),), generator=batch.generator, device=batch.device)
        output = []
        for i in range(len(whole)):  # one after the other: a later one may meet an earlier one in the pool
            new, filling = whole[i : i + 1], self.filled < self.size
            slot = torch.where(filling, self.filled, slots[i : i + 1])
            old = self.images.index_select(0, slot)
            swap = filling | keep[i]
            output.append(torch.where(keep[i] & ~filling, old, new))
            self.images.index_copy_(0, slot, torch.where(swap, new, old))
            self.filled.add_(filling)
        mine = slice(batch.rank * len(fakes), (batch.rank + 1) * len(fakes))
        return torch.cat(output)[mine]


@GAMES.register("cyclegan")
class CycleGAN(Game):
    """G: a -> b and F: b -> a against D_b and D_a, which score maps of patches; least squares, cycle and identity in
    L1.

    Args:
        networks: G, F, D_a and D_b.
        channels, resolution: of the images, for the pools.
        cycle: weight of ||F(G(a)) - a|| + ||G(F(b)) - b|| (the paper's lambda).
        identity: weight of ||G(b) - b|| + ||F(a) - a||, relative to ``cycle``: 0 in the paper's main objective, 0.5 if
            colors should stay and by default in the authors' code.
        pool: fakes in each discriminator's pool; with 0 it gets the latest.
        domains: the names of a and b.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``a``, ``b``; writes ``fake_a``, ``fake_b``, ``old_a``, ``old_b``.
    """

    takes = ("G", "F", "D_a", "D_b")
    needs = ("a", "b")
    F: nn.Module
    D_a: nn.Module
    D_b: nn.Module

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        channels: int,
        resolution: int,
        cycle: float = 10.0,
        identity: float = 0.0,
        pool: int = 50,
        domains: Sequence[str] = ("a", "b"),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        check_identity(identity, cycle)
        if pool < 0:
            raise ValueError(f"game.pool={pool}: must be 0 or more")
        check_domains(domains)
        self.cycle, self.identity, self.domains = cycle, identity, tuple(domains)
        self.pool_a = ImagePool(pool, channels, resolution)
        self.pool_b = ImagePool(pool, channels, resolution)

    def turns(self) -> Sequence[Turn]:
        return [
            Turn(("G", "F"), self.loss_generators),
            Turn(("D_a", "D_b"), self.loss_discriminators, draw="last", before=self.sample_pools),
        ]

    def loss_generators(self, batch: Batch) -> Tensor:
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = self.G(a), self.F(b)
        batch["fake_b"], batch["fake_a"] = fake_b.detach(), fake_a.detach()
        discriminate = Discriminate(self, batch)
        on_b, on_a = discriminate(fake_b, D="D_b").score, discriminate(fake_a, D="D_a").score
        adversarial = _square(on_b, 1.0) + _square(on_a, 1.0)
        cycle = _l1(self.F(fake_b), a) + _l1(self.G(fake_a), b)
        batch.log("G/adversarial", adversarial)
        batch.log("G/cycle", cycle)
        loss = adversarial + self.cycle * cycle
        if self.identity:
            identity = _l1(self.G(b), b) + _l1(self.F(a), a)
            batch.log("G/identity", identity)
            loss = loss + self.cycle * self.identity * identity
        return loss

    def sample_pools(self, batch: Batch) -> None:
        """The fakes that the discriminators get. A pool takes those of the whole batch, one after the other."""
        batch["old_b"] = self.pool_b(batch["fake_b"], batch)
        batch["old_a"] = self.pool_a(batch["fake_a"], batch)

    def loss_discriminators(self, batch: Batch) -> Tensor:
        discriminate = Discriminate(self, batch)
        on_a = self.loss_D(discriminate, "D_a", batch["a"], batch["old_a"])
        return on_a + self.loss_D(discriminate, "D_b", batch["b"], batch["old_b"])

    def loss_D(self, discriminate: Discriminate, D: str, x: Tensor, fakes: Tensor) -> Tensor:
        """Half the sum, as in the paper: D learns at half the generators' rate (Adam, though, takes out a factor)."""
        real, fake = discriminate.both(Inputs(x), Inputs(fakes), D=D)
        return 0.5 * (_square(real.score, 1.0) + _square(fake.score, 0.0))

    def ships(self) -> dict[str, Any]:
        a, b = self.domains
        return {
            "kind": "translate",
            "networks": ["G", "F"],
            "to": {"b": "G", "a": "F"},
            "domains": {"a": a, "b": b},
        }


def _square(score: Tensor, target: float) -> Tensor:
    """Mean over patches of the squared distance to the target, in float32."""
    return (score.float() - target).square().mean()


def _l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean over pixels, in float32."""
    return (x.float() - y.float()).abs().mean()
