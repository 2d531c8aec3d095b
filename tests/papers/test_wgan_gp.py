"""WGAN-GP (arXiv 1704.00028) against the authors' code: networks, penalty, training loop."""

import itertools
import math

import pytest
import torch

from zoo.game import Batch
from zoo.registry import NETWORKS, PENALTIES, Spec

EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps

TINY = (4, 4, 4, 4)


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "spec, expected",
    [
        (Spec("wgan-gp-generator"), 1_554_177),  # MNIST, d = 64
        (Spec("wgan-gp-discriminator"), 1_030_145),
        (Spec("wgan-gp-generator", width=32), 521_089),
        (Spec("wgan-gp-discriminator", width=32), 259_073),
        # CIFAR-10 DCGAN: the norm after the linear layer has a gain and a bias for each of its 8,192 outputs.
        (Spec("wgan-gp-generator", channels=3, resolution=32, width=128, norm=True, output="tanh"), 5_179_907),
        (Spec("wgan-gp-discriminator", channels=3, resolution=32, width=128), 4_114_689),
        (Spec("resnet-generator", widths=(128,) * 4), 1_204_483),
        (Spec("resnet-generator", widths=(128,) * 4, classes=10), 1_218_307),
        (Spec("resnet-discriminator", sn=False, pool="mean"), 1_053_825),
    ],
)
def test_parameter_counts(spec, expected):
    with torch.device("meta"):
        assert count(NETWORKS.build(spec)) == expected


def test_parameter_counts_of_the_64x64_networks():
    """The paper states none; this is the arithmetic. The first convolution of a block has no bias, all other layers
    have."""

    def conv(i, o, k=3, bias=True):
        return i * o * k * k + o * bias

    ups, downs = [512, 512, 256, 128, 64], [64, 128, 256, 512, 512]
    G = 128 * 8192 + 8192 + 2 * 64 + conv(64, 3)
    for i, o in itertools.pairwise(ups):
        G += 2 * i + conv(i, o, bias=False) + 2 * o + conv(o, o) + conv(i, o, 1)
    D = conv(3, 64) + 512 * 4 * 4 + 1
    for i, o in itertools.pairwise(downs):
        D += 2 * i + conv(i, i, bias=False) + 2 * i + conv(i, o) + conv(i, o, 1)
    with torch.device("meta"):
        assert count(build("resnet-generator", resolution=64, widths=ups, bias=False, output_gain=2**0.5)) == G
        assert count(build("layernorm-resnet-discriminator")) == D


def test_shapes():
    with torch.device("meta"):
        z = torch.empty(2, 128)
        assert build("wgan-gp-generator")(z).shape == (2, 1, 28, 28)
        assert build("wgan-gp-generator", resolution=32, channels=3, norm=True, output="tanh")(z).shape == (
            2,
            3,
            32,
            32,
        )
        D = build("wgan-gp-discriminator")
        x, shapes = torch.empty(2, 1, 28, 28), []
        for conv in D.convs:
            x = conv(x)
            shapes.append(tuple(x.shape[1:]))
        assert shapes == [(64, 14, 14), (128, 7, 7), (256, 4, 4)]
        assert D(torch.empty(2, 1, 28, 28)).shape == (2,)
        D = build("resnet-discriminator", sn=False, pool="mean")
        assert D(torch.empty(2, 3, 32, 32)).shape == (2,)
        assert D.features(torch.empty(2, 3, 32, 32)).shape == (2, 128)
        G = build("resnet-generator", resolution=64, widths=(512, 512, 256, 128, 64), bias=False)
        assert G(z).shape == (2, 3, 64, 64)
        D = build("layernorm-resnet-discriminator")
        assert D.features(torch.empty(2, 3, 64, 64)).shape == (2, 8192)


def test_same_padding():
    """TensorFlow's 'SAME' at stride 2: output i is centered on input 2i + 1 for even sides (padding of one row
    at the top, two at the bottom), on input 2i for odd ones; the transposed convolution is the transpose of that."""
    D, G = build("wgan-gp-discriminator"), build("wgan-gp-generator")
    conv, transposed = D.convs[0], G.conv3
    with torch.no_grad():
        for layer in (conv, transposed):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[0, 0, 2, 2] = 1.0
    x = torch.arange(28.0 * 28).view(1, 1, 28, 28)
    torch.testing.assert_close(conv(x)[0, 0], x[0, 0, 1::2, 1::2])
    x = torch.arange(7.0 * 7).view(1, 1, 7, 7)
    torch.testing.assert_close(conv(x)[0, 0], x[0, 0, 0::2, 0::2])
    h = torch.zeros(1, 64, 14, 14)
    h[0, 0] = torch.arange(1.0, 197).view(14, 14)
    out = transposed(h)[0, 0]
    torch.testing.assert_close(out[1::2, 1::2], h[0, 0])
    assert out[0::2].abs().sum() == 0 and out[:, 0::2].abs().sum() == 0


def glorot(i, o):
    return math.sqrt(2 / (i + o))


