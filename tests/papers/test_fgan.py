"""f-GAN (arXiv 1606.00709) against its paper: divergences, conjugates, output activations, bounds, networks, training
loop."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from zoo import settings
from zoo.data import open_data
from zoo.losses import DIVERGENCES
from zoo.registry import LOSSES, NETWORKS, Spec

MNIST = {"channels": 1, "resolution": 28}
every_divergence = pytest.mark.parametrize("name", DIVERGENCES)
smooth_divergences = pytest.mark.parametrize("name", [n for n in DIVERGENCES if n != "total-variation"])
DOMAIN = {"reverse-kl": 0.0, "gan": 0.0, "neyman": 1.0, "hellinger": 1.0, "jensen-shannon": math.log(2)}  # t below this
AT_ONE = {"kl": 1.0, "reverse-kl": -1.0, "gan": -math.log(2)}  # f'(1), else 0


def derivative(f, u):
    u = u.detach().requires_grad_()
    return torch.autograd.grad(f(u).sum(), u)[0]


def score_of(name, t, low=-40.0, high=60.0):
    """V with output(V) = t, by bisection: the activation increases."""
    low, high = torch.full_like(t, low), torch.full_like(t, high)
    for _ in range(200):
        mid = (low + high) / 2
        above = DIVERGENCES[name].output(mid) > t
        low, high = torch.where(above, low, mid), torch.where(above, mid, high)
    return (low + high) / 2


def best(name, p, q):
    """The score at which the bound is tight."""
    if name == "total-variation":  # any number large enough, of the sign of p - q
        return 40.0 * (p - q).sign()
    return score_of(name, derivative(DIVERGENCES[name].f, p / q))


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


@every_divergence
def test_conjugate_is_the_supremum(name):
    """f*(t) = sup_u (u t - f(u)), by a search over u; f*' is the u of the maximum."""
    divergence = DIVERGENCES[name]
    t = divergence.output(torch.linspace(-1.9, 1.9, 9, dtype=torch.float64))
    u = torch.logspace(-6, 4, 400_001, dtype=torch.float64)
    values, at = (u * t[:, None] - divergence.f(u)).max(1)
    torch.testing.assert_close(divergence.conjugate(t), values, rtol=1e-5, atol=1e-5)
    if name != "total-variation":  # there u is anything up to the kink
        torch.testing.assert_close(derivative(divergence.conjugate, t), u[at], rtol=1e-3, atol=1e-5)


@every_divergence
def test_output_activation(name):
    """It is increasing, its values are in the domain of f*, and the closed form of f*(output(v)) is correct."""
    divergence, v = DIVERGENCES[name], torch.linspace(-5, 5, 201, dtype=torch.float64)
    t = divergence.output(v)
    assert (t.diff() > 0).all() and t.max() < DOMAIN.get(name, math.inf)
    if name == "total-variation":
        assert t.abs().max() <= 0.5
    torch.testing.assert_close(divergence.composed(v), divergence.conjugate(t))
    assert divergence.composed(torch.linspace(-30, 30, 101)).isfinite().all()


@every_divergence
def test_convex_and_zero_at_one(name):
    f, u = DIVERGENCES[name].f, torch.logspace(-3, 3, 500, dtype=torch.float64)
    assert f(doubles(1.0)).item() == pytest.approx(-math.log(4) if name == "gan" else 0.0, abs=1e-12)
    a, b = u[:-1], u[1:]
    assert (f((a + b) / 2) <= (f(a) + f(b)) / 2 + 1e-12).all()


@smooth_divergences
def test_threshold(name):
    """At p = q the best T is f'(1), and the bound is 0 (GAN: -log 4)."""
    divergence, one = DIVERGENCES[name], doubles(1.0)
    t = derivative(divergence.f, one)
    assert t.item() == pytest.approx(AT_ONE.get(name, 0.0), abs=1e-12)
    assert (t - divergence.conjugate(t)).item() == pytest.approx(-math.log(4) if name == "gan" else 0.0, abs=1e-12)


@every_divergence
def test_loss_at_zero(name):
    pair, zero = LOSSES.build(Spec("f-divergence", divergence=name)), torch.zeros(4)
    F = {"kl": -math.exp(-1), "gan": -math.log(4), "reverse-kl": 0.0}.get(name, 0.0)
    assert -pair.d(zero, zero).item() == pytest.approx(F, abs=1e-6)


@every_divergence
def test_bound_is_tight_on_finite_sets(name):
    """At T = f'(p/q) the bound equals the divergence, and it is lower for other V."""
    torch.manual_seed(0)
    p, q = torch.rand(2, 6, dtype=torch.float64).softmax(1)
    p, q = (p + 0.02) / 1.12, q.flip(0)
    divergence = DIVERGENCES[name]

    def bound(V):
        return (p * divergence.output(V) - q * divergence.composed(V)).sum().item()

    V = best(name, p, q)
    assert bound(V) == pytest.approx((q * divergence.f(p / q)).sum().item(), abs=1e-9)
    for _ in range(20):
        assert bound(V + 0.3 * torch.randn(6, dtype=torch.float64)) <= bound(V) + 1e-12


