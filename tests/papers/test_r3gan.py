"""R3GAN (arXiv 2501.05441) against the paper and the authors' numbers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.play import count, play, session
from helpers.recipes import small, stand_in
from torch.nn.functional import softplus

from zoo import settings
from zoo.augment import ADA
from zoo.networks.r3gan import Resample
from zoo.registry import LOSSES, NETWORKS, Spec

G, D = Spec("r3gan-generator"), Spec("r3gan-discriminator")
SMALL = {"widths": (16, 8, 8), "blocks": 2, "group": 8, "resolution": 16}
FFHQ_64, FFHQ_256 = (768,) * 4 + (384,), (768,) * 4 + (384, 192, 96)


def build(spec, **more):
    torch.manual_seed(0)
    return NETWORKS.build(spec.replace(**{**SMALL, **more}))


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "of_G", "of_D"),
    [
        ({"resolution": 32}, 20_732_160, 20_683_776),
        ({"resolution": 32, "classes": 10}, 20_781_952, 21_280_512),
        ({"resolution": 64, "widths": FFHQ_64}, 22_429_824, 22_381_440),
        ({"resolution": 256, "widths": FFHQ_256}, 23_057_952, 23_009_568),
        # ImageNet-32: 96 groups of 32 channels
        ({"resolution": 32, "widths": (1536,) * 4, "group": 32, "classes": 1000}, 82_914_304, 86_548_992),
    ],
)
def test_parameter_counts(more, of_G, of_D):
    assert count(G, **more) == of_G
    assert count(D, **{**more, **({"widths": more["widths"][::-1]} if "widths" in more else {})}) == of_D


def test_parameters_of_the_recipes():
    networks = {name: settings.find(f"r3gan-{name}").networks for name in ("cifar10", "celeba")}
    assert count(networks["cifar10"]["G"].replace(classes=10)) == 20_781_952
    assert count(networks["cifar10"]["D"].replace(classes=10)) == 21_280_512
    assert count(networks["celeba"]["G"], resolution=64) == 22_429_824
    assert count(networks["celeba"]["D"], resolution=64) == 22_381_440


def test_initial_deviations():
    """Fixup: sqrt(2 / 1.04) blocks^(-1/4) / sqrt(fan_in) for the first two convolutions of a block, 0 for the last, 1 /
    sqrt(fan_in) elsewhere; the basis N(0, 1), biases 0."""
    wide = {"resolution": 32, "widths": (128,) * 4, "group": 16, "classes": 10}
    gain = math.sqrt(2 / 1.04) * 8**-0.25  # 2 blocks in each of 4 stages
    assert gain == pytest.approx(0.8246, abs=1e-4)
    nets = {"G": build(G, latent=64, **wide), "D": build(D, **wide)}
    for net in nets.values():
        for name, p in net.named_parameters():
            fan_in = p[0].numel()
            if name.endswith("bias") or "project" in name:
                assert not p.any(), name
                continue
            expected = {"expand.weight": gain / math.sqrt(128), "grouped.weight": gain / math.sqrt(9 * 16)}
            std = expected.get(name.split(".", 2)[-1], 1 / math.sqrt(fan_in))
            std = 1.0 if name == "basis" else std
            if net is nets["D"] and name == "embedding.weight":
                std = 1 / math.sqrt(10 * 128)
            assert p.std().item() == pytest.approx(std, rel=0.15), name
            assert abs(p.mean().item()) < 0.2 * std, name


def test_shapes():
    sizes = []
    networks = build(G), build(D, widths=(8, 8, 16))
    for net in networks:
        for m in net.stages:
            m.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    x = networks[0](torch.randn(2, 64))
    assert x.shape == (2, 3, 16, 16) and networks[1](x).shape == (2,)
    up = [(16, 4, 4)] * 2 + [(8, 8, 8)] * 3 + [(8, 16, 16)] * 3
    down = [(8, 16, 16)] * 2 + [(8, 8, 8)] * 3 + [(16, 4, 4)] * 3
    assert sizes == up + down
    assert networks[1].features(x).shape == (2, 16)
    assert networks[1].basis.weight.shape == (16, 1, 4, 4), "one 4x4 filter for each channel"


@pytest.mark.parametrize("classes", [0, 3])
def test_discriminator_starts_linear(classes):
    """Every block starts as the identity, so that s(a) + s(b) = s(a + b), and the gradient is the same everywhere."""
    net = build(D, widths=(8, 8, 16), classes=classes).double()
    a, b = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64).unbind(0)
    given = {"y": torch.tensor([0, 1, 2, 0])} if classes else {}
    torch.testing.assert_close(net(a, **given) + net(b, **given), net(a + b, **given))
    slopes = []
    for x in (a, b):
        x.requires_grad_()
        slopes.append(torch.autograd.grad(net(x, **given).sum(), x)[0])
    torch.testing.assert_close(*slopes)


def test_no_normalization_and_no_limit():
    """Besides activations there are only convolutions, linear layers and resampling; G's outputs exceed 1."""
    g, d = build(G), build(D, widths=(8, 8, 16))
    kinds = {type(m).__name__ for net in (g, d) for m in net.modules()}
    own = {"R3GANGenerator", "R3GANDiscriminator", "Block", "Resample"}
    assert kinds == {*own, "Sequential", "Conv2d", "Linear", "Identity"}
    z = torch.randn(16, 64)
    torch.testing.assert_close(g(10 * z), 10 * g(z))  # linear in z at first
    assert g(10 * z).abs().max() > 5


