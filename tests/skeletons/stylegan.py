"""StyleGAN: a mapping network and styles, noise inside G, two styles mixed at one layer for the whole batch, R1 in
every step; the mean of w, for truncation, is a buffer."""

import torch
from helpers.play import game, play
from helpers.skeletons import network, rows, stage
from torch import nn
from torch.nn.functional import instance_norm, interpolate, leaky_relu

from zoo import parallel
from zoo.engine.export import model_of
from zoo.engine.stage import shipped
from zoo.games.adversarial import Adversarial
from zoo.networks.layers import MinibatchStandardDeviation
from zoo.recipe import Ema, Recipe
from zoo.registry import FrozenDict, Spec

data, SIDES = rows, (4, 4, 8, 8)


class Generator(nn.Module):
    latent, noise_shapes, whole_batch = 8, FrozenDict({f"{i}": (1, s, s) for i, s in enumerate(SIDES)}), "the mean of w"

    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8))
        self.constant, self.w_mean = nn.Parameter(torch.ones(1, 8, 4, 4)), nn.Buffer(torch.zeros(8))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in SIDES)
        self.styles = nn.ModuleList(nn.Linear(8, 16) for _ in SIDES)
        self.strengths, self.rgb = nn.Parameter(torch.zeros(len(SIDES), 8, 1, 1)), nn.Conv2d(8, 3, 1)

    def forward(self, z, noise, second=None, cut=None):
        ws = self.mapping(z)[:, None].expand(-1, len(SIDES), -1)  # [N, layers, 8]
        if self.training:
            self.w_mean.lerp_(parallel.mean(ws.detach().mean((0, 1))), 0.005)
        if second is not None:
            first = torch.arange(len(SIDES), device=z.device)[:, None] < cut[:, None, None]
            ws = torch.where(first, ws, self.mapping(second)[:, None])
        return self.synthesis(ws, noise)

    def synthesis(self, ws, noise):
        h = self.constant
        for i, (w, n) in enumerate(zip(ws.unbind(1), noise.values(), strict=True)):
            h = leaky_relu(self.convs[i](interpolate(h, n.shape[2:])) + self.strengths[i] * n, 0.2)
            scale, shift = self.styles[i](w)[:, :, None, None].chunk(2, 1)
            h = instance_norm(h, eps=1e-8) * (1 + scale) + shift
        return self.rgb(h)


class Discriminator(nn.Sequential):
    def __init__(self):
        first = nn.Conv2d(3, 8, 3, 2, padding=1), nn.LeakyReLU(0.2), MinibatchStandardDeviation(4, sync=True)
        super().__init__(*first, nn.Flatten(), nn.Linear(9 * 16, 1), nn.Flatten(0))


@game
class StyleGAN(Adversarial):
    def draw(self, batch):
        once = torch.rand(2, generator=batch.generator, device=batch.device)  # two numbers for the whole batch
        cut = torch.where(once[0] < 0.9, 1 + (once[1] * (len(SIDES) - 1)).floor(), len(SIDES)).expand(batch.size)
        return {**super().draw(batch), "second": batch.latent(self.prior), "cut": cut}

    def beside_z(self, inputs):
        return {**super().beside_z(inputs), "second": inputs["second"], "cut": inputs["cut"]}


def recipe():
    one = stage(StyleGAN.spec.replace(penalties=(Spec("r1", weight=10.0),)), "G D")
    return Recipe({"G": network(Generator).spec, "D": network(Discriminator).spec}, (one,), {"G": Ema(halflife=50)})


def check(run):
    """D's turn and G's have noise, cuts and z of their own; the cut is one layer for the batch, mostly within G."""
    cuts, noises, generate = [], [], run.game.generate
    run.game.generate = lambda i: cuts.append(i["cut"]) or noises.append(i["noise/3"]) or generate(i)
    play(run, 20)
    assert len(cuts) == 40 and all(len(set(cut.tolist())) == 1 for cut in cuts)
    assert {int(cut[0]) for cut in cuts} >= {1, 2, 3} and len({float(n.sum()) for n in noises}) == 40
    assert run.game.G.w_mean.abs().sum() > 0
    assert torch.equal(run.game.G.w_mean, run.ema_networks["G"].network.w_mean)
    model = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    assert model.sample(2, seed=3).shape == (2, 3, 8, 8)  # without a second style; noise by the image's seed
