"""BEGAN (arXiv 1703.10717) against its paper."""

import pytest
import torch
from helpers.play import Echo, FixedGenerator, count
from torch import nn

from zoo import settings
from zoo.discriminate import Discriminate
from zoo.game import Batch
from zoo.registry import GAMES, NETWORKS, Spec

RGB = {"channels": 3}


@pytest.mark.parametrize(
    ("resolution", "width", "G", "D"),
    [(64, 128, 1_716_611, 13_405_379), (64, 64, 563_395, 4_011_651), (32, 64, 489_539, 2_310_979)],
)
def test_parameter_counts(resolution, width, G, D):
    sizes = {"resolution": resolution, "width": width, **RGB}
    assert count("began-generator", **sizes) == G
    assert count("began-discriminator", **sizes) == D


def test_parameter_counts_of_the_largest():
    """128x128 at width 128. The paper states 17.3 million in total, which no arrangement of these layers gives."""
    sizes = {"resolution": 128, "width": 128, **RGB}
    plain = count("began-generator", **sizes), count("began-discriminator", **sizes)
    assert sum(plain) == 25_233_222
    # With skips the first convolution of a stage has 128 more inputs, the 8x8 maps.
    skips = 4 * 128 * 128 * 9
    refined = [count(Spec(f"began-{n}", skips=True, vanishing=True), **sizes) for n in ("generator", "discriminator")]
    assert refined == [plain[0] + skips, plain[1] + skips]


def test_shapes():
    """The number of maps grows linearly down to 8x8 and is constant on the way up; no norms, no output activation."""
    D = NETWORKS.build(Spec("began-discriminator", width=4, latent=6), defaults={"resolution": 32, **RGB})
    shapes = []
    for m in D.encoder.convs:
        m.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:])))
    x = torch.randn(2, 3, 32, 32)
    assert D.features(x).shape == (2, 6)
    a, b, c = (4, 32, 32), (8, 16, 16), (12, 8, 8)
    assert shapes == [a, a, (4, 16, 16), b, b, (8, 8, 8), c, c]
    assert D(x).shape == x.shape
    G = NETWORKS.build(Spec("began-generator", width=4, latent=6), defaults={"resolution": 32, **RGB})
    assert [c.out_channels for stage in G.stages for c in stage] == [4] * 6
    assert G(torch.randn(2, 6)).shape == x.shape
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for net in (G, D) for m in net.modules())
    G.output.bias.data.fill_(7.0)
    assert G(torch.randn(2, 6)).mean() > 5, "there is no output activation"
    with pytest.raises(ValueError, match=r"resolution=28.*power of two"):
        NETWORKS.build(Spec("began-generator", resolution=28))


def test_decoders_have_equal_shapes_and_no_shared_weights():
    sizes = {"resolution": 32, "width": 4, **RGB}
    G, D = (NETWORKS.build(f"began-{n}", defaults=sizes) for n in ("generator", "discriminator"))
    of_G, of_D = (dict(net.named_parameters()) for net in (G, D.decoder))
    assert {k: p.shape for k, p in of_G.items()} == {k: p.shape for k, p in of_D.items()}
    assert not {p.data_ptr() for p in of_G.values()} & {p.data_ptr() for p in of_D.values()}


def test_initial_weights():
    """Xavier, uniform; biases 0."""
    torch.manual_seed(0)
    D = NETWORKS.build(Spec("began-discriminator", width=16), defaults={"resolution": 32, **RGB})
    for m in D.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            area = m.weight[0][0].numel()
            limit = (6 / (area * sum(m.weight.shape[:2]))) ** 0.5
            assert limit * 0.95 < m.weight.abs().max() <= limit
            assert not m.bias.any()


def plain_decoder(G, z):
    """The layers one after the other, with separate upsampling and convolution."""
    conv, elu = nn.functional.conv2d, nn.functional.elu
    h = start = G.linear(z).view(len(z), -1, 8, 8)
    for i, stage in enumerate(G.stages):
        if i:
            h = nn.functional.interpolate(h, scale_factor=2)
            if G.skips:
                h = torch.cat([h, nn.functional.interpolate(start, scale_factor=2**i)], 1)
        for m in stage:
            h = elu(conv(h, m.weight, m.bias, padding=1))
    return conv(h, G.output.weight, G.output.bias, padding=1)


@pytest.mark.parametrize("skips", [False, True])
def test_vanishing_residuals(skips):
    """With carry 0 it is the plain network; with 1 every layer that keeps the shape is the identity."""
    torch.manual_seed(0)
    sizes = {"resolution": 32, "width": 4, "latent": 6, **RGB}
    G = NETWORKS.build(Spec("began-generator", vanishing=True, skips=skips), defaults=sizes)
    z = torch.randn(3, 6)
    assert G.carry == 1
    G.carry.zero_()
    assert torch.allclose(G(z), plain_decoder(G, z), atol=1e-5)
    G.carry.fill_(1.0)
    h = torch.randn(3, 4, 8, 8)
    assert torch.equal(G.apply_conv(G.stages[0][1], h), h)
    D = NETWORKS.build(Spec("began-discriminator", vanishing=True, skips=skips), defaults=sizes)
    same = [c for c in D.encoder.convs if c.in_channels == c.out_channels and c.stride == (1, 1)]
    assert len(same) == 4
    for c in same:
        h = torch.randn(2, c.in_channels, 8, 8)
        assert torch.equal(D.encoder.apply_conv(c, h), h)


