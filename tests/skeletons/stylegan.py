"""StyleGAN: a mapping network and styles, noise inside G, two styles mixed at one layer for the whole batch, R1 in
every step; the mean of w, for truncation, is a buffer."""

import torch
from helpers.play import game, play
from helpers.skeletons import network, rows, stage
from torch import nn
from torch.nn.functional import interpolate, leaky_relu, rms_norm

from zoo import parallel
from zoo.games.adversarial import Adversarial
from zoo.networks.layers import InstanceNorm2d, MinibatchStandardDeviation
from zoo.recipe import Ema, Recipe
from zoo.registry import Spec

data, LAYERS = rows, 4


@network
class Generator(nn.Module):
    latent, whole_batch = 8, "the mean of w"

    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.LeakyReLU(0.2))
        self.constant, self.w_mean = nn.Parameter(torch.ones(1, 8, 4, 4)), nn.Buffer(torch.zeros(8))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(LAYERS))
        self.styles = nn.ModuleList(nn.Linear(8, 16) for _ in range(LAYERS))
        self.strengths, self.rgb = nn.Parameter(torch.zeros(LAYERS, 8, 1, 1)), nn.Conv2d(8, 3, 1)
        self.norm = InstanceNorm2d(8, eps=1e-8)

    def forward(self, z, cut, noise):
        w = self.mapping(rms_norm(z, (8,)))  # z [N, 2, 8]: the second one's styles from layer cut [N] on
        if self.training:
            self.w_mean.lerp_(parallel.mean(w[:, 0].detach().mean(0)), 0.005)
        first = torch.arange(LAYERS, device=z.device)[:, None] < cut[:, None, None]
        styles, h = torch.where(first, w[:, :1], w[:, 1:]).unbind(1), self.constant.expand(len(z), -1, -1, -1)
        for i, w in enumerate(styles):
            h = self.convs[i](interpolate(h, scale_factor=2) if i == LAYERS // 2 else h)
            h = leaky_relu(h + self.strengths[i] * noise.randn(1, *h.shape[2:]), 0.2)
            scale, shift = self.styles[i](w)[:, :, None, None].chunk(2, 1)
            h = self.norm(h) * (1 + scale) + shift
        return self.rgb(h)


@network
class Discriminator(nn.Sequential):
    def __init__(self):
        first = nn.Conv2d(3, 8, 3, 2, padding=1), nn.LeakyReLU(0.2), MinibatchStandardDeviation(4, sync=True)
        super().__init__(*first, nn.Flatten(), nn.Linear(9 * 16, 1), nn.Flatten(0))


@game
class StyleGAN(Adversarial):
    def fakes(self, batch, again=False):
        z = torch.stack([batch.latent(self.prior), batch.latent(self.prior)], 1)
        once = torch.rand(2, generator=batch.generator, device=batch.device)  # two numbers for the whole batch
        cut = torch.where(once[0] < 0.9, 1 + (once[1] * (LAYERS - 1)).floor(), LAYERS)
        batch["fake"] = self.G(z, cut.expand(batch.size), batch.noise("G", again=again))
        return batch["fake"]


def recipe():
    one = stage(StyleGAN.spec.replace(penalties=(Spec("r1", weight=10.0),)), "G D")
    return Recipe({"G": Generator.spec, "D": Discriminator.spec}, (one,), {"G": Ema(halflife=50)})


def check(run):
    """D's turn and G's have noise, cuts and z of their own; the cut is one layer for the batch, mostly within G."""
    cuts, forward = [], run.game.G.forward
    run.game.G.forward = lambda z, cut, noise: cuts.append((cut, noise)) or forward(z, cut, noise)
    play(run, 20)
    assert len(cuts) == 40 and all(len(set(cut.tolist())) == 1 for cut, _ in cuts)
    assert {int(cut[0]) for cut, _ in cuts} >= {1, 2, 3} and not any(noise.again for _, noise in cuts)
    assert run.game.G.w_mean.abs().sum() > 0
    assert torch.equal(run.game.G.w_mean, run.ema_networks["G"].network.w_mean)