# On gaussian1d, against a normal that has all nine divergences from it (Neyman's needs variance below twice the data's,
# Pearson's above half of it).

MEAN, STD = 0.8, 0.55


def densities():
    x = torch.linspace(-4, 6, 20_001, dtype=torch.float64)
    p = open_data("gaussian1d").density(x[:, None])
    q = (-0.5 * ((x - MEAN) / STD) ** 2).exp() / (STD * math.sqrt(2 * math.pi))
    positive = (p > 1e-30) & (q > 1e-30)
    return x[positive], p[positive], q[positive], 10 / 20_000


def divergence_of(name):
    """The divergence of the two densities, integrated."""
    _, p, q, dx = densities()
    return (q * DIVERGENCES[name].f(p / q)).sum().item() * dx


def kl(m1, s1, m2, s2):
    return math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5


def test_divergences_of_normals():
    """The integrals equal the closed forms."""
    forward, reverse = kl(1.0, 0.5, MEAN, STD), kl(MEAN, STD, 1.0, 0.5)
    assert divergence_of("kl") == pytest.approx(forward, rel=1e-6)
    assert divergence_of("reverse-kl") == pytest.approx(reverse, rel=1e-6)
    assert divergence_of("jeffrey") == pytest.approx(forward + reverse, rel=1e-6)
    overlap = math.sqrt(2 * 0.5 * STD / (0.25 + STD**2)) * math.exp(-0.25 * (1 - MEAN) ** 2 / (0.25 + STD**2))
    assert divergence_of("hellinger") == pytest.approx(2 - 2 * overlap, rel=1e-6)
    assert divergence_of("gan") == pytest.approx(divergence_of("jensen-shannon") - math.log(4), abs=1e-9)


@every_divergence
def test_bound_is_tight_on_gaussian1d(name):
    """D's loss at the best V, on the data set's own samples and on those of the normal."""
    data = open_data("gaussian1d")
    real = data.block(0, 0)[:, 0].double()
    fake = MEAN + STD * torch.randn(65_536, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(x):
        p = data.density(x[:, None])
        q = (-0.5 * ((x - MEAN) / STD) ** 2).exp() / (STD * math.sqrt(2 * math.pi))
        return best(name, p, q)

    pair = LOSSES.build(Spec("f-divergence", divergence=name))
    V = score(real), score(fake)
    bound = -pair.d(*V).item()
    divergence = DIVERGENCES[name]
    error = (divergence.output(V[0]).var() / 65_536 + divergence.composed(V[1]).var() / 65_536).sqrt().item()
    assert bound == pytest.approx(divergence_of(name), abs=5 * error + 1e-5)
    assert error < 0.1 * abs(divergence_of(name)), "the standard error must be small"


@every_divergence
def test_a_network_learns_the_bound_on_gaussian1d(name):
    """A small V that maximizes F approaches the divergence from below."""
    torch.manual_seed(0)
    x, p, q, dx = (d[::20] if isinstance(d, torch.Tensor) else 20 * d for d in densities())
    divergence, V = DIVERGENCES[name], nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1)).double()

    def bound():
        v = V(x[:, None])[:, 0]
        return (p * divergence.output(v) - q * divergence.composed(v)).sum() * dx

    optimizer = torch.optim.LBFGS(V.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -bound()
        loss.backward()
        return loss

    start = bound().item()
    optimizer.step(closure)
    true = (q * divergence.f(p / q)).sum().item() * dx
    assert bound().item() <= true + 1e-6
    assert true - bound().item() < 0.1 * (true - start)


def test_gan_divergence_is_the_gan_loss():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 9)
    exact = LOSSES.build(Spec("f-divergence", divergence="gan"))
    other = LOSSES.build(Spec("f-divergence", divergence="gan", generator="alternative"))
    one, zero = torch.ones(9), torch.zeros(9)
    assert exact.d(real, fake).item() == pytest.approx((bce(real, one) + bce(fake, zero)).item())
    assert other.g(None, fake).item() == pytest.approx(bce(fake, one).item())
    assert exact.g(None, fake).item() == pytest.approx((1 - fake.sigmoid()).log().mean().item())


def test_wrong_names():
    with pytest.raises(ValueError, match=r"divergence='chi'.*kl, reverse-kl, pearson"):
        LOSSES.build(Spec("f-divergence", divergence="chi"))
    with pytest.raises(ValueError, match=r"generator='heuristic'.*exact or alternative"):
        LOSSES.build(Spec("f-divergence", generator="heuristic"))


