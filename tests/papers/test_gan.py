"""GAN (arXiv 1406.2661) against its paper and released configuration."""

import math

import pytest
import torch
from helpers.play import count

from zoo import settings
from zoo.registry import LOSSES, NETWORKS, Spec

MNIST_G = Spec("mlp-generator", hidden=(1200, 1200), output="sigmoid", init="uniform", scale=0.05)
CIFAR_G = Spec(
    "mlp-generator",
    hidden=(8000, 8000),
    activation=("relu", "sigmoid"),
    init="uniform",
    scale=(0.05, 0.05, 0.5),
)
MNIST, CIFAR = {"channels": 1, "resolution": 28}, {"channels": 3, "resolution": 32}


def test_parameter_counts():
    assert count(MNIST_G, **MNIST) == 2_503_984
    assert count("maxout-discriminator", **MNIST) == 1_231_441
    assert count(CIFAR_G, **CIFAR) == 89_395_072
    assert count(Spec("maxout-discriminator", units=1600), **CIFAR) == 37_393_601


def test_shapes_and_ranges():
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    assert [m.out_features for m in G.modules() if isinstance(m, torch.nn.Linear)] == [1200, 1200, 784]
    x = G(torch.randn(8, 100))
    assert x.shape == (8, 1, 28, 28)
    assert x.min() > 0 and x.max() < 1
    assert D(x).shape == (8,)
    points = NETWORKS.build("maxout-discriminator", defaults={"channels": 2, "resolution": 0})
    assert points(torch.randn(5, 2)).shape == (5,)


def test_initial_deviations():
    torch.manual_seed(0)
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    for net, scale in (G, 0.05), (D, 0.005):
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                assert not p.any()
            else:  # the deviation of U(-s, s) is s / sqrt(3)
                assert p.abs().max() <= scale
                assert p.std().item() == pytest.approx(scale / math.sqrt(3), rel=0.1)
    each = NETWORKS.build(CIFAR_G.replace(hidden=(50, 60)), defaults=CIFAR)
    scales = [m.weight.abs().max().item() for m in each.modules() if isinstance(m, torch.nn.Linear)]
    assert scales == pytest.approx([0.05, 0.05, 0.5], rel=0.01)


def test_output_bias_from_the_mean_image():
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    mean = torch.rand(1, 28, 28)
    mean[0, 0, 0] = 0.0  # a pixel that is always black: clipped to 1e-7
    G.set_output_mean(mean)
    bias = G.layers[-2].bias.detach()
    assert torch.allclose(bias.sigmoid().view(1, 28, 28), mean.clamp(1e-7, 1 - 1e-7), atol=1e-6)
    linear = NETWORKS.build(CIFAR_G.replace(hidden=(5, 6)), defaults=CIFAR)
    with pytest.raises(ValueError, match=r"output=None: must be output='sigmoid'"):
        linear.set_output_mean(torch.rand(3, 32, 32))


def test_maxout_is_the_maximum_of_its_pieces_and_convex():
    D = NETWORKS.build(Spec("maxout-discriminator", units=3, pieces=5, scale=1.0), defaults=MNIST).double()
    layer = D.layers[1]
    x, y = torch.rand(2, 6, 784, dtype=torch.float64)
    W, b = layer.linear.weight.view(3, 5, 784), layer.linear.bias.view(3, 5)
    expected = (torch.einsum("nd,kpd->nkp", x, W) + b).max(2).values
    assert torch.allclose(layer(x), expected)
    assert (layer((x + y) / 2) <= (layer(x) + layer(y)) / 2 + 1e-12).all()


def test_dropout_of_the_discriminator():
    """.2 of the pixels and .5 of the hidden units, the others scaled up; none in eval mode; none in G."""
    D = NETWORKS.build("maxout-discriminator", defaults=MNIST)
    drops = [m for m in D.modules() if isinstance(m, torch.nn.Dropout)]
    assert [d.p for d in drops] == [0.2, 0.5, 0.5]
    ones = drops[0](torch.ones(100_000))
    assert set(ones.unique().tolist()) == {0.0, 1.25}
    x = torch.rand(4, 1, 28, 28)
    assert not torch.equal(D(x), D(x))
    assert torch.equal(D.eval()(x), D(x))
    G = NETWORKS.build(MNIST_G, defaults=MNIST)
    assert not any(isinstance(m, torch.nn.Dropout) for m in G.modules())


