"""BiGAN (arXiv 1605.09782) against its paper and the authors' code."""

import math

import pytest
import torch
from helpers.play import count
from torch import nn

from zoo import recipe as recipes
from zoo import settings
from zoo.game import Batch
from zoo.registry import GAMES, LOSSES, NETWORKS, Spec

MNIST, RGB = {"channels": 1, "resolution": 28}, {"channels": 3, "resolution": 64}
D_HEAD = {"mlp-discriminator": "l3", "discriminator": "head"}


def test_parameter_counts():
    assert count("bigan-mlp-generator", **MNIST) == 1_953_792
    assert count("bigan-mlp-encoder", **MNIST) == 1_902_592
    assert count("bigan-mlp-discriminator", **MNIST) == 1_903_616


def test_parameter_counts_of_imagenet():
    """The sum over convolutions, maps of z (200 numbers) and norms."""
    codes = sum((200 + 2) * m for m in (256, 128, 64))
    ups = 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    first = (200 + 2) * 512 * 16  # batch norm of each unit
    assert count("bigan-generator", **RGB) == first + codes + ups == 6_050_880
    codes = sum((200 + 2) * m for m in (128, 256, 512))
    assert count("bigan-discriminator", **RGB) == 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + codes + 512 * 16
    alexnet = 3 * 96 * 121 + 48 * 256 * 25 + 256 * 384 * 9 + 192 * 384 * 9 + 192 * 256 * 9
    norms = 2 * (256 + 384 + 384 + 256)
    assert count("bigan-encoder", **RGB) == alexnet + norms + 256 * 16 * 200


def build(kind, **sizes):
    facts = RGB if not kind.startswith("mlp") else MNIST
    return NETWORKS.build(Spec(f"bigan-{kind}", **sizes), defaults=facts)


@pytest.mark.parametrize("family", ["mlp-", ""])
def test_shapes_and_ranges(family):
    torch.manual_seed(0)
    size = {"hidden": 16} if family else {"width": 4}
    G, D = build(family + "generator", latent=5, **size), build(family + "discriminator", latent=5, **size)
    E = build(family + "encoder", latent=5, **(size if family else {"widths": (4, 6, 8, 8, 6)}))
    z = torch.rand(6, 5) * 2 - 1
    x = G(z)
    low, shape = (0, (6, 1, 28, 28)) if family else (-1, (6, 3, 64, 64))
    assert x.shape == shape and x.min() > low and x.max() < 1
    if not family:
        assert x.min() < 0
        assert isinstance(G.norm, nn.BatchNorm1d) and G.norm.num_features == 8 * 4 * 16, "batch norm of each unit"
        sides = []
        for m in E.convs:
            m.register_forward_hook(lambda m, i, out: sides.append(out.shape[2]))
        E(x)
        assert sides == [16, 8, 4, 4, 4] and E.features(x).shape == (6, 6 * 16)
    code = E(100 * x)
    assert code.shape == (6, 5) and code.abs().max() <= 1
    assert D(x, z).shape == (6,)
    nn.init.normal_(D.get_submodule(D_HEAD[family + "discriminator"]).weight)  # it starts at 0
    assert (D(x, z) != D(x, z.roll(1, 0))).all(), "D depends on the code"
    assert not any(m.bias is not None for net in (G, D, E) for m in net.modules()
                   if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)))  # fmt: skip


@pytest.mark.parametrize("kind", D_HEAD)
def test_discriminator_starts_at_chance(kind):
    """Its last layer starts at 0: the first losses are log 2, as in the authors' log."""
    torch.manual_seed(0)
    D = build(kind, latent=5)
    x, z = torch.rand(4, *((1, 28, 28) if kind.startswith("mlp") else (3, 64, 64))), torch.rand(4, 5)
    assert torch.equal(D(x, z), torch.zeros(4))
    D(x, z).sum().backward()
    assert D.get_submodule(D_HEAD[kind]).weight.grad.any(), "the first step changes it"


@pytest.mark.parametrize(
    "kind",
    ["mlp-generator", "mlp-encoder", "mlp-discriminator", "generator", "discriminator", "encoder", "small-encoder"],
)
def test_initial_deviations(kind):
    torch.manual_seed(0)
    net = build(kind)
    for name, m in net.named_modules():
        if name == D_HEAD.get(kind):
            assert not m.weight.any()
        elif isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            scale = 0.5 if name.startswith("codes") else 0.02
            assert m.weight.std().item() == pytest.approx(scale, rel=0.1)
        elif isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert m.eps == 1e-8 and m.affine != kind.startswith("mlp")


def test_codes_enter_later_layers():
    """G's second layer takes z again; D's first layer takes the image only."""
    torch.manual_seed(0)
    G, D = build("mlp-generator", hidden=8, latent=3).eval(), build("mlp-discriminator", hidden=8, latent=3).eval()
    z = torch.randn(4, 3)
    h = nn.functional.linear((G.l1(z) / (1 + 1e-8) ** 0.5).relu(), G.l2.weight) + z @ G.z2.weight.T
    x = nn.functional.linear((h / (1 + 1e-8) ** 0.5).relu(), G.l3.weight).sigmoid()
    assert torch.allclose(G(z).flatten(1), x, atol=1e-6)
    assert D.l1.in_features == 784 and D.z2.in_features == 3


