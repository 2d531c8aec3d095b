"""PGGAN (arXiv 1710.10196) against the paper and the authors' numbers."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.play import count, play, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from zoo import settings
from zoo.engine.export import model_of
from zoo.engine.stage import shipped
from zoo.games.pggan import faded
from zoo.networks import equalized
from zoo.networks.equalized import pixel_norm
from zoo.penalties import Drift, GradientPenalty
from zoo.registry import GAMES, NETWORKS, Spec

G, D = Spec("pggan-generator"), Spec("pggan-discriminator")
SMALL = {"widths": (8, 6, 4), "resolution": 16}


def build(spec, **more):
    torch.manual_seed(0)
    latent = {"latent": 5} if spec is G else {}
    return NETWORKS.build(spec.replace(**{**SMALL, **latent, **more}))


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "of_G", "of_D"),
    [
        ("celeba-1024", 3, 23_079_115, 23_087_249),
        ("celeba", 3, 13_629_810, 13_636_897),
        ("cifar10", 3, 1_296_908, 1_298_689),
        ("fashion-mnist", 1, 211_220, 212_081),
    ],
)
def test_parameter_counts(name, channels, of_G, of_D):
    """All layers from and to RGB count."""
    recipe = settings.find(f"pggan-{name}")
    facts = {"channels": channels, "resolution": recipe.stages[-1].resolution}
    assert [count(recipe.networks[key], **facts) for key in "GD"] == [of_G, of_D]


def test_initial_deviations():
    """Stored weights N(0, 1); what a layer applies has the deviation gain / sqrt(fan_in); biases 0."""
    wide = {"widths": (64, 64, 32), "resolution": 16}
    for net in (build(G, latent=64, **wide), build(D, **wide)):
        for name, m in net.named_modules():
            if isinstance(m, (nn.Linear, nn.Conv2d)):
                fan_in = m.weight[0].numel()
                gain = math.sqrt(2)
                if "to_rgb" in name or name == "head":
                    gain = 1.0
                elif net.__class__.__name__ == "PGGANGenerator" and name == "linear":
                    gain = math.sqrt(2) / 4
                assert m.scale == pytest.approx(gain / math.sqrt(fan_in)), name
                assert m.weight.numel() < 300 or m.weight.std().item() == pytest.approx(1, rel=0.15), name
        for name, p in net.named_parameters():
            assert not name.endswith("bias") or not p.any(), name


def test_what_the_layers_apply():
    torch.manual_seed(0)
    conv, linear = equalized.Conv2d(3, 5), equalized.Linear(7, 2, gain=1.0)
    x, z = torch.randn(2, 3, 4, 4), torch.randn(2, 7)
    w = conv.weight * math.sqrt(2 / 27)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, w, conv.bias, padding=1))
    torch.testing.assert_close(linear(z), z @ linear.weight.T / math.sqrt(7) + linear.bias)
    up = equalized.Conv2d(3, 5, resample="up")
    w = up.weight * math.sqrt(2 / 27)
    expected = nn.functional.conv2d(interpolate(x, scale_factor=2), w, up.bias, padding=1)
    torch.testing.assert_close(up(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_shapes(level):
    """G's images and D's scores at every level; the number of scores does not depend on it."""
    g, d = build(G).at(level), build(D).at(level)
    x = g(torch.randn(3, 5))
    assert x.shape == (3, 3, 4 * 2**level, 4 * 2**level) and g.side == x.shape[-1]
    assert d.features(x).shape == (3, 8) and d(x).shape == (3,)


def test_pixel_norm():
    """Every pixel has mean square 1 after it; G is a function of the direction of z alone; its images have no limit."""
    x = pixel_norm(torch.randn(2, 8, 4, 4))
    torch.testing.assert_close(x.square().mean(1), torch.ones(2, 4, 4))
    g, z = build(G), torch.randn(16, 5)
    torch.testing.assert_close(g(3.5 * z), g(z), atol=1e-4, rtol=1e-4)
    assert g(z).abs().max() > 1.2


def test_an_invisible_layer():
    """With a share of 0 the grown networks are the old ones: G's images upsampled, D of the averaged image."""
    g, d, z, x = build(G), build(D), torch.randn(3, 5), torch.randn(3, 3, 16, 16)
    for net in (g, d):
        net.fade.fill_(0.0)
    new = g.at(2)(z), d.at(2)(x)
    for net in (g, d):
        net.fade.fill_(1.0)
    torch.testing.assert_close(new[0], interpolate(g.at(1)(z), scale_factor=2))
    torch.testing.assert_close(new[1], d.at(1)(avg_pool2d(x, 2)))


