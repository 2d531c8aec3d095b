"""StyleGAN (arXiv 1812.04948) against the paper and the authors' numbers."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.play import count, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, softplus

from zoo import settings
from zoo.engine.export import model_of
from zoo.engine.stage import shipped
from zoo.networks.stylegan import Blur, MappingNetwork, StyledLayer
from zoo.registry import GAMES, NETWORKS, Spec

G, D = Spec("stylegan-generator"), Spec("stylegan-discriminator")
SMALL = {"widths": (8, 6, 4), "resolution": 16}
EPS = 1e-4  # of Adam; the gradient of the first layer's bias, whose effect the norm removes, is only a rounding error


def build(spec, **more):
    torch.manual_seed(0)
    sizes = {"latent": 5, "w": 6, "layers": 2} if spec is G else {}
    return NETWORKS.build(spec.replace(**{**SMALL, **sizes, **more}))


def noise_of(g, n):
    return {name: torch.randn(n, *shape) for name, shape in g.noise_shapes.items()}


# Networks -------------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    """With all layers from and to RGB: 26.2 million in G, as the paper says, of which 2.1 in the mapping network."""
    networks = settings.find("stylegan-celeba-1024").networks
    assert [count(networks[key], resolution=1024) for key in "GD"] == [26_219_627, 23_087_249]
    narrow = {"widths": (512,) * 4, "resolution": 32}
    assert [count(spec, **narrow) for spec in (G, D)] == [22_841_356, 20_726_785]
    with torch.device("meta"):
        assert sum(p.numel() for p in MappingNetwork(512, 512, 8).parameters()) == 2_101_248


def test_initial_deviations():
    """Stored weights N(0, 1), of the mapping network N(0, 100^2); the constant 1, strengths and biases 0."""
    g, d = build(G, widths=(64, 64, 32), latent=64, w=64), build(D, widths=(64, 64, 32))
    for net in (g, d):
        for name, m in net.named_modules():
            if isinstance(m, (nn.Linear, nn.Conv2d)):
                lr = 0.01 if name.startswith("mapping") else 1.0
                gain = 1.0 if "to_rgb" in name or "style" in name.split(".")[-1] or name == "head" else math.sqrt(2)
                assert m.scale == pytest.approx(lr * gain / math.sqrt(m.weight[0].numel())), name
                assert m.weight.numel() < 300 or (lr * m.weight).std().item() == pytest.approx(1, rel=0.15), name
        for name, p in net.named_parameters():
            assert not name.endswith(("bias", "strength")) or not p.any(), name
    assert torch.equal(g.constant, torch.ones(64, 4, 4))


def test_the_mapping_networks_learning_rate():
    """A step of Adam moves what its layers apply by a hundredth of the learning rate."""
    torch.manual_seed(0)
    layer = MappingNetwork(16, 16, 1)[0]
    before = (layer.weight * layer.scale).detach(), (layer.bias * layer.lr).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5, betas=(0.0, 0.99))
    layer(torch.randn(4, 16)).square().sum().backward()
    optimizer.step()
    after = (layer.weight * layer.scale).detach(), (layer.bias * layer.lr).detach()
    for old, new, size in zip(before, after, (layer.scale, 0.01), strict=True):
        torch.testing.assert_close((new - old).abs(), torch.full_like(old, 0.5 * size), rtol=1e-3, atol=1e-6)
    assert layer.scale == pytest.approx(0.01 * math.sqrt(2 / 16))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_shapes(level):
    g, d = build(G).at(level), build(D).at(level)
    assert g.style_count == 2 * (level + 1) and list(g.noise_shapes.values()) == [
        (1, s, s) for s in (4, 4, 8, 8, 16, 16)[: 2 * (level + 1)]
    ]
    x = g(torch.randn(8, 5), noise_of(g, 8))
    assert x.shape == (8, 3, 4 * 2**level, 4 * 2**level) and d(x).shape == (8,)
    assert d.features(x).shape == (8, 8)


def test_directions_and_noise_at_the_start():
    """G is a function of z's direction alone. Strengths start at 0: noise changes nothing; then it does."""
    g, z = build(G).eval(), torch.randn(3, 5)
    torch.testing.assert_close(g(2.5 * z), g(z), atol=1e-4, rtol=1e-4)
    assert torch.equal(g(z, noise_of(g, 3)), g(z))
    nn.init.ones_(g.styled[4].strength)
    assert not torch.allclose(g(z, noise_of(g, 3)), g(z), atol=1e-3)


