"""What theory says of the game, its losses and its penalties, against what the code does."""

import math

import pytest
import torch

from zoo.data import facts, open_data
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, build_networks, resolve
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.recipe import SGD, Adam, Ema, Recipe, Schedule, Spec, Stage
from zoo.registry import LOSSES, NETWORKS, PENALTIES

LOG4 = math.log(4)

# The value of the game on a set whose density is known -------------------------------------------------------------


def play(loss: Spec, rounds: int, optimizers: dict, affine: tuple[float, float], **game) -> StageRun:
    """The engine on ``gaussian1d``: G(z) = slope z + shift begins at ``affine``, D is a small tanh MLP; rates fall to 0."""
    images = rounds * game.get("n_critic", 1) * 512
    stage = Stage(
        game=Spec("adversarial", loss=loss, **game),
        optimizers=optimizers,
        images=images,
        batch=512,
        resolution=0,
        schedules=tuple(
            Schedule(f"optimizers.{p}.lr", ((images // 2, o.lr), (images, 0.0)), "cosine")
            for p, o in optimizers.items()
        ),
    )
    networks = {
        "G": Spec("mlp-generator", latent=1, hidden=()),
        "D": Spec("mlp-discriminator", hidden=(32, 32), activation="tanh", init="orthogonal", scale=1.4),
    }
    known = facts("gaussian1d")
    recipe = resolve(
        Recipe(networks, (stage,), ema={"G": Ema(halflife=50 * 512)}, dataset="gaussian1d", model="theory"), known
    )
    networks = build_networks(recipe)
    with torch.no_grad():
        networks["G"].layers[0].weight.fill_(affine[0])
        networks["G"].layers[0].bias.fill_(affine[1])
    runtime = Runtime(device="cpu")
    session = StageRun(recipe, 0, "gaussian1d", known, runtime, torch.device("cpu"), 0, networks=networks)
    session.prepare()
    while session.images < images:
        session.play_round()
    return session


def normal(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))


@torch.no_grad()
def densities_and_logit(session: StageRun, mean: float, std: float):
    """Points, the data's density p, that of G (a normal), D's logit and the width of a step."""
    x = torch.linspace(-6, 8, 20001, dtype=torch.float64)[:, None]
    p = open_data("gaussian1d").density(x)
    return x, p, normal(x[:, 0], mean, std), session.game.D(x.float()).double(), 14 / 20000


def value(p, q, logit, dx):
    """E log D(x) + E log(1 - D(G(z))), integrated. Where a density is negligible its term is, too."""
    return float((p * -torch.nn.functional.softplus(-logit) + q * -torch.nn.functional.softplus(logit)).sum() * dx)


def divergence(p, q, dx):
    """Jensen-Shannon."""
    m = (p + q) / 2
    return float((torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).nan_to_num().sum() * dx / 2)


def test_trained_alone_D_tells_the_densities_ratio():
    """Goodfellow et al. 2014, proposition 1 and theorem 1."""
    slope, shift = 0.8, 0.2
    adam = Adam(lr=3e-2, betas=(0.9, 0.99))
    session = play(Spec("minimax"), 2000, {"D": adam, "G": adam}, (slope, shift), n_generator=0)
    layer = session.game.G.layers[0]
    assert (layer.weight.item(), layer.bias.item()) == pytest.approx((slope, shift)), "G is fixed"
    _, p, q, logit, dx = densities_and_logit(session, shift, slope)
    matters = p + q > 0.02
    assert (logit.sigmoid() - p / (p + q))[matters].abs().max() < 0.05
    assert value(p, q, logit, dx) == pytest.approx(2 * divergence(p, q, dx) - LOG4, abs=0.02)


def test_against_a_free_G_the_value_tends_to_minus_log_4():
    adam = Adam(lr=5e-3, betas=(0.5, 0.9))
    session = play(Spec("minimax"), 1200, {"D": adam, "G": adam}, (1.0, -1.0))
    layer = session.ema_networks["G"].network.layers[0]
    slope, shift = layer.weight.item(), layer.bias.item()
    _, p, q, logit, dx = densities_and_logit(session, shift, abs(slope))
    assert value(p, q, logit, dx) == pytest.approx(-LOG4, abs=0.02)
    assert divergence(p, q, dx) < 0.01
    assert (abs(slope), shift) == (pytest.approx(0.5, abs=0.1), pytest.approx(1.0, abs=0.1))


# Losses in closed form ----------------------------------------------------------------------------------------------

AT_ZERO = [  # loss, what D lowers, what G lowers, d/dreal, d/dfake, d/dfake of G's, all at score 0
    (Spec("minimax"), LOG4, -math.log(2), -0.5, 0.5, -0.5),
    (Spec("minimax", smooth=0.9), LOG4, -math.log(2), -0.4, 0.5, -0.5),
    (Spec("non-saturating"), LOG4, math.log(2), -0.5, 0.5, -0.5),
    (Spec("non-saturating", scale=0.5), LOG4 / 2, math.log(2), -0.25, 0.25, -0.5),
    (Spec("least-squares"), 0.5, 0.5, -1.0, 0.0, -1.0),
    (Spec("least-squares", a=-1.0, b=1.0, c=0.0), 1.0, 0.0, -1.0, 1.0, 0.0),
    (Spec("wasserstein"), 0.0, 0.0, -1.0, 1.0, -1.0),
    (Spec("hinge"), 2.0, 0.0, -1.0, 1.0, -1.0),
]


@pytest.mark.parametrize("spec, d, g, by_real, by_fake, by_fake_g", AT_ZERO, ids=lambda v: str(v)[5:40])
def test_losses_at_score_0(spec, d, g, by_real, by_fake, by_fake_g):
    pair = LOSSES.build(spec)
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(6, requires_grad=True)
    lowered = pair.d(real, fake)
    assert lowered.item() == pytest.approx(d)
    slopes = torch.autograd.grad(lowered, (real, fake), allow_unused=True)
    assert [s.sum().item() for s in slopes] == pytest.approx([by_real, by_fake])
    lowered = pair.g(real if pair.relative else None, fake)
    assert lowered.item() == pytest.approx(g)
    assert torch.autograd.grad(lowered, fake)[0].sum().item() == pytest.approx(by_fake_g)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_pair_sets_the_players_against_each_other(name):
    """At equal scores D gains by raising reals' scores and never by raising fakes'; G raises fakes'."""
    pair = LOSSES.build(name)
    real, fake = torch.zeros(8, 1, 3, 3, requires_grad=True), torch.zeros(8, 1, 3, 3, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(pair.d(real, fake), (real, fake))
    assert (by_real < 0).all() and (by_fake >= 0).all()
    (by_fake_g,) = torch.autograd.grad(pair.g(real if pair.relative else None, fake), fake)
    assert (by_fake_g < 0).all()
    assert pair.d(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


def test_minimax_saturates_and_non_saturating_does_not():
    """Where D is sure of a fake (l = -10), the one's gradient for G vanishes and the other's is whole."""
    sure = torch.full((4,), -10.0, requires_grad=True)
    slope = {n: torch.autograd.grad(LOSSES.build(n).g(None, sure), sure)[0].sum().item() for n in AT_FAR}
    assert slope == {n: pytest.approx(v, abs=1e-6) for n, v in AT_FAR.items()}


AT_FAR = {"minimax": -1 / (1 + math.exp(10)), "non-saturating": -1 / (1 + math.exp(-10)), "wasserstein": -1.0}


P, Q = torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.5, 0.3, 0.2])  # data and G on three points


@pytest.mark.parametrize(
    "spec, best",
    [
        (Spec("minimax"), (P / Q).log()),
        (Spec("non-saturating"), (P / Q).log()),
        (Spec("minimax", smooth=0.9), (0.9 * P / (0.1 * P + Q)).log()),
        (Spec("least-squares"), P / (P + Q)),
        (Spec("least-squares", a=-1.0, b=1.0, c=0.0), (P - Q) / (P + Q)),
    ],
    ids=lambda v: v.name if isinstance(v, Spec) else "",
)
def test_best_response_of_D(spec, best):
    """The derivative of what D lowers vanishes at D's best answer to densities P and Q (a sample that holds them exactly)."""
    scores = best.clone().requires_grad_()
    counts = [(10 * d).round().long() for d in (P, Q)]
    real, fake = (scores.repeat_interleave(n) for n in counts)
    assert torch.autograd.grad(LOSSES.build(spec).d(real, fake), scores)[0].abs().max() < 1e-6


def test_wasserstein_knows_differences_only():
    real, fake = torch.randn(16), torch.randn(16)
    pair = LOSSES.build("wasserstein")
    assert pair.d(real + 3, fake + 3).item() == pytest.approx(pair.d(real, fake).item(), abs=1e-6)
    assert pair.d(2 * real, 2 * fake).item() == pytest.approx(2 * pair.d(real, fake).item(), abs=1e-6)


def test_hinge_ignores_what_is_beyond_the_margin():
    real, fake = torch.tensor([1.5, 3.0], requires_grad=True), torch.tensor([-1.5, -9.0], requires_grad=True)
    lowered = LOSSES.build("hinge").d(real, fake)
    assert lowered.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(lowered, (real, fake)))


# Penalties ----------------------------------------------------------------------------------------------------------


def gradient_penalty(w):  # of a critic whose gradient is w everywhere
    return (w.norm() - 1).square()


def r1(w):
    return 0.5 * w.square().sum()


LINEAR = {"gradient-penalty": gradient_penalty, "r1": r1}


def made(name: str, weight: float, hidden=(16,), scale: float = 1.4) -> tuple[Adversarial, Batch]:
    """A game on points of the plane with one penalty, and a batch with its fakes; always the same ones."""
    torch.manual_seed(0)
    G = NETWORKS.build(Spec("mlp-generator", channels=2, latent=2, hidden=(8,)))
    like = dict(channels=2, hidden=hidden, activation="tanh", init="orthogonal", scale=scale)
    D = NETWORKS.build(Spec("mlp-discriminator", **like))
    game = Adversarial({"G": G, "D": D}, loss=Spec("wasserstein"), penalties=(Spec(name, weight=weight),))
    batch = Batch(32, generator=torch.Generator().manual_seed(1))
    batch["x"] = torch.randn(32, 2) + 1
    game.fakes(batch)
    return game, batch


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic(name, length):
    game, batch = made(name, 1.0, hidden=())
    with torch.no_grad():
        w = game.D.head.weight
        w.mul_(length / w.norm())
    assert game.penalties[0](game, batch).item() == pytest.approx(LINEAR[name](w[0]).item(), abs=1e-6)


def in_double(game: Adversarial, batch: Batch, name: str) -> float:
    """The penalty once more, in float64 and by the plain rules of autograd."""
    x, fake = batch["x"].double(), batch["fake"].detach().double()
    if name == "gradient-penalty":
        alpha = torch.rand(32, 1, generator=torch.Generator().manual_seed(5)).double()
        x = alpha * fake + (1 - alpha) * x
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(game.D(x).sum(), x)
    return torch.stack([LINEAR[name](g) for g in gradient]).mean().item()


@pytest.mark.parametrize("name", LINEAR)
def test_penalty_reaches_D_with_the_right_gradient_and_never_G(name):
    game, batch = made(name, 1.0)
    batch.generator.manual_seed(5)
    game.penalties[0](game, batch).backward()
    assert all(p.grad is None for p in game.G.parameters())
    layer = game.D.layers[0]
    gradient = layer.weight.grad.clone()
    assert gradient.abs().max() > 1e-3
    game.double()
    for index in ((0, 0), (7, 1)):
        sides = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                layer.weight[index] += h
            sides.append(in_double(game, batch, name))
            with torch.no_grad():
                layer.weight[index] -= h
        assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("every", [1, 4])
def test_penalty_weight_changes_the_step_in_proportion(name, every):
    """Steps of plain descent with weights 0, 1 and 2 differ by the penalty's gradient, once and twice. A penalty of every
    4th round has a turn of its own and counts four times there."""
    rate = 0.01

    def play(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """How D moved, and the gradient of the penalty alone where it began."""
        game, batch = made(name, weight)
        game.penalties[0].every = every
        stage = Stage(Spec("adversarial"), {"G": SGD(rate), "D": SGD(rate)}, 1, 32, 0)
        learner = Learner(game, stage)
        turn, weights = learner.turns[0 if every == 1 else -1], list(game.D.parameters())
        before = [p.detach().clone() for p in (*weights, *game.G.parameters())]
        batch.generator.manual_seed(5)
        if every == 1:  # D's turn draws its fakes first
            game.fakes(batch)
        alone = torch.autograd.grad(game.penalties[0](game, batch), weights[:-1])
        batch.generator.manual_seed(5)
        learner.play(turn, batch, 0)
        assert all(map(torch.equal, before[len(weights) :], game.G.parameters()))
        moved = [p.detach() - b for p, b in zip(weights[:-1], before, strict=False)]
        return torch.cat([m.flatten() for m in moved]), torch.cat([g.flatten() for g in alone])

    (none, gradient), (once, _), (twice, _) = map(play, (0.0, 1.0, 2.0))
    assert gradient.abs().max() > 1e-2
    torch.testing.assert_close(once - none, -rate * every * gradient, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(twice - none, -rate * every * 2 * gradient, atol=1e-6, rtol=1e-3)
    assert bool(none.any()) == (every == 1), "a turn of its own lowers the penalty alone"


@pytest.mark.parametrize("name", PENALTIES.names())
def test_penalty_weight_is_a_buffer_that_a_ramp_can_reach(name):
    penalty = PENALTIES.build(Spec(name, weight=3.0), defaults={"networks": {"D": torch.nn.Linear(1, 1)}})
    assert dict(penalty.named_buffers())["weight"].item() == 3.0