def test_a_layer_that_has_faded_in():
    """With a share of 1 the layers to and from RGB of the level below have no influence."""
    g, d, z, x = build(G), build(D), torch.randn(3, 5), torch.randn(3, 3, 16, 16)
    before = g(z), d(x)
    for layer in (g.to_rgb[1], d.from_rgb[1]):
        nn.init.normal_(layer.weight)
    assert torch.equal(g(z), before[0]) and torch.equal(d(x), before[1])
    for net in (g, d):
        net.fade.fill_(0.5)
    assert not torch.equal(g(z), before[0]) and not torch.equal(d(x), before[1])


def test_minibatch_standard_deviation():
    """The whole batch has one number: 1e-4 for equal images; it does not depend on their order."""
    d, maps = build(D), []
    d.deviation.register_forward_hook(lambda m, i, o: maps.append(o[:, -1]))
    x = torch.randn(1, 3, 16, 16)
    d(x.expand(6, -1, -1, -1))
    torch.testing.assert_close(maps[-1], torch.full((6, 4, 4), 1e-4))
    x = torch.randn(6, 3, 16, 16)
    torch.testing.assert_close(d(x).flip(0), d(x.flip(0)))
    assert len(maps[-1].unique()) == 1


def test_wrong_arguments():
    for spec in (G, D):
        with pytest.raises(ValueError, match=r"resolution=28: must be 16 with widths of 3 levels"):
            build(spec, resolution=28)
        with pytest.raises(ValueError, match=r"level=3: must be from 0 to 2"):
            build(spec).at(3)
    with pytest.raises(ValueError, match=r"target=0: must be above 0"):
        GradientPenalty(target=0)
    networks = {"G": build(G), "D": NETWORKS.build(Spec("dcgan-discriminator", channels=3, resolution=16, width=4))}
    with pytest.raises(ValueError, match=r"networks\.D: must be a network that grows from 4x4, got DCGANDisc"):
        GAMES.build(Spec("pggan"), networks)


# Losses ---------------------------------------------------------------------------------------------------------------


