"""Parts of a batch: micro-batches, whose gradients are the whole batch's, and what happens to a gradient before the
step."""

import copy
import dataclasses
from collections.abc import Sequence

import pytest
import torch
from helpers.play import CPU, Duel, game, play, recipe, session, weights
from helpers.recipes import every_stage, small, stand_in
from torch import nn
from torch.nn.functional import softplus
from torch.optim.optimizer import register_optimizer_step_pre_hook

from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine import train
from zoo.engine.stage import StageRun, build_game, build_networks, resolve
from zoo.engine.step import Learner, freeze_idle, players
from zoo.game import Batch, Game, Turn, whole_batch_parts
from zoo.networks.layers import Linear
from zoo.recipe import SGD, RMSProp, Stage
from zoo.registry import NETWORKS, Spec

TOLERANCE = 2e-5  # of the largest value of a network's gradient
ROUNDING = 1e-9  # the same in float64, in which no sign of an L1 distance is a matter of rounding
MICRO = dataclasses.replace(CPU, micro_batch=2)


def on_meta(name: str, stage: int) -> tuple[Game, Stage]:
    """The game of a stage, with small networks, on ``meta``."""
    facts = facts_of(settings.find(name).dataset)
    reduced = resolve(small(name), facts)
    with torch.device("meta"):
        return build_game(reduced.stages[stage], build_networks(reduced, device="meta"), facts), reduced.stages[stage]


def parts_of(name: str, stage: int = 0) -> list[str]:
    """What needs the whole batch in a stage."""
    game, played = on_meta(name, stage)
    freeze_idle(game, players(game, list(game.turns()), played))
    return list(whole_batch_parts(game))