@pytest.mark.parametrize(
    "spec, layer, std",
    [
        (Spec("wgan-gp-generator"), "conv1", math.sqrt(2) * glorot(256 * 25 / 4, 128 * 25)),
        (Spec("wgan-gp-generator"), "linear", glorot(128, 4096)),
        (Spec("wgan-gp-discriminator"), "convs.1", math.sqrt(2) * glorot(64 * 25, 128 * 25 / 4)),
        (Spec("wgan-gp-discriminator"), "head.linear", glorot(4096, 1)),
        (Spec("resnet-generator", widths=(128,) * 4), "blocks.0.conv1", math.sqrt(2) * glorot(1152, 1152)),
        (Spec("resnet-generator", widths=(128,) * 4), "blocks.0.shortcut", glorot(128, 128)),
        (Spec("resnet-generator", widths=(128,) * 4), "output", glorot(1152, 27)),
        (Spec("resnet-discriminator", sn=False), "blocks.0.conv1", math.sqrt(2) * glorot(27, 1152)),
        (Spec("layernorm-resnet-discriminator"), "input", glorot(27, 576)),
    ],
)
def test_initial_deviations(spec, layer, std):
    torch.manual_seed(0)
    module = NETWORKS.build(spec).get_submodule(layer)
    assert module.weight.std().item() == pytest.approx(std, rel=0.05)
    assert module.weight.abs().max().item() <= std * math.sqrt(3) * 1.0001, "uniform"
    assert module.bias.abs().sum() == 0


def test_critic_scores_images_independently():
    for spec in (
        Spec("resnet-discriminator", widths=(8, 8, 8, 8), sn=False, pool="mean"),
        Spec("wgan-gp-discriminator", channels=3, resolution=32, width=4),
        Spec("layernorm-resnet-discriminator", resolution=32, width=4),
    ):
        D = NETWORKS.build(spec)
        x = torch.randn(4, 3, 32, 32)
        torch.testing.assert_close(D(x)[:2], D(x[:2]))


def test_mean_pool():
    D = build("resnet-discriminator", widths=(8, 8), downs=1, sn=False, pool="mean")
    D.blocks = torch.nn.Identity()
    x = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(D.features(x), x.mean((2, 3)))


def test_impossible_resolutions():
    with pytest.raises(ValueError, match=r"resolution=28: must be a multiple of 8"):
        build("resnet-generator", resolution=28)
    with pytest.raises(ValueError, match="resolution=4: must be 8 or more"):
        build("wgan-gp-generator", resolution=4)


def critic_loss(D, real, fake, alpha):
    """Algorithm 1, lines 5 to 7, with the penalty's graph for the second derivative."""
    line = (alpha * fake + (1 - alpha) * real).requires_grad_()
    (gradient,) = torch.autograd.grad(D(line).sum(), line, create_graph=True)
    norm = gradient.square().sum((1, 2, 3)).sqrt()
    return D(fake).mean() - D(real).mean() + 10 * ((norm - 1) ** 2).mean()


def test_plain_loop_of_the_cifar10_resnet(plain_loop):
    """G with its own batch size, not in the first round; five critic steps; both learning rates fall."""
    tiny = {"G": {"widths": TINY, "latent": 6}, "D": {"widths": TINY}}
    loop = plain_loop("wgan-gp-cifar10", tiny, channels=3, size=32, batch=6, eps=EPS, game={"generator_batch": 10})
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.9), eps=EPS) for net in (G, D))
    for r in loop.rounds():
        for opt in (opt_G, opt_D):
            opt.param_groups[0]["lr"] = 2e-4 * (1 - r * 5 * 6 / (100_000 * 5 * 64))
        if r > 0:
            opt_G.zero_grad()
            (-D(G(torch.randn(10, 6, generator=loop.noise))).mean()).backward()
            opt_G.step()
        for _ in range(5):
            x, z = loop.real()["x"], loop.randn(6)
            opt_D.zero_grad()
            critic_loss(D, x, G(z).detach(), loop.rand(1, 1, 1)).backward()
            opt_D.step()
    loop.compare(G=G, D=D)


def test_plain_loop_of_the_5x5_networks(plain_loop):
    tiny = {"G": {"width": 2, "latent": 6}, "D": {"width": 2}}
    loop = plain_loop("wgan-gp-mnist", tiny, batch=7, eps=EPS)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.5, 0.9), eps=EPS) for net in (G, D))
    for r in loop.rounds():
        if r > 0:
            opt_G.zero_grad()
            (-D(G(loop.randn(6))).mean()).backward()
            opt_G.step()
        for z in [loop.randn(6) for _ in range(5)]:  # the engine generates these fakes in one pass
            x = loop.real()["x"]
            assert x.min() >= 0 and x.max() <= 1
            opt_D.zero_grad()
            critic_loss(D, x, G(z).detach(), loop.rand(1, 1, 1)).backward()
            opt_D.step()
    loop.compare(G=G, D=D)


class LinearCritic(torch.nn.Module):
    """D(x) = w.x, with the penalty (|w| - 1)^2."""

    classes = 0

    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(w)

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1)


def penalty_of(D, x, fake):
    """The penalty of D with these images."""
    batch = Batch(len(x), generator=torch.Generator().manual_seed(0))
    return PENALTIES.build(Spec("gradient-penalty"))(D, x, fake, batch)


def test_penalty_of_linear_critics():
    torch.manual_seed(0)
    x, fake = torch.rand(2, 5, 1, 4, 4)
    w = torch.randn(1, 4, 4)
    D = LinearCritic(w)
    assert penalty_of(D, x, fake).item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)
    D = LinearCritic(w / w.norm())
    value = penalty_of(D, x, fake)
    value.backward()
    assert value.item() < 1e-10 and D.w.grad.abs().max() < 1e-5
    D = LinearCritic(torch.zeros(1, 4, 4))
    value = penalty_of(D, x, fake)
    value.backward()
    assert value.item() == 1 and D.w.grad.isfinite().all()


def test_penalty_has_gradients_in_the_critic_only():
    torch.manual_seed(0)
    G, D = build("wgan-gp-generator", width=1), build("wgan-gp-discriminator", width=2)
    penalty_of(D, torch.rand(3, 1, 28, 28), G(torch.randn(3, 128))).backward()
    assert all(c.weight.grad.abs().sum() > 0 for c in D.convs)
    assert all(p.grad is None for p in G.parameters())
