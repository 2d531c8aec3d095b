"""DCGAN (arXiv 1511.06434) against its paper, the Theano code (kernel 5) and the Torch code (kernel 4)."""

import pytest
import torch
from helpers.play import count, sizes
from torch import nn

from zoo import settings
from zoo.registry import NETWORKS, Spec

THEANO_G = Spec("dcgan-generator", kernel=5, width=128, norm="units", eps=1e-8)
THEANO_D = Spec("dcgan-discriminator", kernel=5, width=128, eps=1e-8)
SMALL = {"channels": 1, "resolution": 32, "width": 32}
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Unflatten)


@pytest.mark.parametrize(
    ("spec", "facts", "expected"),
    [
        (Spec("dcgan-generator"), {}, 3_576_704),
        (Spec("dcgan-discriminator"), {}, 2_765_568),
        (THEANO_G, {}, 18_885_760),
        (THEANO_D, {}, 17_232_768),
        (THEANO_G.replace(width=64), {"resolution": 32}, 1_446_976),  # the released SVHN weights
        (THEANO_D.replace(width=64), {"resolution": 32}, 1_033_664),
        (Spec("dcgan-digit-generator"), {}, 6_820_538),
        (Spec("dcgan-digit-discriminator"), {}, 6_688_202),
    ],
)
def test_parameter_counts(spec, facts, expected):
    assert count(spec, **facts) == expected


@pytest.mark.parametrize(("kernel", "norm", "width"), [(4, "maps", 8), (5, "units", 8)])
def test_shapes_and_range(kernel, norm, width):
    G = NETWORKS.build(Spec("dcgan-generator", kernel=kernel, norm=norm, width=width))
    D = NETWORKS.build(Spec("dcgan-discriminator", kernel=kernel, width=width))
    z = torch.randn(4, 100)
    assert sizes(G, z, kinds=LAYERS) == [(64, 4, 4), (32, 8, 8), (16, 16, 16), (8, 32, 32), (3, 64, 64)]
    x = G(z)
    assert x.min() > -1 and x.max() < 1
    assert sizes(D, x, kinds=LAYERS) == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    assert D(x).shape == (4,) and D.features(x).shape == (4, 1024)


def test_small_networks():
    G, D = (NETWORKS.build(f"dcgan-{k}", defaults=SMALL) for k in ("generator", "discriminator"))
    z = torch.randn(4, 100)
    assert sizes(G, z, kinds=LAYERS) == [(128, 4, 4), (64, 8, 8), (32, 16, 16), (1, 32, 32)]
    assert sizes(D, G(z), kinds=LAYERS) == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]


def test_digit_networks_take_the_class_at_each_layer():
    G = NETWORKS.build("dcgan-digit-generator").eval()
    D = NETWORKS.build("dcgan-digit-discriminator").eval()
    z, y = torch.rand(10, 100) * 2 - 1, torch.arange(10)
    x = G(z, y)
    assert x.shape == (10, 1, 28, 28)
    assert x.min() > 0 and x.max() < 1
    assert D(x, y).shape == (10,)
    assert (D(x, y.flip(0)) != D(x, y)).all() and (G(z, y.flip(0)) != x).any()
    assert [n.l1.weight.shape[1] for n in (G, D)] == [110, 11]
    assert [n.l2.weight.shape[1] for n in (G, D)] == [1034, 74]
    assert G.l3.weight.shape[0] == 138 and G.l4.weight.shape[0] == 74
    assert D.l3.weight.shape[1] == 6272 + 10 and D.l4.weight.shape[1] == 1034
    assert not any(p.dim() == 1 for n in (G, D) for p in n.parameters())  # norms without gain and bias


@pytest.mark.parametrize("spec", [Spec("dcgan-generator"), THEANO_G, Spec("dcgan-discriminator"), THEANO_D])
def test_initial_deviations(spec):
    torch.manual_seed(0)
    for m in NETWORKS.build(spec.replace(width=32)).modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            assert m.bias is None
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert abs(m.weight.mean().item()) < 0.002
        elif isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert abs(m.weight.mean().item() - 1) < 0.02
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.5)
            assert not m.bias.any()
            assert m.eps == spec.kwargs.get("eps", 1e-5)


def test_places_of_batch_norm():
    """All layers except D's first and G's last; with norm="units" there is a gain for each of 8 * width * 16 units."""
    G, D = (
        NETWORKS.build(Spec("dcgan-generator", width=4)),
        NETWORKS.build(Spec("dcgan-discriminator", width=4)),
    )
    kinds = [type(m).__name__ for m in D.layers]
    assert kinds[:3] == ["Conv2d", "LeakyReLU", "Conv2d"] and kinds.count("BatchNorm2d") == 3
    assert [type(m).__name__ for m in G.layers][-2:] == ["ConvTranspose2d", "Tanh"]
    assert [m.num_features for m in G.modules() if isinstance(m, nn.BatchNorm2d)] == [32, 16, 8, 4]
    per_unit = NETWORKS.build(THEANO_G.replace(width=4))
    assert [m.num_features for m in per_unit.modules() if isinstance(m, nn.BatchNorm1d)] == [32 * 16]
    assert all(m.negative_slope == 0.2 for m in D.modules() if isinstance(m, nn.LeakyReLU))