class Comparison:
    """Plays each turn of a stage twice, from the same weights, batch and generators: in micro-batches, then as a whole.
    ``worst``: the largest difference of a gradient, a buffer or a value in the batch, as a share of the largest value.
    """

    def __init__(self, run: StageRun, micro_batch: int):
        self.run, self.micro_batch, self.worst, self.turns = run, micro_batch, 0.0, 0
        self.gradients: dict[str, torch.Tensor] = {}
        self.play_turn, self.precompute_turn = run.learner.play, run.learner.precompute
        run.learner.play, run.learner.precompute = self.play, self.precompute

    def twice(self, call, batch):
        """``call(batch)`` in micro-batches on a copy of the batch, then as a whole."""
        learner, game = self.run.learner, self.run.game
        before, state, layers = weights(game), batch.generator.get_state(), torch.get_rng_state()
        twin = copy.copy(batch)
        twin.logs = dict(batch.logs)
        learner.micro_batch = self.micro_batch
        parts = call(twin), dict(self.gradients), weights(game), batch.generator.get_state()
        learner.micro_batch = None
        game.load_state_dict(before)
        batch.generator.set_state(state)
        torch.set_rng_state(layers)
        whole = call(batch), dict(self.gradients), weights(game), batch.generator.get_state()
        assert torch.equal(parts[3], whole[3]), "the generator goes on from the same state"
        buffers = {k for k, _ in game.named_buffers()}
        self.compare({k: v for k, v in parts[2].items() if k in buffers}, whole[2])
        self.compare(dict(twin), batch)
        self.scalars(twin.logs, batch.logs)
        return parts, whole

    def play(self, turn, batch, round):
        def call(batch):
            self.gradients = {}
            return self.play_turn(turn, batch, round)

        handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: self.record(turn))
        try:
            parts, whole = self.twice(call, batch)
        finally:
            handle.remove()
        assert parts[1].keys() == whole[1].keys() != set()
        for player in turn.players:
            own = {k: v for k, v in whole[1].items() if k.startswith(player + ".")}
            largest = max((v.abs().max().item() for v in own.values()), default=0.0)  # not all play
            for k, v in own.items():
                self.measure(parts[1][k], v, largest)
        self.scalars(parts[0], whole[0])
        self.turns += 1
        return whole[0]

    def record(self, turn):
        for player in turn.players:
            named = self.run.learner.players[player].items()
            self.gradients |= {f"{player}.{k}": p.grad.clone() for k, p in named if p.grad is not None}

    def precompute(self, turn, batch, n):
        parts, whole = self.twice(lambda batch: self.precompute_turn(turn, batch, n), batch)
        for a, b in zip(parts[0], whole[0], strict=True):
            self.compare(a, b)
        return whole[0]

    def compare(self, a, b):
        for key, value in a.items():
            if isinstance(value, torch.Tensor):
                assert value.shape == b[key].shape, key
                self.measure(value, b[key], b[key].detach().double().abs().max().item())
        assert a.keys() <= b.keys()

    def scalars(self, a, b):
        """Losses and logged values may be differences of large numbers."""
        for key, value in a.items():
            torch.testing.assert_close(value, b[key], rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")

    def measure(self, a, b, scale):
        difference = (a.detach().double() - b.detach().double()).abs().max().item()
        self.worst = max(self.worst, difference / scale if scale else float(difference > 0))


@pytest.fixture
def float64(monkeypatch):
    """All is computed in float64, losses too."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(torch.float32)


def compare(name: str, stage: int, micro_batches: Sequence[int]) -> float:
    """A round of a stage of a recipe for each size. Returns the largest difference."""
    reduced = small(name)
    return compare_run(session(reduced, stand_in(reduced, stage), stage=stage), micro_batches)


def compare_run(run: StageRun, micro_batches: Sequence[int]) -> float:
    """A round of a stage for each size. Returns the largest difference."""
    dtype = torch.get_default_dtype()
    run.game.to(dtype)
    run.to_layout = lambda value: (
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    )
    comparison = Comparison(run, micro_batches[0])
    for comparison.micro_batch in micro_batches:
        play(run)
    assert comparison.turns >= len(micro_batches)
    return comparison.worst


@every_stage
def test_micro_batches(name, stage, float64):
    """The gradients of every turn are the whole batch's, or the stage is refused with the name of the part."""
    parts = parts_of(name, stage)
    if parts:
        game, played = on_meta(name, stage)
        played = dataclasses.replace(played, batch=max(played.batch, 4 * played.accumulate))
        with pytest.raises(ValueError, match=rf"^--micro-batch 2: {parts[0]} needs the whole batch$"):
            Learner(game, played, device="meta", micro_batch=2)
        return
    assert compare(name, stage, (2, 1)) <= ROUNDING


@pytest.mark.parametrize(
    "name", ["cyclegan-emoji-small", "began-fashion-mnist", "wgan-gp-mnist", "lsgan-ring", "r3gan-fashion-mnist"]
)
def test_recipes_that_allow_it(name):
    """Not everything is declared to need the whole batch."""
    assert not parts_of(name)
    assert compare(name, 0, (2, 2)) <= TOLERANCE


def test_the_comparison_can_fail():
    """A loss that is no mean over the batch and does not say so is detected."""

    @game
    class Root(Duel):
        def loss_D(self, batch):
            return softplus(self.D(batch["x"])).mean().sqrt()

    run = session(recipe(Root.spec))
    comparison = Comparison(run, micro_batch=2)
    with pytest.raises(AssertionError, match="D"):  # the values of the loss differ too
        play(run)
    assert comparison.worst > TOLERANCE


@game
class Gate(Duel):
    """Both players at once; G has a gate, and the game does not say so."""

    def turns(self):
        return [Turn(("D", "G"), self.both)]

    def both(self, batch):
        return {"D": self.loss_D(batch), "G": (self.loss_G(batch), torch.ones(()))}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"networks": {"G": Spec("test-mlp"), "D": Spec("test-mlp", outputs=1, norm=True)}}, "batch norm in D needs"),
        ({"spec": Gate.spec}, "the gate of G needs the whole batch"),
        ({"batch": 7}, "must divide the batch of a process, 7"),
    ],
)
def test_refusals_name_the_part(changes, text, tmp_path):
    with pytest.raises(ValueError, match=f"^--micro-batch 2: {text}"):
        train.train(recipe(**changes), tmp_path / "run", runtime=MICRO)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_fits_needs_no_slices(tmp_path):
    """With a batch of at most N samples nothing is refused and no bit changes."""
    normed = recipe(networks={"G": Spec("test-mlp"), "D": Spec("test-mlp", outputs=1, norm=True)}, batch=2, images=8)
    runs = [session(normed, runtime=runtime) for runtime in (CPU, MICRO)]
    for run in runs:
        play(run, 3)
    for key, value in weights(runs[0].game).items():
        assert torch.equal(value, runs[1].game.state_dict()[key])


