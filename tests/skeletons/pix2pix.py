"""pix2pix: aligned pairs, D sees the input image, dropout is G's only noise; both turns have the same fake images."""

import torch
from helpers.play import game, play
from helpers.skeletons import Play, network, rows, stage
from torch import nn
from torch.nn.functional import leaky_relu, softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Turn
from zoo.recipe import Data, Recipe, Stream
from zoo.registry import FrozenDict


@network
class UNet(nn.Module):
    noise_shapes = FrozenDict(masks=(8, 4, 4))

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 8, 4, 2, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ConvTranspose2d(16, 3, 4, 2, 1)])

    def forward(self, a, noise):
        skip = leaky_relu(self.down[0](a), 0.2)  # [N, 8, 4, 4]
        h = self.up[0](leaky_relu(self.down[1](skip), 0.2).relu())
        h = 2 * h * (noise["masks"] > 0)
        return torch.tanh(self.up[1](torch.cat([h, skip], 1).relu()))


@network
class Patches(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(6, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, 1, 1))

    def forward(self, x, a):
        return super().forward(torch.cat([a, x], 1))  # [N, 1, 4, 4]


@game
class Pairs(Play):
    needs, ship = ("a", "b"), {"kind": "translate", "networks": ["G"], "to": {"b": "G"}}

    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw="last")]

    def fake(self, batch, again=False):
        return self.G(batch["a"], noise={"masks": batch.noise("masks", again=again).randn(8, 4, 4)})

    def loss_D(self, batch):
        given, fake = {"a": batch["a"]}, self.fake(batch).detach()
        real, fake = Discriminate(self, batch).both(Inputs(batch["b"], given), Inputs(fake, given))
        return softplus(-real.score).mean() + softplus(fake.score).mean()

    def loss_G(self, batch):
        fake = self.fake(batch, again=True)
        adversarial = softplus(-Discriminate(self, batch)(fake, {"a": batch["a"]}).score).mean()
        return adversarial + 100.0 * (fake - batch["b"]).abs().mean()


def recipe():
    b = Stream(keys={"x": "b"}, where={"domain": 1}, aligned="a")
    data = Data(load=10, flip=True, streams={"a": Stream(keys={"x": "a"}, where={"domain": 0}), "b": b})
    return Recipe({"G": UNet.spec, "D": Patches.spec}, (stage(Pairs.spec, "G D", data=data),))


def data():
    return rows(side=10, domain=lambda i: i % 2)


def check(run):
    """D's and G's turn have the same fake images, of masks that another pass does not have."""
    calls = []
    run.game.G.register_forward_hook(lambda G, inputs, output: calls.append((inputs[0], output)))
    play(run)
    (a, first), (_, second) = calls
    assert torch.equal(first, second) and not torch.equal(first, run.game.G(a, {"masks": Batch(len(a)).randn(8, 4, 4)}))
