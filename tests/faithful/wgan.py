"""WGAN (arXiv 1701.07875) against its paper and the authors' code. Its convolutional nets are DCGAN's."""

import math

import torch
from torch import nn

from zoo.registry import NETWORKS, Spec

MLP = {"hidden": (512, 512, 512)}


def count(name, **kwargs):
    with torch.device("meta"):
        return sum(p.numel() for p in NETWORKS.build(Spec(name, **kwargs)).parameters())


def test_parameter_counts():
    assert count("dcgan-generator") == 3_576_704
    assert count("dcgan-discriminator") == 2_765_568
    assert count("dcgan-generator", resolution=32) == 1_068_928
    assert count("dcgan-discriminator", resolution=32) == 663_296
    assert count("dcgan-generator", resolution=32, width=32, channels=1) == 369_600
    assert count("dcgan-discriminator", resolution=32, width=32, channels=1) == 166_784
    assert count("mlp-generator", channels=3, resolution=64, **MLP) == 6_880_768
    assert count("mlp-discriminator", channels=3, resolution=64, **MLP) == 6_817_793


def test_mlp():
    """Three hidden ReLU layers, a linear output, PyTorch's own initialisation (U(-1/sqrt(n), 1/sqrt(n)))."""
    G = NETWORKS.build(Spec("mlp-generator", channels=3, resolution=16, **MLP))
    f = NETWORKS.build(Spec("mlp-discriminator", channels=3, resolution=16, **MLP))
    assert [type(m).__name__ for m in G.layers] == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert [type(m).__name__ for m in f.layers] == ["Linear", "ReLU"] * 3 + ["Linear"]
    x = G(torch.randn(4, 100))
    assert x.shape == (4, 3, 16, 16) and f(x).shape == (4,)
    for m in (*G.layers, *f.layers):
        if isinstance(m, nn.Linear):
            bound = 1 / math.sqrt(m.in_features)
            assert 0.9 * bound < m.weight.abs().max() <= bound
            assert m.bias.any()


def test_critic_is_unbounded_and_one_number_an_image():
    f = NETWORKS.build(Spec("dcgan-discriminator", resolution=32, width=8)).eval()
    x = torch.randn(5, 3, 32, 32)
    assert f(x).shape == (5,)
    assert torch.allclose(f(1000 * x), 1000 * f(x), rtol=1e-3)  # no biases, no squashing