def test_slices_of_a_batch():
    """Rows, noise, what losses leave and remove, scalars, logs; buffers of layers that draw nothing from the batch."""
    generator = torch.Generator().manual_seed(0)
    batch = Batch(4, generator=generator, rank=1, world=2)
    batch.update(
        x=torch.arange(4.0), names=list("abcd"), scale=torch.tensor(3.0), old=torch.ones(3), used=torch.ones(4)
    )
    whole = batch.randn(2)
    generator.manual_seed(0)
    for i, part in enumerate(batch.slices(2)):
        assert part.size == 2
        assert part["x"].tolist() == [i, i + 2.0] and part["names"] == [["a", "c"], ["b", "d"]][i]
        assert torch.equal(part.randn(2), whole[i::2])
        assert part["scale"] == 3.0 and len(part["old"]) == 3
        part["fake"], part["mean"] = part["x"].clone().requires_grad_() * 2, part["x"].mean()
        del part["used"]
        part.log("mean", part["x"].mean())
    assert batch["fake"].tolist() == [0.0, 2.0, 4.0, 6.0] and not batch["fake"].requires_grad
    assert batch["mean"] == batch.logs["mean"] == 1.5 and "used" not in batch
    assert (batch.size, batch.rank, batch.world) == (4, 1, 2) and batch["names"] == list("abcd")


# What a recipe does to gradients --------------------------------------------------------------------------------------


def gradient_of_D(played, *, runtime=CPU, spoil=None) -> tuple[StageRun, torch.Tensor]:
    """The gradient with which D's optimizer takes its first step."""
    run, gradients = session(played, runtime=runtime), []
    D = run.learner.optimizers["D"]
    if spoil is not None:
        run.game.D.first.weight.register_hook(spoil)

    def record(optimizer, args, kwargs):
        if optimizer is D and not gradients:
            gradients.append(torch.cat([p.grad.flatten() for p in run.game.D.parameters()]))

    handle = register_optimizer_step_pre_hook(record)
    try:
        play(run)
    finally:
        handle.remove()
    return run, gradients[0]


def with_D(optimizer, **fields):
    players = {"G": SGD(lr=0.1), "D": optimizer}
    base = recipe(**fields)
    return base.replace(stages=(dataclasses.replace(base.stages[0], optimizers=players),))


def test_clip():
    """A gradient longer than ``clip`` gets that norm and keeps its direction; a shorter one stays as it is."""
    _, plain = gradient_of_D(with_D(SGD(lr=0.1)))
    norm = plain.norm().item()
    _, shorter = gradient_of_D(with_D(SGD(lr=0.1, clip=norm / 2)))
    torch.testing.assert_close(shorter, plain / 2, rtol=1e-4, atol=1e-7)
    _, same = gradient_of_D(with_D(RMSProp(lr=0.1, clip=2 * norm)))
    torch.testing.assert_close(same, plain, rtol=1e-6, atol=0)


def test_nan_to_num():
    """NaN becomes 0, infinity the number; then the norm is clipped."""

    def spoil(gradient):
        gradient = gradient.clone()
        gradient[0, 0], gradient[0, 1], gradient[1, 0] = float("nan"), float("inf"), -float("inf")
        return gradient

    run, gradient = gradient_of_D(with_D(SGD(lr=0.1, nan_to_num=1e5)), spoil=spoil)
    assert gradient[:3].tolist() == [0.0, 1e5, -1e5]
    assert all(torch.isfinite(p).all() for p in run.game.D.parameters())
    _, gradient = gradient_of_D(with_D(SGD(lr=0.1, nan_to_num=1e5, clip=1.0)), spoil=spoil)
    assert gradient.norm().item() == pytest.approx(1.0, abs=1e-4)


