"""cGAN (arXiv 1411.1784) against its paper."""

import math

import pytest
import torch

from zoo import settings
from zoo.registry import LOSSES, NETWORKS

FACTS = {"channels": 1, "resolution": 28, "classes": 10}


def nets():
    torch.manual_seed(0)
    return NETWORKS.build("cgan-generator", defaults=FACTS), NETWORKS.build("cgan-discriminator", defaults=FACTS)


def test_parameter_counts():
    with torch.device("meta"):
        G, D = nets()
    assert sum(p.numel() for p in G.parameters()) == 20_200 + 11_000 + 1_441_200 + 941_584 == 2_413_984
    assert sum(p.numel() for p in D.parameters()) == 942_000 + 2_750 + 279_360 + 241 == 1_224_351
    assert (G.joint.in_features, D.joint.linear.in_features) == (1200, 290)
    assert (G.z.out_features, G.y.out_features) == (200, 1000)


def test_shapes_ranges_and_condition():
    G, D = (net.eval() for net in nets())
    z, y = torch.rand(10, 100), torch.arange(10)
    x = G(z, y)
    assert x.shape == (10, 1, 28, 28)
    assert x.min() > 0 and x.max() < 1
    assert torch.equal(x, G(z, y))  # deterministic without dropout
    assert D(x, y).shape == (10,)
    assert (G(z, y.flip(0)) != x).any()
    assert (D(x, y.flip(0)) != D(x, y)).all()
    assert (G.classes, D.classes, G.latent) == (10, 10, 100)


def test_dropout_in_both():
    G, D = nets()
    z, y = torch.rand(10, 100), torch.arange(10)
    assert G.drop.p == D.drop.p == 0.5
    assert not torch.equal(G(z, y), G(z, y))
    x = torch.rand(10, 1, 28, 28)
    assert not torch.equal(D(x, y), D(x, y))


def test_initial_deviations():
    G, D = nets()
    for net, scale in (G, 0.05), (D, 0.005):
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                assert not p.any()
            else:
                assert p.abs().max() <= scale
                assert p.std().item() == pytest.approx(scale / math.sqrt(3), rel=0.1)


def test_maxout_pieces():
    """Five pieces for x and for y, four for the joint layer, and no other nonlinearity between them."""
    _, D = nets()
    D = D.eval()
    assert (D.x.pieces, D.y.pieces, D.joint.pieces) == (5, 5, 4)
    x, y = torch.randn(3, 1, 28, 28), torch.tensor([4, 0, 9])
    h = torch.cat(
        [
            D.x.linear(x.flatten(1)).view(3, 240, 5).max(2).values,
            D.y.linear(torch.eye(10)[y]).view(3, 50, 5).max(2).values,
        ],
        1,
    )
    expected = D.out(D.joint.linear(h).view(3, 240, 4).max(2).values).squeeze(1)
    assert torch.allclose(D(x, y), expected, atol=1e-7)


def test_losses():
    """At logits 0 D's loss is 2 log 2 and G's log 2."""
    pair, l = LOSSES.build(settings.find("cgan-mnist").stages[0].game.kwargs["loss"]), torch.zeros(4)
    assert pair.d(l, l).item() == pytest.approx(2 * math.log(2))
    assert pair.g(None, l).item() == pytest.approx(math.log(2))


def test_plain_loop(plain_loop):
    """Simultaneous steps from one forward pass; fakes have the classes of the batch's reals."""
    G = {"latent": 5, "hidden": (6, 7, 8), "scale": 0.5}
    tiny = {"G": G, "D": {"units": (6, 4, 5), "scale": 0.2}}
    loop = plain_loop("cgan-mnist", tiny, batch=10, classes=10)
    G, D = loop.copy("G"), loop.copy("D")
    mean = (loop.images.double() / 255).mean(0).clamp(1e-7, 1 - 1e-7)
    G.out.bias.data = (mean / (1 - mean)).log().flatten()
    lr, momentum = 0.1, 0.5
    velocity = {p: torch.zeros_like(p) for net in (G, D) for p in net.parameters()}
    for r in loop.rounds():
        batch, z = loop.real(), loop.rand(5)
        x, y = batch["x"], batch["y"]
        real, fake = D(torch.cat([x, G(z, y)]), torch.cat([y, y])).chunk(2)
        loss_D = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
        loss_G = -fake.sigmoid().log().mean()
        gradients = [
            *zip(D.parameters(), torch.autograd.grad(loss_D, D.parameters(), retain_graph=True), strict=True),
            *zip(G.parameters(), torch.autograd.grad(loss_G, G.parameters()), strict=True),
        ]
        with torch.no_grad():
            for p, g in gradients:
                velocity[p] = (momentum + 0.2 * 10 * r / 12_500_000) * velocity[p] - lr * g
                p += velocity[p]
        lr /= 1.00004 ** (10 / 100)  # the test's batches are of 10
    loop.compare(G=G, D=D)
