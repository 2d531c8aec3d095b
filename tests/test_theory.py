"""The code against theory: the value of the game, the losses and the penalties."""

import math

import pytest
import torch

from zoo.data import facts, open_data
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, build_networks, resolve
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.recipe import SGD, Adam, Ema, Recipe, Rounds, Schedule, Spec, Stage
from zoo.registry import LOSSES, NETWORKS, PENALTIES

LOG4 = math.log(4)

# The value of the game on a data set with a density -------------------------------------------------------------


def play(loss: Spec, rounds: int, optimizers: dict, affine: tuple[float, float], **game) -> StageRun:
    """A run on ``gaussian1d``: G(z) = slope z + shift starts at ``affine``, D is a small tanh MLP; learning rates fall
    to 0."""
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
    gaussian = facts("gaussian1d")
    recipe = resolve(
        Recipe(networks, (stage,), ema={"G": Ema(halflife=50 * 512)}, dataset="gaussian1d", model="theory"), gaussian
    )
    networks = build_networks(recipe)
    with torch.no_grad():
        networks["G"].layers[0].weight.fill_(affine[0])
        networks["G"].layers[0].bias.fill_(affine[1])
    runtime = Runtime(device="cpu")
    run = StageRun(recipe, 0, "gaussian1d", gaussian, runtime, torch.device("cpu"), 0, networks=networks)
    run.prepare()
    while run.images < images:
        run.play_round()
    return run


def normal(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))


@torch.no_grad()
def densities_and_logit(run: StageRun, mean: float, std: float):
    """Points, the data's density p, G's density (a normal), D's logit and the distance of the points."""
    x = torch.linspace(-6, 8, 20001, dtype=torch.float64)[:, None]
    p = open_data("gaussian1d").density(x)
    return x, p, normal(x[:, 0], mean, std), run.game.D(x.float()).double(), 14 / 20000


def value(p, q, logit, dx):
    """E log D(x) + E log(1 - D(G(z))), integrated."""
    return float((p * -torch.nn.functional.softplus(-logit) + q * -torch.nn.functional.softplus(logit)).sum() * dx)


def divergence(p, q, dx):
    """Jensen-Shannon."""
    m = (p + q) / 2
    return float((torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).nan_to_num().sum() * dx / 2)


def test_best_D_against_a_fixed_G():
    """Goodfellow et al. 2014, proposition 1 and theorem 1."""
    slope, shift = 0.8, 0.2
    adam = Adam(lr=3e-2, betas=(0.9, 0.99))
    run = play(Spec("minimax"), 2000, {"D": adam, "G": adam}, (slope, shift), n_generator=Rounds(0))
    layer = run.game.G.layers[0]
    assert (layer.weight.item(), layer.bias.item()) == pytest.approx((slope, shift)), "G is fixed"
    _, p, q, logit, dx = densities_and_logit(run, shift, slope)
    relevant = p + q > 0.02
    assert (logit.sigmoid() - p / (p + q))[relevant].abs().max() < 0.05
    assert value(p, q, logit, dx) == pytest.approx(2 * divergence(p, q, dx) - LOG4, abs=0.02)


def test_value_of_the_game_converges_to_minus_log_4():
    adam = Adam(lr=5e-3, betas=(0.5, 0.9))
    run = play(Spec("minimax"), 1200, {"D": adam, "G": adam}, (1.0, -1.0))
    layer = run.ema_networks["G"].network.layers[0]
    slope, shift = layer.weight.item(), layer.bias.item()
    _, p, q, logit, dx = densities_and_logit(run, shift, abs(slope))
    assert value(p, q, logit, dx) == pytest.approx(-LOG4, abs=0.02)
    assert divergence(p, q, dx) < 0.01
    assert (abs(slope), shift) == (pytest.approx(0.5, abs=0.1), pytest.approx(1.0, abs=0.1))


# Losses in closed form ----------------------------------------------------------------------------------------------

