"""StyleGAN2 (arXiv 1912.04958) and ADA (arXiv 2006.06676) against the papers and the authors' numbers."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.play import count, play, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import conv2d, interpolate, softplus

from zoo import settings
from zoo.augment import ADA
from zoo.engine.export import model_of
from zoo.engine.stage import shipped
from zoo.game import Batch
from zoo.networks.stylegan2 import Filter, ModulatedConv2d, ToRGB
from zoo.penalties import PathLength
from zoo.registry import NETWORKS, Spec

G, D = Spec("stylegan2-generator"), Spec("stylegan2-discriminator")
SMALL = {"widths": (8, 6, 4), "resolution": 16}


def build(spec, **more):
    torch.manual_seed(0)
    sizes = {"latent": 5, "w": 6, "layers": 2} if spec is G else {}
    return NETWORKS.build(spec.replace(**{**SMALL, **sizes, **more}))


def noise_of(g, n):
    return {name: torch.randn(n, *shape) for name, shape in g.noise_shapes.items()}


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_G", "of_D", "kind", "G_alone", "D_alone"),
    [
        (30_370_060, 29_012_513, {"resolution": 1024}, {}, {}),
        (24_767_458, 24_001_089, {"resolution": 256, "widths": (512, 512, 512, 512, 256, 128, 64)}, {}, {}),
        (19_947_539, 20_720_641, {"resolution": 32, "widths": (512,) * 4}, {"layers": 2}, {"residual": False}),
        (20_215_315, 23_089_664, {"resolution": 32, "widths": (512,) * 4, "classes": 10}, {"layers": 2},
         {"residual": False}),
        (263_531, 288_929, {"resolution": 32, "widths": (64, 64, 64, 32), "channels": 1},
         {"layers": 2, "latent": 64, "w": 64}, {}),
    ],
)  # fmt: skip
def test_parameter_counts(of_G, of_D, kind, G_alone, D_alone):
    assert count(G, **kind, **G_alone) == of_G and count(D, **kind, **D_alone) == of_D


def test_parameters_of_the_recipes():
    for name, facts, counts in (
        ("celeba-1024", {"resolution": 1024}, [30_370_060, 29_012_513]),
        ("cifar10", {"resolution": 32, "classes": 10}, [20_215_315, 23_089_664]),
        ("fashion-mnist", {"resolution": 32, "channels": 1}, [82_939, 72_529]),
    ):
        networks = settings.find(f"stylegan2-{name}").networks
        specs = [s.replace(classes=10) if "classes" in facts else s for s in networks.values()]
        assert [count(s, **{k: v for k, v in facts.items() if k != "classes"}) for s in specs] == counts


def test_initial_deviations():
    """Stored weights N(0, 1), of the mapping network N(0, 100^2); the constant N(0, 1); styles' biases 1, others 0."""
    g, d = build(G, widths=(64, 64, 32), latent=64, w=64), build(D, widths=(64, 64, 32))
    for net in (g, d):
        for name, p in net.named_parameters():
            if name.endswith("style.bias"):
                assert torch.equal(p, torch.ones_like(p)), name
            elif p.dim() < 2 or name.endswith("bias"):
                assert not p.any(), name
            elif p.numel() > 300:
                assert p.std().item() == pytest.approx(100 if "mapping" in name else 1, rel=0.15), name
        for name, m in net.named_modules():
            if hasattr(m, "scale"):
                lr = 0.01 if "mapping" in name else 1.0
                assert m.scale == pytest.approx(lr / math.sqrt(m.weight[0].numel())), name
    assert g.constant.shape == (64, 4, 4)


