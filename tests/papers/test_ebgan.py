"""EBGAN (arXiv 1609.03126) against its paper."""

import pytest
import torch
from helpers.play import Echo, count
from torch import nn

from zoo import settings
from zoo.game import Batch
from zoo.registry import GAMES, LOSSES, NETWORKS, PENALTIES, Spec

MNIST = {"channels": 1, "resolution": 32}


def test_parameter_counts():
    """Weights, biases and batch norms of the paper's layers, added up."""
    hidden = 100 * 1600 + 1600 + 3 * (1600 * 1600 + 1600) + 4 * 2 * 1600
    assert count(Spec("ebgan-mlp-generator", hidden=(1600,) * 4), **MNIST) == hidden + 1600 * 1024 + 1024 == 9_498_624
    assert count(Spec("ebgan-mlp-discriminator", hidden=(1024,)), **MNIST) == 2 * (1024 * 1024 + 1024)
    down = [(3 * 16 + 1) * 64, (64 * 16 + 1 + 2) * 128, (128 * 16 + 1 + 2) * 256]
    up = [(256 * 16 + 1 + 2) * 128, (128 * 16 + 1 + 2) * 64, (64 * 16 + 1) * 3]
    assert count("ebgan-discriminator", channels=3, resolution=64) == sum(down + up) == 1_318_659


def test_shapes_and_where_batch_norm_is():
    D = NETWORKS.build(Spec("ebgan-discriminator", width=4), defaults={"channels": 3, "resolution": 64})
    x = torch.rand(2, 3, 64, 64)
    assert D.encode(x).shape == (2, 16, 8, 8)
    assert D.features(x).shape == (2, 1024)
    assert D(x).shape == x.shape
    assert torch.equal(D(x), D.decode(D.encode(x)))
    kinds = [type(m).__name__ for m in (*D.encoder, *D.decoder)]
    assert [i for i, kind in enumerate(kinds) if kind == "BatchNorm2d"] == [3, 6, 9, 12]
    assert kinds[-1] == "ConvTranspose2d" and kinds[1] == "ReLU"
    G = NETWORKS.build(Spec("ebgan-mlp-generator", hidden=(8,) * 4), defaults=MNIST)
    assert [m.out_features for m in G.modules() if isinstance(m, nn.Linear)] == [8, 8, 8, 8, 1024]
    assert len([m for m in G.modules() if isinstance(m, nn.BatchNorm1d)]) == 4
    made = G(torch.randn(4, 100))
    assert made.shape == (4, 1, 32, 32) and made.abs().max() < 1
    deep = NETWORKS.build(Spec("ebgan-mlp-discriminator", hidden=(8, 6, 5)), defaults=MNIST)
    assert deep.features(made).shape == (4, 5) and deep(made).shape == made.shape
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


class Ready(nn.Module):
    """A G that returns the images it was given, whatever the noise."""

    def __init__(self, images):
        super().__init__()
        self.latent, self.images = 2, nn.Parameter(images)

    def forward(self, z):
        return self.images + 0 * z.sum()


def game_of(images, factor=0.0, **more):
    return GAMES.build(Spec("ebgan", **more), {"G": Ready(images), "D": Echo(factor)})


def batch_of(x):
    batch = Batch(len(x), generator=torch.Generator())
    batch["x"] = x
    return batch


def test_energy_is_the_distance_to_the_reconstruction():
    """One number an image, a Euclidean norm; x counts on both sides of the distance."""
    x = torch.randn(5, 1, 4, 4)
    game = game_of(x, factor=0.25)
    assert torch.allclose(-game.score(x, batch_of(x)), 0.75 * x.flatten(1).norm(dim=1))
    mean = game_of(x, factor=0.25, distance="absolute")
    assert torch.allclose(-mean.score(x, batch_of(x)), 0.75 * x.abs().flatten(1).mean(1))
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(-game.score(x, batch_of(x)).sum(), x)
    unit = (x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).detach()
    assert torch.allclose(gradient, (1 - 0.25) * unit), "with the target detached it were -0.25"
    with pytest.raises(ValueError, match=r"game\.distance='cosine': must be euclidean or absolute"):
        game_of(x, distance="cosine")


