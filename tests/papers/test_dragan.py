"""DRAGAN (arXiv 1705.07215) against its paper and the authors' notebook."""

import math

import pytest
import torch

from zoo import settings
from zoo.game import Batch
from zoo.registry import LOSSES, NETWORKS, PENALTIES, Spec

MNIST = {"channels": 1, "resolution": 28}
EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps


def networks(name="dragan-mnist"):
    return settings.find(name).networks


def test_parameter_counts():
    with torch.device("meta"):
        count = {
            n: sum(p.numel() for p in NETWORKS.build(s, defaults=MNIST).parameters()) for n, s in networks().items()
        }
    assert count == {"G": 114_064, "D": 100_609}


def test_shapes_and_initial_deviations():
    torch.manual_seed(0)
    G, D = (NETWORKS.build(s, defaults=MNIST) for s in networks().values())
    x = G(torch.rand(5, 100) * 2 - 1)
    assert x.shape == (5, 1, 28, 28) and x.min() > 0 and x.max() < 1
    assert D(x).shape == (5,)
    for net, fans in (G, (100, 128)), (D, (784, 128)):
        layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
        assert [m.in_features for m in layers] == list(fans)
        for m in layers:
            tolerance = 0.2 if m.weight.numel() < 1000 else 0.03
            assert m.weight.std().item() == pytest.approx(math.sqrt(2 / m.in_features), rel=tolerance)
            assert not m.bias.any()


class Critic(torch.nn.Module):
    """D(x) = w.x + b, or constant for w = 0."""

    def __init__(self, w):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(w), torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1) + self.b


def penalty_of(D, x, fake=None, **penalty):
    """The penalty of D with these images."""
    batch = Batch(len(x), generator=torch.Generator().manual_seed(0))
    return PENALTIES.build(Spec("dragan", **penalty))(D, x, fake, batch)


FORMS = [{}, {"noise": "normal", "size": 0.01}]


@pytest.mark.parametrize("form", FORMS)
def test_penalty_of_linear_critics(form):
    torch.manual_seed(0)
    x, w = torch.rand(6, 1, 4, 4), torch.randn(1, 4, 4)
    assert penalty_of(Critic(w), x, **form).item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)
    D = Critic(torch.zeros(1, 4, 4))
    value = penalty_of(D, x, **form)
    value.backward()
    assert value.item() == 1 and D.w.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_penalty_depends_on_reals_only(form):
    """It does not depend on the fakes; it has a gradient in D's weights and none in G's."""
    torch.manual_seed(0)
    D = NETWORKS.build(Spec("mlp-discriminator", hidden=(8,), activation="tanh"), defaults=MNIST)
    x = torch.rand(6, 1, 28, 28)
    G = NETWORKS.build(Spec("mlp-generator", hidden=(4,)), defaults=MNIST)
    values = [penalty_of(D, x, fake, **form) for fake in (None, G(torch.randn(6, 100)), torch.zeros(9, 1, 28, 28))]
    assert values[0] == values[1] == values[2]
    values[1].backward()
    assert all(p.grad is None for p in G.parameters())
    assert all(m.weight.grad.abs().sum() > 0 for m in D.modules() if isinstance(m, torch.nn.Linear))


def test_uniform_noise_adds_less_than_half_a_standard_deviation():
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8)
    batch = Batch(64, generator=torch.Generator().manual_seed(0))
    penalty = PENALTIES.build("dragan")
    s, noise = x.std(correction=0), penalty.near(x, batch) - x
    assert noise.min() >= 0 and noise.max() < s / 2
    assert noise.mean() == pytest.approx(s.item() / 8, rel=0.15)  # 1/2 times the mean of alpha times the mean of v
    largest = noise.amax((1, 2, 3))  # one alpha per sample
    assert largest.min() < 0.1 * s and largest.max() > 0.4 * s
    gray = torch.full((64, 1, 8, 8), 0.5)
    assert torch.equal(penalty.near(gray, batch), gray)


def test_normal_noise_is_centered():
    x = torch.rand(64, 1, 28, 28)
    form = settings.find("dragan-mnist-gaussian").stages[0].game.kwargs["penalties"][0]
    noise = PENALTIES.build(form).near(x, Batch(64, generator=torch.Generator().manual_seed(0))) - x
    assert noise.var().item() * 255**2 == pytest.approx(10, rel=0.03)
    assert noise.mean().abs() < 1e-3
    with pytest.raises(ValueError, match=r"noise='unifrom'.*uniform.*normal"):
        PENALTIES.build(Spec("dragan", noise="unifrom"))
    with pytest.raises(ValueError, match=r"size=None: must be .* for noise='normal'"):
        PENALTIES.build(Spec("dragan", noise="normal"))


def test_losses_at_chance():
    pair, zero = LOSSES.build("non-saturating"), torch.zeros(4)
    assert pair.d(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert pair.g(None, zero).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name, lr", [("dragan-mnist", 1e-4), ("dragan-fashion-mnist", 2e-4)])
def test_plain_loop(plain_loop, name, lr):
    """The notebook: D's step, with the gradient of its logit near reals, then G's; fresh noise in each step."""
    tiny = {"hidden": (12,)} if name == "dragan-mnist" else {"width": 2}
    loop = plain_loop(name, {"G": {"latent": 5, **tiny}, "D": tiny}, batch=10, eps=EPS)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.9), eps=EPS) for net in (G, D))
    for _ in loop.rounds():
        x, fake = loop.real()["x"], G(2 * loop.rand(5) - 1).detach()
        assert x.min() >= 0 and x.max() <= 1
        spread = ((x - x.mean()) ** 2).mean().sqrt()
        perturbed = x + 0.5 * spread * loop.rand(1, 28, 28)
        near = (x + loop.rand(1, 1, 1) * (perturbed - x)).requires_grad_()
        (slope,) = torch.autograd.grad(D(near).sum(), near, create_graph=True)
        penalty = ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        loss = -D(x).sigmoid().log().mean() - (1 - D(fake).sigmoid()).log().mean() + 10 * penalty
        opt_D.zero_grad()
        loss.backward()
        opt_D.step()
        opt_G.zero_grad()
        (-D(G(2 * loop.rand(5) - 1)).sigmoid().log().mean()).backward()
        opt_G.step()
    loop.compare(G=G, D=D)
