"""SRGAN: G learns the mean squared error alone, then against D with the distance of a frozen network's features."""

from helpers.play import game
from helpers.skeletons import Play, network, rows, stage
from torch import nn
from torch.nn.functional import interpolate, softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.recipe import Recipe
from zoo.registry import FrozenDict


@network
class Upscaler(nn.Sequential):
    def __init__(self):
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(), nn.Conv2d(8, 48, 3, padding=1)
        super().__init__(*layers, nn.PixelShuffle(4), nn.Tanh())


@network
class Convolutions(nn.Sequential):
    def __init__(self, scores: int):
        last = [nn.Flatten(), nn.Linear(64, scores), nn.Flatten(0)] if scores else []
        super().__init__(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), *last)


@game
class Content(Play):
    ship = FrozenDict(kind="upscale", networks=["G"], factor=4, input_range=[0, 1])

    def turns(self):
        return [Turn(("G",), self.loss_G)]

    def upscale(self, batch):
        small = interpolate(batch["x"], scale_factor=0.25, mode="bicubic", antialias=True)  # [N, 3, 4, 4]
        return self.G(small / 2 + 0.5)

    def loss_G(self, batch):
        return (self.upscale(batch) - batch["x"]).square().mean()


@game
class Perceptual(Content):
    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw="last")]

    def loss_D(self, batch):
        real, fake = Discriminate(self, batch).both(Inputs(batch["x"]), Inputs(self.upscale(batch).detach()))
        return softplus(-real.score).mean() + softplus(fake.score).mean()

    def loss_G(self, batch):
        fake = self.upscale(batch)
        content = (self.phi(fake) - self.phi(batch["x"])).square().sum(1).mean()
        return 0.006 * content + 1e-3 * softplus(-Discriminate(self, batch)(fake).score).mean()


def recipe():
    D, phi = (Convolutions.spec.replace(scores=n) for n in (1, 0))
    stages = stage(Content.spec, "G", resolution=16), stage(Perceptual.spec, "G D", resolution=16)
    return Recipe({"G": Upscaler.spec, "D": D, "phi": phi}, stages)


def data():
    return rows(side=16)


def check(first, second):
    """The second stage begins with the first one's G; the network of the features is in eval mode in both."""
    assert first.game.G is second.game.G and not first.game.phi.training and not second.game.phi.training
    assert not any(p.requires_grad for p in second.game.phi.parameters()) and first.moved == {"G"}
