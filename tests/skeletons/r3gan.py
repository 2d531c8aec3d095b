"""R3GAN: the relativistic loss of pairs with R1 + R2, whose gradients come from the pass that is scored; augmentation
in front of D; learning rates, beta2, gamma, the augmentation's probability and the EMA half-life follow cosines."""

import pytest
import torch
from helpers.play import game, play
from helpers.skeletons import network, rows, stage
from torch import nn

from zoo.games.adversarial import Adversarial
from zoo.recipe import Ema, Recipe, Schedule
from zoo.registry import Spec

data = rows


class Block(nn.Sequential):
    def __init__(self):
        first = nn.Conv2d(8, 16, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.LeakyReLU(0.2)
        super().__init__(*first, nn.Conv2d(16, 8, 1, bias=False))
        nn.init.zeros_(self[-1].weight)

    def forward(self, x):
        return x + super().forward(x)


@network
class Generator(nn.Sequential):
    latent = 4

    def __init__(self):
        first = nn.Linear(4, 128, bias=False), nn.Unflatten(1, (8, 4, 4)), Block(), nn.Upsample(scale_factor=2)
        super().__init__(*first, Block(), nn.Conv2d(8, 3, 1))


@network
class Discriminator(nn.Sequential):
    def __init__(self):
        last = nn.Conv2d(8, 8, 4, groups=8), nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0)
        super().__init__(nn.Conv2d(3, 8, 1), Block(), nn.AvgPool2d(2), Block(), *last)


@game
class R3GAN(Adversarial):
    def __init__(self, networks, **options):
        super().__init__(networks, **options)
        self.p = nn.Buffer(torch.zeros(()))

    def augment(self, images, batch):
        chosen = batch.rand(1, 1, 1) < self.p
        return [torch.where(chosen, 0.8 * x.flip(3), x) for x in images]


def recipe():
    spec = R3GAN.spec.replace(loss=Spec("relativistic", average=False), penalties=(Spec("r1"), Spec("r2")))
    values = {"optimizers.*.lr": (2e-4, 5e-5), "optimizers.*.betas.1": (0.9, 0.99), "ema.G.halflife": (0.1, 50.0)}
    values |= {"game.penalties.0.weight": (0.05, 0.005), "game.penalties.1.weight": (0.05, 0.005), "game.p": (0, 0.5)}
    schedules = [Schedule(target, ((0, first), (8, last)), "cosine") for target, (first, last) in values.items()]
    one = stage(spec.replace(reals="fresh"), "G D", schedules=schedules)
    return Recipe({"G": Generator.spec, "D": Discriminator.spec}, [one], {"G": Ema(50)})


def check(run):
    """D makes two passes a round, one a turn, of reals and fakes together: R1 and R2 need no other. Both turns draw. In
    the middle of the run the schedules are in the middle."""
    passes = []
    run.game.D.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    play(run)
    assert passes == [8, 8] and run.images == 3 * 8
    group, (r1, r2) = run.learner.optimizers["D"].param_groups[0], run.game.penalties
    values = [group["lr"], group["betas"][1], r1.weight.item(), r2.weight.item(), run.game.p.item()]
    assert values == pytest.approx([1.25e-4, 0.945, 0.0275, 0.0275, 0.25])