def test_resampling():
    """The filter sums to 1 down and to 4 up; a constant image stays constant inside; each is the transpose of the
    other, times 4."""
    up, down = Resample(3, 3, up=True), Resample(3, 3, up=False)
    assert up.filter.sum() == 4 and down.filter.sum() == 1
    x = torch.ones(1, 3, 8, 8)
    torch.testing.assert_close(up(x)[:, :, 1:-1, 1:-1], torch.ones(1, 3, 14, 14))
    torch.testing.assert_close(down(x)[:, :, 1:-1, 1:-1], torch.ones(1, 3, 2, 2))
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close((up(a) * b).sum(), 4 * (a * down(b)).sum())
    assert not up.state_dict() and Resample(3, 5, up=True)(a).shape == (2, 5, 8, 8)


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r"resolution=18: must be a multiple of 4 for r3gan-generator"):
        build(G, resolution=18)
    with pytest.raises(ValueError, match=r"group=12: must divide twice the width, 32"):
        build(G, group=12)


# Losses ---------------------------------------------------------------------------------------------------------------


def test_losses():
    """E softplus(-(s(x) - s(G(z)))) and the same with the roles exchanged; ln 2 for equal scores; a constant added to s
    changes nothing; G's loss depends on the reals."""
    game = settings.find("r3gan-cifar10").stages[0].game
    pair = LOSSES.build(game.kwargs["loss"])
    torch.manual_seed(0)
    real, fake = torch.randn(2, 7)
    torch.testing.assert_close(pair.d(real, fake), softplus(fake - real).mean())
    torch.testing.assert_close(pair.g(real, fake), pair.d(fake, real))
    torch.testing.assert_close(pair.d(real + 3, fake + 3), pair.d(real, fake))
    assert pair.g(real + torch.linspace(0, 1, 7), fake) != pair.g(real, fake)
    zero = torch.zeros(3)
    assert pair.d(zero, zero).item() == pair.g(zero, zero).item() == pytest.approx(math.log(2))


def test_schedules():
    """Half a cosine over the first 20 million images of the authors', who count D's; constant after."""
    (stage,) = settings.find("r3gan-cifar10").stages
    at = {s.target: s for s in stage.schedules}
    ends = {
        "optimizers.*.lr": (2e-4, 5e-5),
        "optimizers.*.betas.1": (0.9, 0.99),
        "game.penalties.0.weight": (0.05, 0.005),
        "game.penalties.1.weight": (0.05, 0.005),
        "game.augment.p": (0, 0.55),
        "ema.G.halflife": (0, 2 * 5e6),
    }
    assert at.keys() == ends.keys()
    for target, (first, last) in ends.items():
        values = [at[target].at(2 * images) for images in (0, 10e6, 20e6, 50e6)]
        assert values == pytest.approx([first, (first + last) / 2, last, last]), target


# Training -------------------------------------------------------------------------------------------------------------