def test_projection_and_head_equal_the_torch_codes_convolutions():
    """A transposed 4x4 convolution of a 1x1 image and a 4x4 convolution of a 4x4 image are linear layers."""
    G, D = (
        NETWORKS.build(Spec("dcgan-generator", width=2)),
        NETWORKS.build(Spec("dcgan-discriminator", width=2)),
    )
    z, h = torch.randn(3, 100), torch.randn(3, 16, 4, 4)
    W = G.project[0].weight.view(16, 4, 4, 100).permute(3, 0, 1, 2)
    conv = nn.functional.conv_transpose2d(z[:, :, None, None], W)
    assert torch.allclose(G.project[0](z).view(3, 16, 4, 4), conv, atol=1e-6)
    conv = nn.functional.conv2d(h, D.head.weight.view(1, 16, 4, 4)).flatten()
    assert torch.allclose(D.head(h.flatten(1)).squeeze(1), conv, atol=1e-6)


@pytest.mark.parametrize("name", ["dcgan-generator", "dcgan-discriminator"])
def test_wrong_sizes(name):
    with pytest.raises(ValueError, match=r"resolution=28.*power of two"):
        NETWORKS.build(Spec(name, resolution=28))
    with pytest.raises(ValueError, match=r"kernel=3: must be 4 .* 5 "):
        NETWORKS.build(Spec(name, kernel=3))
    with pytest.raises(ValueError, match=r"resolution=30.*multiple of 4"):
        NETWORKS.build(Spec("dcgan-digit-generator", resolution=30))


def d_loss(D, real, fake, **y):
    return -D(real, **y).sigmoid().log().mean() - (1 - D(fake, **y).sigmoid()).log().mean()


def test_bedrooms_are_cropped_and_mirrored():
    """As in the Torch code: random crops of 64 from 96 pixels, random horizontal flips."""
    (stage,) = settings.find("dcgan-lsun-bedroom").stages
    assert (stage.data.load, stage.resolution, stage.data.flip) == (96, 64, True)


def test_plain_loop_of_the_torch_code(plain_loop):
    """For each batch D's step, with separate passes for reals and fakes, then G's on the same fakes. No weight
    decay."""
    loop = plain_loop("dcgan-fashion-mnist", {"G": {"latent": 6, "width": 4}, "D": {"width": 4}}, batch=10)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (G, D))
    for _ in loop.rounds():
        x, z = loop.real()["x"], loop.randn(6)
        assert x.shape == (10, 1, 32, 32)
        fake = G(z)
        opt_D.zero_grad()
        d_loss(D, x, fake.detach()).backward()
        opt_D.step()
        opt_G.zero_grad()
        (-D(fake).sigmoid().log().mean()).backward()
        opt_G.step()
    loop.compare(G=G, D=D)


class AdamWithL2:
    """Adam as in the Theano code, with l2 * w added to each gradient."""

    def __init__(self, net, l2):
        self.weights, self.l2, self.t = list(net.parameters()), l2, 0
        self.m = [torch.zeros_like(p) for p in self.weights]
        self.v = [torch.zeros_like(p) for p in self.weights]

    @torch.no_grad()
    def step(self, loss):
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self.weights)
        self.t += 1
        for p, g, m, v in zip(self.weights, gradients, self.m, self.v, strict=True):
            g = g + self.l2 * p
            m.mul_(0.5).add_(0.5 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            p -= 2e-4 * (m / (1 - 0.5**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)


def test_plain_loop_of_the_theano_code(plain_loop):
    """Alternating updates, G first, each with its own noise; weight decay of all parameters."""
    tiny = {"G": {"latent": 6, "width": 2}, "D": {"width": 2}}
    loop = plain_loop("dcgan-celeba", tiny, channels=3, size=64, batch=10)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = AdamWithL2(G, 1e-5), AdamWithL2(D, 1e-5)
    for _ in loop.rounds():
        opt_G.step(-D(G(2 * loop.rand(6) - 1)).sigmoid().log().mean())
        x = loop.real()["x"]
        opt_D.step(d_loss(D, x, G(2 * loop.rand(6) - 1).detach()))
    loop.compare(G=G, D=D)


def test_plain_loop_of_the_digits(plain_loop):
    """As for faces; each batch, with its classes, is for one player."""
    tiny = {"G": {"latent": 6, "width": 2, "hidden": 12}, "D": {"width": 2, "hidden": 12}}
    loop = plain_loop("dcgan-mnist", tiny, classes=10, batch=10)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = AdamWithL2(G, 2.5e-5), AdamWithL2(D, 2.5e-5)
    for _ in loop.rounds():
        for player in "GD":
            batch, z = loop.real(), 2 * loop.rand(6) - 1
            x, y = batch["x"], batch["y"]
            if player == "G":
                opt_G.step(-D(G(z, y), y).sigmoid().log().mean())
            else:
                opt_D.step(d_loss(D, x, G(z, y).detach(), y=y))
    loop.compare(G=G, D=D)