def test_losses():
    """Equal energies g below the margin m: D loses m, G g. The hinge is each image's own."""
    loss = LOSSES.build(Spec("margin", margin=10.0))
    score = -torch.full((4,), 3.0)
    assert loss.d(score, score).item() == 10.0 and loss.g(None, score).item() == 3.0
    assert loss.d(torch.zeros(2), -torch.tensor([0.0, 20.0])).item() == 5.0
    energy = torch.tensor([4.0, 30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.d(torch.zeros(2), -energy), energy)
    assert gradient.tolist() == [-0.5, 0.0], "a fake beyond the margin leaves D alone"


ENERGIES = {"least-squares": {"a": -10.0, "b": 0.0, "c": 0.0}}  # its targets are scores, and no score is above 0


@pytest.mark.parametrize("loss", LOSSES.names())
def test_every_loss_takes_energies(loss):
    """D learns to give back reals better and fakes no better, whatever the loss; G makes what D gives back."""
    x, images = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
    game, batch = game_of(images, factor=0.25, loss=Spec(loss, **ENERGIES.get(loss, {}))), batch_of(x)
    seen = []
    game.distance = lambda back, x: seen.append((back - x).flatten(1).norm(dim=1)) or seen[-1]
    (by,) = torch.autograd.grad(game.loss_D(batch), seen)
    real, fake = by.split(4)
    assert (real >= 0).all() and real.any() and (fake <= 0).all()
    seen.clear()
    (by,) = torch.autograd.grad(game.loss_G(batch), seen)
    assert (by[-4:] > 0).all()


def pulling_away(codes):
    """The term of given codes [N, F]."""
    game = game_of(codes[:, :, None, None])
    batch = batch_of(torch.zeros_like(game.G.images))
    batch["fake"] = game.G.images
    return PENALTIES.build("pulling-away")(game, batch)


def test_pulling_away():
    """As written, a double sum over pairs; 1 for equal codes, 0 for orthogonal ones; signs and lengths do not matter."""
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
    assert pulling_away(torch.zeros(3, 5)).item() == 0.0, "codes of zeros are no 0/0"
    assert pulling_away(S[:1]).item() == 0.0, "nor is a single fake"


def test_pulling_away_is_in_the_generators_loss_alone():
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
    (pulled,) = torch.autograd.grad(losses[1], games[1].G.parameters())
    assert not torch.allclose(plain, pulled)


def norm(v):
    return v.flatten(1).square().sum(1).sqrt()


@pytest.mark.parametrize("name", ["ebgan-mnist", "ebgan-mnist-pt", "ebgan-fashion-mnist"])
def test_plain_loop(beside, name):
    """One step of D, one of G on fresh noise; the fakes' codes pull away from one another in G's step."""
    conv = name == "ebgan-fashion-mnist"
    assert settings.find(name).stages[0].game.kwargs["loss"] == Spec("margin", margin=10.0)
    tiny = {"G": {"latent": 6, "width": 2} if conv else {"latent": 6, "hidden": (12, 12)}}
    tiny["D"] = {"width": 2} if conv else {"hidden": (64,)}
    eps = 1e-6  # biases before a norm have gradients of rounding alone
    b = beside(name, tiny, batch=10, eps=eps)
    # All energies start below the margin: larger outputs of G bring those of fakes to both sides of it.
    last = [m for m in b.session.game.G.modules() if isinstance(m, (nn.Linear, nn.ConvTranspose2d))][-1]
    with torch.no_grad():
        last.weight.mul_(10)
    G, D = b.copy("G"), b.copy("D")
    lr = 2e-4 if conv else 1e-3
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999), eps=eps) for net in (G, D))
    sides = set()
    for _ in b.rounds():
        x, z = b.real()["x"], b.randn(6)
        assert x.shape == (10, 1, 32, 32)
        fake = G(z).detach()
        energy, fakes = norm(x - D(x)), norm(fake - D(fake))
        sides.update((fakes < 10).tolist())
        opt_D.zero_grad()
        (energy.mean() + (10 - fakes).clamp(min=0).mean()).backward()
        opt_D.step()
        opt_G.zero_grad()
        fake = G(b.randn(6))
        code = D.encode(fake)
        loss = norm(fake - D.decode(code)).mean()
        if name != "ebgan-mnist":
            S = code.flatten(1)
            S = S / S.norm(dim=1, keepdim=True).clamp(min=1e-12)
            loss = loss + 0.1 * sum((S[i] @ S[j]) ** 2 for i in range(10) for j in range(10) if i != j) / 90
        loss.backward()
        opt_G.step()
    assert loss.isfinite() and sides == {True, False}, "the hinge has to be seen at work and at rest"
    b.compare(G=G, D=D)