def test_parameter_counts():
    with torch.device("meta"):
        nets = {n: NETWORKS.build(s, defaults=MNIST) for n, s in settings.find("fgan-mnist").networks.items()}
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in nets.items()}
    assert count == {"G": 2_508_784, "D": 246_481}


def test_layers():
    torch.manual_seed(0)
    G, D = (NETWORKS.build(s, defaults=MNIST) for s in settings.find("fgan-mnist").networks.values())
    kinds = [type(m).__name__ for m in G.layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "Sigmoid"]
    assert [type(m).__name__ for m in (*D.layers, D.head)] == ["Linear", "ELU"] * 2 + ["Linear"]
    for net, scale in (G, 0.05), (D, 0.005):
        for m in net.modules():
            if isinstance(m, nn.Linear):
                assert m.weight.abs().max() <= scale and not m.bias.any()
                assert m.weight.std().item() == pytest.approx(scale / math.sqrt(3), rel=0.1)


def test_classrooms():
    specs = settings.find("fgan-lsun-classroom").networks
    with torch.device("meta"):
        G, D = (NETWORKS.build(s, defaults={"resolution": 96}) for s in specs.values())
        x = G(torch.empty(2, 100))
        assert x.shape == (2, 3, 96, 96) and D(x).shape == (2,)
        assert D.features(x).shape == (2, 512 * 6 * 6)
        assert [m.out_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)] == [256, 128, 64, 3]
    assert sum(isinstance(m, nn.ELU) for m in D.modules()) == 4
    with pytest.raises(ValueError, match=r"resolution=64.*6 times a power of two"):
        NETWORKS.build(Spec("dcgan-generator", side=6))
    with pytest.raises(ValueError, match=r"activation='selu'.*'elu'"):
        NETWORKS.build(Spec("dcgan-discriminator", activation="selu"))


@pytest.mark.parametrize(
    "name",
    [
        "kl",
        "reverse-kl",
        "pearson",
        "neyman",
        "hellinger",
        "jeffrey",
        "jensen-shannon",
        "gan",
        "total-variation",
        "small",
    ],
)
def test_plain_loop(plain_loop, name):
    """Algorithm 1: one backward pass gives both gradients; V maximizes and G minimizes the bound, from the same old
    weights."""
    tiny = {"G": {"latent": 5, "hidden": (12, 12), "scale": 0.5}, "D": {"hidden": (8, 8), "scale": 0.2}}
    loop = plain_loop("fgan-mnist" + ("" if name == "kl" else f"-{name}"), tiny, batch=10, eps=1e-4)
    G, V = loop.copy("G"), loop.copy("D")
    optimizers = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=1e-4) for net in (G, V)]

    def jeffrey(t):  # from the tangent at u with log u + 1 - 1/u = t, by bisection
        low, high = torch.full_like(t, 1e-9), torch.full_like(t, 1e9)
        for _ in range(300):
            u = (low + high) / 2
            above = u.log() + 1 - 1 / u > t
            low, high = torch.where(above, low, u), torch.where(above, u, high)
        u = u.detach()
        return u * t - (u - 1) * u.log()

    activation, conjugate = {
        "kl": (lambda v: v, lambda t: torch.exp(t - 1)),
        "reverse-kl": (lambda v: -torch.exp(-v), lambda t: -1 - torch.log(-t)),
        "pearson": (lambda v: v, lambda t: t**2 / 4 + t),
        "neyman": (lambda v: 1 - torch.exp(-v), lambda t: 2 - 2 * torch.sqrt(1 - t)),
        "hellinger": (lambda v: 1 - torch.exp(-v), lambda t: t / (1 - t)),
        "jeffrey": (lambda v: v, jeffrey),
        "jensen-shannon": (
            lambda v: math.log(2) - torch.log(1 + torch.exp(-v)),
            lambda t: -torch.log(2 - torch.exp(t)),
        ),
        "gan": (lambda v: -torch.log(1 + torch.exp(-v)), lambda t: -torch.log(1 - torch.exp(t))),
        "total-variation": (lambda v: 0.5 * torch.tanh(v), lambda t: t),
        "small": (lambda v: math.log(2) - torch.log(1 + torch.exp(-v)), lambda t: -torch.log(2 - torch.exp(t))),
    }[name]
    for _ in loop.rounds():
        x, z = loop.real()["x"], 2 * loop.rand(5) - 1
        fake = G(z)
        T_real, T_fake = activation(V(x)), activation(V(fake))
        F = T_real.mean() - conjugate(T_fake).mean()
        loss_G = -T_fake.mean() if name == "small" else F
        by_G = torch.autograd.grad(loss_G, list(G.parameters()), retain_graph=True)
        by_V = torch.autograd.grad(-F, list(V.parameters()))
        for net, gradients, optimizer in zip((G, V), (by_G, by_V), optimizers, strict=True):
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    loop.compare(G=G, D=V)