def game_of(images, penalties=(), **loss):
    """The energies of x are half of its mean absolute value."""
    spec = Spec("adversarial", loss=Spec("began", **loss), penalties=penalties)
    return GAMES.build(spec, {"G": FixedGenerator(images), "D": Echo(0.5, "absolute")})


def losses_of(real, fake, k=0.0, **arguments):
    """A game on these images, its batch and both losses; energies are half of the mean absolute values."""
    game = game_of(fake, **arguments)
    game.pair.k.fill_(k)
    batch = Batch(len(real), generator=torch.Generator())
    batch["x"] = real
    losses = game.loss_D(batch), game.loss_G(batch)
    with torch.no_grad():
        game.update_loss(batch)
    return game, batch, losses


def image(value):
    return torch.full((4, 1, 2, 2), float(value))


def test_losses_and_measure():
    game, batch, (D, G) = losses_of(image(2), image(-4), k=0.25)
    assert D.item() == pytest.approx(1 - 0.25 * 2) and G.item() == pytest.approx(2)
    assert batch.logs["convergence"].item() == pytest.approx(1 + abs(0.5 * 1 - 2))
    assert batch.logs["k"] == game.pair.k and not game.pair.k.requires_grad
    (gradient,) = torch.autograd.grad(G, game.G.images)
    assert torch.allclose(gradient, image(-0.5 / 16)), "through the image and its reconstruction"
    x = torch.rand(4, 1, 2, 2)
    discriminate = Discriminate(game, batch)
    assert torch.allclose(discriminate(x).score, discriminate(x.repeat(1, 1, 3, 3)).score), "means over pixels"


@pytest.mark.parametrize(
    ("real", "fake", "k", "after"),
    [
        (8.0, 2.0, 0.5, 0.5 + 0.1 * (0.5 * 4 - 1)),  # fakes have less than their share of the error: k grows
        (4.0, 2.0, 0.5, 0.5),  # equilibrium
        (4.0, 8.0, 0.1, 0.0),  # clipped
        (80.0, 2.0, 0.9, 1.0),
    ],
)
def test_controller(real, fake, k, after):
    game, batch, _ = losses_of(image(real), image(fake), k=k, rate=0.1)
    assert game.pair.k.item() == pytest.approx(after)
    if after == k:
        assert batch.logs["convergence"].item() == pytest.approx(real / 2)


def test_loss_of_D_without_fakes():
    game = game_of(image(-4))
    batch = Batch(4, generator=torch.Generator())
    batch["x"] = image(2)
    (gradient,) = torch.autograd.grad(game.loss_D(batch), game.D.factor)
    assert gradient.item() == pytest.approx(-2.0), "that of a plain autoencoder"
    assert batch["real_score"].shape == (4,) and not batch["real_score"].requires_grad


def test_penalties_are_added_to_the_losses():
    """Each to its player's; G's turn then draws reals, and lazy penalties have a turn of their own."""
    penalties = (Spec("r1", weight=2.0), Spec("pulling-away", weight=3.0))
    game, batch, (D, G) = losses_of(image(2), image(-4), k=0.25, penalties=penalties)
    _, _, (plain_D, plain_G) = losses_of(image(2), image(-4), k=0.25)
    assert (D - plain_D).item() == pytest.approx(2 * batch.logs["penalty/0"].item())
    assert (G - plain_G).item() == pytest.approx(3 * batch.logs["penalty/1"].item())
    assert all(batch.logs[f"penalty/{i}"] > 0 for i in range(2))
    assert [t.draw for t in game.turns()] == ["fresh", None]
    lazy = (Spec("feature-matching"), Spec("r1", every=4))
    game = game_of(image(1), penalties=lazy)
    assert [(t.draw, t.every) for t in game.turns()] == [("fresh", 1), ("last", 4), ("fresh", 1)]


def test_wrong_gamma():
    with pytest.raises(ValueError, match=r"game\.loss\.gamma=1\.5: must be from 0 to 1"):
        losses_of(image(1), image(1), gamma=1.5)


@pytest.mark.parametrize("name", ["began-celeba", "began-celeba-128"])
def test_plain_loop(plain_loop, name):
    """D's step on reals and fakes, G's on fresh noise, then k; the schedule sets the carries."""
    tiny = {n: {"width": 2, "latent": 5} for n in "GD"}
    published = settings.find(name).stages[0].game.kwargs["loss"]
    assert published == Spec("began", gamma=0.5, rate=0.001)  # below they are larger: k changes within three rounds
    loop = plain_loop(
        name, tiny, channels=3, size=16, resolution=16, batch=6, game={"loss": Spec("began", gamma=0.9, rate=0.5)}
    )
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=1e-4) for net in (G, D))
    k = 0.3
    loop.run.game.pair.k.fill_(k)
    for r in loop.rounds():
        for part in (G, D.encoder, D.decoder):
            if part.vanishing:
                part.carry.fill_(1 - r * 6 / (16_000 * 16))
        x = loop.real()["x"]
        fake = G(2 * loop.rand(5) - 1).detach()
        L_real, L_fake = (x - D(x)).abs().mean(), (fake - D(fake)).abs().mean()
        opt_D.zero_grad()
        (L_real - k * L_fake).backward()
        opt_D.step()
        opt_G.zero_grad()
        fake = G(2 * loop.rand(5) - 1)
        L_fake = (fake - D(fake)).abs().mean()
        L_fake.backward()
        opt_G.step()
        k = min(max(k + 0.5 * (0.9 * L_real.item() - L_fake.item()), 0.0), 1.0)
    loop.compare(G=G, D=D)
    assert loop.run.game.pair.k.item() == pytest.approx(k, abs=1e-6)
    assert k not in (0.0, 0.3, 1.0)