def test_styled_layer():
    """Noise, bias, leaky ReLU, instance norm, style, in this order: each channel then has mean yb and deviation
    |1 + ys|; of the constant only yb is left."""
    torch.manual_seed(0)
    layer, x, w, noise = StyledLayer(5, 6), torch.randn(2, 5, 8, 8), torch.randn(2, 6), torch.randn(2, 1, 8, 8)
    nn.init.normal_(layer.strength)
    nn.init.normal_(layer.bias)
    h, (ys, yb) = layer(x, w, noise), layer.style(w).chunk(2, 1)
    torch.testing.assert_close(h.mean((2, 3)), yb, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(h.std((2, 3), correction=0), (1 + ys).abs(), atol=1e-4, rtol=1e-4)
    before = nn.functional.leaky_relu(x + layer.strength * noise + layer.bias, 0.2)
    mean, std = before.mean((2, 3), keepdim=True), before.std((2, 3), keepdim=True, correction=0)
    expected = (before - mean) / std * (1 + ys)[:, :, None, None] + yb[:, :, None, None]
    torch.testing.assert_close(h, expected, atol=1e-4, rtol=1e-4)
    flat = StyledLayer(5, 6)(torch.ones(2, 5, 4, 4), w, noise[..., :4, :4])
    assert flat.std((2, 3)).max() < 1e-3


def test_blur():
    x = torch.randn(2, 3, 6, 6)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.zeros(3, 3, 3, 3)
    for i in range(3):
        kernel[i, i] = line[:, None] * line
    torch.testing.assert_close(Blur()(x), conv2d(x, kernel, padding=1))
    assert not Blur().state_dict()


def test_an_invisible_layer():
    """With a share of 0 G's images are those of the level below, upsampled, and D sees the averaged image."""
    g, d, z, x = build(G).eval(), build(D), torch.randn(4, 5), torch.randn(4, 3, 16, 16)
    for net in (g, d):
        net.fade.fill_(0.0)
    new = g.at(2)(z), d.at(2)(x)
    for net in (g, d):
        net.fade.fill_(1.0)
    torch.testing.assert_close(new[0], g.at(1)(z).repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(new[1], d.at(1)(avg_pool2d(x, 2)))


def test_minibatch_standard_deviation():
    """1e-4 for equal images; groups of 4."""
    d, maps = build(D), []
    d.deviation.register_forward_hook(lambda m, i, o: maps.append(o[:, -1, 0, 0]))
    d(torch.randn(1, 3, 16, 16).expand(8, -1, -1, -1))
    torch.testing.assert_close(maps[-1], torch.full((8,), 1e-4))
    d(torch.randn(8, 3, 16, 16))
    assert len(maps[-1].unique()) == 2


def test_mean_of_w():
    """It moves by 0.5 % toward the mean of each batch in training, and not in evaluation mode."""
    g, z = build(G), torch.randn(7, 5)
    g(z)
    torch.testing.assert_close(g.w_mean, 0.005 * g.mapping(z).mean(0).detach())
    before = g.w_mean.clone()
    g.eval()(z)
    assert torch.equal(g.w_mean, before)


def test_truncation():
    """Factor 0: one image for each draw of the noise; 1: no change. Only the first eight styles are changed."""
    g, z = build(G, widths=(8, 8, 6, 6, 4), resolution=64).eval(), torch.randn(3, 5)
    nn.init.normal_(g.w_mean)
    ws, near = g.styles(z), g.styles(z, truncation=0.25)
    torch.testing.assert_close(near[:, :8], g.w_mean + 0.25 * (ws[:, :8] - g.w_mean))
    assert torch.equal(near[:, 8:], ws[:, 8:]) and ws.shape == (3, 10, 6)
    torch.testing.assert_close(g(z, truncation=1.0), g(z), atol=1e-5, rtol=1e-4)
    g.at(3)
    same = g(z, truncation=0.0)
    torch.testing.assert_close(same, same[:1].expand_as(same))


def test_mixed_styles():
    """The second style from the cut on, alone if it is 0, and not if it is behind the last layer."""
    g, z, second = build(G).eval(), torch.randn(3, 5), torch.randn(3, 5)
    ws = g.styles(z, second=second, cut=torch.tensor([2, 0, 6]))
    first, other = g.mapping(z), g.mapping(second)
    assert torch.equal(ws[0, :2], first[0].expand(2, -1)) and torch.equal(ws[0, 2:], other[0].expand(4, -1))
    assert torch.equal(ws[1], other[1].expand(6, -1)) and torch.equal(ws[2], first[2].expand(6, -1))


def test_wrong_arguments():
    networks = {"G": build(G), "D": build(D)}
    with pytest.raises(ValueError, match=r"game\.mixing=2: must be from 0 to 1"):
        GAMES.build(Spec("stylegan", mixing=2), networks)
    other = NETWORKS.build(Spec("dcgan-generator", channels=3, resolution=16, width=4))
    with pytest.raises(ValueError, match=r"networks\.G: must be a generator with styles, got DCGANGenerator"):
        GAMES.build(Spec("stylegan"), {**networks, "G": other})


# Training -------------------------------------------------------------------------------------------------------------


def test_settings():
    """From 8x8 in batches of 256, 128, 64 and 32, with Adam at 0.001 to 0.003; 600,000 images a phase, 25 million."""
    recipe = settings.find("stylegan-celeba-1024")
    assert [s.resolution for s in recipe.stages] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert [s.batch for s in recipe.stages] == [256, 128, 64, 32, 32, 32, 32, 32]
    assert [s.optimizers["D"].lr for s in recipe.stages] == [1e-3] * 4 + [1.5e-3, 2e-3, 3e-3, 3e-3]
    assert [s.images for s in recipe.stages[:-1]] == [600_000] + [1_200_000] * 6
    assert recipe.images == settings.find("stylegan-lsun-bedroom").images == 25_000_000
    for stage in recipe.stages:
        assert stage.optimizers["G"].betas == (0.0, 0.99) and stage.optimizers["G"].eps == 1e-8
        assert stage.game.kwargs["penalties"] == (Spec("r1", weight=10.0),) and stage.game.kwargs["mixing"] == 0.9
        fades = [s for s in stage.schedules if s.target.endswith(".fade")]
        assert len(fades) == (2 if stage.level > 1 else 0)
        assert all([s.at(n) for n in (0, 3e5, 6e5)] == [0, 0.5, 1] for s in fades)
    assert recipe.ema["G"].halflife == 10_000


class Constant(nn.Module):
    """D's last layer with the score 0."""

    def forward(self, h):
        return h.new_zeros(len(h), 1)


def test_losses_at_scores_of_zero():
    """L_D = 2 ln 2, with no gradient for R1, and L_G = ln 2."""
    recipe = small("stylegan-fashion-mnist")
    run = session(recipe, stand_in(recipe))
    nn.init.zeros_(run.game.D.head.weight)
    batch = run.new_batch()
    run.draw(batch)
    batch["x"] = avg_pool2d(batch["x"], 4)
    assert run.game.loss_D(batch).item() == pytest.approx(2 * math.log(2))
    assert run.game.loss_G(batch).item() == pytest.approx(math.log(2))


def test_cuts_of_a_batch():
    """One cut for the whole batch; nine times of ten between two layers, each equally likely."""
    recipe = small("stylegan-fashion-mnist")
    run = session(recipe, stand_in(recipe, 1), stage=1)
    run.seed_round()
    values = []
    for _ in range(600):
        cut = run.game.draw(run.new_batch())["cut"]
        assert len(cut) == 4 and (cut == cut[0]).all()
        values.append(int(cut[0]))
    shares = [values.count(k) / 600 for k in range(8)]
    assert run.game.G.style_count == 6 and shares[0] == shares[7] == 0
    assert shares[6] == pytest.approx(0.1, abs=0.05)
    assert shares[1:6] == pytest.approx([0.18] * 5, abs=0.06)


TINY = {"G": {"widths": (4, 4, 4, 2, 2), "latent": 5, "w": 3, "layers": 2}, "D": {"widths": (4, 4, 4, 2, 2)}}


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *(("celeba-1024", i) for i in range(4)),
        *(("fashion-mnist", i) for i in range(3)),
        *(("cifar10-small", i) for i in range(3)),
        *(("celeba-small", i) for i in range(4)),
    ],
)
def test_plain_loop(plain_loop, name, stage):
    """D's step with R1, then G's, each with noise, a second style and a cut of its own; the mean of w; then the EMA."""
    batch, levels = 4, 5 if "celeba" in name else 4
    side = 4 * 2 ** (levels - 1)
    tiny = {key: {**kwargs, "widths": kwargs["widths"][:levels], "resolution": side} for key, kwargs in TINY.items()}
    original = settings.find(f"stylegan-{name}").stages[stage]

    def shorter(schedule):
        return replace(schedule, points=((0, 0.3), (2 * batch, 1.0)))

    padded = name == "fashion-mnist"
    sizes = {"channels": 1 if padded else 3, "size": 28 if padded else original.resolution}
    loop = plain_loop(f"stylegan-{name}", tiny, batch=batch, stage=stage, schedules=shorter, eps=EPS, **sizes)
    G, D, average = loop.copy("G"), loop.copy("D"), loop.copy("G")
    level, gamma = original.level, 10.0 if name == "celeba-1024" else 1.0
    assert G.level == D.level == level == stage + 1
    lr = original.optimizers["G"].lr
    opts = {net: torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.99), eps=EPS) for net in (G, D)}

    def generate():
        z = loop.randn(5)
        noise = {f"noise{i}": loop.randn(1, 4 * 2 ** (i // 2), 4 * 2 ** (i // 2)) for i in range(2 * level + 2)}
        second = loop.randn(5)
        chance, place = torch.rand(1, 2, generator=loop.noise)[0].tolist()
        cut = 1 + math.floor(place * (2 * level + 1)) if chance < 0.9 else 2 * level + 2
        w, other = G.mapping(z), G.mapping(second)
        with torch.no_grad():
            G.w_mean += 0.005 * (w.mean(0) - G.w_mean)
        ws = torch.stack([w] * cut + [other] * (2 * level + 2 - cut), 1)
        return G.synthesis(ws, noise)

    for r in loop.rounds():
        share = min(0.3 + 0.35 * r, 1.0) if level > 1 else 1.0
        for net in (G, D):
            net.fade.fill_(share)
        x = loop.real()["x"]
        x = avg_pool2d(x, x.shape[-1] // (4 * 2**level))
        x = share * x + (1 - share) * avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        x.requires_grad_()
        fake = generate().detach()
        of_real = D(x)
        (gradient,) = torch.autograd.grad(of_real.sum(), x, create_graph=True)
        r1 = gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        opts[D].zero_grad()
        (softplus(D(fake)).mean() + softplus(-of_real).mean() + r1).backward()
        opts[D].step()
        opts[G].zero_grad()
        softplus(-D(generate())).mean().backward()
        opts[G].step()
        decay = 0.5 ** (batch / loop.run.recipe.ema["G"].halflife)
        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)
    loop.compare(G=G, D=D)
    engine = loop.run.ema_networks["G"].network
    torch.testing.assert_close(loop.run.game.G.w_mean, G.w_mean)
    torch.testing.assert_close(engine.w_mean, G.w_mean)
    for key, p in average.named_parameters():
        assert (p - engine.get_parameter(key)).abs().max() < 1e-6, key


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    recipe = small("stylegan-cifar10-small")
    run = session(recipe, stand_in(recipe, 2), stage=2)
    for layer in run.game.G.styled:
        nn.init.constant_(layer.strength, 0.3)
    run.ema_networks["G"].network.load_state_dict(run.game.G.state_dict())
    return model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))


def test_noise_of_a_sample(model):
    """From the image's own seed, from another one, or none."""
    own = model.sample(2, seed=5)
    assert torch.equal(model.sample(2, seed=5, noise=[5, 6]), own)
    assert not torch.equal(model.sample(1, seed=5, noise=7), own[:1])
    assert torch.equal(model.sample(2, seed=5, noise=7)[1:], model.sample(1, seed=6, noise=7))
    assert not torch.equal(model.sample(2, seed=5, noise="none"), own)


def test_mixed_styles_of_a_sample(model):
    own, other = model.sample(1, seed=1, noise=3), model.sample(1, seed=2, noise=3)
    assert torch.equal(model.sample(1, seed=1, noise=3, mix=(2, 0)), other)
    assert torch.equal(model.sample(1, seed=1, noise=3, mix=(2, 8)), own)
    mixed = model.sample(1, seed=1, noise=3, mix=(2, 4))
    assert not torch.equal(mixed, own) and not torch.equal(mixed, other)
    truncated = model.sample(1, seed=1, truncation=0.7, mix=(2, 4))
    assert truncated.shape == own.shape and not torch.equal(truncated, mixed)


def test_a_grid_of_mixed_styles(model):
    grid, columns = model.mix_styles([1, 2], [3, 4, 5], 4, noise=0)
    assert grid.shape == (12, 3, 32, 32) and columns == 4 and not grid[0].any()
    assert torch.equal(grid[1:4], model.sample(3, seed=3, noise=0))
    assert torch.equal(grid[4], model.sample(1, seed=1, noise=0)[0])
    assert torch.allclose(grid[6], model.sample(1, seed=1, mix=(4, 4), noise=0)[0], atol=1e-6)


def test_wrong_arguments_of_a_sample(model):
    for options, message in (
        ({"noise": "some"}, r"noise='some': must be a seed, a seed for each image, or 'none'"),
        ({"noise": [1, 2]}, r"noise: must be one seed, or one for each of 1 images, got 2"),
        ({"mix": (1, 9)}, r"mix: the layer must be a whole number from 0 to 8, got 9"),
        ({"truncation": math.inf}, r"truncation=inf: must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(1, **options)
    recipe = small("pggan-cifar10-small")
    run = session(recipe, stand_in(recipe, 2), stage=2)
    plain = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    with pytest.raises(ValueError, match=r"mix=\(1, 2\): must be a model with styles; leave it out"):
        plain.sample(1, mix=(1, 2))
    with pytest.raises(ValueError, match=r"noise='none': must be a model whose generator has noise inputs"):
        plain.sample(1, noise="none")