AT_ZERO = [  # loss, D's loss, G's loss, dD/dreal, dD/dfake, dG/dfake, all at score 0
    (Spec("minimax"), LOG4, -math.log(2), -0.5, 0.5, -0.5),
    (Spec("minimax", smooth=0.9), LOG4, -math.log(2), -0.4, 0.5, -0.5),
    (Spec("non-saturating"), LOG4, math.log(2), -0.5, 0.5, -0.5),
    (Spec("non-saturating", scale=0.5), LOG4 / 2, math.log(2), -0.25, 0.25, -0.5),
    (Spec("least-squares"), 0.5, 0.5, -1.0, 0.0, -1.0),
    (Spec("least-squares", a=-1.0, b=1.0, c=0.0), 1.0, 0.0, -1.0, 1.0, 0.0),
    (Spec("wasserstein"), 0.0, 0.0, -1.0, 1.0, -1.0),
    (Spec("hinge"), 2.0, 0.0, -1.0, 1.0, -1.0),
]


@pytest.mark.parametrize("spec, d, g, d_real, d_fake, g_fake", AT_ZERO, ids=lambda v: str(v)[5:40])
def test_losses_at_score_0(spec, d, g, d_real, d_fake, g_fake):
    pair = LOSSES.build(spec)
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(6, requires_grad=True)
    loss = pair.d(real, fake)
    assert loss.item() == pytest.approx(d)
    gradients = torch.autograd.grad(loss, (real, fake), allow_unused=True)
    assert [s.sum().item() for s in gradients] == pytest.approx([d_real, d_fake])
    loss = pair.g(real if pair.relative else None, fake)
    assert loss.item() == pytest.approx(g)
    assert torch.autograd.grad(loss, fake)[0].sum().item() == pytest.approx(g_fake)


@pytest.mark.parametrize("name", LOSSES.names())
def test_opposite_gradients_of_the_players(name):
    """At equal scores D's loss decreases in the scores of reals and does not in those of fakes; G's decreases in
    fakes'."""
    pair = LOSSES.build(name)
    real, fake = torch.zeros(8, 1, 3, 3, requires_grad=True), torch.zeros(8, 1, 3, 3, requires_grad=True)
    d_real, d_fake = torch.autograd.grad(pair.d(real, fake), (real, fake))
    assert (d_real < 0).all() and (d_fake >= 0).all()
    (g_fake,) = torch.autograd.grad(pair.g(real if pair.relative else None, fake), fake)
    assert (g_fake < 0).all()
    assert pair.d(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


def test_minimax_saturates_and_non_saturating_does_not():
    """If D detects a fake (l = -10), G's gradient vanishes with minimax but not with the non-saturating loss."""
    score = torch.full((4,), -10.0, requires_grad=True)
    gradients = {n: torch.autograd.grad(LOSSES.build(n).g(None, score), score)[0].sum().item() for n in AT_FAR}
    assert gradients == {n: pytest.approx(v, abs=1e-6) for n, v in AT_FAR.items()}


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
    """The derivative of D's loss is 0 at D's best response to the densities P and Q, on a sample with exactly these
    frequencies."""
    scores = best.clone().requires_grad_()
    counts = [(10 * d).round().long() for d in (P, Q)]
    real, fake = (scores.repeat_interleave(n) for n in counts)
    assert torch.autograd.grad(LOSSES.build(spec).d(real, fake), scores)[0].abs().max() < 1e-6


def test_wasserstein_depends_on_differences_only():
    real, fake = torch.randn(16), torch.randn(16)
    pair = LOSSES.build("wasserstein")
    assert pair.d(real + 3, fake + 3).item() == pytest.approx(pair.d(real, fake).item(), abs=1e-6)
    assert pair.d(2 * real, 2 * fake).item() == pytest.approx(2 * pair.d(real, fake).item(), abs=1e-6)


def test_hinge_beyond_the_margin():
    real, fake = torch.tensor([1.5, 3.0], requires_grad=True), torch.tensor([-1.5, -9.0], requires_grad=True)
    loss = LOSSES.build("hinge").d(real, fake)
    assert loss.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss, (real, fake)))


# Penalties ----------------------------------------------------------------------------------------------------------


def gradient_penalty(w):  # of a critic whose gradient is w everywhere
    return (w.norm() - 1).square()


def r1(w):
    return 0.5 * w.square().sum()


