"""StackGAN: stage I paints a caption; stage II paints stage I's image anew, whose networks are frozen. A code with
noise stands for the caption; D also gets real images of another class, as fakes."""

import torch
from helpers.play import game
from helpers.skeletons import Conditioning, Patches, Play, Several, Up, embed, network, rows, stage
from torch import nn
from torch.nn.functional import pad, softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.recipe import Data, Recipe, Stream


@network
class Painter(nn.Module):
    def __init__(self):
        super().__init__()
        self.code, self.up, self.image = Conditioning(), Up(), nn.Conv2d(4, 3, 3, 1, 1)

    def forward(self, h, text, noise):
        code, _, divergence = self.code(text, noise)
        return torch.tanh(self.image(self.up(h, code))), divergence


@game
class Stack(Play):
    needs = ("x", "y", "caption", "wrong", "wrong_y")

    def __init__(self, networks, k):
        super().__init__(networks)
        self.k, self.path = k, f"D.{k}"

    def turns(self):
        return [Turn([self.path], self.loss_D, before=embed), Turn([f"G.{self.k}"], self.loss_G, draw="last")]

    def paint(self, batch, k):
        h = pad(self.paint(batch, k - 1)[0], (0, 0, 0, 0, 0, 1)) if k else batch.randn(4, 4, 4)  # [N, 4, ...]
        return self.G[k](h, batch["text"], batch.randn(4))

    def loss_D(self, batch):
        discriminate, given = Discriminate(self, batch), {"text": batch["text"]}
        fake = Inputs(self.paint(batch, self.k)[0].detach(), given)
        real, fake = discriminate.both(Inputs(batch["x"], given), fake, D=self.path)
        wrong = softplus(discriminate(batch["wrong"], given, D=self.path).score).mean((1, 2, 3))  # [N]
        wrong = (wrong * (batch["wrong_y"] != batch["y"])).mean()
        return softplus(-real.score).mean() + 0.5 * (softplus(fake.score).mean() + wrong)

    def loss_G(self, batch):
        fake, divergence = self.paint(batch, self.k)
        output = Discriminate(self, batch)(fake, {"text": batch["text"]}, D=self.path)
        return softplus(-output.score).mean() + 2 * divergence


def recipe():
    data = Data(streams={"data": Stream(), "wrong": Stream(keys={"x": "wrong", "y": "wrong_y"})})
    parts = {"G": Painter.spec, "D": Patches.spec.replace(channels=3, given=6)}
    stages = [stage(Stack.spec.replace(k=k), f"G.{k} D.{k}", resolution=8 << k, data=data) for k in (0, 1)]
    return Recipe({name: Several.spec.replace(part=part, count=2) for name, part in parts.items()}, tuple(stages))


def data():
    return rows(side=16, y=lambda i: i % 3, caption=lambda i: f"number {i} of class {i % 3}")


def check(first, second):
    """In stage II the networks of stage I are frozen, in eval mode, and their images depend on the caption."""
    G, H = second.game.G
    assert G is first.game.G[0] and not G.training and H.training and second.moved == {"G.1", "D.1"}
    h, noise = torch.randn(1, 4, 4, 4), torch.zeros(1, 4)
    assert not torch.allclose(*(G(h, torch.full((1, 6), value), noise)[0] for value in (-1.0, 1.0)))
