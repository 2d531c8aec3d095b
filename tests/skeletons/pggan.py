"""PGGAN: G and D grow from 4x4 to 16x16 in three stages with batch sizes of their own; every new level fades in, also
in the reals. WGAN-GP with a drift term, the standard deviation of the minibatch, EMA weights of G."""

import functools

import torch
from helpers.play import game
from helpers.skeletons import network, rows, stage
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, rms_norm

from zoo.games.adversarial import Adversarial
from zoo.networks.layers import MinibatchStandardDeviation
from zoo.penalties import Penalty, inputs
from zoo.recipe import Ema, Recipe, Schedule
from zoo.registry import PENALTIES, Spec

data = functools.partial(rows, side=16)


class Growing(nn.Module):
    def __init__(self, end, *rgb):
        super().__init__()
        self.end, self.fade = end, nn.Buffer(torch.ones(()))  # fade: the weight of the newest level
        self.rgb = nn.ModuleList(nn.Conv2d(*rgb, 1) for _ in range(3))
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def at(self, level):
        self.level = level


class Generator(Growing):
    def __init__(self):
        super().__init__(nn.Linear(4, 128), 8, 3)

    def forward(self, z):
        h = before = self.end(rms_norm(z, (4,))).view(-1, 8, 4, 4)
        for block in self.blocks[: self.level]:
            h = leaky_relu(block(before := interpolate(h, scale_factor=2)), 0.2)
        return torch.lerp(self.rgb[max(self.level - 1, 0)](before), self.rgb[self.level](h), self.fade)


class Critic(Growing):
    def __init__(self):
        super().__init__(nn.Sequential(MinibatchStandardDeviation(sync=True), nn.Flatten(), nn.Linear(144, 1)), 3, 8)

    def forward(self, x):
        h, old = self.rgb[self.level](x), self.rgb[max(self.level - 1, 0)](x)
        for i, block in enumerate(reversed(self.blocks[: self.level])):
            h = torch.lerp(old := avg_pool2d(old, 2), avg_pool2d(leaky_relu(block(h)), 2), 1.0 if i else self.fade)
        return self.end(h)[:, 0]


@PENALTIES.register("test-drift")
class Drift(Penalty):
    def forward(self, discriminate, real, fake, batch=None):
        return inputs(real).score.float().square().mean()


@game
class PGGAN(Adversarial):
    def loss_D(self, batch):
        batch["x"] = torch.lerp(interpolate(avg_pool2d(batch["x"], 2), scale_factor=2), batch["x"], self.D.fade)
        return super().loss_D(batch)


def recipe():
    penalties = Spec("gradient-penalty"), Spec("test-drift", weight=0.001)
    spec = PGGAN.spec.replace(loss=Spec("wasserstein"), penalties=penalties, prior=Spec("normal", dim=4))
    fades = [Schedule(f"game.{name}.fade", ((0, 0.25), (8, 1.0))) for name in "GD"]
    # At 4x4 nothing fades in.
    stages = [stage(spec, "G D", level=i, batch=16 >> i, resolution=4 << i, schedules=fades[: 2 * i]) for i in range(3)]
    return Recipe({"G": network(Generator).spec, "D": network(Critic).spec}, stages, {"G": Ema(halflife=50)})


def check(*runs):
    """Each stage learns the layers up to its own, with Adam anew; the EMA weights grow and fade too."""
    learned = [[len(run.learner.optimizers[name].state) for name in "GD"] for run in runs]
    assert learned == [[4, 4], [8, 8], [10, 10]]
    G, ema = runs[-1].game.G, runs[-1].ema_networks["G"].network
    assert ema(torch.zeros(2, 4)).shape == (2, 3, 16, 16) and 0.25 < G.fade == ema.fade < 1
