"""VAE/GAN (arXiv 1512.09300) against its paper and the authors' code."""

import math

import pytest
import torch
from helpers.play import count
from torch import nn

from zoo import settings
from zoo.game import Batch
from zoo.registry import GAMES, NETWORKS, Spec

CELEBA, CIFAR = settings.find("vaegan-celeba"), settings.find("vaegan-cifar10")
RGB64, RGB32 = {"channels": 3, "resolution": 64}, {"channels": 3, "resolution": 32}


@pytest.mark.parametrize(
    ("recipe", "facts", "E", "G", "D"),
    [
        (CIFAR, RGB32, 5_226_048 + 524_800, 3_005_475, 4_047_873),
        (CELEBA, RGB64, 17_808_960 + 262_400, 4_693_155, 10_953_857),
    ],
    ids=["cifar10", "celeba"],
)
def test_parameter_counts(recipe, facts, E, G, D):
    assert {n: count(spec, **facts) for n, spec in recipe.networks.items()} == {"E": E, "G": G, "D": D}


@pytest.mark.parametrize(
    ("recipe", "facts", "similarity"),
    [(CIFAR, RGB32, (192, 8, 8)), (CELEBA, RGB64, (256, 8, 8))],
    ids=["cifar10", "celeba"],
)
def test_shapes(recipe, facts, similarity):
    with torch.device("meta"):
        E, G, D = (NETWORKS.build(recipe.networks[n], defaults=facts) for n in "EGD")
        x = torch.empty(2, 3, facts["resolution"], facts["resolution"])
        mean, logvar = E(x)
        assert mean.shape == logvar.shape == (2, G.latent)
        assert G(mean).shape == x.shape
        assert D.similarity(x).shape == (2, *similarity)
        assert D.features(x).shape == (2, 512) and D(x).shape == (2,)


TINY = {
    "E": {"latent": 6, "widths": (2, 3, 4), "hidden": 8},
    "G": {"latent": 6, "widths": (4, 4, 3, 2)},
    "D": {"widths": (2, 3, 4, 5), "hidden": 8, "depth": 2},
}


