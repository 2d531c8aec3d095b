"""WGAN-GP as published: networks, penalty, play."""

import itertools
import math

import pytest
import torch

from zoo.registry import NETWORKS, Spec


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
    """The sheet has none: here is the arithmetic. First convolutions of a block have no bias, shortcuts and the rest have."""

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


def test_same_borders():
    """TensorFlow's 'SAME' at stride 2: output i is centred on input 2i + 1 for even sides (one line before, two behind),
    on input 2i for odd ones; the transposed convolution is the transpose of that."""
    D, G = build("wgan-gp-discriminator"), build("wgan-gp-generator")
    conv, deconv = D.convs[0], G.conv3
    with torch.no_grad():
        for layer in (conv, deconv):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[0, 0, 2, 2] = 1.0
    x = torch.arange(28.0 * 28).view(1, 1, 28, 28)
    torch.testing.assert_close(conv(x)[0, 0], x[0, 0, 1::2, 1::2])
    x = torch.arange(7.0 * 7).view(1, 1, 7, 7)
    torch.testing.assert_close(conv(x)[0, 0], x[0, 0, 0::2, 0::2])
    h = torch.zeros(1, 64, 14, 14)
    h[0, 0] = torch.arange(1.0, 197).view(14, 14)
    out = deconv(h)[0, 0]
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


def test_critic_scores_each_image_on_its_own():
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
    with pytest.raises(ValueError, match=r"can't do resolution 28.*multiple of 8"):
        build("resnet-generator", resolution=28)
    with pytest.raises(ValueError, match="can't do resolution 4; take 8 or more"):
        build("wgan-gp-generator", resolution=4)
