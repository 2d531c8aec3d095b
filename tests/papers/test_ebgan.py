"""EBGAN (arXiv 1609.03126) against its paper."""

import pytest
import torch
from helpers.play import Echo, FixedGenerator, count
from torch import nn

from zoo import settings
from zoo.discriminate import Discriminate
from zoo.game import Batch
from zoo.registry import GAMES, LOSSES, NETWORKS, PENALTIES, Spec

MNIST = {"channels": 1, "resolution": 32}


def test_parameter_counts():
    """The sum of the weights, biases and batch norms of the paper's layers."""
    hidden = 100 * 1600 + 1600 + 3 * (1600 * 1600 + 1600) + 4 * 2 * 1600
    assert count(Spec("ebgan-mlp-generator", hidden=(1600,) * 4), **MNIST) == hidden + 1600 * 1024 + 1024 == 9_498_624
    assert count(Spec("ebgan-mlp-discriminator", hidden=(1024,)), **MNIST) == 2 * (1024 * 1024 + 1024)
    down = [(3 * 16 + 1) * 64, (64 * 16 + 1 + 2) * 128, (128 * 16 + 1 + 2) * 256]
    up = [(256 * 16 + 1 + 2) * 128, (128 * 16 + 1 + 2) * 64, (64 * 16 + 1) * 3]
    assert count("ebgan-discriminator", channels=3, resolution=64) == sum(down + up) == 1_318_659


def test_shapes_and_places_of_batch_norm():
    D = NETWORKS.build(Spec("ebgan-discriminator", width=4), defaults={"channels": 3, "resolution": 64})
    x = torch.rand(2, 3, 64, 64)
    assert D.encode(x).shape == (2, 16, 8, 8)
    assert torch.equal(D.features(x), D.encode(x)) and D.score(D.features(x), {"x": x}).shape == (2,)
    assert D(x).shape == x.shape
    assert torch.equal(D(x), D.decode(D.encode(x)))
    kinds = [type(m).__name__ for m in (*D.encoder, *D.decoder)]
    assert [i for i, kind in enumerate(kinds) if kind == "BatchNorm2d"] == [3, 6, 9, 12]
    assert kinds[-1] == "ConvTranspose2d" and kinds[1] == "ReLU"
    G = NETWORKS.build(Spec("ebgan-mlp-generator", hidden=(8,) * 4), defaults=MNIST)
    assert [m.out_features for m in G.modules() if isinstance(m, nn.Linear)] == [8, 8, 8, 8, 1024]
    assert len([m for m in G.modules() if isinstance(m, nn.BatchNorm1d)]) == 4
    x = G(torch.randn(4, 100))
    assert x.shape == (4, 1, 32, 32) and x.abs().max() < 1
    deep = NETWORKS.build(Spec("ebgan-mlp-discriminator", hidden=(8, 6, 5)), defaults=MNIST)
    assert deep.features(x).shape == (4, 5) and deep(x).shape == x.shape
    with pytest.raises(ValueError, match=r"resolution=28.*multiple of 8"):
        NETWORKS.build(Spec("ebgan-discriminator", resolution=28))


@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        (Spec("ebgan-mlp-generator", hidden=(300, 300)), 0.02),
        (Spec("ebgan-mlp-discriminator", hidden=(300, 300)), 0.002),
        (Spec("ebgan-discriminator", width=32), 0.002),
    ],
)
def test_initial_deviations(spec, scale):
    torch.manual_seed(0)
    for m in NETWORKS.build(spec, defaults=MNIST).modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            assert m.weight.std().item() == pytest.approx(scale, rel=0.1)
            assert not m.bias.any()


def game_of(images, factor=0.0, distance="euclidean", loss=Spec("margin"), **arguments):
    D = Echo(factor, distance)
    return GAMES.build(Spec("adversarial", loss=loss, **arguments), {"G": FixedGenerator(images), "D": D})


def score(game, x):
    return Discriminate(game, batch_of(x))(x).score


def batch_of(x):
    batch = Batch(len(x), generator=torch.Generator())
    batch["x"] = x
    return batch


def test_energy_is_the_distance_to_the_reconstruction():
    """One number per image, a Euclidean norm; the gradient includes that of the target."""
    x = torch.randn(5, 1, 4, 4)
    game = game_of(x, factor=0.25)
    assert torch.allclose(-score(game, x), 0.75 * x.flatten(1).norm(dim=1))
    mean = game_of(x, factor=0.25, distance="absolute")
    assert torch.allclose(-score(mean, x), 0.75 * x.abs().flatten(1).mean(1))
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(-score(game, x).sum(), x)
    unit = (x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).detach()
    assert torch.allclose(gradient, (1 - 0.25) * unit), "with a detached target it would be -0.25"
    with pytest.raises(ValueError, match=r"distance='cosine': must be "):
        game_of(x, distance="cosine")