def test_permutation_of_pixels():
    E, order = build("mlp-encoder", hidden=8, latent=3).eval(), torch.randperm(784)
    x = torch.rand(5, 1, 28, 28)
    before = E(x)
    with torch.no_grad():
        E.l1.weight.copy_(E.l1.weight[:, order].clone())
    assert torch.allclose(E(x.flatten(1)[:, order].view_as(x)), before, atol=1e-6)


def test_losses():
    """At logits 0 both losses are log 2; swapping the labels swaps the pairs."""
    loss = LOSSES.build(Spec("non-saturating", scale=0.5))
    zero, r, f = torch.zeros(4), torch.randn(4), torch.randn(4)
    assert loss.d(zero, zero).item() == pytest.approx(math.log(2))
    swapped = 0.5 * (-(1 - r.sigmoid()).log().mean() - f.sigmoid().log().mean())
    assert loss.d(f, r).item() == pytest.approx(swapped.item(), rel=1e-5)


def test_value_of_the_game_is_a_divergence():
    """For joint distributions p (x, E(x)) and q (G(z), z) on a finite set the best D is p / (p + q) and the value
    2 JSD(p | q) - log 4; d is minus half of it."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    loss, large = LOSSES.build(Spec("non-saturating", scale=0.5)).d, torch.tensor(200.0)

    def value(logit):
        return -2 * sum(p[i] * loss(logit[i], -large) + q[i] * loss(large, logit[i]) for i in range(3))

    best, m = (p / q).log(), (p + q) / 2
    jsd = 0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()
    assert value(best).item() == pytest.approx(2 * jsd.item() - math.log(4), abs=1e-5)
    for shift in (0.1, -0.1):
        assert value(best + shift) < value(best)


def test_gradients_of_the_pairs():
    """(G(z), z) has no gradient in E and (x, E(x)) none in G; the joint loss has one in both networks."""
    torch.manual_seed(0)
    sizes = {"hidden": 8, "latent": 3}
    networks = {
        n: build(f"mlp-{k}", **sizes) for n, k in {"G": "generator", "E": "encoder", "D": "discriminator"}.items()
    }
    game = GAMES.build(Spec("bigan", loss=Spec("non-saturating", scale=0.5)), networks)
    nn.init.normal_(game.D.l3.weight)  # with the initial 0 all gradients of E and G are 0
    batch = Batch(6, generator=torch.Generator().manual_seed(0))
    batch["x"] = torch.rand(6, 1, 28, 28)
    losses = game.losses(batch)
    assert losses["G"] is losses["E"]
    x, z = batch["x"], 2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) - 1
    single = {
        "E": 0.5 * nn.functional.softplus(game.D(x, game.E(x))).mean(),
        "G": 0.5 * nn.functional.softplus(-game.D(game.G(z), z)).mean(),
    }
    for name, loss in single.items():
        net = getattr(game, name)
        both = torch.autograd.grad(losses[name], net.parameters(), retain_graph=True)
        own = torch.autograd.grad(loss, net.parameters(), retain_graph=True)
        for a, b in zip(both, own, strict=True):
            assert torch.allclose(a, b, atol=1e-7) and a.any()


def test_learning_rate():
    """The learning rate is constant for half of the run, then falls to a hundredth."""
    (schedule,) = settings.find("bigan-mnist").stages[0].schedules
    epoch = 60_000
    assert [schedule.at(epoch * e) for e in (0, 200, 300, 400)] == pytest.approx([2e-4, 2e-4, 2e-5, 2e-6])


def test_missing_encoder():
    with pytest.raises(ValueError, match=r"networks\.E: .*G, E and D, got G, D"):
        GAMES.build("bigan", {"G": build("mlp-generator"), "D": build("mlp-discriminator")})


@pytest.mark.parametrize("name", ["bigan-mnist", "bigan-imagenet", "bigan-cifar10"])
def test_plain_loop(plain_loop, name):
    """Simultaneous steps of all three from one forward pass: Adam with L2 added to the gradients."""
    if name == "bigan-mnist":
        loop = plain_loop(name, {n: {"hidden": 12, "latent": 5} for n in "GED"}, batch=10)
    else:
        tiny = {"G": {"width": 2, "latent": 5}, "D": {"width": 2, "latent": 5}}
        small = name == "bigan-cifar10"
        tiny["E"] = {"latent": 5, **({"width": 2} if small else {"widths": (2, 4, 4, 4, 4)})}
        data = recipes.Data(flip=True) if small else recipes.Data(load=36)
        loop = plain_loop(name, tiny, channels=3, size=32 if small else 36, resolution=32, batch=10, data=data)
    G, E, D = (loop.copy(n) for n in "GED")
    both = [*G.parameters(), *E.parameters()]
    opt_D, opt_GE = (
        torch.optim.Adam(p, lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5) for p in (D.parameters(), both)
    )
    for _ in loop.rounds():
        x, z = loop.real()["x"], 2 * loop.rand(5) - 1
        p, q = D(x, E(x)).sigmoid(), D(G(z), z).sigmoid()
        loss_D = 0.5 * (-p.log().mean() - (1 - q).log().mean())
        loss_GE = 0.5 * (-(1 - p).log().mean() - q.log().mean())
        for opt, loss, retain in (opt_D, loss_D, True), (opt_GE, loss_GE, False):
            params = opt.param_groups[0]["params"]
            for w, g in zip(params, torch.autograd.grad(loss, params, retain_graph=retain), strict=True):
                w.grad = g
        opt_D.step()
        opt_GE.step()
    loop.compare(G=G, E=E, D=D)