def test_layers():
    """The similarity layer is a convolution's output before its norm; the places of norms, biases and activations."""
    E, G, D = (NETWORKS.build(Spec(f"vaegan-{k}", **TINY[n]), defaults=RGB32)
               for n, k in {"E": "encoder", "G": "decoder", "D": "discriminator"}.items())  # fmt: skip
    x = G(torch.randn(4, 6))
    assert x.shape == (4, 3, 32, 32) and x.abs().max() < 1
    outputs = []
    D.convs[5].register_forward_hook(lambda m, i, out: outputs.append(out.clone()))
    assert torch.equal(D.similarity(x), outputs[0]) and isinstance(D.convs[5], nn.Conv2d)
    assert outputs[0].shape == (4, 4, 8, 8) and outputs[0].min() < 0
    assert D.convs[0].stride == (1, 1) and isinstance(D.convs[1], nn.ReLU)
    convs = [m for net in (E, G, D) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert all(m.kernel_size == (5, 5) for m in convs)
    assert [m.bias is not None for m in convs] == [False] * 6 + [True, True] + [False] * 3
    norms = [m for net in (E, G, D) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    # A norm's eps is 1e-6 after a convolution, the library's 1e-5 after a linear layer; all gains start at 1.
    assert all(m.eps == (1e-5 if isinstance(m, nn.BatchNorm1d) else 1e-6) and m.momentum == 0.1 for m in norms)
    assert all((m.weight == 1).all() for m in norms)
    assert [m.num_features for m in G.modules() if isinstance(m, nn.BatchNorm1d)] == [4 * 16], "batch norm of each unit"
    E.eval()
    assert torch.equal(E(x)[0], E(x)[0])
    with pytest.raises(ValueError, match=r"depth=4: must be from 1 to 3"):
        NETWORKS.build(Spec("vaegan-discriminator", depth=4))
    with pytest.raises(ValueError, match=r"resolution=28: must be a multiple of 8"):
        NETWORKS.build(Spec("vaegan-encoder", resolution=28))


def test_initial_weights():
    """Uniform with the inputs' fan; for transposed convolutions with the outputs', as in the library."""
    torch.manual_seed(0)
    for n in ("encoder", "decoder", "discriminator"):
        for m in NETWORKS.build(f"vaegan-{n}", defaults=RGB64).modules():
            if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                fan = m.in_features if isinstance(m, nn.Linear) else m.in_channels * 25
                if isinstance(m, nn.ConvTranspose2d):
                    fan = m.out_channels * 25
                limit = 1 / math.sqrt(3 * fan)
                assert limit * 0.95 < m.weight.abs().max() <= limit
                assert m.bias is None or not m.bias.any()


def game_of(loss=Spec("minimax", scale=0.5), **arguments):
    specs = {"E": "encoder", "G": "decoder", "D": "discriminator"}
    networks = {n: NETWORKS.build(Spec(f"vaegan-{k}", **TINY[n]), defaults=RGB32) for n, k in specs.items()}
    return GAMES.build(Spec("vaegan", loss=loss, **arguments), networks)


def batch_of(game, n=6):
    batch = Batch(n, generator=torch.Generator().manual_seed(3))
    batch["x"] = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    return batch


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)


def test_gradients_of_the_players():
    """E's loss has no adversarial term, D's no reconstruction; G's is weight * recon + (1 - weight) * adversarial."""
    torch.manual_seed(0)
    w = 0.25
    game = game_of(weight=w)
    parts = {}
    for weight in (0.0, 1.0):  # the adversarial part and the reconstruction part
        game.weight = weight
        parts[weight] = gradients(game.losses(batch_of(game))["G"][0], game.G)
    game.weight = w
    x = batch_of(game)
    losses = game.losses(x)
    for mixed, gan, recon in zip(gradients(losses["G"][0], game.G), parts[0.0], parts[1.0], strict=True):
        assert torch.allclose(mixed, w * recon + (1 - w) * gan, atol=1e-6)
    assert all(g is None for g in gradients(losses["D"][0], game.E))
    adversarial = 0.5 * (x.logs["cost/real"] + x.logs["cost/fake"])
    assert losses["D"][0].item() == pytest.approx(adversarial.item(), rel=1e-6), "no reconstruction in D's loss"
    assert losses["E"].item() == pytest.approx((x.logs["kl"] + x.logs["recon"]).item(), rel=1e-6)
    game.weight = 0.0  # G's adversarial part has no gradient in E
    assert all(g is None or not g.any() for g in gradients(game.losses(batch_of(game))["G"][0], game.E))


def test_losses_of_the_published_settings():
    """G's loss saturates; the two parts of D's have weight 1/2 each."""
    for recipe in CELEBA, CIFAR:
        assert recipe.stages[0].game.kwargs["loss"] == Spec("minimax", scale=0.5)


def test_other_losses():
    """Any adversarial loss; with the non-saturating one G's gradient is large if D is confident."""
    torch.manual_seed(0)
    size = {}
    for loss in "minimax", "non-saturating", "hinge", "least-squares":
        game = game_of(loss=Spec(loss), weight=0.0)
        with torch.no_grad():
            game.D.head.bias.fill_(-12.0)
        batch = batch_of(game)
        losses = game.losses(batch)
        assert all(value.isfinite() for value, _ in (losses["D"], losses["G"]))
        size[loss] = sum(g.abs().sum().item() for g in gradients(losses["G"][0], game.G) if g is not None)
    assert size["non-saturating"] > 1e3 * size["minimax"] > 0


def test_kl():
    class Fixed(nn.Module):
        def __init__(self, mean, logvar):
            super().__init__()
            self.values = nn.Parameter(torch.tensor([mean, logvar]))

        def forward(self, x):
            return self.values[0].expand(len(x), 6), self.values[1].expand(len(x), 6)

    game = game_of()
    for mean, logvar, expected in (0.0, 0.0, 0.0), (1.0, 0.0, 3.0), (0.0, 1.0, 3 * (math.e - 2)):
        game.E = Fixed(mean, logvar)
        batch = batch_of(game)
        game.losses(batch)
        assert batch.logs["kl"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("real", "fake", "D", "G"),
    [
        (0.693, 0.693, 1, 1),  # at chance
        (0.5, 0.2, 0, 1),  # D is too good
        (0.2, 0.5, 0, 1),
        (0.7, 1.2, 1, 0),  # D is too bad
        (1.2, 0.7, 1, 0),
        (0.2, 1.2, 1, 1),  # both would skip
    ],
)
def test_gates(real, fake, D, G):
    gates = game_of().gates(torch.tensor(real), torch.tensor(fake))
    assert [g.item() for g in gates] == [D, G]


def test_learning_rate():
    """start - (start - end) t^0.75, over 64."""
    for recipe, epochs in (CELEBA, 250), (CIFAR, 200):
        (schedule,) = recipe.stages[0].schedules
        for t in (0.0, 0.1, 0.5, 0.93, 1.0):
            lr = (0.025 - t**0.75 * (0.025 - 1e-5)) / 64
            assert schedule.at(t * epochs * 250 * 64) == pytest.approx(lr, abs=0.01 * 0.025 / 64)


def test_weight_decay():
    """The library adds 2 * decay * w to the gradient of a sum over 64 images; our losses are means."""
    for recipe in CELEBA, CIFAR:
        assert {o.weight_decay for o in recipe.stages[0].optimizers.values()} == {2 * 1e-5 / 64}


def test_wrong_networks_and_arguments():
    with pytest.raises(ValueError, match=r"networks\.E: .*E, G and D"):
        GAMES.build("vaegan", {"G": nn.Identity()})
    with pytest.raises(ValueError, match=r"game\.weight=2: must be from 0 to 1"):
        game_of(weight=2)
    with pytest.raises(ValueError, match=r"networks\.D: .*similarity"):
        GAMES.build("vaegan", dict.fromkeys("EGD", nn.Identity()))


@pytest.mark.parametrize(
    ("equilibrium", "slack", "expected"),
    [(0.68, 0.35, (3, 3)), (0.72, 0.02, (3, 1)), (0.66, 0.02, (1, 2)), (0.55, 0.02, (0, 3))],
)
def test_plain_loop(plain_loop, equilibrium, slack, expected):
    """All losses from one forward pass, then the steps that are not skipped: RMSProp in plain operations; the library
    adds 2 * decay * w to the gradients."""
    loop = plain_loop("vaegan-cifar10", TINY, channels=3, size=32, batch=8,
               game={"weight": 0.01, "equilibrium": equilibrium, "slack": slack})  # fmt: skip
    E, G, D = (loop.copy(n) for n in "EGD")
    state = {p: torch.zeros_like(p) for net in (E, G, D) for p in net.parameters()}
    (schedule,) = settings.find("vaegan-cifar10").stages[0].schedules
    steps = {"E": 0, "G": 0, "D": 0}
    for r in loop.rounds():
        x = loop.real()["x"]
        mean, logvar = E(x)
        z = mean + (logvar / 2).exp() * loop.randn(6)
        kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum() / 8
        layer = D.similarity(torch.cat([x, G(z)]))
        recon = 0.5 * ((layer[:8] - layer[8:]) ** 2).sum() / 8
        x_p = G(loop.randn(6))
        p, q = D(torch.cat([x, x_p])).sigmoid().chunk(2)
        cost_r, cost_f = -p.log().mean(), -(1 - q).log().mean()
        skip_D = min(cost_r, cost_f) < equilibrium - slack
        skip_G = max(cost_r, cost_f) > equilibrium + slack
        if skip_D and skip_G:
            skip_D = skip_G = False
        losses = {"E": kl + recon}
        if not skip_G:
            losses["G"] = 0.01 * recon + 0.99 * (1 - q).log().mean()
        if not skip_D:
            losses["D"] = 0.5 * cost_r + 0.5 * cost_f
        nets = {"E": E, "G": G, "D": D}
        gradients = {n: torch.autograd.grad(loss, list(nets[n].parameters()), retain_graph=True)
                 for n, loss in losses.items()}  # fmt: skip
        with torch.no_grad():
            for n, grads in gradients.items():
                steps[n] += 1
                for w, g in zip(nets[n].parameters(), grads, strict=True):
                    g = g + 2 * 1e-5 / 64 * w
                    state[w].mul_(0.9).add_(0.1 * g * g)
                    w -= schedule.at(r * 8) * g / (state[w].sqrt() + 1e-8)
    loop.compare(**{n: net for n, net in nets.items() if steps[n]})
    for n in (n for n in nets if not steps[n]):  # without a step the weights are the initial ones in both
        engine = loop.run.game.get_submodule(n).parameters()
        assert all(torch.equal(p, q) for p, q in zip(nets[n].parameters(), engine, strict=True)), n
    assert steps == {"E": 3, **dict(zip("GD", expected, strict=True))}
