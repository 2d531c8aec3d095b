"""StyleGAN2 with augmentation: G, then the path length of half a batch every fourth round, then D, then R1 every
sixteenth. D gets reals and fakes augmented with a probability that is a buffer, in its own turn, G's and R1's."""

import torch
from helpers.play import game, play
from helpers.skeletons import network, rows, stage
from torch import nn
from torch.nn.functional import leaky_relu

from zoo import parallel
from zoo.games.adversarial import Adversarial
from zoo.penalties import Penalty
from zoo.recipe import Recipe, Schedule
from zoo.registry import PENALTIES, FrozenDict, Spec

data = rows


@network
class Generator(nn.Module):
    latent, noise_shapes = 8, FrozenDict(first=(1, 8, 8), last=(1, 8, 8))

    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Unflatten(1, (2, 8)))
        self.constant, self.strengths = nn.Parameter(torch.randn(8, 8, 8)), nn.Parameter(torch.zeros(2))
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(8, 8), nn.Conv2d(8, n, 1)]) for n in (8, 3))

    def forward(self, z, noise):
        return self.synthesis(self.mapping(z), noise)

    def synthesis(self, ws, noise):
        h = self.constant
        for w, n, a, (style, conv) in zip(ws.unbind(1), noise.values(), self.strengths, self.layers, strict=True):
            h = conv(style(w)[..., None, None] * leaky_relu(h + a * n, 0.2))
        return h


@PENALTIES.register("test-path-length")
class PathLength(Penalty):
    player, needs, whole_batch, batch = "G", ("G",), "the mean path length", 2

    def __init__(self):
        super().__init__(weight=2.0, every=4)
        self.mean = nn.Buffer(torch.zeros(()))

    def forward(self, discriminate, real, fake, batch=None, *, G):
        noise, y = {k: batch.randn(*shape) for k, shape in G.noise_shapes.items()}, batch.randn(3, 8, 8) / 8
        slopes = torch.func.grad(lambda ws: (G.synthesis(ws, noise) * y).sum())(G.mapping(batch.randn(8)))
        lengths = slopes.square().sum(2).mean(1).sqrt()
        mean = torch.lerp(self.mean, parallel.mean_with_gradient(lengths.mean()), 0.01)
        self.mean.copy_(mean.detach())
        return (lengths - mean).square().mean()


@game
class StyleGAN2(Adversarial):
    def __init__(self, networks, **options):
        super().__init__(networks, **options)
        self.p = nn.Buffer(torch.zeros(()))

    def augment(self, images, batch):
        return [torch.where(chosen, 0.8 * x.flip(3), x) for chosen in [batch.rand(1, 1, 1) < self.p] for x in images]


def recipe():
    spec = StyleGAN2.spec.replace(order="G-first", penalties=(Spec("test-path-length"), Spec("r1", every=16)))
    one = stage(spec, "G D", schedules=[Schedule("game.p", ((0, 0.5), (8, 0.6)))])
    return Recipe({"G": Generator.spec, "D": Spec("test-conv")}, [one])


def check(run):
    """The turns and when they are due; D sees reals and fakes augmented in D's turn, in G's and in that of R1; half a
    batch has its path lengths measured, and their mean moves."""
    turns, calls, augment = run.learner.turns, [], run.game.augment
    assert [(turn.players[0], turn.every, turn.batch) for turn in turns] == [
        ("G", 1, None), ("G", 4, 2), ("D", 1, None), ("D", 16, None)
    ]  # fmt: skip
    run.game.augment = lambda images, batch: calls.append(len(images[0])) or augment(images, batch)
    run.round = 3
    play(run)
    assert calls == [4, 4, 4]  # the fakes of G's turn, then reals and fakes
    mean = run.game.penalties[0].mean.clone()
    play(run)
    assert calls[3:] == [4, 4, 4] and 0 < mean != run.game.penalties[0].mean
    run.round = 16
    play(run)
    assert calls[6:] == [4, 4, 4, 4]  # and the reals of R1
