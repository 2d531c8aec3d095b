"""StackGAN++: one network paints a caption at three sizes, each of which has a D with two scores: does the image look
real, does it fit the caption. A real image of another caption is real for the one and fake for the other. All Ds first,
then G on the same fake images."""

import functools

import torch
from helpers.play import game, play
from helpers.skeletons import Patches, Play, Several, network, planes, rows, stage
from helpers.texts import CAPTIONED, PRETRAINED, SHIPS, Tree
from torch import nn
from torch.nn.functional import avg_pool2d, softplus

from zoo.discriminate import Discriminate
from zoo.game import Batch, Turn
from zoo.recipe import Data, Ema, Recipe, Stream

data = functools.partial(rows, side=32, caption=lambda i: f"number {i}")


@network
class TwoScores(Patches):
    def __init__(self, channels: int):
        super().__init__(channels)
        self.fits = nn.Conv2d(8 + 4, 1, 3)

    def score(self, features, given):
        both = torch.cat([features, planes(given["mean"], features)], 1)
        return {"conditional": self.fits(both), "unconditional": self.last(features)}


@game
class Sizes(Play):
    needs, ship = ("x", "text", "wrong"), SHIPS

    def turns(self):
        D = [f"D.{i}" for i in range(3)]
        return [Turn(D, self.loss_D, before=self.noise), Turn(["G"], self.loss_G, draw="last")]

    def noise(self, batch):
        batch.update(z=batch.randn(64), code=batch.randn(4))

    def paint(self, batch):
        return self.G.paint(batch["z"], batch["text"], {"code": batch["code"]})

    def loss_D(self, batch):
        (fakes, mean, _), loss = self.paint(batch), 0.0
        for i, fake in enumerate(fakes):
            images = avg_pool2d(batch["x"], 4 >> i), avg_pool2d(batch["wrong"], 4 >> i), fake.detach()
            scores = [Discriminate(self, batch)(x, {"mean": mean.detach()}, D=f"D.{i}").scores for x in images]
            for name, signs in {"conditional": (-1, 1, 1), "unconditional": (-1, -1, 1)}.items():
                loss = loss + sum(softplus(sign * s[name]).mean() for sign, s in zip(signs, scores, strict=True))
        return loss

    def loss_G(self, batch):
        fakes, mean, divergence = self.paint(batch)
        outputs = [Discriminate(self, batch)(fake, {"mean": mean}, D=f"D.{i}") for i, fake in enumerate(fakes)]
        return 2 * divergence + sum(softplus(-score).mean() for output in outputs for score in output.scores.values())


def recipe():
    data = Data(streams={"data": CAPTIONED, "wrong": Stream(keys={"x": "wrong"})})
    networks = {"G": Tree.spec, "D": Several.spec.replace(part=TwoScores.spec, count=3)}
    one = stage(Sizes.spec, "G D.0 D.1 D.2", resolution=32, data=data)
    return Recipe(networks, (one,), ema={"G": Ema(2770.0)}, pretrained=PRETRAINED)


def check(run):
    """G's turn has the fake images of the Ds' turn; one of the two scores depends on the caption."""
    calls = []
    paint = run.game.paint
    run.game.paint = lambda batch: calls.append(paint(batch)) or calls[-1]
    play(run)
    first, second = (images for images, *_ in calls)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and len(first) == 3
    captions = [
        Discriminate(run.game, Batch(4))(first[0], {"mean": torch.full((4, 4), v)}, D="D.0") for v in (0.0, 1.0)
    ]
    equal = {name: torch.equal(*(output.scores[name] for output in captions)) for name in captions[0].scores}
    assert equal == {"conditional": False, "unconditional": True}
