"""StackGAN: stage I paints a caption; stage II paints stage I's image anew, whose networks are frozen. A code with
noise stands for the caption; D also gets real images of another class, as fakes."""

import functools

import torch
from helpers.play import game
from helpers.skeletons import Patches, Play, Several, network, rows, stage
from helpers.texts import CAPTIONED, PRETRAINED, SHIPS, Painter
from torch.nn.functional import pad, softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.recipe import Data, Recipe, Stream
from zoo.registry import FrozenDict

data = functools.partial(rows, side=16, y=lambda i: i % 3, caption=lambda i: f"number {i} of class {i % 3}")


@network
class Painters(Several):
    latent, noise_shapes = 64, FrozenDict({"0": (4,), "1": (4,)})

    def at(self, level):
        self.level = level

    def paint(self, k, z, text, noise):
        h = pad(self.paint(k - 1, z, text, noise)[0], (0, 0, 0, 0, 0, 1)) if k else z.view(-1, 4, 4, 4)
        return self[k](h, text, noise[f"{k}"])

    def forward(self, z, text, noise):
        return self.paint(self.level, z, text, noise)[0]


@game
class Stack(Play):
    needs, ship = ("x", "y", "text", "wrong", "wrong_y"), SHIPS

    def __init__(self, networks, k):
        super().__init__(networks)
        self.k, self.path = k, f"D.{k}"

    def turns(self):
        return [Turn([self.path], self.loss_D), Turn([f"G.{self.k}"], self.loss_G, draw="last")]

    def paint(self, batch):
        return self.G.paint(self.k, batch.randn(64), batch["text"], {k: batch.randn(4) for k in "01"})

    def loss_D(self, batch):
        discriminate, given = Discriminate(self, batch), {"text": batch["text"]}
        fake = Inputs(self.paint(batch)[0].detach(), given)
        real, fake = discriminate.both(Inputs(batch["x"], given), fake, D=self.path)
        wrong = softplus(discriminate(batch["wrong"], given, D=self.path).score).mean((1, 2, 3))  # [N]
        wrong = (wrong * (batch["wrong_y"] != batch["y"])).mean()
        return softplus(-real.score).mean() + 0.5 * (softplus(fake.score).mean() + wrong)

    def loss_G(self, batch):
        fake, divergence = self.paint(batch)
        output = Discriminate(self, batch)(fake, {"text": batch["text"]}, D=self.path)
        return softplus(-output.score).mean() + 2 * divergence


def recipe():
    data = Data(streams={"data": CAPTIONED, "wrong": Stream(keys={"x": "wrong", "y": "wrong_y"})})
    D = Several.spec.replace(part=Patches.spec.replace(channels=3, given=4), count=2)
    networks = {"G": Painters.spec.replace(part=Painter.spec, count=2), "D": D}
    parts = [(Stack.spec.replace(k=k), f"G.{k} D.{k}", 8 << k) for k in (0, 1)]
    stages = [stage(*part, level=k, resolution=side, data=data) for k, (*part, side) in enumerate(parts)]
    return Recipe(networks, tuple(stages), pretrained=PRETRAINED)


def check(first, second):
    """In stage II the networks of stage I are frozen, in eval mode, and their images depend on the caption."""
    G, H = second.game.G
    assert G is first.game.G[0] and not G.training and H.training and second.moved == {"G.1", "D.1"}
    h, noise = torch.randn(1, 4, 4, 4), torch.zeros(1, 4)
    assert not torch.allclose(*(G(h, torch.full((1, 4), value), noise)[0] for value in (-1.0, 1.0)))