def test_losses():
    """At logits 0 D's loss is log 2 (half of 2 log 2) and G's log 2; the gradient of G's loss is D - 1, which is large
    if D detects the fake; that of the minimax form is -D."""
    l = torch.zeros(4, requires_grad=True)
    pair = LOSSES.build(Spec("non-saturating", scale=0.5))
    assert pair.d(l, l).item() == pytest.approx(math.log(2))
    assert pair.g(None, l).item() == pytest.approx(math.log(2))
    l = torch.tensor([-3.0, 0.0, 2.0], requires_grad=True)
    (g,) = torch.autograd.grad(3 * pair.g(None, l), l)
    assert torch.allclose(g, l.sigmoid() - 1)
    (g,) = torch.autograd.grad(3 * LOSSES.build("minimax").g(None, l), l)
    assert torch.allclose(g, -l.sigmoid())


def test_value_of_the_game_is_a_divergence():
    """For p and q on a finite set the best D is p/(p+q), and the value 2 JSD(p|q) - log 4."""
    p, q = torch.tensor([0.5, 0.3, 0.2, 1e-9]), torch.tensor([0.1, 0.3, 0.2, 0.4])
    loss, large = LOSSES.build("minimax").d, torch.tensor(200.0)  # a score whose term in the loss is 0

    def value(logit):
        real = sum(p[i] * loss(logit[i], -large) for i in range(4))
        fake = sum(q[i] * loss(large, logit[i]) for i in range(4))
        return -(real + fake)

    best = (p / q).log()
    m = (p + q) / 2
    jsd = 0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()
    assert value(best).item() == pytest.approx(2 * jsd.item() - math.log(4), abs=1e-5)
    for shift in (0.1, -0.1):
        assert value(best + shift) < value(best)


def test_schedules():
    """The learning rate is divided by 1.000004 after each batch of 100, down to 1e-6; momentum rises over epochs 1 to
    250."""
    momentum, lr = settings.find("gan-mnist").stages[0].schedules
    assert lr.at(100 * 50_000) == pytest.approx(0.1 / 1.000004**50_000)
    assert lr.at(10**9) == 1e-6
    assert [momentum.at(50_000 * e) for e in (0, 1, 125.5, 250, 400)] == pytest.approx([0.5, 0.5, 0.6, 0.7, 0.7])


def test_plain_loop(plain_loop):
    """Simultaneous steps from one forward pass, with the same noise, dropout masks and old weights; classical
    momentum."""
    tiny = {"G": {"latent": 5, "hidden": (12, 12), "scale": 0.5}, "D": {"units": 6, "scale": 0.2}}
    loop = plain_loop("gan-mnist", tiny, batch=10)
    G, D = loop.copy("G"), loop.copy("D")
    mean = (loop.images.double() / 255).mean(0).clamp(1e-7, 1 - 1e-7)
    G.layers[-2].bias.data = (mean / (1 - mean)).log().flatten()
    lr, momentum = 0.1, 0.5
    velocity = {p: torch.zeros_like(p) for net in (G, D) for p in net.parameters()}
    for _ in loop.rounds():
        x, z = loop.real()["x"], (2 * loop.rand(5) - 1) * math.sqrt(3)
        real, fake = D(torch.cat([x, G(z)])).chunk(2)  # one pass: one draw of dropout masks
        loss_D = 0.5 * (-real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean())
        loss_G = -fake.sigmoid().log().mean()
        gradients = [
            *zip(D.parameters(), torch.autograd.grad(loss_D, D.parameters(), retain_graph=True), strict=True),
            *zip(G.parameters(), torch.autograd.grad(loss_G, G.parameters()), strict=True),
        ]
        with torch.no_grad():
            for p, g in gradients:
                velocity[p] = momentum * velocity[p] - lr * g
                p += velocity[p]
        lr /= 1.000004 ** (10 / 100)  # the test's batches are of 10
    loop.compare(G=G, D=D)
