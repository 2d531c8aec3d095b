"""BigGAN: two steps of D, then one of G, each of two accumulated parts. Batch norm has the statistics of all processes;
its gain and bias come from a shared class embedding and a block's own chunk of z. Projection D, the hinge loss, the
relaxed orthogonal penalty, EMA weights."""

import functools

import torch
from helpers.skeletons import network, rows, stage
from torch import nn
from torch.nn.functional import relu

from zoo.networks.layers import BatchNorm2d, Conv2d, Linear
from zoo.penalties import Penalty
from zoo.recipe import Ema, Recipe
from zoo.registry import PENALTIES, Spec

data = functools.partial(rows, side=16, y=lambda i: i % 3)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(BatchNorm2d(8, affine=False, sync=True) for _ in range(2))
        self.affines = nn.ModuleList(Linear(8, 16, sn=True, bias=False) for _ in range(2))
        # No biases in front of batch norm: their gradients would be rounding errors, of which Adam makes steps.
        self.convs = nn.ModuleList(Conv2d(8, 8, resample=up, sn=True, bias=False) for up in ("up", ""))
        self.shortcut = Conv2d(8, 8, 1, resample="up", sn=True, bias=False)

    def forward(self, x, condition):
        h = x
        for norm, affine, conv in zip(self.norms, self.affines, self.convs, strict=True):
            gain, bias = affine(condition)[..., None, None].chunk(2, 1)
            h = conv(relu(norm(h) * (1 + gain) + bias))
        return h + self.shortcut(x)


@network
class Generator(nn.Module):
    latent = 12

    def __init__(self, classes):
        super().__init__()
        self.classes, self.embedding, self.first = classes, nn.Embedding(classes, 4), Linear(4, 128, sn=True)
        self.blocks, self.rgb = nn.ModuleList([Block(), Block()]), Conv2d(8, 3, sn=True)

    def forward(self, z, y):
        first, *chunks = z.chunk(3, 1)
        h = self.first(first).view(-1, 8, 4, 4)
        for block, chunk in zip(self.blocks, chunks, strict=True):
            h = block(h, torch.cat([self.embedding(y), chunk], 1))
        return torch.tanh(self.rgb(relu(h)))


@PENALTIES.register("test-orthogonal")
class Orthogonal(Penalty):
    player, needs = "G", ("G",)

    def forward(self, discriminate, real, fake, batch=None, *, G):
        weights = [p.flatten(1) for name, p in G.named_parameters() if p.dim() > 1 and "embedding" not in name]
        return sum((w @ w.T).fill_diagonal_(0).square().sum() for w in weights)


def recipe():
    spec = Spec("adversarial", loss=Spec("hinge"), n_critic=2, penalties=(Spec("test-orthogonal", weight=1e-4),))
    D = Spec("resnet-discriminator", widths=(8, 8), downs=1, sn=True, classes="data")
    one = stage(spec, "G D", batch=8, resolution=16, accumulate=2)
    return Recipe({"G": Generator.spec.replace(classes="data"), "D": D}, [one], {"G": Ema(50)})


def check(run):
    """Each step plays G in two parts with their own statistics; a chunk of z changes its block and those after it."""
    assert run.game.G.blocks[0].norms[0].num_batches_tracked == 2 * (2 + 1) * 2  # rounds, steps of D and of G, parts
    G, z, y, outputs = run.game.G.eval(), torch.zeros(2, 12), torch.tensor([1, 1]), []
    z[1, 8:] = 1.0
    for block in G.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    G(z, y)
    assert torch.allclose(*outputs[0], atol=1e-6) and not torch.allclose(*outputs[1], atol=1e-3)