LINEAR = {"gradient-penalty": gradient_penalty, "r1": r1, "r2": r1}


def game_and_batch(name: str, weight: float, hidden=(16,), scale: float = 1.4) -> tuple[Adversarial, Batch]:
    """A game on points of the plane with one penalty, and a batch with its fakes; the same ones in each call."""
    torch.manual_seed(0)
    G = NETWORKS.build(Spec("mlp-generator", channels=2, latent=2, hidden=(8,)))
    arguments = dict(channels=2, hidden=hidden, activation="tanh", init="orthogonal", scale=scale)
    D = NETWORKS.build(Spec("mlp-discriminator", **arguments))
    game = Adversarial({"G": G, "D": D}, loss=Spec("wasserstein"), penalties=(Spec(name, weight=weight),))
    batch = Batch(32, generator=torch.Generator().manual_seed(1))
    batch["x"] = torch.randn(32, 2) + 1
    game.fakes(batch)
    return game, batch


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic(name, length):
    game, batch = game_and_batch(name, 1.0, hidden=())
    with torch.no_grad():
        w = game.D.head.weight
        w.mul_(length / w.norm())
    assert game.penalties[0](game.D, batch["x"], batch["fake"], batch).item() == pytest.approx(
        LINEAR[name](w[0]).item(), abs=1e-6
    )


def in_double(game: Adversarial, batch: Batch, name: str) -> float:
    """The penalty in float64 with torch.autograd.grad."""
    x, fake = batch["x"].double(), batch["fake"].detach().double()
    if name == "gradient-penalty":
        alpha = torch.rand(32, 1, generator=torch.Generator().manual_seed(5)).double()
        x = alpha * fake + (1 - alpha) * x
    if name == "r2":
        x = fake
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(game.D(x).sum(), x)
    return torch.stack([LINEAR[name](g) for g in gradient]).mean().item()


@pytest.mark.parametrize("name", LINEAR)
def test_gradient_of_the_penalty(name):
    game, batch = game_and_batch(name, 1.0)
    batch.generator.manual_seed(5)
    game.penalties[0](game.D, batch["x"], batch["fake"], batch).backward()
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
    """SGD steps with weights 0, 1 and 2 differ by the penalty's gradient, once and twice. A penalty of every 4th round
    has a turn of its own, with four times the weight."""
    rate = 0.01

    def play(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """D's change, and the gradient of the penalty at its start."""
        game, batch = game_and_batch(name, weight)
        game.penalties[0].every = every
        stage = Stage(Spec("adversarial"), {"G": SGD(rate), "D": SGD(rate)}, 1, 32, 0)
        learner = Learner(game, stage)
        turn = next(t for t in learner.turns if t.players == ("D",) and t.every == every)
        weights = list(game.D.parameters())
        before = [p.detach().clone() for p in (*weights, *game.G.parameters())]
        batch.generator.manual_seed(5)
        if every == 1:  # D's turn draws its fakes first
            game.fakes(batch)
        gradient = torch.autograd.grad(game.penalties[0](game.D, batch["x"], batch["fake"], batch), weights[:-1])
        batch.generator.manual_seed(5)
        learner.play(turn, batch, 0)
        assert all(map(torch.equal, before[len(weights) :], game.G.parameters()))
        change = [p.detach() - b for p, b in zip(weights[:-1], before, strict=False)]
        return torch.cat([c.flatten() for c in change]), torch.cat([g.flatten() for g in gradient])

    (none, gradient), (once, _), (twice, _) = map(play, (0.0, 1.0, 2.0))
    assert gradient.abs().max() > 1e-2
    torch.testing.assert_close(once - none, -rate * every * gradient, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(twice - none, -rate * every * 2 * gradient, atol=1e-6, rtol=1e-3)
    assert bool(none.any()) == (every == 1), "the loss of its own turn is the penalty"


@pytest.mark.parametrize("name", PENALTIES.names())
def test_penalty_weight_is_a_buffer(name):
    penalty = PENALTIES.build(Spec(name, weight=3.0), defaults={"networks": {"D": torch.nn.Linear(1, 1)}})
    assert dict(penalty.named_buffers())["weight"].item() == 3.0