def test_modulated_convolution():
    """Equal to a weight for each image, w s / ||w s||, to 1e-6; a factor of the style changes nothing but RGB."""
    torch.manual_seed(0)
    conv, x, w = ModulatedConv2d(4, 5, 3, 6).double(), torch.randn(3, 4, 8, 8).double(), torch.randn(3, 6).double()
    for i in range(3):
        weight = conv.weight * conv.style(w)[i, :, None, None]
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        torch.testing.assert_close(weight.square().sum((1, 2, 3)), torch.ones(5).double())
        expected = conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(conv(x, w)[i : i + 1], expected, atol=1e-6, rtol=1e-6)
    rgb = ToRGB(4, 3, 6).double()
    before = conv(x, w), rgb(x, w)
    for layer in (conv.style, rgb.conv.style):
        with torch.no_grad():
            layer.weight.mul_(3.0)
            layer.bias.mul_(3.0)
    torch.testing.assert_close(conv(x, w), before[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(rgb(x, w), 3 * before[1])


def test_resampling():
    """Each is the transpose of the other, times 4; constants stay constant inside; upsampling convolutions have it."""
    up, down = Filter(gain=4.0, up=True), Filter(stride=2)
    assert up.filter.sum() == 4 and down.filter.sum() == 1
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close((up(a) * b).sum(), 4 * (a * down(b)).sum())
    torch.testing.assert_close(up(torch.ones(1, 3, 8, 8))[..., 1:-1, 1:-1], torch.ones(1, 3, 14, 14))
    conv, w = ModulatedConv2d(3, 2, 3, 6, demodulate=False, up=True), torch.randn(2, 6)
    h, weight = a * conv.style(w)[:, :, None, None], conv.weight * conv.scale
    apart = torch.zeros(2, 3, 7, 7)
    apart[..., ::2, ::2] = h  # zeros between the pixels
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.zeros(2, 2, 4, 4)
    kernel[0, 0] = kernel[1, 1] = 4 * line[:, None] * line
    expected = conv2d(conv2d(apart, weight.flip(2, 3), padding=2), kernel, padding=1)
    torch.testing.assert_close(conv(a, w), expected)
    assert not up.state_dict()


def test_shapes():
    g, d = build(G), build(D)
    assert g.style_count == 6 and list(g.noise_shapes.values()) == [(1, s, s) for s in (4, 8, 8, 16, 16)]
    x = g(torch.randn(8, 5), noise_of(g, 8))
    assert x.shape == (8, 3, 16, 16) and d(x).shape == (8,) and d.features(x).shape == (8, 8)
    g, d, y = build(G, classes=3), build(D, classes=3), torch.arange(8) % 3
    assert d(g(torch.randn(8, 5), y=y), y=y).shape == (8,)
    assert NETWORKS.build(G.replace(widths=(4,) * 4, resolution=32, latent=4, w=4)).style_count == 8
    with pytest.raises(ValueError, match=r"resolution=18: must be a multiple of 4 for stylegan2-generator"):
        build(G, resolution=18)


def test_images_are_the_sum_of_all_sizes():
    """Without the largest size's own image what is left are the smaller ones, filtered up."""
    g, z, images = build(G).eval(), torch.randn(2, 5), []
    for layer in g.to_rgb:
        layer.register_forward_hook(lambda m, i, o: images.append(o))
    x = g(z)
    torch.testing.assert_close(x, g.up(g.up(images[0]) + images[1]) + images[2])


def test_residual_block():
    """The sum of both branches is scaled by the root of a half."""
    d, x = build(D), torch.randn(4, 4, 16, 16)
    block = d.blocks[0]
    plain = block(x)
    shortcut, block.shortcut = block.shortcut, None
    torch.testing.assert_close(plain, (block(x) + shortcut(block.down(x))) * math.sqrt(0.5))
    assert build(D, residual=False).blocks[0].shortcut is None


def test_directions_and_noise_at_the_start():
    g, z = build(G).eval(), torch.randn(3, 5)
    torch.testing.assert_close(g(2.5 * z), g(z), atol=1e-4, rtol=1e-4)
    assert torch.equal(g(z, noise_of(g, 3)), g(z))
    nn.init.ones_(g.convs[0].strength)
    assert not torch.allclose(g(z, noise_of(g, 3)), g(z), atol=1e-3)


def test_truncation_and_mixing():
    """All styles are changed; 0: one image for each draw of the noise."""
    g, z = build(G, classes=3).eval(), torch.randn(3, 5)
    nn.init.normal_(g.w_mean)
    y = torch.tensor([0, 2, 1])
    ws = g.styles(z, y)
    torch.testing.assert_close(g.styles(z, y, truncation=0.5), g.w_mean + 0.5 * (ws - g.w_mean))
    same = g(z, y=y, truncation=0.0)
    torch.testing.assert_close(same, same[:1].expand_as(same))
    mixed = g.styles(z, y, z.flip(0), torch.tensor([2, 2, 2]))
    assert torch.equal(mixed[:, :2], ws[:, :2]) and torch.equal(mixed[:, 2], g.mapping(z.flip(0), y))


# Losses ---------------------------------------------------------------------------------------------------------------


def test_losses_at_scores_of_zero():
    """L_D = 2 ln 2 and L_G = ln 2; the scores of zero have the sign 0."""
    recipe = small("stylegan2-fashion-mnist")
    run = session(recipe, stand_in(recipe))
    nn.init.zeros_(run.game.D.head.weight)
    batch = run.new_batch()
    run.draw(batch)
    assert run.game.loss_D(batch).item() == pytest.approx(2 * math.log(2))
    assert run.game.loss_G(batch).item() == pytest.approx(math.log(2))


class LinearSynthesis(nn.Module):
    """Images that are linear in the styles: their path length does not depend on the styles."""

    classes, latent, style_count, noise_shapes, image_shape = 0, 4, 2, {}, (1, 3, 3)

    def __init__(self):
        super().__init__()
        self.A = nn.Parameter(torch.randn(8, 9))

    def styles(self, z, y=None, second=None, cut=None):
        return z[:, None].expand(-1, 2, -1)

    def synthesis(self, ws, noise):
        return (ws.flatten(1) @ self.A).unflatten(1, (1, 3, 3))


def test_path_length_of_a_linear_synthesis():
    """J = A y with y ~ N(0, 1 / 9); l = sqrt(mean over 2 styles of the sum over w); a moves by 0.01 of the difference,
    and the gradient flows through a too."""
    torch.manual_seed(0)
    g, penalty = LinearSynthesis(), PathLength(mixing=0.0)
    penalty.mean.fill_(0.5)
    batch = Batch(6, generator=torch.Generator().manual_seed(3))
    value = penalty(None, None, None, batch, G=g)
    generator = torch.Generator().manual_seed(3)
    torch.randn(6, 4, generator=generator)
    y = torch.randn(6, 1, 3, 3, generator=generator) / 3
    slopes = (y.flatten(1) @ g.A.T).view(6, 2, 4)
    lengths = slopes.square().sum(2).mean(1).sqrt()
    mean = 0.5 + 0.01 * (lengths.mean() - 0.5)
    expected = (lengths - mean).square().mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(penalty.mean, mean.detach())
    own, theirs = (torch.autograd.grad(v, g.A)[0] for v in (value, expected))
    torch.testing.assert_close(own, theirs)


# ADA ------------------------------------------------------------------------------------------------------------------


def test_adaptation():
    """After every four steps p moves by 4 x 64 / 500,000: up if the mean sign is above 0.6, else down, to 0 at most."""
    augment = ADA(target=0.6)
    step = 4 * 64 / 500_000

    def steps(*scores):
        values = []
        for score in scores:
            augment.adapt()
            values.append(augment.p.item())
            augment.record(torch.full((64,), float(score)))
        return values

    up = steps(*[2.0] * 9)
    assert up == pytest.approx([0] * 4 + [step] * 4 + [2 * step])
    mixed = torch.cat([torch.ones(51), -torch.ones(13)])  # the mean sign is 0.594
    assert mixed.sign().mean() < 0.6
    down = steps(*[-3.0] * 20)
    assert down[0] == pytest.approx(2 * step) and down[-1] == 0 and min(down) == 0
    augment.p.fill_(1.2)  # no limit above
    assert augment([torch.rand(2, 3, 8, 8)], Batch(2))[0].isfinite().all()
    with pytest.raises(ValueError, match=r"game\.augment\.speed=0: must be above 0 images"):
        ADA(speed=0)


def test_adaptation_in_a_run():
    """p follows D's signs of the reals; it is logged, and part of the game's state."""
    recipe = small("stylegan2-fashion-mnist")
    run = session(recipe, stand_in(recipe))
    nn.init.zeros_(run.game.D.head.weight)
    nn.init.constant_(run.game.D.head.bias, 50.0)
    values = play(run, 5)["augment/p"]
    assert values == pytest.approx([0, 0, 0, 0, 4 * 4 / 250_000]) and "augment.signs" in run.game.state_dict()


@pytest.mark.parametrize("order", ["D-first", "G-first", "simultaneous"])
def test_adaptation_in_any_recipe(order):
    """DCGAN's, by one option."""
    recipe = small("dcgan-celeba")
    (stage,) = recipe.stages
    ada = Spec("ada", target=0.6, speed=1_000)
    game = stage.game.replace(augment=ada, order=order)
    recipe = recipe.replace(stages=(type(stage)(**{**vars(stage), "game": game}),))
    run = session(recipe, stand_in(recipe))
    values = play(run, 10)["augment/p"]
    assert all(0 <= v <= 10 * 4 * 4 / 1000 for v in values) and run.game.augment.steps == (10 % 4 or 4)


# Training -------------------------------------------------------------------------------------------------------------


def test_settings():
    """Adam with the factor k / (k + 1) of lazy regularization, and its power of beta2."""
    (stage,) = settings.find("stylegan2-celeba-1024").stages
    for key, k in (("G", 4), ("D", 16)):
        adam = stage.optimizers[key]
        assert adam.lr == pytest.approx(0.002 * k / (k + 1)) and adam.betas == (0.0, 0.99 ** (k / (k + 1)))
        assert adam.nan_to_num == 1e5
    path_length, r1 = stage.game.kwargs["penalties"]
    assert path_length == Spec("path-length", weight=2.0, every=4, batch=16, mixing=0.9) and r1 == Spec(
        "r1", weight=10.0, every=16
    )
    assert (PathLength().weight, PathLength().every) == (2, 4)
    recipe = settings.find("stylegan2-cifar10")
    (stage,) = recipe.stages
    assert stage.images == 100_000_000 and stage.batch == 64 and recipe.ema["G"].rampup == 0.05
    adam = stage.optimizers["G"]  # lazy, though it has no path lengths: the authors set their weight to 0
    assert adam.lr == pytest.approx(0.0025 * 4 / 5) and adam.betas == (0.0, 0.99 ** (4 / 5))
    assert stage.game.kwargs["mixing"] == 0.0
    assert stage.game.kwargs["penalties"] == (Spec("r1", weight=0.01, every=16),)
    few, all_of_them = (settings.find(f"stylegan2-{n}") for n in ("fashion-mnist-2000", "fashion-mnist"))
    assert few.stages[0].data.streams["data"].balanced == 2000
    assert few.stages[0].game == all_of_them.stages[0].game and few.images == all_of_them.images
    unaugmented = {k: v for k, v in few.stages[0].game.kwargs.items() if k != "augment"}
    (plain,) = settings.find("stylegan2-fashion-mnist-2000-plain").stages
    assert plain.game.kwargs == unaugmented and plain.data == few.stages[0].data and plain.images == few.images


def test_turns_of_a_round():
    recipe = small("stylegan2-celeba-small")
    run = session(recipe, stand_in(recipe))
    turns = [(t.players, t.every, t.batch, t.draw) for t in run.learner.turns]
    assert turns == [
        (("G",), 1, None, None),
        (("G",), 4, 8, None),
        (("D",), 1, None, "fresh"),
        (("D",), 16, None, "last"),
    ]


BATCH, EPS = 4, 1e-4
TINY = {"G": {"widths": (4, 4), "latent": 5, "w": 3, "layers": 2}, "D": {"widths": (4, 4)}}


@pytest.mark.parametrize("name", ["celeba-1024", "cifar10", "fashion-mnist"])
def test_plain_loop(plain_loop, name):
    """G's step; its step on path lengths; D's, with augmentation; its step on R1 at the reals before augmentation; the
    EMA; after four rounds p changes."""
    classes = 3 if name == "cifar10" else 0
    sizes = {"channels": 3, "size": 8, "resolution": 8, "batch": BATCH, "classes": classes, "eps": EPS}
    game = {}
    if name != "cifar10":
        mixing = settings.find(f"stylegan2-{name}").stages[0].game.kwargs["penalties"]
        game = {"penalties": (mixing[0].replace(batch=2, every=2), mixing[1].replace(every=2))}
    adaptive = name != "celeba-1024"
    if adaptive:
        spec = settings.find(f"stylegan2-{name}").stages[0].game.kwargs["augment"]
        game["augment"] = spec.replace(p=0.3, speed=100)
    loop = plain_loop(f"stylegan2-{name}", TINY, game=game, **sizes)
    G, D, average = loop.copy("G"), loop.copy("D"), loop.copy("G")
    lr, gamma = {"celeba-1024": (0.002, 10.0), "cifar10": (0.0025, 0.01), "fashion-mnist": (0.0025, 0.5)}[name]

    def adam(network, k):
        share = k / (k + 1)
        return torch.optim.Adam(network.parameters(), lr=lr * share, betas=(0.0, 0.99**share), eps=EPS)

    opt_G, opt_D = adam(G, 4), adam(D, 16)
    color, cutout = (1.0, 0.0) if name == "cifar10" else (0.0, 0.0)
    pipeline = ADA(p=0.3, color=color, cutout=cutout) if adaptive else None
    every = {"r1": 16 if name == "cifar10" else 2, "path": 2}
    mean_length, signs = torch.zeros(()), []

    def randn(n, *shape):
        return torch.randn(n, *shape, generator=loop.noise)

    def augment(x):
        numbers = SimpleNamespace(size=BATCH, rand=loop.rand, randn=loop.randn)
        return x if pipeline is None else pipeline([x], numbers)[0]

    def cut_of_two():
        chance, place = torch.rand(1, 2, generator=loop.noise)[0].tolist()
        return 1 + math.floor(place * 3) if chance < 0.9 else 4

    def styles(z, y, second, cut):
        given = (y,) if classes else ()
        w = G.mapping(z, *given)
        with torch.no_grad():
            G.w_mean += 0.005 * (w.mean(0) - G.w_mean)
        if second is None:
            return torch.stack([w] * 4, 1)
        return torch.stack([w] * cut + [G.mapping(second, *given)] * (4 - cut), 1)

    def noise_of_batch(n):
        return {"noise0": randn(n, 1, 4, 4), "noise1": randn(n, 1, 8, 8), "noise2": randn(n, 1, 8, 8)}

    def generate():
        z = randn(BATCH, 5)
        y = torch.randint(classes, (BATCH,), generator=loop.noise) if classes else None
        noise = noise_of_batch(BATCH)
        second, cut = (randn(BATCH, 5), cut_of_two()) if not classes else (None, None)
        return G.synthesis(styles(z, y, second, cut), noise), y

    for r in loop.rounds(5):
        fake, y = generate()
        given = {"y": y} if classes else {}
        opt_G.zero_grad()
        softplus(-D(augment(fake), **given)).mean().backward()
        opt_G.step()

        if name != "cifar10" and r % every["path"] == 0:
            noise = noise_of_batch(2)
            z, second = randn(2, 5), randn(2, 5)
            ws = styles(z, None, second, cut_of_two())
            direction = randn(2, 3, 8, 8) / 8
            (slopes,) = torch.autograd.grad((G.synthesis(ws, noise) * direction).sum(), ws, create_graph=True)
            lengths = slopes.square().sum(2).mean(1).sqrt()
            a = mean_length + 0.01 * (lengths.mean() - mean_length)
            mean_length = a.detach()
            opt_G.zero_grad()
            (2 * every["path"] * (lengths - a).square().mean()).backward()
            opt_G.step()

        real = loop.real()
        fake, y = generate()
        given, of_real = ({"y": y}, {"y": real["y"]}) if classes else ({}, {})
        scores = D(augment(real["x"]), **of_real)
        signs.append(scores.detach().sign().mean())
        opt_D.zero_grad()
        (softplus(-scores).mean() + softplus(D(augment(fake.detach()), **given)).mean()).backward()
        opt_D.step()

        if r % every["r1"] == 0:
            x = real["x"].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(D(augment(x), **of_real).sum(), x, create_graph=True)
            opt_D.zero_grad()
            (every["r1"] * gamma / 2 * gradient.square().sum((1, 2, 3)).mean()).backward()
            opt_D.step()

        halflife = loop.run.recipe.ema["G"].halflife
        halflife = min(halflife, (r + 1) * BATCH * 0.05) if name == "cifar10" else halflife
        decay = 0.5 ** (BATCH / halflife)
        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)
        if pipeline is not None and r == 3:
            pipeline.p += (torch.stack(signs).mean() - 0.6).sign() * BATCH * 4 / 100
    loop.compare(5, G=G, D=D)
    assert pipeline is None or loop.run.game.augment.p == pipeline.p != 0.3
    engine = loop.run.ema_networks["G"].network
    torch.testing.assert_close(engine.w_mean, G.w_mean)
    for key, p in average.named_parameters():
        assert (p - engine.get_parameter(key)).abs().max() < 1e-6, key
    if name != "cifar10":
        torch.testing.assert_close(loop.run.game.penalties[0].mean, mean_length)


def test_sampling():
    recipe = small("stylegan2-celeba-small")
    run = session(recipe, stand_in(recipe))
    model = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    for options in ({}, {"truncation": 0.5}, {"noise": "none"}, {"mix": (3, 4), "truncation": 0.7}):
        assert model.sample(2, **options).shape == (2, 3, 64, 64)
    assert interpolate(model.sample(1), scale_factor=0.5).shape[-1] == 32
