"""WGAN (arXiv 1701.07875) against its paper and the authors' code. Its convolutional nets are DCGAN's."""

import math

import torch
from torch import nn

from zoo import settings
from zoo.game import Batch
from zoo.recipe import Rounds
from zoo.registry import GAMES, LOSSES, NETWORKS, Spec

MLP = {"hidden": (512, 512, 512)}


def count(name, **kwargs):
    with torch.device("meta"):
        return sum(p.numel() for p in NETWORKS.build(Spec(name, **kwargs)).parameters())


def test_parameter_counts():
    assert count("dcgan-generator") == 3_576_704
    assert count("dcgan-discriminator") == 2_765_568
    assert count("dcgan-generator", resolution=32) == 1_068_928
    assert count("dcgan-discriminator", resolution=32) == 663_296
    assert count("dcgan-generator", resolution=32, width=32, channels=1) == 369_600
    assert count("dcgan-discriminator", resolution=32, width=32, channels=1) == 166_784
    assert count("mlp-generator", channels=3, resolution=64, **MLP) == 6_880_768
    assert count("mlp-discriminator", channels=3, resolution=64, **MLP) == 6_817_793


def test_mlp():
    """Three hidden ReLU layers, a linear output, PyTorch's own initialization (U(-1/sqrt(n), 1/sqrt(n)))."""
    G = NETWORKS.build(Spec("mlp-generator", channels=3, resolution=16, **MLP))
    f = NETWORKS.build(Spec("mlp-discriminator", channels=3, resolution=16, **MLP))
    assert [type(m).__name__ for m in G.layers] == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert [type(m).__name__ for m in (*f.layers, f.head)] == ["Linear", "ReLU"] * 3 + ["Linear"]
    x = G(torch.randn(4, 100))
    assert x.shape == (4, 3, 16, 16) and f(x).shape == (4,) and f.features(x).shape == (4, f.head.in_features)
    for m in (*G.layers, *f.layers, f.head):
        if isinstance(m, nn.Linear):
            bound = 1 / math.sqrt(m.in_features)
            assert 0.9 * bound < m.weight.abs().max() <= bound
            assert m.bias.any()


def test_critic_is_unbounded_and_scores_each_image():
    f = NETWORKS.build(Spec("dcgan-discriminator", resolution=32, width=8)).eval()
    x = torch.randn(5, 3, 32, 32)
    assert f(x).shape == (5,)
    assert torch.allclose(f(1000 * x), 1000 * f(x), rtol=1e-3)  # no biases, no output activation


def test_losses():
    """0 for equal scores, antisymmetric, invariant to a constant; G's gradient is -1/N for every fake."""
    pair = LOSSES.build("wasserstein")
    a, b = torch.randn(8), torch.randn(8)
    assert pair.d(a, a).item() == 0
    assert torch.allclose(pair.d(a, b), -pair.d(b, a))
    assert torch.allclose(pair.d(a + 5, b + 5), pair.d(a, b), atol=1e-5)
    fake = torch.randn(8, requires_grad=True)
    (g,) = torch.autograd.grad(pair.g(None, fake), fake)
    assert torch.equal(g, torch.full((8,), -1 / 8))


def test_estimate_grows_with_the_distance():
    """Point masses at 0 and t: a clipped linear critic's estimate is .01 |t|."""
    for t in (-2.0, 1.0, 3.0):
        w = torch.zeros((), requires_grad=True)
        for _ in range(20):
            (g,) = torch.autograd.grad(LOSSES.build("wasserstein").d(w * torch.zeros(4), w * torch.full((4,), t)), w)
            w = (w - 0.005 * g).clamp(-0.01, 0.01).detach().requires_grad_()
        estimate = -LOSSES.build("wasserstein").d(w * torch.zeros(4), w * torch.full((4,), t))
        assert abs(estimate.item() - 0.01 * abs(t)) < 1e-6


def test_bursts():
    """100 critic steps during the first 25 steps of G and at each multiple of 500, otherwise 5."""
    n_critic = settings.find("wgan-lsun-bedroom").stages[0].game.kwargs["n_critic"]
    assert all(n_critic(r) == (100 if r < 25 or r % 500 == 0 else 5) for r in range(2000))


def test_plain_loop(plain_loop):
    """The authors' loop: critic steps on fresh reals and noise, each after clipping all weights; then one step of G,
    against a critic that is not clipped after its last step."""
    loop = plain_loop(
        "wgan-fashion-mnist",
        {"G": {"latent": 6, "width": 4}, "D": {"width": 4}},
        batch=10,
        game={"n_critic": Rounds(2, first=(1, 4), every=(2, 3))},
    )
    G, f = loop.copy("G"), loop.copy("D")
    opt_G, opt_f = (torch.optim.RMSprop(net.parameters(), lr=2e-4) for net in (G, f))
    for r in loop.rounds():
        for _ in range((4, 2, 3)[r]):
            for w in f.parameters():
                w.data = w.data.clip(-0.01, 0.01)
            x, z = loop.real()["x"], loop.randn(6)
            opt_f.zero_grad()
            (-(f(x).mean() - f(G(z).detach()).mean())).backward()
            opt_f.step()
        opt_G.zero_grad()
        (-f(G(loop.randn(6))).mean()).backward()
        opt_G.step()
    loop.compare(G=G, D=f)
    # No clipping after the last step: RMSProp's first step is lr / sqrt(1 - .99) = 10 lr, later ones are smaller.
    assert 0.01 < max(p.abs().max() for p in loop.run.game.D.parameters()) < 0.01 + 10 * 2e-4


def test_clipping_precedes_the_first_step():
    """RMSProp's second moment starts from gradients of a clipped critic. Unclipped, the gains are near 1 and the
    gradients so large that the second moment would take more than a thousand steps to decay."""
    torch.manual_seed(0)
    networks = {"G": Spec("dcgan-generator", width=4), "D": Spec("dcgan-discriminator", width=4)}
    shape = {"channels": 1, "resolution": 32}
    game = GAMES.build(
        Spec("adversarial", loss=Spec("wasserstein"), clip=0.01),
        defaults={"networks": {n: NETWORKS.build(spec, defaults=shape) for n, spec in networks.items()}},
    )
    turn = game.turns()[0]
    squares = []
    for clipped in (False, True):
        batch = Batch(16, generator=torch.Generator().manual_seed(0))
        batch["x"] = torch.rand(16, 1, 32, 32) * 2 - 1
        if clipped:
            with torch.no_grad():
                turn.before(batch)
        assert (max(p.abs().max() for p in game.D.parameters()) <= 0.01) == clipped
        gradients = torch.autograd.grad(turn.loss(batch), list(game.D.parameters()))
        squares.append(max((g**2).max().item() for g in gradients))
    assert squares[0] > 1e3 * squares[1]
