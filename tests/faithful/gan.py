"""GAN (arXiv 1406.2661) against its paper and released configuration."""

import math

import pytest
import torch

from zoo.registry import NETWORKS, Spec

MNIST_G = Spec("mlp-generator", hidden=(1200, 1200), output="sigmoid", init="uniform", scale=0.05)
CIFAR_G = Spec(
    "mlp-generator",
    hidden=(8000, 8000),
    activation=("relu", "sigmoid"),
    init="uniform",
    scale=(0.05, 0.05, 0.5),
)
MNIST, CIFAR = {"channels": 1, "resolution": 28}, {"channels": 3, "resolution": 32}


def count(spec, **facts):
    with torch.device("meta"):
        return sum(p.numel() for p in NETWORKS.build(spec, defaults=facts).parameters())


def test_parameter_counts():
    assert count(MNIST_G, **MNIST) == 2_503_984
    assert count("maxout-discriminator", **MNIST) == 1_231_441
    assert count(CIFAR_G, **CIFAR) == 89_395_072
    assert count(Spec("maxout-discriminator", units=1600), **CIFAR) == 37_393_601


def test_shapes_and_ranges():
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    assert [m.out_features for m in G.modules() if isinstance(m, torch.nn.Linear)] == [1200, 1200, 784]
    x = G(torch.randn(8, 100))
    assert x.shape == (8, 1, 28, 28)
    assert x.min() > 0 and x.max() < 1
    assert D(x).shape == (8,)
    points = NETWORKS.build("maxout-discriminator", defaults={"channels": 2, "resolution": 0})
    assert points(torch.randn(5, 2)).shape == (5,)


def test_initial_deviations():
    torch.manual_seed(0)
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    for net, scale in (G, 0.05), (D, 0.005):
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                assert not p.any()
            else:  # the deviation of U(-s, s) is s / sqrt(3)
                assert p.abs().max() <= scale
                assert p.std().item() == pytest.approx(scale / math.sqrt(3), rel=0.1)
    each = NETWORKS.build(CIFAR_G.replace(hidden=(50, 60)), defaults=CIFAR)
    scales = [m.weight.abs().max().item() for m in each.modules() if isinstance(m, torch.nn.Linear)]
    assert scales == pytest.approx([0.05, 0.05, 0.5], rel=0.01)


def test_output_bias_is_the_mean_image():
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    mean = torch.rand(1, 28, 28)
    mean[0, 0, 0] = 0.0  # a pixel that is always black: clipped to 1e-7
    G.set_output_mean(mean)
    bias = G.layers[-2].bias.detach()
    assert torch.allclose(bias.sigmoid().view(1, 28, 28), mean.clamp(1e-7, 1 - 1e-7), atol=1e-6)
    linear = NETWORKS.build(CIFAR_G.replace(hidden=(5, 6)), defaults=CIFAR)
    linear.set_output_mean(torch.rand(3, 32, 32))
    assert not linear.layers[-1].bias.any()


def test_maxout_is_the_largest_of_disjoint_pieces_and_convex():
    D = NETWORKS.build(Spec("maxout-discriminator", units=3, pieces=5, scale=1.0), defaults=MNIST).double()
    layer = D.layers[1]
    x, y = torch.rand(2, 6, 784, dtype=torch.float64)
    W, b = layer.linear.weight.view(3, 5, 784), layer.linear.bias.view(3, 5)
    expected = (torch.einsum("nd,kpd->nkp", x, W) + b).max(2).values
    assert torch.allclose(layer(x), expected)
    assert (layer((x + y) / 2) <= (layer(x) + layer(y)) / 2 + 1e-12).all()


def test_dropout_of_the_discriminator():
    """.2 of the pixels and .5 of the hidden units, kept ones scaled up; off in eval mode; none in G."""
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    drops = [m for m in D.layers if isinstance(m, torch.nn.Dropout)]
    assert [d.p for d in drops] == [0.2, 0.5, 0.5]
    ones = drops[0](torch.ones(100_000))
    assert set(ones.unique().tolist()) == {0.0, 1.25}
    x = torch.rand(4, 1, 28, 28)
    assert not torch.equal(D(x), D(x))
    assert torch.equal(D.eval()(x), D(x))
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    assert not any(isinstance(m, torch.nn.Dropout) for m in G.modules())