BATCH = 6
LAST = {"optimizers.*.lr": 5e-5, "optimizers.*.betas.1": 0.99, "game.penalties.0.weight": 0.005,
        "game.penalties.1.weight": 0.005, "game.augment.p": 0.5, "ema.G.halflife": 20.0}  # fmt: skip


def shorter(schedule):
    """It ends after two rounds; the EMA weights move within three."""
    (_, first), _ = schedule.points
    return replace(schedule, points=((0, first), (2 * 2 * BATCH, LAST[schedule.target])))


def test_two_passes_of_D():
    """One a turn, of reals and fakes together: R1 and R2 need no other. Both turns draw reals."""
    recipe = small("r3gan-cifar10")
    run, passes = session(recipe, stand_in(recipe)), []
    run.game.D.input.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    play(run)
    assert passes == [8, 8] and run.images == 2 * 4


@pytest.mark.parametrize("name", ["cifar10", "celeba", "fashion-mnist"])
def test_plain_loop(plain_loop, name):
    """D's step and G's, each with reals, noise and augmentation of its own; both optimizers read the schedules before
    each round; then the EMA."""
    tiny = {"widths": (8, 8), "blocks": 1, "group": 8}
    networks = {"G": {**tiny, "latent": 5}, "D": tiny}
    classes = 10 if name == "cifar10" else 0
    sizes = {"channels": 3, "size": 8, "resolution": 8, "batch": BATCH, "classes": classes}
    loop = plain_loop(f"r3gan-{name}", networks, schedules=shorter, **sizes)
    G, D, average = loop.copy("G"), loop.copy("D"), loop.copy("G")
    opts = {net: torch.optim.Adam(net.parameters(), lr=1.0, betas=(0.0, 0.9)) for net in (G, D)}
    pipeline = ADA(color=0.5) if name != "fashion-mnist" else None
    numbers = SimpleNamespace(size=BATCH, rand=loop.rand, randn=loop.randn)

    def augment(x):
        return x if pipeline is None else pipeline([x], numbers)[0]

    def cosine(first, last, r):
        return last + (first - last) * (0.5 + 0.5 * math.cos(math.pi * min(r / 2, 1)))

    first_lr, first_gamma = {"cifar10": (2e-4, 0.05), "celeba": (2e-4, 2.0), "fashion-mnist": (1e-3, 1.0)}[name]
    for r in loop.rounds():
        lr, beta2 = cosine(first_lr, 5e-5, r), cosine(0.9, 0.99, r)
        gamma, halflife = cosine(first_gamma, 0.005, r), cosine(0.0, 20.0, r)
        for optimizer in opts.values():
            optimizer.param_groups[0].update(lr=lr, betas=(0.0, beta2))
        if pipeline is not None:
            pipeline.p.fill_(cosine(0.0, 0.5, r))

        batch = loop.real()
        given = {"y": batch["y"]} if classes else {}
        x, fake = batch["x"].requires_grad_(), G(loop.randn(5), **given).detach().requires_grad_()
        s_x, s_fake = D(augment(x), **given), D(augment(fake), **given)
        loss = softplus(-(s_x - s_fake)).mean()
        for s, images in ((s_x, x), (s_fake, fake)):  # R1 and R2
            (gradient,) = torch.autograd.grad(s.sum(), images, create_graph=True)
            loss = loss + gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        opts[D].zero_grad()
        loss.backward()
        opts[D].step()

        batch = loop.real()
        given = {"y": batch["y"]} if classes else {}
        fake = G(loop.randn(5), **given)
        s_x, s_fake = D(augment(batch["x"]), **given), D(augment(fake), **given)
        opts[G].zero_grad()
        softplus(-(s_fake - s_x)).mean().backward()
        opts[G].step()

        decay = 0.5 ** (2 * BATCH / halflife) if halflife else 0.0
        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)
    loop.compare(G=G, D=D)
    engine = dict(loop.run.ema_networks["G"].network.named_parameters())
    for key, p in average.named_parameters():
        assert (p - engine[key]).abs().max() < 1e-6, key
    assert max((a - b).abs().max().item() for a, b in zip(average.parameters(), G.parameters(), strict=True)) > 1e-5
