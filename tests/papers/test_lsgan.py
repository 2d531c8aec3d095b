"""LSGAN (arXiv 1611.04076) against its paper and the authors' code."""

import copy

import pytest
import torch
from helpers.play import count, sizes
from torch import nn

from zoo import settings
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.registry import GAMES, LOSSES, NETWORKS, Spec

CHARACTERS = {"channels": 1, "resolution": 28, "classes": 3740}
SMALL_G = Spec("lsgan-character-generator", latent=100, width=64, embed=0)
SMALL_D = Spec("lsgan-character-discriminator", maps=(32, 64), hidden=256, embed=0)
MIXTURE = {"hidden": (128, 128), "activation": "tanh", "init": "orthogonal", "scale": 1.4}


def test_parameter_counts():
    assert count("lsgan-generator") == 15_591_427
    assert count("lsgan-discriminator") == 4_333_441
    assert count("lsgan-character-generator", **CHARACTERS) == 9_417_857
    assert count("lsgan-character-discriminator", **CHARACTERS) == 21_392_155


def test_scenes():
    G, D = (
        NETWORKS.build(Spec("lsgan-generator", width=4)),
        NETWORKS.build(Spec("lsgan-discriminator", width=4)),
    )
    assert G.latent == 1024
    z = torch.rand(2, 1024) * 2 - 1
    heights = [16, 16, 16, 16, 8, 4, 3], [14, 14, 28, 28, 56, 112, 112]
    assert sizes(G, z) == [(maps, h, h) for maps, h in zip(*heights, strict=True)]
    x = G(z)
    assert x.min() > -1 and x.max() < 1
    assert sizes(D, x) == [(4, 56, 56), (8, 28, 28), (16, 14, 14), (32, 7, 7)]
    assert D(x).shape == (2,)


def test_characters():
    G = NETWORKS.build(Spec("lsgan-character-generator", width=8, embed=6), defaults=CHARACTERS)
    D = NETWORKS.build(Spec("lsgan-character-discriminator", maps=(7, 10), hidden=20, embed=6), defaults=CHARACTERS)
    z, y = torch.rand(4, 1024), torch.tensor([0, 1, 3738, 3739])
    assert sizes(G, z, y) == [(8, 14, 14), (1, 28, 28)]
    x = G(z, y)
    assert x.min() > 0 and x.max() < 1
    assert sizes(D, x, y) == [(7, 14, 14), (10, 7, 7)]
    assert (D.l2.in_channels, D.l3.in_features, D.l4.in_features) == (13, 496, 26)
    assert (G.classes, D.classes) == (3740, 3740)
    G, D = G.eval(), D.eval()
    assert (G(z, y.flip(0)) != G(z, y)).any() and (D(x, y.flip(0)) != D(x, y)).all()


def test_small_characters_have_no_class():
    G, D = NETWORKS.build(SMALL_G, defaults=CHARACTERS), NETWORKS.build(SMALL_D, defaults=CHARACTERS)
    assert (G.classes, D.classes) == (0, 0)
    assert sizes(G, torch.rand(4, 100)) == [(64, 14, 14), (1, 28, 28)]
    assert D(G(torch.rand(4, 100))).shape == (4,)


def test_initial_deviations():
    torch.manual_seed(0)
    for name in "lsgan-generator", "lsgan-discriminator":
        for m in NETWORKS.build(Spec(name, width=16)).modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                assert not m.bias.any()
                if isinstance(m, nn.Conv2d):  # truncated at two standard deviations: .02 * .8796
                    assert m.weight.abs().max() <= 0.04
                    assert m.weight.std().item() == pytest.approx(0.0176, rel=0.1)
                else:
                    assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
            elif isinstance(m, nn.BatchNorm2d):
                assert (m.eps, m.momentum) == (1e-5, 0.1)
                assert (m.weight == 1).all() and not m.bias.any()


def test_places_of_batch_norm():
    D, G = (
        NETWORKS.build(Spec("lsgan-discriminator", width=4)),
        NETWORKS.build(Spec("lsgan-generator", width=4)),
    )
    kinds = [type(m).__name__ for m in D.layers]
    assert kinds[:3] == ["Conv2d", "LeakyReLU", "Conv2d"] and kinds.count("BatchNorm2d") == 3
    assert [type(m).__name__ for m in G.layers][-2:] == ["ConvTranspose2d", "Tanh"]


def test_discriminator_is_unbounded():
    torch.manual_seed(0)
    D = NETWORKS.build(SMALL_D, defaults=CHARACTERS)
    values = D(torch.rand(64, 1, 28, 28))
    assert values.min() < 0


