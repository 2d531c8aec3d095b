"""Two-way translation between unpaired domains, a and b.

J.-Y. Zhu, T. Park, P. Isola, A. Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017,
arXiv 1703.10593. The order is that of the authors' PyTorch code: one step of both generators on a joint loss, then one of both
discriminators, whose fakes come from a pool of earlier ones. Where we differ: with several processes the pool is one and the
same on all of them and serves the joined batch, so that the play does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch, Game, Turn, mixes_batch
from zoo.registry import GAMES


class ImagePool(nn.Module):
    """The last ``size`` fakes (Shrivastava et al. 2017, section 2.3). While it is not full it keeps and returns what it is
    given; then it returns, with probability 1/2, a random one it holds and keeps the new one in its place, else the new one.
    """

    def __init__(self, size: int, channels: int, resolution: int):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, resolution, resolution))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.int64))

    def forward(self, fakes: Tensor, batch: Batch) -> Tensor:
        """fakes [N, C, H, W], without gradient -> as many to show to D. Two numbers are drawn for each, whatever the state."""
        if not self.size:
            return fakes
        every = parallel.gather(
            fakes.detach().to(self.images.dtype)
        )  # [N * world, ...]: the pools of all processes agree
        keep = torch.rand(len(every), generator=batch.generator, device=batch.device) < 0.5
        slots = torch.randint(self.size, (len(every),), generator=batch.generator, device=batch.device)
        shown = []
        for i in range(len(every)):  # one after the other: a later one may meet an earlier one in the pool
            new, filling = every[i : i + 1], self.filled < self.size
            slot = torch.where(filling, self.filled, slots[i : i + 1])
            old = self.images.index_select(0, slot)
            swap = filling | keep[i]
            shown.append(torch.where(keep[i] & ~filling, old, new))
            self.images.index_copy_(0, slot, torch.where(swap, new, old))
            self.filled.add_(filling)
        mine = slice(batch.rank * len(fakes), (batch.rank + 1) * len(fakes))
        return torch.cat(shown)[mine]


@GAMES.register("cyclegan")
class CycleGAN(Game):
    """G: a -> b and F: b -> a against D_b and D_a, which score maps of patches; least squares, cycle and identity in L1.

    ``cycle``: weight of ||F(G(a)) - a|| + ||G(F(b)) - b|| (the paper's lambda). ``identity``: of ||G(b) - b|| + ||F(a) - a||,
    relative to ``cycle``: 0 in the paper's main objective, 0.5 where colors shall stay and by default in the authors' code.
    ``pool``: fakes that each discriminator remembers; 0 shows it the latest. ``domains``: what a and b are called.
    ``channels``, ``resolution``: of the images, for the pool.
    """

    takes = ("G", "F", "D_a", "D_b")
    needs = ("a", "b")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        channels: int,
        resolution: int,
        cycle: float = 10.0,
        identity: float = 0.0,
        pool: int = 50,
        domains: Sequence[str] = ("a", "b"),
    ):
        super().__init__(networks)
        if pool < 0:
            raise ValueError(f"game.pool={pool}: must be 0 or more")
        if len(domains) != 2 or domains[0] == domains[1]:
            raise ValueError(f"game.domains={domains}: must be two different names")
        self.cycle, self.identity, self.domains = cycle, identity, tuple(domains)
        self.pool_a = ImagePool(pool, channels, resolution)
        self.pool_b = ImagePool(pool, channels, resolution)

    def turns(self) -> Sequence[Turn]:
        return [
            Turn(("G", "F"), self.loss_generators),
            Turn(("D_a", "D_b"), self.loss_discriminators, draw="last"),
        ]

    def loss_generators(self, batch: Batch) -> Tensor:
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = self.G(a), self.F(b)
        batch["fake_b"], batch["fake_a"] = fake_b.detach(), fake_a.detach()
        adversarial = _square(self.D_b(fake_b), 1.0) + _square(self.D_a(fake_a), 1.0)
        cycle = _l1(self.F(fake_b), a) + _l1(self.G(fake_a), b)
        batch.log("G/adversarial", adversarial)
        batch.log("G/cycle", cycle)
        loss = adversarial + self.cycle * cycle
        if self.identity:
            identity = _l1(self.G(b), b) + _l1(self.F(a), a)
            batch.log("G/identity", identity)
            loss = loss + self.cycle * self.identity * identity
        return loss

    def loss_discriminators(self, batch: Batch) -> Tensor:
        fake_b = self.pool_b(batch["fake_b"], batch)
        fake_a = self.pool_a(batch["fake_a"], batch)
        return self.loss_D(self.D_a, batch["a"], fake_a) + self.loss_D(self.D_b, batch["b"], fake_b)

    def loss_D(self, D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum, as in the paper: D learns at half the generators' pace (Adam, though, hides a factor)."""
        if mixes_batch(D):
            on_real, on_fake = D(real), D(fake)
        else:
            on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
        return 0.5 * (_square(on_real, 1.0) + _square(on_fake, 0.0))

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