def test_accumulate():
    """Each part has batch statistics of its own; the step takes the mean of the parts' gradients, and running averages
    see every part."""
    networks = {"G": Spec("test-mlp"), "D": Spec("test-mlp", outputs=1, norm=True)}
    run, gradient = gradient_of_D(with_D(SGD(lr=0.1), networks=networks, accumulate=2))
    assert run.game.D.norm.num_batches_tracked == 2 * 3, "two passes in D's turn and one in G's, of two parts each"

    start = session(with_D(SGD(lr=0.1), networks=networks))
    start.seed_round()
    batch = start.new_batch()
    start.draw(batch)
    z = batch.latent(start.game.prior)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        fake = start.game.D(start.game.G(z[rows]).detach())
        loss = softplus(fake).mean() + softplus(-start.game.D(batch["x"][rows])).mean()
        (loss / 2).backward()
    by_hand = torch.cat([p.grad.flatten() for p in start.game.D.parameters()])
    torch.testing.assert_close(gradient, by_hand, rtol=1e-5, atol=1e-7)
    _, whole = gradient_of_D(with_D(SGD(lr=0.1), networks=networks))
    assert (gradient - whole).abs().max() > 1e-3 * whole.abs().max()


def test_micro_batches_inside_accumulated_parts():
    """Without batch statistics all three ways are the same gradient."""
    _, whole = gradient_of_D(with_D(SGD(lr=0.1)))
    _, accumulated = gradient_of_D(with_D(SGD(lr=0.1), accumulate=2))
    _, both = gradient_of_D(with_D(SGD(lr=0.1), accumulate=2), runtime=MICRO)
    for gradient in (accumulated, both):
        torch.testing.assert_close(gradient, whole, rtol=1e-5, atol=1e-7)


def test_rows_of_parts_in_parts():
    """What is computed ahead in micro-batches of accumulated parts has its rows in the order of the whole batch."""
    runs = [session(recipe(Spec("adversarial", n_critic=3), accumulate=2), runtime=runtime) for runtime in (CPU, MICRO)]
    computed = []
    for run in runs:
        run.seed_round()
        turn, batch = run.learner.turns[0], run.new_batch()
        computed.append(run.learner.precompute(turn, batch, 3))
    for steps in zip(*computed, strict=True):
        for key in ("z", "generated"):
            torch.testing.assert_close(*(step[key] for step in steps))
    runs[0].seed_round()
    assert torch.equal(computed[0][0]["z"], runs[0].new_batch().latent(runs[0].game.prior))


def test_wrong_values(tmp_path):
    for field, value in (("clip", 0.0), ("nan_to_num", -1.0)):
        with pytest.raises(ValueError, match=rf"optimizers\.D\.{field}={value}: must be above 0"):
            session(with_D(SGD(lr=0.1, **{field: value})))
    with pytest.raises(ValueError, match=r"stages\.0\.accumulate=0: must be at least 1"):
        session(recipe(accumulate=0))
    with pytest.raises(ValueError, match=r"accumulate=3: must divide the batch of a process, 8"):
        session(recipe(accumulate=3))
    with pytest.raises(ValueError, match=r"micro_batch=0: must be at least 1"):
        dataclasses.replace(CPU, micro_batch=0)


@NETWORKS.register("test-spectral")
class SpectralMlp(nn.Sequential):
    """Points -> scores, with spectral normalization."""

    def __init__(self):
        super().__init__(Linear(2, 8, sn=True), nn.Tanh(), Linear(8, 1, sn=True))


def test_each_slice_begins_with_the_same_buffers(float64):
    """The vector of spectral normalization moves once in a step, not once in a slice."""
    networks = {"G": Spec("test-mlp"), "D": Spec("test-spectral")}
    assert compare_run(session(recipe(networks=networks)), (2, 1)) <= ROUNDING