def test_mixture_networks():
    """Two hidden layers of 128 tanh units, orthogonal weights of gain 1.4, the noise of 256 dimensions."""
    facts = {"channels": 2, "resolution": 0}
    G = NETWORKS.build(Spec("mlp-generator", latent=256, **MIXTURE), defaults=facts)
    D = NETWORKS.build(Spec("mlp-discriminator", **MIXTURE), defaults=facts)
    assert G(torch.randn(7, 256)).shape == (7, 2)
    assert D(torch.randn(7, 2)).shape == (7,)
    W = D.layers[2].weight / 1.4
    assert torch.allclose(W @ W.T, torch.eye(128), atol=1e-5)


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r"resolution=100.*multiple of 16"):
        NETWORKS.build(Spec("lsgan-generator", resolution=100))
    with pytest.raises(ValueError, match=r"classes=0.*embed=256"):
        NETWORKS.build("lsgan-character-generator")


def test_losses():
    """At scores of 1/2 the losses are 1/4 and 1/8; those of the Pearson form at 0 are 1 and 0. G's gradient is
    proportional to the distance from its target, and changes sign beyond it."""
    pair, half = LOSSES.build("least-squares"), torch.full((4,), 0.5)
    assert (pair.d(half, half).item(), pair.g(None, half).item()) == (0.25, 0.125)
    pearson, zero = LOSSES.build(Spec("least-squares", a=-1.0, b=1.0, c=0.0)), torch.zeros(4)
    assert (pearson.d(zero, zero).item(), pearson.g(None, zero).item()) == (1.0, 0.0)
    l = torch.tensor([-3.0, 0.0, 1.0, 2.0], requires_grad=True)
    (g,) = torch.autograd.grad(pair.g(None, l), l)
    assert torch.allclose(g, (l - 1) / 4)


def test_best_response():
    """D* = (b p + a q) / (p + q): the gradient of D's loss is zero there."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    pair = LOSSES.build(Spec("least-squares", a=-1.0, b=2.0))
    D = ((2 * p - q) / (p + q)).requires_grad_()
    parts = [p[i] * pair.d(D[i], torch.tensor(-1.0)) + q[i] * pair.d(torch.tensor(2.0), D[i]) for i in range(3)]
    (g,) = torch.autograd.grad(sum(parts), D)
    assert g.abs().max() < 1e-6


def test_plain_loop_of_the_ring():
    """Simultaneous steps from one forward pass on the same noise and the old weights."""
    (stage,) = settings.find("lsgan-ring").stages
    tanh = {"hidden": (5, 5), "activation": "tanh", "init": "orthogonal", "scale": 1.4, "channels": 2, "resolution": 0}
    torch.manual_seed(0)
    networks = {
        "G": NETWORKS.build(Spec("mlp-generator", latent=3, **tanh)),
        "D": NETWORKS.build(Spec("mlp-discriminator", **tanh)),
    }
    G, D = (copy.deepcopy(networks[n]) for n in "GD")
    learner = Learner(GAMES.build(stage.game, networks), stage)
    (turn,) = learner.turns
    opt_G = torch.optim.Adam(G.parameters(), lr=1e-3, betas=(0.5, 0.999))
    opt_D = torch.optim.Adam(D.parameters(), lr=1e-4, betas=(0.5, 0.999))
    for r in range(3):
        batch = Batch(7, generator=torch.Generator().manual_seed(r))
        batch["x"] = torch.randn(7, 2)
        learner.play(turn, batch, r)
        real, fake = D(batch["x"]), D(G(torch.randn(7, 3, generator=torch.Generator().manual_seed(r))))
        loss_D = 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()
        loss_G = 0.5 * (fake - 1).square().mean()
        loss_D.backward(inputs=list(D.parameters()), retain_graph=True)
        loss_G.backward(inputs=list(G.parameters()))
        for opt in (opt_D, opt_G):
            opt.step()
            opt.zero_grad()
    for name, network in ("G", G), ("D", D):
        for p, q in zip(network.parameters(), networks[name].parameters(), strict=True):
            assert torch.allclose(p, q, atol=1e-6), name


@pytest.mark.parametrize("name", ["lsgan-lsun-bedroom", "lsgan-mnist"])
def test_plain_loop(plain_loop, name):
    """One step of D, one of G on the same noise (and classes); mean squares, Adam with beta 1 of .5."""
    if name == "lsgan-lsun-bedroom":
        loop = plain_loop(name, {"G": {"latent": 6, "width": 2}, "D": {"width": 2}}, channels=3, size=112, batch=4)
        lr = 1e-3
    else:
        G = {"latent": 6, "width": 4, "embed": 3}
        loop = plain_loop(name, {"G": G, "D": {"maps": (4, 5), "hidden": 6, "embed": 3}}, classes=10, batch=10)
        lr = 2e-4
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999)) for net in (G, D))
    for _ in loop.rounds():
        batch, z = loop.real(), 2 * loop.rand(6) - 1
        y = {"y": batch["y"]} if "y" in batch else {}
        fake = G(z, **y)
        opt_D.zero_grad()
        (0.5 * (D(batch["x"], **y) - 1).square().mean() + 0.5 * D(fake.detach(), **y).square().mean()).backward()
        opt_D.step()
        opt_G.zero_grad()
        (0.5 * (D(fake, **y) - 1).square().mean()).backward()
        opt_G.step()
    loop.compare(G=G, D=D)