def test_losses():
    """At equal energies g below the margin m, D's loss is m and G's is g. The hinge applies to each image."""
    loss = LOSSES.build(Spec("margin", margin=10.0))
    score = -torch.full((4,), 3.0)
    assert loss.d(score, score).item() == 10.0 and loss.g(None, score).item() == 3.0
    assert loss.d(torch.zeros(2), -torch.tensor([0.0, 20.0])).item() == 5.0
    energy = torch.tensor([4.0, 30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.d(torch.zeros(2), -energy), energy)
    assert gradient.tolist() == [-0.5, 0.0], "a fake beyond the margin has no gradient"


ENERGIES = {"least-squares": {"a": -10.0, "b": 0.0, "c": 0.0}}  # its targets are scores, and no score is above 0


@pytest.mark.parametrize("loss", LOSSES.names())
def test_energies_with_every_loss(loss):
    """With every loss D lowers the error of reals and does not lower that of fakes; G lowers the error of its
    images."""
    x, images = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
    game, batch = game_of(images, factor=0.25, loss=Spec(loss, **ENERGIES.get(loss, {}))), batch_of(x)
    energies = []
    game.D.distance = lambda output, x: energies.append((output - x).flatten(1).norm(dim=1)) or energies[-1]
    (gradient,) = torch.autograd.grad(game.loss_D(batch), energies)
    real, fake = gradient.split(4)
    assert (real >= 0).all() and real.any() and (fake <= 0).all()
    energies.clear()
    (gradient,) = torch.autograd.grad(game.loss_G(batch), energies)
    assert (gradient[-4:] > 0).all()


def pulling_away(codes):
    """The penalty of codes [N, F]."""
    game = game_of(codes[:, :, None, None])
    return PENALTIES.build("pulling-away")(game.D, None, game.G.images)


def test_pulling_away():
    """A double sum over pairs; 1 for equal codes, 0 for orthogonal ones; invariant to signs and lengths."""
    S = torch.randn(6, 5)
    total = sum(
        (S[i] @ S[j] / (S[i].norm() * S[j].norm())) ** 2 for i in range(6) for j in range(6) if i != j
    ) / (6 * 5)  # fmt: skip
    assert pulling_away(S).item() == pytest.approx(total.item(), rel=1e-5)
    assert pulling_away(-3 * S).item() == pytest.approx(total.item(), rel=1e-5)
    assert pulling_away(S * torch.tensor([1, -1, 2, -0.5, 1, -7.0])[:, None]).item() == pytest.approx(
        total.item(), rel=1e-5
    )
    assert pulling_away(S[:1].expand(4, -1).clone()).item() == pytest.approx(1.0, rel=1e-5)
    assert pulling_away(torch.eye(5)).item() == 0.0
    assert pulling_away(torch.zeros(3, 5)).item() == 0.0, "codes of zeros give no 0/0"
    assert pulling_away(S[:1]).item() == 0.0, "nor does a single fake"


def test_pulling_away_is_part_of_the_generators_loss_only():
    x = torch.randn(4, 1, 4, 4)
    games = [game_of(x.clone(), 0.5, penalties=p) for p in ((), (Spec("pulling-away", weight=0.1),))]
    batches = [batch_of(x) for _ in games]
    losses_D = [g.loss_D(b).item() for g, b in zip(games, batches, strict=True)]
    assert losses_D[0] == losses_D[1]
    losses = [g.loss_G(b) for g, b in zip(games, batches, strict=True)]
    term = pulling_away(x.flatten(1)).item()
    assert (losses[1] - losses[0]).item() == pytest.approx(0.1 * term, rel=1e-4)
    assert batches[1].logs["penalty/0"].item() == pytest.approx(term, rel=1e-5)
    (plain,) = torch.autograd.grad(losses[0], games[0].G.parameters())
    (with_term,) = torch.autograd.grad(losses[1], games[1].G.parameters())
    assert not torch.allclose(plain, with_term)


def norm(v):
    return v.flatten(1).square().sum(1).sqrt()


@pytest.mark.parametrize("name", ["ebgan-mnist", "ebgan-mnist-pt", "ebgan-fashion-mnist"])
def test_plain_loop(plain_loop, name):
    """One step of D, one of G on fresh noise; the pulling-away term is part of G's step."""
    conv = name == "ebgan-fashion-mnist"
    assert settings.find(name).stages[0].game.kwargs["loss"] == Spec("margin", margin=10.0)
    tiny = {"G": {"latent": 6, "width": 2} if conv else {"latent": 6, "hidden": (12, 12)}}
    tiny["D"] = {"width": 2} if conv else {"hidden": (64,)}
    eps = 1e-6  # biases before batch norm have gradients that are only rounding errors
    loop = plain_loop(name, tiny, batch=10, eps=eps)
    # All energies start below the margin; with larger outputs of G those of fakes are on both sides of it.
    last = [m for m in loop.run.game.G.modules() if isinstance(m, (nn.Linear, nn.ConvTranspose2d))][-1]
    with torch.no_grad():
        last.weight.mul_(10)
    G, D = loop.copy("G"), loop.copy("D")
    lr = 2e-4 if conv else 1e-3
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999), eps=eps) for net in (G, D))
    sides = set()
    for _ in loop.rounds():
        x, z = loop.real()["x"], loop.randn(6)
        assert x.shape == (10, 1, 32, 32)
        fake = G(z).detach()
        energy, fakes = norm(x - D(x)), norm(fake - D(fake))
        sides.update((fakes < 10).tolist())
        opt_D.zero_grad()
        (energy.mean() + (10 - fakes).clamp(min=0).mean()).backward()
        opt_D.step()
        opt_G.zero_grad()
        fake = G(loop.randn(6))
        code = D.encode(fake)
        loss = norm(fake - D.decode(code)).mean()
        if name != "ebgan-mnist":
            S = code.flatten(1)
            S = S / S.norm(dim=1, keepdim=True).clamp(min=1e-12)
            loss = loss + 0.1 * sum((S[i] @ S[j]) ** 2 for i in range(10) for j in range(10) if i != j) / 90
        loss.backward()
        opt_G.step()
    assert loss.isfinite() and sides == {True, False}, "some fakes must be below the margin and some above"
    loop.compare(G=G, D=D)