class LinearCritic(nn.Module):
    """D(x) = w.x."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1)


@pytest.mark.parametrize("gamma", [1.0, 750.0])
def test_penalties_of_linear_critics(gamma):
    """10 (|w| - gamma)^2 / gamma^2, and 10 for D = 0, whatever gamma; E D(x)^2."""
    x, fake, w = torch.randn(3, 4, 3, 4, 4).unbind(0)
    penalty = GradientPenalty(target=gamma)
    for slope in (w[:1], torch.zeros(1, 3, 4, 4)):
        critic = LinearCritic(slope)
        expected = 10 * (slope.norm() - gamma) ** 2 / gamma**2
        torch.testing.assert_close(penalty.weight * penalty(critic, x, fake).detach(), expected)
    critic = LinearCritic(w[:1])
    torch.testing.assert_close(Drift()(critic, x).detach(), critic(x).square().mean().detach())


def test_faded_reals():
    """A mean of the images and of those of half their size; larger images are averaged first."""
    d, x = build(D).at(1), torch.randn(2, 3, 8, 8)
    d.fade.fill_(0.25)
    blurred = avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(faded(x, d), 0.25 * x + 0.75 * blurred)
    torch.testing.assert_close(faded(x.repeat_interleave(4, 2).repeat_interleave(4, 3), d), faded(x, d))
    d.fade.fill_(1.0)
    assert torch.equal(faded(x, d), x)
    assert torch.equal(faded(x, d.at(0)), avg_pool2d(x, 2)), "at 4x4 nothing fades in"


# Training -------------------------------------------------------------------------------------------------------------


def test_stages():
    """A stage a resolution with its batch: 16, then 14, 6 and 3; 800,000 images of fading and as many without."""
    recipe = settings.find("pggan-celeba-1024")
    stages, last = recipe.stages, recipe.stages[-1]
    assert [s.resolution for s in stages] == [4 * 2**s.level for s in stages] == [4 * 2**i for i in range(9)]
    assert [s.batch for s in stages] == [16] * 6 + [14, 6, 3]
    assert [s.images for s in stages[:-1]] == [800_000] + [1_600_000] * 7 and recipe.images == 19_000_000
    for stage in stages:
        adam = stage.optimizers["G"]
        assert (adam.lr, adam.betas, adam.eps) == (1e-3, (0.0, 0.99), 1e-8) and stage.optimizers["D"] == adam
        at = {s.target: s for s in stage.schedules}
        for key in "GD":
            fade = at.get(f"game.{key}.fade")
            assert (fade is None) == (stage.level == 0)
            assert fade is None or [fade.at(n) for n in (0, 400_000, 800_000, 9e6)] == [0, 0.5, 1, 1]
        halflife = at["ema.G.halflife"].at(0) if "ema.G.halflife" in at else recipe.ema["G"].halflife
        assert 0.5 ** (stage.batch / halflife) == pytest.approx(0.999)
    rise = {s.target: s for s in stages[0].schedules}["optimizers.*.lr"]
    values = [rise.at(n) for n in (0, 20_000, 40_000, 100_000)]
    assert values == pytest.approx([1e-3 * math.exp(-5), 1e-3 * math.exp(-1.25), 1e-3, 1e-3])
    penalties = Spec("gradient-penalty", weight=10.0, target=1.0), Spec("drift", weight=0.001)
    assert last.game.kwargs["penalties"] == penalties
    for name, images in (("lsun-bedroom", 20e6), ("cifar10", 20e6), ("celeba", 10e6)):
        assert settings.find(f"pggan-{name}").images == images
    cifar10 = settings.find("pggan-cifar10").stages[-1].game.kwargs
    assert cifar10["order"] == "simultaneous" and cifar10["penalties"][0].kwargs["target"] == 750


def wgan_gp(D, x, fake, u, gamma):
    """D's loss: the critic's, the penalty between reals and fakes, and the drift."""
    line = (x + u * (fake - x)).requires_grad_()
    (gradient,) = torch.autograd.grad(D(line).sum(), line, create_graph=True)
    norm = gradient.square().sum((1, 2, 3)).sqrt()
    of_real = D(x)
    penalty = 10 / gamma**2 * ((norm - gamma) ** 2).mean()
    return D(fake).mean() - of_real.mean() + penalty + 0.001 * of_real.square().mean()


TINY = {"G": {"widths": (4, 4, 4, 2, 2), "latent": 5}, "D": {"widths": (4, 4, 4, 2, 2)}}


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *(("celeba-1024", i) for i in range(5)),
        *(("cifar10", i) for i in range(4)),
        *(("fashion-mnist", i) for i in range(4)),
        *(("cifar10-small", i) for i in range(3)),
    ],
)
def test_plain_loop(plain_loop, name, stage):
    """While a layer fades in, reals are a mean of two resolutions. D's step, then G's, or both from the same fakes;
    then the EMA."""
    batch, levels = 4, 5 if name == "celeba-1024" else 4
    side = 4 * 2 ** (levels - 1)
    tiny = {key: {**kwargs, "widths": kwargs["widths"][:levels], "resolution": side} for key, kwargs in TINY.items()}

    def shorter(schedule):
        last = {"f": 1.0, "l": 1e-3}.get(schedule.target.split(".")[-1][0], 25.0)
        return replace(schedule, points=((0, 0.3 * last), (2 * batch, last)))

    original = settings.find(f"pggan-{name}").stages[stage]
    size = 28 if name == "fashion-mnist" else original.resolution
    channels = 1 if name == "fashion-mnist" else 3
    loop = plain_loop(f"pggan-{name}", tiny, channels=channels, size=size, batch=batch, stage=stage, schedules=shorter)
    G, D, average = loop.copy("G"), loop.copy("D"), loop.copy("G")
    level = G.level
    assert level == D.level == original.level
    opts = {net: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.99)) for net in (G, D)}
    fades = any(".fade" in s.target for s in original.schedules)
    rises = any(".lr" in s.target for s in original.schedules)
    for r in loop.rounds():
        share = min(0.3 + 0.35 * r, 1.0)
        for net in (G, D):
            net.fade.fill_(share if fades else 1.0)
            opts[net].param_groups[0]["lr"] = 1e-3 * (share if rises else 1.0)
        x = loop.real()["x"]
        x = avg_pool2d(x, x.shape[-1] // (4 * 2**level))
        if fades:
            x = share * x + (1 - share) * avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        fake = G(loop.randn(5))
        u = loop.rand(1, 1, 1)
        if name == "cifar10":
            loss = wgan_gp(D, x, fake.detach(), u, 750.0)
            of_D = torch.autograd.grad(loss, list(D.parameters()), allow_unused=True)
            of_G = torch.autograd.grad(-D(fake).mean(), list(G.parameters()), allow_unused=True)
            for net, gradients in ((G, of_G), (D, of_D)):
                for p, gradient in zip(net.parameters(), gradients, strict=True):
                    p.grad = gradient
            opts[G].step()
            opts[D].step()
        else:
            opts[D].zero_grad()
            wgan_gp(D, x, fake.detach(), u, 1.0).backward()
            opts[D].step()
            opts[G].zero_grad()
            (-D(G(loop.randn(5))).mean()).backward()
            opts[G].step()
        average.fade.copy_(G.fade)
        decay = 0.5 ** (batch / loop.run.recipe.ema["G"].halflife)
        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)
    loop.compare(G=G, D=D)
    engine = loop.run.ema_networks["G"].network
    assert engine.level == level and engine.fade == average.fade
    for key, p in average.named_parameters():
        assert (p - engine.get_parameter(key)).abs().max() < 1e-6, key


def test_layers_learn_when_their_level_has_come():
    """Each stage's Adam has the layers of the level; the levels above stay as they began."""
    recipe = small("pggan-fashion-mnist")
    run, counts = None, []
    for stage in range(4):
        run = session(recipe, stand_in(recipe, stage), stage=stage, after=run)
        before = {k: p.clone() for k, p in run.game.G.named_parameters()}
        play(run, 2)
        moved = {k for k, p in run.game.G.named_parameters() if not torch.equal(p, before[k])}
        assert not any(f"blocks.{i}." in k or f"to_rgb.{i + 1}." in k for k in moved for i in range(stage, 3))
        assert f"to_rgb.{stage}.weight" in moved
        counts.append(len(run.learner.optimizers["G"].state))
    assert counts == [6, 12, 16, 20]


def test_sampling_at_every_level():
    recipe = small("pggan-cifar10")
    run = session(recipe, stand_in(recipe, 3), stage=3)
    model = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    for level in range(4):
        assert model.at(level).sample(2).shape[-1] == model.resolution == 4 * 2**level
    with pytest.raises(ValueError, match=r"level=4: must be from 0 to 3"):
        model.at(4)
    other = small("dcgan-celeba")
    run = session(other, stand_in(other))
    plain = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    with pytest.raises(ValueError, match=r"level=1: must be a model whose networks grow, got G"):
        plain.at(1)


@pytest.mark.parametrize("name", ["pggan-generator", "pggan-discriminator", "stylegan-generator"])
def test_levels_that_do_not_exist(name):
    network = NETWORKS.build(Spec(name, widths=(4, 4, 4), resolution=16))
    for level in (-1, 3):
        with pytest.raises(ValueError, match=f"level={level}: must be from 0 to 2"):
            network.at(level)
