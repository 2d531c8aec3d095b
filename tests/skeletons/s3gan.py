"""S3GAN: most labels are missing (-1). A class head on D's features, which the labeled reals train, predicts them for
the score of the projection; a rotation head reads rotated reals in D's turn and rotated fakes in G's."""

import functools

import torch
from helpers.skeletons import network, rows, stage
from torch.nn.functional import cross_entropy

from zoo.discriminate import Discriminate
from zoo.heads import Head
from zoo.networks.layers import Linear
from zoo.networks.resnet import ResNetDiscriminator
from zoo.recipe import Recipe
from zoo.registry import HEADS, Spec

data = functools.partial(rows, y=lambda i: i % 3 if i % 4 == 0 else -1)


@network
class Projection(ResNetDiscriminator):
    def __init__(self, resolution, classes):
        super().__init__(3, resolution, classes, widths=(8, 8), downs=1, sn=True)
        self.predictor, self.rotation = Linear(8, classes, sn=True), Linear(8, 4, sn=True)


@HEADS.register("test-predicted-class")
class PredictedClass(Head):
    reads_fake, changes_given, whole_batch = False, True, "the mean over the labeled reals"

    def given(self, output, given):
        return {"y": torch.where(given["y"] < 0, output.argmax(1), given["y"])}

    def loss_D(self, real, fake, batch, discriminate):
        total = cross_entropy(real.heads[self.network].float(), batch["y"], ignore_index=-1, reduction="sum")
        return total / (batch["y"] >= 0).sum().clamp(min=1)


@HEADS.register("test-rotation")
class Rotation(Head):
    reads_real = reads_fake = False

    def rotated(self, x, discriminate):
        """The cross-entropy of the rotations of every fourth image."""
        images = torch.cat([torch.rot90(x[::4], r, (2, 3)) for r in range(4)])
        output = discriminate(images, heads=[self.network], score=False)
        angles = torch.arange(4, device=x.device).repeat_interleave(len(images) // 4)
        return cross_entropy(output.heads[self.network].float(), angles)

    def loss_D(self, real, fake, batch, discriminate):
        return self.rotated(batch["x"], discriminate)

    def loss_G(self, fake, batch, discriminate):
        return 0.2 * self.rotated(batch["fake"], discriminate)


def recipe():
    heads = Spec("test-rotation", network="D.rotation"), Spec("test-predicted-class", network="D.predictor")
    spec = Spec("adversarial", loss=Spec("hinge"), n_critic=2, heads=heads)
    G = Spec("resnet-generator", widths=(8, 8), latent=4, sn=True, classes="data")
    return Recipe({"G": G, "D": Projection.spec.replace(classes="data")}, [stage(spec, "G D")])


def check(run):
    """The projection gets the known labels, and the predicted ones of reals without; the predictor learns from labeled
    reals alone; rotated are the reals in D's turn, the fakes in G's."""
    game, batch = run.game.eval().requires_grad_(True), run.new_batch()
    rotated, x = [], torch.rand(4, 3, 8, 8)
    discriminate = Discriminate(game, batch)
    labels = torch.tensor([0, 1, -1, -1])
    output = discriminate(x, {"y": labels})
    complete = torch.where(labels < 0, output.heads["D.predictor"].argmax(1), labels)
    assert torch.equal(output.score, discriminate(x, {"y": complete}).score)

    game.heads[0].rotated = lambda x, discriminate: rotated.append(x) or torch.zeros(())
    for y in labels, torch.full((4,), -1):
        batch["x"], batch["y"] = x, y
        (gradient,) = torch.autograd.grad(game.loss_D(batch), [game.D.predictor.weight], allow_unused=True)
        assert (gradient is not None and gradient.any()) == (y >= 0).any()
    game.loss_G(batch)
    assert [images is x for images in rotated] == [True, True, False] and rotated[2] is batch["fake"]
