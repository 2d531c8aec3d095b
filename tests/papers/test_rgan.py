"""Relativistic GANs (arXiv 1807.00734) against the paper and the author's code."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from zoo import settings
from zoo.registry import LOSSES, NETWORKS, Spec

EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps
CIFAR = {"channels": 3, "resolution": 32}


def recipe_of(name):
    return settings.find(f"rgan-cifar10{name}")


def pair(name):
    return LOSSES.build(recipe_of(name).stages[0].game.kwargs["loss"])


def test_parameter_counts():
    with torch.device("meta"):
        nets = {n: NETWORKS.build(s, defaults=CIFAR) for n, s in recipe_of("").networks.items()}
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in nets.items()}
    assert count == {"G": 3_812_355, "D": 2_935_873}


def test_initial_deviations():
    """Convolutions N(0, .02), gains N(1, .02); linear layers and all biases as PyTorch has them, U(+-1 /
    sqrt(inputs))."""
    torch.manual_seed(0)
    G, D = (NETWORKS.build(s.replace(width=32), defaults=CIFAR) for s in recipe_of("").networks.values())
    for m in [*G.modules(), *D.modules()]:
        if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert m.bias.any()
        elif isinstance(m, torch.nn.BatchNorm2d):
            assert m.weight.mean().item() == pytest.approx(1, abs=0.02) and m.weight.std().item() < 0.04
        elif isinstance(m, torch.nn.Linear):
            bound = m.in_features**-0.5
            assert m.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert m.weight.abs().max() <= bound and m.bias.abs().max() <= bound
    with pytest.raises(ValueError, match=r"init='troch'.*normal or torch"):
        NETWORKS.build(Spec("sngan-cnn-generator", init="troch"))


def test_last_layer_has_no_spectral_normalization():
    D = NETWORKS.build(recipe_of("").networks["D"].replace(width=2), defaults=CIFAR)
    assert [n for n, _ in D.named_buffers()] == [f"convs.{i}.u" for i in range(7)]


# The losses, from their definitions


def rs(a, b):
    return -logsigmoid(a - b).mean()


def ras(a, b):
    return 0.5 * (-logsigmoid(a - b.mean()).mean() - logsigmoid(-(b - a.mean())).mean())


def rals(a, b):
    return 0.5 * (((a - b.mean() - 1) ** 2).mean() + ((b - a.mean() + 1) ** 2).mean())


def rahinge(a, b):
    return 0.5 * ((1 - (a - b.mean())).clamp(min=0).mean() + (1 + (b - a.mean())).clamp(min=0).mean())


LOSS = {"-rs": rs, "": ras, "-rals": rals, "-rahinge": rahinge}
every_loss = pytest.mark.parametrize("name", LOSS)


@every_loss
def test_losses(name):
    """D's loss is the paper's, and G's is D's with the roles exchanged."""
    torch.manual_seed(0)
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    losses = pair(name)
    assert losses.relative
    assert losses.d(real, fake).item() == pytest.approx(LOSS[name](real, fake).item(), abs=1e-6)
    assert losses.g(real, fake).item() == pytest.approx(LOSS[name](fake, real).item(), abs=1e-6)
    zero = torch.zeros(4)
    assert losses.d(zero, zero).item() == pytest.approx(math.log(2) if name in ("-rs", "") else 1.0)


@every_loss
def test_losses_depend_on_differences_of_scores(name):
    """A constant added to C changes nothing: the last bias of D has no gradient."""
    torch.manual_seed(0)
    real, fake = torch.randn(2, 9)
    losses, c = pair(name), torch.zeros((), requires_grad=True)
    for loss in (losses.d, losses.g):
        assert loss(real + 2, fake + 2).item() == pytest.approx(loss(real, fake).item(), abs=1e-5)
        (gradient,) = torch.autograd.grad(loss(real + c, fake + c), c)
        assert abs(gradient.item()) < 1e-6


@every_loss
def test_gradient_of_G_depends_on_the_reals(name):
    torch.manual_seed(0)
    real, fake = torch.randn(2, 9, requires_grad=True)
    losses = pair(name)
    by_fake = torch.autograd.grad(losses.g(real, fake), fake)[0]
    other = torch.autograd.grad(losses.g(real + torch.linspace(0, 2, 9), fake), fake)[0]
    assert not torch.allclose(by_fake, other)
    expected = torch.autograd.grad(LOSS[name](fake, real), fake)[0]
    torch.testing.assert_close(by_fake, expected)


def test_pairs_and_averages_are_equal_for_one_sample():
    real, fake = torch.randn(2, 1)
    assert pair("-rs").d(real, fake).item() == pytest.approx(pair("").d(real, fake).item())


def test_wasserstein_is_relativistic():
    real, fake = torch.randn(2, 9)
    losses, plain = LOSSES.build(Spec("relativistic", base=Spec("wasserstein"))), LOSSES.build("wasserstein")
    assert losses.d(real, fake).item() == pytest.approx(plain.d(real, fake).item(), abs=1e-6)


def test_wrong_base_and_unequal_numbers():
    with pytest.raises(ValueError, match=r"loss.base='relativistic': must be a loss that is not relative"):
        LOSSES.build(Spec("relativistic", base=Spec("relativistic")))
    with pytest.raises(ValueError, match="as many fakes as reals, got 3 and 4"):
        pair("-rs").d(torch.zeros(4), torch.zeros(3))


@pytest.mark.parametrize("name", ["-rs-gp", "", "-rals", "-rahinge-5"])
def test_plain_loop(plain_loop, name):
    """The author's loop: D's steps, with the pass on reals first, then G's on fresh noise and reals, with the pass on
    fakes first. Each pass of D updates the vectors u of spectral normalization."""
    critic, gp = (5 if name.endswith("-5") else 1), "gp" in name
    loss = LOSS[name.removesuffix("-5").removesuffix("-gp")]
    lr, betas = (1e-4, (0.5, 0.9)) if critic == 5 else (2e-4, (0.5, 0.999))
    tiny = {"G": {"width": 2, "latent": 6}, "D": {"width": 2}}
    loop = plain_loop(f"rgan-cifar10{name}", tiny, channels=3, size=32, batch=6, eps=EPS)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=betas, eps=EPS) for net in (G, D))
    for _ in loop.rounds():
        for _ in range(critic):
            x, fake = loop.real()["x"], G(loop.randn(6)).detach()
            c_real, c_fake = D(x), D(fake)
            loss_D = loss(c_real, c_fake)
            if gp:
                u = loop.rand(1, 1, 1)
                mixed = ((1 - u) * x + u * fake).requires_grad_()
                (gradient,) = torch.autograd.grad(D(mixed).sum(), mixed, create_graph=True)
                loss_D = loss_D + 10 * ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
            opt_D.zero_grad()
            loss_D.backward()
            opt_D.step()
        x, fake = loop.real()["x"], G(loop.randn(6))
        c_fake, c_real = D(fake), D(x)
        opt_G.zero_grad()
        loss(c_fake, c_real).backward()
        opt_G.step()
    loop.compare(G=G, D=D)
    buffers = dict(loop.run.game.D.named_buffers())
    for key, u in D.named_buffers():
        assert (u - buffers[key]).abs().max() < 1e-6, key


def test_every_setting_has_two_passes():
    assert all(
        settings.find(n).stages[0].game.kwargs["joined"] == "never" for n in settings.names() if n.startswith("rgan-")
    )
