"""StarGAN: one G(x, attributes) for all domains; a score and attributes of D; five steps of D."""

import torch
from helpers.play import game
from helpers.skeletons import Patches, Play, network, planes, rows, stage, translates
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from zoo import parallel
from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.heads import Head
from zoo.penalties import GradientPenalty
from zoo.recipe import Recipe


@network
class Translator(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(6, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, x, y):
        return torch.tanh(super().forward(torch.cat([x, planes(y.to(x.dtype), x)], 1)))


class AttributesHead(Head):
    def loss_D(self, real, fake, batch, discriminate):
        return self.loss(real, batch["attributes"])

    def loss_G(self, fake, batch, discriminate):
        return self.loss(fake, batch["target"])

    def loss(self, output, y):
        logits = output.heads[self.network].flatten(1)
        return binary_cross_entropy_with_logits(logits, y.to(logits.dtype), reduction="sum") / len(y)


@game
class Attributes(Play):
    needs = ("x", "attributes")
    ship = translates({"first": [1.0, 0.0, 0.0], "all": [1.0, 1.0, 1.0]})

    def __init__(self, networks):
        super().__init__(networks)
        self.penalty, self.heads = GradientPenalty(10.0), nn.ModuleList([AttributesHead("D.classes")])

    def turns(self):
        return [Turn(("D",), self.loss_D, repeat=5, before=self.choose), Turn(("G",), self.loss_G, draw="last")]

    def choose(self, batch):
        order = batch.draw(lambda n: torch.randperm(n, generator=batch.generator, device=batch.device))
        batch["target"] = parallel.gather(batch["attributes"])[order]

    def loss_D(self, batch):
        discriminate, fake = Discriminate(self, batch), self.G(batch["x"], batch["target"]).detach()
        real, fake = discriminate.both(Inputs(batch["x"]), Inputs(fake), heads=(["D.classes"], []))
        head = self.heads[0].loss_D(real.output, fake.output, batch, discriminate)
        return fake.score.mean() - real.score.mean() + head + 10 * self.penalty(discriminate, real, fake, batch)

    def loss_G(self, batch):
        discriminate, fake = Discriminate(self, batch), self.G(batch["x"], batch["target"])
        output = discriminate(fake, heads=["D.classes"])
        cycle = (self.G(fake, batch["attributes"]) - batch["x"]).abs().mean()
        return self.heads[0].loss_G(output, batch, discriminate) - output.score.mean() + 10 * cycle


def recipe():
    return Recipe({"G": Translator.spec, "D": Patches.spec.replace(classes=3)}, (stage(Attributes.spec, "G D"),))


def data():
    return rows(attributes=lambda i: [i % 2, i // 2 % 2, i // 4 % 2])
