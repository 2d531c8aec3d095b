"""The engine on small games of the tests' own: who learns, when, from what, and what is saved."""

import dataclasses
import math
import os
import re
import signal

import pytest
import torch
from helpers.play import (
    CPU,
    STEP,
    D,
    Duel,
    Every,
    G,
    Killed,
    Mlp,
    game,
    image_recipe,
    images,
    kill_at,
    log_of,
    moved,
    play,
    recipe,
    same,
    session,
    weights,
)
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import softplus

import zoo
from zoo.costs import table
from zoo.data import facts as facts_of
from zoo.engine import checkpoint, log, train
from zoo.engine.dry_run import describe, dry_run, equivalent_images
from zoo.engine.ema import EmaNetwork
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS, RunFolder
from zoo.engine.runtime import Runtime
from zoo.engine.stage import resolve
from zoo.engine.step import Learner
from zoo.files import tensor_hash
from zoo.game import Batch, Turn
from zoo.penalties import Penalty
from zoo.recipe import SGD, Adam, Data, Ema, Recipe, RMSProp, Rounds, Schedule, Stage, Stream
from zoo.registry import NETWORKS, PENALTIES, Spec
from zoo.seeds import seed_for

E = Spec("test-mlp")


# Turns ----------------------------------------------------------------------------------------------------------------


@game
class Encoding(Duel):
    """A third player, E, reads the noise back from what G paints."""

    def turns(self):
        return [*super().turns(), Turn(("E",), self.loss_E, draw=None)]

    def loss_E(self, batch):
        z = batch.latent(self.prior)
        return (self.E(self.G(z)) - z).square().mean()


def test_third_player():
    """Each turn moves its own players and nothing else, though the loss of E passes through G."""
    opened = session(recipe(Encoding.spec, "G D E", networks={"G": G, "D": D, "E": E}))
    batch = opened.new_batch()
    opened.seed_round()
    opened.draw(batch)
    for turn in opened.learner.turns:
        before = weights(opened.game)
        opened.learner.play(turn, batch, 0)
        assert moved(before, opened.game) == set(turn.players)
        learning = {n.split(".")[0] for n, p in opened.game.named_parameters() if p.requires_grad}
        assert learning == set(turn.players)
    play(opened, 2)
    assert opened.total_images == 2 * 8  # only D's turn consumes reals


@game
class Together(Duel):
    """Both move at once; each loss depends on both networks."""

    def turns(self):
        return [Turn(("G", "D"), self.both)]

    def both(self, batch):
        fake = self.G(batch.latent(self.prior))
        score = self.D(fake).mean()
        return {"D": score + self.D(batch["x"]).square().mean(), "G": fake.square().mean() - 3 * score}


def test_simultaneous_turn():
    """A dict of losses: each player steps down its own gradient alone, all from the same old weights."""
    opened = session(recipe(Together.spec))
    old = weights(opened.game)
    opened.seed_round()
    batch = opened.new_batch()
    opened.draw(batch)
    opened.game.requires_grad_(True)
    losses = opened.game.both(batch)
    gradients = {
        f"{name}.{k}": g
        for name in ("G", "D")
        for (k, p), g in zip(
            getattr(opened.game, name).named_parameters(),
            torch.autograd.grad(losses[name], list(getattr(opened.game, name).parameters()), retain_graph=True),
            strict=True,
        )
    }
    opened.seed_round()
    opened.learner.play(opened.learner.turns[0], batch, 0)
    new = weights(opened.game)
    for key, gradient in gradients.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(new[key], old[key] - STEP.lr * gradient, rtol=0, atol=1e-7)


def test_losses_must_name_the_players():
    @game
    class Wrong(Together):
        def both(self, batch):
            return {"G": super().both(batch)["G"]}

    with pytest.raises(AssertionError, match="players"):
        play(session(recipe(Wrong.spec)))


@game
class Lazy(Duel):
    """A penalty in every fourth round, and turns of their own sizes and draws; it remembers what it was given."""

    def __init__(self, networks):
        super().__init__(networks)
        self.calls = []

    def turns(self):
        def turn(player, label, **kwargs):
            def loss(batch):
                self.calls.append((label, batch.size, len(batch["x"]), batch["x"].sum().item()))
                z = batch.latent(self.prior)
                assert len(z) == batch.size
                return getattr(self, player)(z).square().mean()

            return Turn((player,), loss, **kwargs)

        return [
            turn("D", "D", repeat=2),
            turn("G", "own", batch=12, draw=None),
            turn("D", "lazy", every=4, draw="last"),
            turn("G", "other", batch=4),
        ]


def test_lazy_turns_sizes_and_draws():
    opened = session(recipe(Lazy.spec))
    rounds = []
    for _ in range(5):
        opened.game.calls.clear()
        before = opened.total_images
        play(opened)
        rounds.append((list(opened.game.calls), opened.total_images - before))
    for i, (calls, consumed) in enumerate(rounds):
        labels = [s[0] for s in calls]
        assert labels == ["D", "D", "own", *(["lazy"] if i % 4 == 0 else []), "other"]
        assert consumed == 8 + 8 + 4  # draw="last" and draw=None consume nothing
        assert [s[1:3] for s in calls if s[0] == "own"] == [(12, 8)]  # its own size beside the last reals
        assert [s[1:3] for s in calls if s[0] == "other"] == [(4, 4)]
        assert calls[0][3] != calls[1][3]  # fresh reals in each repetition
        if i % 4 == 0:
            assert calls[3][3] == calls[1][3]  # the last ones again


@game
class Around(Duel):
    """D's weights are set to 1 before each step, and noted by the loss and after the step."""

    def turns(self):
        self.calls = []
        D = Turn(("D",), self.noted_loss, repeat=2, before=self.reset, after=lambda batch: self.note("after"))
        return [D, Turn(("G",), self.loss_G, draw=None)]

    def reset(self, batch):
        assert not torch.is_grad_enabled()
        for p in self.D.parameters():
            p.fill_(1.0)

    def note(self, when):
        self.calls.append((when, {p.mean().item() for p in self.D.parameters()} == {1.0}))

    def noted_loss(self, batch):
        self.note("loss")
        return self.loss_D(batch)


def test_updates_before_and_after_each_step():
    """In every repetition of a turn the update before the step is seen by the loss, the one after it sees the step."""
    opened = session(recipe(Around.spec))
    play(opened)
    assert opened.game.calls == [("loss", True), ("after", False)] * 2


@pytest.mark.parametrize("order", ["D-first", "G-first", "simultaneous"])
def test_a_lazy_penalty_has_its_turn_in_every_order(order):
    """The base game: every fourth round, its weight times four, after the turn of its player."""
    lazy = Spec("r1", weight=2.0, every=4)
    opened = session(recipe(Spec("adversarial", order=order, penalties=(lazy,))))
    recorded = [play(opened) for _ in range(5)]
    counts = [len(r["loss/D"]) for r in recorded]
    assert counts == [2, 1, 1, 1, 2]
    batch = opened.new_batch()
    opened.draw(batch)
    penalty = opened.game.penalties[0]
    lowered = next(turn for turn in opened.learner.turns if turn.every == 4).loss(batch)
    order_of_turns = {
        "D-first": [["D", 1], ["D", 4], ["G", 1]],
        "G-first": [["G", 1], ["D", 1], ["D", 4]],
        "simultaneous": [["D", "G", 1], ["D", 4]],
    }
    assert [[*turn.players, turn.every] for turn in opened.learner.turns] == order_of_turns[order]
    torch.testing.assert_close(lowered, 8 * penalty(opened.game.D, batch["x"]))


@pytest.mark.parametrize(
    ("player", "options", "factor"),
    [
        ("D", {"n_critic": 3}, 12),
        ("D", {"n_critic": Rounds(3, first=(2, 9))}, 12),
        ("D", {"n_critic": 3, "order": "simultaneous"}, 12),
        ("G", {"n_critic": 3}, 4),
        ("G", {"n_generator": 2}, 8),
        ("G", {"n_critic": 3, "order": "simultaneous"}, 12),
    ],
)
def test_a_lazy_penalty_weighs_as_much_as_one_in_each_step(player, options, factor):
    """Its turn is played once in four rounds, in which its player has more than four steps."""
    kind = {"D": "r1", "G": "test-smooth"}[player]
    opened = session(recipe(Spec("adversarial", penalties=(Spec(kind, weight=2.0, every=4),), **options)))
    batch = opened.new_batch()
    opened.draw(batch)
    penalty = opened.game.penalties[0]
    penalty.forward = lambda discriminate, real, fake, batch: torch.ones(())
    lazy = next(turn for turn in opened.learner.turns if turn.every == 4)
    assert lazy.players == (player,) and lazy.loss(batch).item() == 2.0 * factor


COMBINATIONS = [
    ({"order": "simultaneous", "n_generator": 3}, "game.n_generator=3: must be left at 1 with"),
    ({"order": "simultaneous", "generator_batch": 4}, "game.generator_batch=4: must be left at None with"),
    ({"order": "simultaneous", "noise": "shared"}, "game.noise=shared: must be left at fresh with"),
    ({"order": "simultaneous", "reals": "fresh"}, "game.reals=fresh: must be left at last with"),
    ({"order": "G-first", "noise": "shared"}, "game.noise=shared: must be left at fresh with game.order='G-first'"),
    ({"order": "G-first", "loss": Spec("began")}, "game.order='G-first': must be another one, since game.loss='began'"),
    ({"noise": "shared", "generator_batch": 4}, "game.generator_batch=4: must be left out with game.noise='shared'"),
    ({"reals": "fresh"}, "game.reals='fresh': must be 'last', since G's step reads no reals"),
    ({"loss": Spec("relativistic"), "generator_batch": 4}, "game.generator_batch=4: must be left out, or game.reals"),
    ({"penalties": (Spec("path-length", every=1, batch=4),)}, "path-length: batch=4 must be left out with every=1"),
]


@pytest.mark.parametrize(("options", "message"), COMBINATIONS)
def test_options_that_would_do_nothing_beside_others(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        session(recipe(Spec("adversarial", **options)))


@game
class Uneven(Duel):
    """G's step has half as many fakes as it gets reals, those of D's step."""

    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw="last", batch=4)]

    def loss_G(self, batch):
        return softplus(self.D(batch["x"]) - self.D(self.G(batch.latent(self.prior)))).mean()


def test_the_dry_run_has_the_rows_of_a_run():
    facts = facts_of("ring")
    with pytest.raises(ValueError, match=r"stage at 0 pixels: .*\[8, 1\]"):
        dry_run(resolve(recipe(Uneven.spec), facts), facts)
    with pytest.raises(RuntimeError, match="The size of tensor a .8. must match"):
        play(session(recipe(Uneven.spec)))


@pytest.mark.parametrize("norm, passes", [(False, [2, 8 * 8, 3 * 8]), (True, [2, *[8] * 11])])
def test_fakes_of_a_repeated_turn_come_from_one_pass(norm, passes):
    """G stands still while D learns: its steps' fakes in passes of eight, and on the same noise as one at a time;
    where G looks across the batch each step has a pass of its own."""
    spec = Spec("adversarial", n_critic=11, generator_batch=2, order="G-first", noise="fresh")
    tested = recipe(spec, networks={"G": G.replace(norm=norm), "D": D})
    precompute, alone = session(tested), session(tested)
    alone.learner.turns[1] = dataclasses.replace(alone.learner.turns[1], precompute=None)
    alone.learner._losses[id(alone.learner.turns[1])] = alone.game.loss_D
    passes_of_G = []
    precompute.game.G.register_forward_hook(
        lambda module, inputs, output: passes_of_G.append((len(inputs[0]), output.requires_grad))
    )
    play(precompute), play(alone)
    assert passes_of_G == [(n, i == 0) for i, n in enumerate(passes)]
    for key, value in weights(precompute.game).items():
        torch.testing.assert_close(value, weights(alone.game)[key], rtol=1e-5, atol=1e-6)


@PENALTIES.register("test-smooth")
class Smooth(Penalty):
    """The square of G's images, of a batch of its own."""

    player, batch = "G", 3

    def forward(self, discriminate, real, fake, batch=None):
        assert batch.size == len(fake.x) == 3
        return fake.x.square().mean()


def test_a_lazy_penalty_of_G_may_have_a_batch_of_its_own():
    lazy = Spec("test-smooth", weight=2.0, every=2)
    opened = session(recipe(Spec("adversarial", penalties=(lazy,))))
    turns = [(*turn.players, turn.every, turn.batch, turn.draw) for turn in opened.learner.turns]
    assert turns == [("D", 1, None, "fresh"), ("G", 1, None, None), ("G", 2, 3, None)]
    assert [len(play(opened)["loss/G"]) for _ in range(3)] == [2, 1, 2]


@NETWORKS.register("test-noisy")
class Noisy(Mlp):
    """Adds noise to its hidden units."""

    noise_shapes = {"hidden": (8,)}  # noqa: RUF012  # a constant

    def forward(self, z, noise):
        return self.last(torch.tanh(self.first(z) + noise["hidden"]))


@pytest.mark.parametrize("noise", ["fresh", "shared"])
def test_a_generator_that_takes_noise(noise):
    """Every step has numbers of its own, also D's steps, whose fakes come from one pass; with shared noise G's step has
    those of D's last one."""
    spec = Spec("adversarial", n_critic=2, noise=noise)
    opened = session(recipe(spec, networks={"G": Spec("test-noisy"), "D": D}))
    numbers, forward = [], opened.game.G.forward
    opened.game.G.forward = lambda z, noise: numbers.append(noise["hidden"]) or forward(z, noise)
    play(opened)
    of_D, of_G = numbers
    assert of_D.shape == (16, 8) and not torch.equal(of_D[:8], of_D[8:])
    assert torch.equal(of_D[8:], of_G) == (noise == "shared")


def test_last_draws_where_there_are_none_yet():
    @game
    class Last(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D, draw="last"), Turn(("G",), self.loss_G, draw="fresh")]

    opened = session(recipe(Last.spec))
    play(opened)
    assert opened.total_images == 16


def test_a_game_that_looks_at_no_reals_is_refused():
    @game
    class Blind(Duel):
        def turns(self):
            return [Turn(("G",), self.loss_G, draw=None)]

    blind = recipe(Blind.spec, "G")
    with pytest.raises(ValueError, match="consume no real images"):
        describe(blind)


def test_multiply_adds_of_a_round():
    """Counted against the arithmetic of the tests' networks: G 2-8-2, D 2-8-1, eight points, biases not counted.
    D's step: G forward; for reals and for fakes D forward, gradients of its weights and of its hidden layer.
    G's step: both forward, back through all of D to its input, gradients of G's weights and of its hidden layer."""
    G, D, hidden = 2 * 8 + 8 * 2, 2 * 8 + 8 * 1, 8 * 1
    expected = 8 * (G + 2 * (D + D + hidden)) + 8 * (G + D + D + G + 8 * 2)
    (stage,) = describe(recipe())["stages"]
    assert stage["multiply_adds_a_round"] == expected
    penalized = recipe(Spec("adversarial", penalties=(Spec("gradient-penalty"),)))
    plain = recipe(Spec("adversarial"))
    more, less = (describe(r)["stages"][0]["multiply_adds_a_round"] for r in (penalized, plain))
    assert more > less + 8 * 4 * D  # D again, twice differentiated


def test_rounds_schedule():
    """WGAN's bursts, and WGAN-GP's first round without G's step."""
    bursts = Rounds(2, first=(3, 5), every=(10, 7))
    assert [bursts(i) for i in (0, 2, 3, 9, 10, 11, 20)] == [5, 5, 2, 2, 7, 2, 7]

    @game
    class Bursts(Duel):
        def turns(self):
            return [
                Turn(("D",), self.loss_D, repeat=Rounds(1, first=(2, 3))),
                Turn(("G",), self.loss_G, repeat=Rounds(1, first=(1, 0)), draw=None),
            ]

    opened = session(recipe(Bursts.spec))
    before = weights(opened.game)
    assert len(play(opened)["loss/D"]) == 3
    assert moved(before, opened.game) == {"D"}
    assert opened.total_images == 3 * 8
    assert {k: len(v) for k, v in play(opened).items()} == {"loss/D": 3, "loss/G": 1}
    assert {k: len(v) for k, v in play(opened).items()} == {"loss/D": 1, "loss/G": 1}


# Players --------------------------------------------------------------------------------------------------------------


@NETWORKS.register("test-levels")
class Levels(nn.Module):
    """Parts that may be players of their own."""

    def __init__(self):
        super().__init__()
        self.latent = 2
        self.levels = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(3))
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, z):
        for level in self.levels:
            z = level(z)
        return z * self.scale


def test_nested_player():
    """ "G.levels.1" learns; the rest of G, which no turn names, is frozen, in eval mode."""

    @game
    class Nested(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D), Turn(("G.levels.1",), self.loss_G, draw=None)]

    nested = recipe(Nested.spec, "D G.levels.1", Adam(lr=0.1), networks={"G": Spec("test-levels"), "D": D})
    opened = session(nested)
    before = weights(opened.game)
    play(opened, 2)
    changed = {k for k, v in opened.game.state_dict().items() if not torch.equal(v, before[k])}
    assert {k for k in changed if k.startswith("G.")} == {k for k in before if k.startswith("G.levels.1.")}
    G = opened.game.G
    assert [level.training for level in G.levels] == [False, True, False]
    for name, p in G.named_parameters():
        if not name.startswith("levels.1"):
            assert not p.requires_grad and p.grad is None, name
    tensors = checkpoint.collect(opened.game, opened.learner, opened.ema_networks)
    assert "optimizers.G.levels.1.0.weight/exp_avg" in tensors


def test_one_optimizer_a_parameter():
    """By the parameter's identity: tied weights under two players are a mistake."""

    @game
    class Tied(Duel):
        def __init__(self, networks):
            super().__init__(networks)
            self.E.last.weight = self.G.last.weight

        def turns(self):
            return [*super().turns(), Turn(("E",), self.loss_G, draw=None)]

    tied = recipe(Tied.spec, "G D E", networks={"G": G, "D": D, "E": E})
    with pytest.raises(ValueError, match=r"'G' and 'E' would both learn E\.last\.weight"):
        session(tied)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ("G", "player 'D' must have one"),
        ("G D Q", "optimizers.Q: no turn names"),
        ("G D G.first", "optimizers.G.first"),
    ],
)
def test_players_and_optimizers_must_agree(players, message):
    with pytest.raises(ValueError, match=message):
        session(recipe(players=players))


def test_player_that_is_no_part_of_the_game():
    @game
    class Astray(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D), Turn(("H",), self.loss_G)]

    with pytest.raises(ValueError, match="player 'H' must be a submodule of the game"):
        session(recipe(Astray.spec, "D H"))


# Gates ----------------------------------------------------------------------------------------------------------------


@game
class Gated(Duel):
    """G steps only if its gate is open; the gate is a tensor that the test sets."""

    def __init__(self, networks):
        super().__init__(networks)
        self.register_buffer("gate", torch.ones(()))

    def turns(self):
        return [Turn(("D", "G"), self.both)]

    def both(self, batch):
        return {"D": self.loss_D(batch), "G": (self.loss_G(batch), self.gate > 0)}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        (Adam(lr=0.01), True),
        (Adam(lr=0.01), False),
        (SGD(lr=0.01, momentum=0.9), True),
        (SGD(lr=0.01, momentum=0.9), False),
        (RMSProp(lr=0.01), True),
    ],
)
def test_gates(optimizer, fused, layout):
    """A closed gate leaves weights and moments untouched, in the first step too; an open one changes nothing else."""
    gated = image_recipe(Gated.spec, optimizer=optimizer)
    runtime = Runtime(device="cpu", layout=layout)

    def opened():
        one = session(gated, images(), runtime=runtime)
        one.learner = Learner(one.game, one.stage, fused=fused)
        return one

    def state(one):
        return {
            k: v.clone()
            for k, v in checkpoint.collect(one.game, one.learner, {}).items()
            if k.startswith(("game.G", "optimizers.G")) and v.any()
        }

    gated, free = opened(), opened()
    # Memory that is not asked for holds whatever was there: make that visible.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty_like", lambda x, **k: torch.full_like(x, 1e6, **k))
        for gate in (0.0, 1.0, 0.0, 1.0):
            gated.game.gate.fill_(gate)
            before = state(gated)
            play(gated)
            after = state(gated)
            assert same(before, after) == (gate == 0)
    # What D did in between, must not matter to G: compare G's own steps under equal D.
    free.game.load_state_dict(gated.game.state_dict())
    free.game.gate.fill_(1.0)
    free.learner = Learner(free.game, free.stage, fused=fused)
    gated.learner = Learner(gated.game, gated.stage, fused=fused)
    gated.game.gate.fill_(0.0)
    free.round = 10
    for one, rounds in ((gated, (9, 10)), (free, (10,))):
        frozen_D = weights(one.game.D)
        for i in rounds:
            one.game.gate.fill_(float(i == 10))
            one.game.D.load_state_dict(frozen_D)
            one.round = i
            play(one)
    assert same(weights(gated.game.G), weights(free.game.G))


# Game memory, prepare, finish ---------------------------------------------------------------------------------------


@game
class Remembering(Duel):
    """Counts in ``after``, keeps the last fakes, and is prepared once."""

    def __init__(self, networks):
        super().__init__(networks)
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("last", torch.zeros(8, 2))
        self.register_buffer("mean", torch.zeros(2))
        self.prepared = []

    def prepare(self, batch):
        assert not torch.is_grad_enabled() and self.training and self.G.training
        self.prepared.append(len(batch["x"]))
        self.mean.copy_(batch["x"].mean(0))

    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, after=self.remember)]

    def loss_G(self, batch):
        batch["fake"] = self.G(batch.latent(self.prior))
        return (1 + self.k) * softplus(-self.D(batch["fake"])).mean() + (batch["fake"] - self.last).square().mean()

    def remember(self, batch):
        assert not torch.is_grad_enabled()
        self.k.add_(0.01)
        self.last.copy_(batch["fake"])


def test_game_memory_goes_through_checkpoints(tmp_path, monkeypatch):
    """Buffers are saved and restored: a killed run goes on as if nothing had happened; prepare is not played again."""
    monkeypatch.setattr(train, "Clock", Every)
    tested = recipe(Remembering.spec, optimizer=Adam(lr=0.01))
    train.train(tested, tmp_path / "whole", runtime=CPU)
    with pytest.raises(Killed):
        train.train(tested, tmp_path / "cut", runtime=CPU, progress=kill_at(5))
    monkeypatch.setattr(
        Remembering, "prepare", lambda self, batch: batch.device.type == "meta" or pytest.fail("prepared twice")
    )
    train.resume(tmp_path / "cut")
    whole, facts = checkpoint.load(tmp_path / "whole" / CHECKPOINT)
    cut, again = checkpoint.load(tmp_path / "cut" / CHECKPOINT)
    assert whole["game.k"].item() == pytest.approx(0.1)
    assert whole["game.last"].any() and whole["game.mean"].any()
    assert same(whole, cut)
    assert {**facts, "seconds": 0} == {**again, "seconds": 0}
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")


def test_prepare_sees_up_to_1024_reals_once():
    opened = session(recipe(Remembering.spec))
    play(opened, 2)
    assert opened.game.prepared == [1024]
    assert opened.loaders["data"].position == 16  # what prepare looked at is not consumed
    few = session(image_recipe(Sized.spec), images(count=40))
    assert few.game.given == 40


@game
class Sized(Duel):
    def prepare(self, batch):
        self.given = len(batch["x"])
        with torch.no_grad():
            self.G.layers[-1].bias.fill_(0.25)


def test_averages_begin_as_the_prepared_players():
    opened = session(image_recipe(Sized.spec, ema={"G": Ema(halflife=1e9)}), images())
    assert (opened.ema_networks["G"].network.layers[-1].bias == 0.25).all()


@game
class Finishing(Duel):
    """Standing statistics: before export G's last bias becomes the mean of some reals."""

    def finish(self, draw):
        assert not torch.is_grad_enabled()
        self.G.last.bias.copy_(draw()["x"].mean(0) + 100)


@pytest.mark.parametrize("ema", [None, {"G": Ema(halflife=20)}])
def test_finish_touches_the_export_alone(tmp_path, ema, monkeypatch):
    monkeypatch.setattr(train, "Clock", Every)
    from zoo import hub

    runs = {}
    for spec in (Finishing.spec, Duel.spec):
        runs[spec] = tmp_path / spec.name
        train.train(recipe(spec, ema=ema), runs[spec], runtime=CPU)
    finished, plain = (checkpoint.load(r / CHECKPOINT)[0] for r in runs.values())
    assert same(finished, plain)  # neither weights nor the order of the reals are touched
    shipped, untouched = (hub.load(r).G for r in runs.values())
    assert (shipped.last.bias > 90).all()
    assert torch.equal(shipped.first.weight, untouched.first.weight)
    shipped_bias = plain["ema.G.last.bias" if ema else "game.G.last.bias"]
    assert torch.equal(untouched.last.bias, shipped_bias)


# Stages ---------------------------------------------------------------------------------------------------------------


@game
class Scaled(Duel):
    """A resolution schedule: G paints at the stage's size. ``only``: the players of the stage."""

    def __init__(self, networks, resolution, only=("D", "G")):
        super().__init__(networks)
        self.G.side, self.only = resolution, tuple(only)

    def turns(self):
        every = {"D": Turn(("D",), self.loss_D), "G": Turn(("G",), self.loss_G, draw="last")}
        return [every[p] for p in self.only]


def stages() -> Recipe:
    adam = Adam(lr=0.01)

    def stage(resolution, only, **more):
        optimizers = dict.fromkeys(only, adam)
        return Stage(Scaled.spec.replace(only=only), optimizers, images=24, batch=8, resolution=resolution, **more)

    schedule = Schedule("ema.G.halflife", ((0, 10.0), (24, 1000.0)))
    networks = {"G": Spec("test-painter"), "D": Spec("test-conv")}
    parts = (
        stage(8, ("D", "G"), schedules=(schedule,)),
        stage(16, ("D",)),
        stage(16, ("D", "G"), data=Data(flip=True)),
    )
    return Recipe(networks, parts, ema={"G": Ema(halflife=50)}, model="test", dataset="noise")


def test_stages_and_resolutions(tmp_path, monkeypatch):
    """Networks persist, optimizers start anew, an idle network is frozen in eval mode, EMA continues."""
    source = images(side=16).arrays["x"]
    states = []
    build, save = train.StageRun.__init__, train.save

    def built(self, *args, **kwargs):
        build(self, *args, **kwargs)
        assert all(not o.state for o in self.learner.optimizers.values())
        states.append(("before", self.index, weights(self.game), weights(self.ema_networks["G"].network)))
        assert self.game.training and self.game.D.training
        idle = self.index == 1
        assert self.game.G.training != idle
        assert all(p.requires_grad != idle or not idle for p in self.game.G.parameters())
        assert self.ema_networks["G"].halflife == 50

    def saved(run, *args):
        save(run, *args)
        if run.images < run.stage.images:
            return
        steps = {int(s["step"]) for o in run.learner.optimizers.values() for s in o.state.values()}
        assert steps == {3}
        states.append(("after", run.index, weights(run.game), weights(run.ema_networks["G"].network)))

    monkeypatch.setattr(train.StageRun, "__init__", built)
    monkeypatch.setattr(train, "save", saved)
    train.train(stages(), tmp_path / "run", runtime=CPU, dataset=source)
    assert [s[:2] for s in states] == [(w, i) for i in range(3) for w in ("before", "after")]
    for (_, _, end, average), (_, _, start, carried) in zip(states[1::2], states[2::2], strict=False):
        assert same(end, start) and same(average, carried)
    for i, (start, end) in enumerate(zip(states[::2], states[1::2], strict=True)):
        names = {k.split(".")[0] for k in start[2] if not torch.equal(start[2][k], end[2][k])}
        assert names == ({"D"} if i == 1 else {"D", "G"})
        assert same(start[3], end[3]) == (i == 1)  # an idle network keeps its average


@game
class Initialized(Duel):
    """``prepare`` overwrites both networks and a buffer of the game. ``only``: the players of the stage."""

    def __init__(self, networks, only=("D", "G")):
        super().__init__(networks)
        self.only = tuple(only)
        self.register_buffer("prepared", torch.zeros(()))

    def prepare(self, batch):
        self.prepared.add_(1)
        for p in (*self.G.first.parameters(), *self.D.parameters()):
            p.fill_(0.5)
        self.G.norm.running_mean.fill_(9.0)

    def turns(self):
        every = {"D": Turn(("D",), self.loss_D), "G": Turn(("G",), self.loss_G, draw="last")}
        return [every[p] for p in self.only]


@pytest.mark.parametrize("first", [("D", "G"), ("D",), ("G",)])
def test_data_dependent_initialization_leaves_what_an_earlier_stage_trained(first):
    """The rest is initialized, also its average; a buffer of the game is prepared in every stage."""

    def stage(only):
        optimizers = dict.fromkeys(only, STEP)
        return Stage(Initialized.spec.replace(only=only), optimizers, images=16, batch=8, resolution=0)

    networks = {"G": Spec("test-mlp", norm=True), "D": D}
    parts = (stage(first), stage(("D", "G")))
    ema = {"G": Ema(halflife=50), "D": Ema(halflife=50)}
    before = session(Recipe(networks, parts, ema=ema, model="test", dataset="ring"))
    play(before, 2)
    end = {name: weights(before.game.get_submodule(name)) for name in "GD"}
    average = {name: weights(before.ema_networks[name].network) for name in "GD"}
    after = session(before.recipe, stage=1, after=before)
    assert after.game.prepared == 1
    for name in "GD":
        now, ema_now = weights(after.game.get_submodule(name)), weights(after.ema_networks[name].network)
        if name in first:
            assert same(now, end[name]) and same(ema_now, average[name])
        else:
            assert (now["first.weight"] == 0.5).all() and same(now, ema_now)


def test_a_part_that_learns_no_more_has_its_ema_weights(tmp_path, monkeypatch):
    """Stage II of StackGAN trains on images of the weights that sample stage I. The ``stages()`` above keep G's last
    weights in the second stage, since G learns again in the third."""
    source, ends = images(side=16).arrays["x"], []

    def saved(run, *args, save=train.save):
        save(run, *args)
        ends.append((run.index, weights(run.game.G), weights(run.ema_networks["G"].network)))

    monkeypatch.setattr(train, "save", saved)
    recipe = stages()
    train.train(recipe.replace(stages=recipe.stages[:2]), tmp_path / "run", runtime=CPU, dataset=source)
    last, average = next((w, a) for i, w, a in reversed(ends) if i == 0)
    assert not same(last, average)
    index, finished, same_average = ends[-1]
    assert index == 1 and same(finished, average) and same(same_average, average)


def test_the_weights_of_each_stage(tmp_path, monkeypatch):
    """Also if a kill comes between the last checkpoint of a stage and the copy."""
    source = images(side=16).arrays["x"]
    train.train(stages(), tmp_path / "run", runtime=CPU, dataset=source)
    for k, end in ((1, 24), (2, 48)):
        model = zoo.load(tmp_path / "run" / f"weights-stage-{k}.safetensors")
        assert model.card["images"] == end and model.sample(2).shape == (2, 3, 16, 16)
    assert not (tmp_path / "run" / "weights-stage-3.safetensors").exists()
    copy = RunFolder.copy_stage_weights

    def killed(self, index):
        raise Killed

    monkeypatch.setattr(RunFolder, "copy_stage_weights", killed)
    with pytest.raises(Killed):
        train.train(stages(), tmp_path / "cut", runtime=CPU, dataset=source)
    monkeypatch.setattr(RunFolder, "copy_stage_weights", copy)
    train.resume(tmp_path / "cut", dataset=source)
    for k in (1, 2):
        name = f"weights-stage-{k}.safetensors"
        assert tensor_hash(tmp_path / "cut" / name) == tensor_hash(tmp_path / "run" / name)


def test_time_left_counts_what_later_stages_cost(tmp_path, monkeypatch):
    """Also after a resume. An image that is left counts as those of the running stage that have its multiply-adds: the
    second and the third stage have four times the pixels, in the second G learns nothing."""
    monkeypatch.setattr(train, "Clock", Every)
    source = images(side=16).arrays["x"]
    costs = [s["multiply_adds_a_round"] for s in dry_run(resolve(stages(), facts_of(source)), facts_of(source))]
    assert costs[0] < costs[1] < costs[2]
    expected = [
        (stage, done + 24 * stage, 24 - done + sum(24 * later / costs[stage] for later in costs[stage + 1 :]))
        for stage in range(3)
        for done in (8, 16, 24)
    ]
    ticks = []

    def progress(event, **facts):
        if event == "tick":
            left = facts["seconds_left"] * facts["images_per_second"]
            ticks.append((facts["stage"], facts["images"], pytest.approx(left)))
            if facts["stage"] and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                raise Killed

    with pytest.raises(Killed):
        train.train(stages(), tmp_path / "run", runtime=CPU, dataset=source, progress=progress)
    assert ticks.pop() == expected[3]  # which is played again: the last checkpoint is of the end of the first stage
    train.resume(tmp_path / "run", dataset=source, progress=progress)
    assert ticks == expected


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("dcgan-cifar10-small", 1, 1),
        ("pggan-celeba-1024", 100, 1000),
        ("triplegan-mnist", 5, 6),
        ("srgan-imagenet", 1.5, 2),
    ],
)
def test_images_of_later_stages_in_those_of_the_first(name, least, most):
    """Relative to the number of images. A stage without convolutions and matrix products says nothing."""
    stages = table()[name]["cost"]["stages"]
    total = sum(stage["images"] for stage in stages)
    assert least <= equivalent_images(stages) / total <= most
    assert equivalent_images(stages, len(stages) - 1) == stages[-1]["images"]
    free = [{**stage, "multiply_adds_a_round": 0.0} for stage in stages]
    assert equivalent_images(free) == total


def test_resume_in_a_later_stage(tmp_path, monkeypatch):
    """Killed in any stage, at its end too, a run goes on bit for bit; a schedule of an earlier stage leaves nothing
    behind."""
    monkeypatch.setattr(train, "Clock", Every)
    source = images(side=16).arrays["x"]
    train.train(stages(), tmp_path / "whole", runtime=CPU, dataset=source)
    whole = checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0]
    for death in (2, 3, 5, 6, 8):  # ticks are counted over all stages
        ticks = iter(range(1, 100))

        def progress(event, death=death, ticks=ticks, **facts):
            if event == "tick" and next(ticks) == death:
                raise Killed

        monkeypatch.setattr(Every, "save", 2)
        with pytest.raises(Killed):
            train.train(stages(), tmp_path / f"cut{death}", runtime=CPU, dataset=source, progress=progress)
        train.resume(tmp_path / f"cut{death}", dataset=source)
        assert same(whole, checkpoint.load(tmp_path / f"cut{death}" / CHECKPOINT)[0]), death
        assert log_of(tmp_path / "whole") == log_of(tmp_path / f"cut{death}")


def test_images_rescales_stages_and_schedules():
    rescaled = stages().rescaled(36)
    assert [s.images for s in rescaled.stages] == [12, 12, 12]
    assert rescaled.stages[0].schedules[0].points == ((0, 10.0), (12, 1000.0))
    assert rescaled.ema == stages().ema  # a half-life is no budget
    late = stages().replace(ema={"G": Ema(halflife=10, start=stages().images / 2)})
    assert late.rescaled(36).ema["G"] == Ema(halflife=10, start=18)
    assert [s.images for s in stages().rescaled(1).stages] == [1, 1, 1]
    with pytest.raises(ValueError, match="images=0: must be from 1 to"):
        stages().rescaled(0)


# Schedules ------------------------------------------------------------------------------------------------------------


def test_schedule_shapes():
    def at(shape, images):
        return Schedule("optimizers.G.lr", ((100, 1.0), (200, 4.0), (300, 2.0)), shape).at(images)

    for shape in ("linear", "cosine", "geometric", "steps"):
        assert [at(shape, i) for i in (0, 100, 200, 300, 10_000)] == [1.0, 1.0, 4.0, 2.0, 2.0], shape
    assert at("linear", 150) == 2.5 and at("linear", 250) == 3.0
    assert at("cosine", 150) == pytest.approx(2.5)
    assert at("cosine", 125) == pytest.approx(1 + 3 * (1 - math.cos(math.pi / 4)) / 2)
    assert at("geometric", 150) == pytest.approx(2.0)
    assert [at("steps", i) for i in (199, 201, 299)] == [1.0, 4.0, 4.0]


@game
class Weighted(Duel):
    def __init__(self, networks):
        super().__init__(networks)
        self.penalty = nn.Module()
        self.penalty.register_buffer("weight", torch.tensor(7.0))


def test_schedule_targets():
    """Fields of optimizers, one of a pair, all players, buffers, the averages: written before each round."""
    points = ((0, 0.1), (80, 0.9))
    targets = ("optimizers.G.lr", "optimizers.D.betas.0", "game.penalty.weight", "ema.G.halflife", "optimizers.*.eps")
    weighted = recipe(Weighted.spec, optimizer=Adam(lr=0.5), schedules=tuple(Schedule(t, points) for t in targets))
    opened = session(weighted.replace(ema={"G": Ema(halflife=5)}))
    play(opened, 5)  # the last of them began after 32 images
    G, D = (opened.learner.optimizers[p].param_groups[0] for p in "GD")
    value = 0.1 + 0.8 * 32 / 80
    assert G["lr"] == pytest.approx(value) and D["lr"] == 0.5
    assert D["betas"] == (pytest.approx(value), 0.999) and G["betas"] == (0.9, 0.999)
    assert G["eps"] == D["eps"] == pytest.approx(value)
    assert opened.game.penalty.weight.item() == pytest.approx(value)
    assert opened.ema_networks["G"].halflife == pytest.approx(value)


def test_half_life_of_zero():
    """A schedule of the EMA may begin with it: then the average equals the network."""
    schedule = Schedule("ema.G.halflife", ((0, 0.0), (15, 0.0), (16, 1e9)))
    opened = session(recipe(schedules=(schedule,), ema={"G": Ema(halflife=5)}))
    play(opened, 2)
    after_two = weights(opened.game.G)
    assert same(after_two, weights(opened.ema_networks["G"].network))
    play(opened)
    average = opened.ema_networks["G"].network.state_dict()
    assert not same(after_two, weights(opened.game.G))
    for key, value in after_two.items():
        torch.testing.assert_close(average[key], value)


def test_schedule_changes_the_step():
    still = session(recipe(schedules=(Schedule("optimizers.D.lr", ((0, 0.0), (8, 0.0), (9, 0.1)), "steps"),)))
    before = weights(still.game)
    play(still)
    assert moved(before, still.game) == {"G"}
    play(still, 2)
    assert moved(before, still.game) == {"G", "D"}


def test_schedule_of_a_nested_player():
    @game
    class Part(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D), Turn(("G.first",), self.loss_G, draw=None)]

    opened = session(recipe(Part.spec, "D G.first", schedules=(Schedule("optimizers.G.first.lr", ((0, 0.25),)),)))
    play(opened)
    assert opened.learner.optimizers["G.first"].param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("optimizers.E.lr", "must begin with one of optimizers.D., optimizers.G."),
        ("optimizers.D.rate", "no 'rate'"),
        ("optimizers.D.params", "no 'params'"),
        ("optimizers.D.betas", "betas.0"),
        ("optimizers.D.betas.2", "betas.2"),
        ("optimizers.D.betas.first", "betas.first"),
        ("optimizers.D.lr.0", "lr.0"),
        ("game.weight", "must be a buffer of the game, got 'weight'"),
        ("ema.G.decay", "ema.G.halflife"),
        ("lr", "must begin with optimizers., game. or ema."),
    ],
)
def test_schedule_mistakes_are_errors_before_any_work(target, message, tmp_path):
    tested = recipe(optimizer=Adam(lr=0.1), schedules=(Schedule(target, ((0, 1.0),)),), ema={"G": Ema(halflife=5)})
    with pytest.raises(ValueError, match=message):
        train.train(tested, tmp_path / "run", runtime=CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("targets", "number"),
    [
        (("optimizers.*.lr", "optimizers.D.lr"), "optimizers.*.lr and optimizers.D.lr"),
        (
            ("optimizers.G.betas.0", "optimizers.*.betas.1", "optimizers.*.betas.0"),
            "G.betas.0 and optimizers.*.betas.0",
        ),
        (("optimizers.D.lr", "optimizers.D.lr"), "(optimizers.D.lr)"),
        (("ema.G.halflife", "ema.G.halflife"), "(ema.G.halflife)"),
        (("game.G.norm.running_mean", "game.G.norm.running_mean"), "(game.G.norm.running_mean)"),
        (("optimizers.*.betas.0", "optimizers.*.betas.1", "optimizers.G.lr", "optimizers.D.lr"), ""),
    ],
)
def test_two_schedules_of_one_number(targets, number):
    """Its value would depend on which changed last, and that is another one after a resume."""
    schedules = tuple(Schedule(target, ((0, 1.0), (8 * k, 0.5))) for k, target in enumerate(targets, 1))
    networks = {"G": Spec("test-mlp", norm=True), "D": D}
    tested = recipe(optimizer=Adam(lr=0.1), schedules=schedules, ema={"G": Ema(halflife=5)}, networks=networks)
    if not number:
        assert dry_run(tested, facts_of("ring"))
        return
    for start in (lambda: dry_run(tested, facts_of("ring")), lambda: session(tested)):
        with pytest.raises(ValueError, match=rf"two of them write the same number.*{re.escape(number)}"):
            start()


# Averages -------------------------------------------------------------------------------------------------------------


def network(value: float, norm: bool = True) -> nn.Module:
    network = NETWORKS.build(Spec("test-mlp", norm=norm))
    for p in network.parameters():
        nn.init.constant_(p, value)
    return network


def average_of(ema: Ema, *updates: tuple[int, int]) -> float:
    """The average of a network that is 0 at first and then 1, after updates (images, total_images)."""
    ema_network, player = EmaNetwork(network(0.0), ema), network(1.0)
    for consumed, total_images in updates:
        ema_network.update(player, [""], consumed, total_images)
    values = {round(p.mean().item(), 6) for p in ema_network.network.parameters()}
    assert len(values) == 1
    return values.pop()


def test_average():
    assert average_of(Ema(halflife=100), (100, 100)) == 0.5
    assert average_of(Ema(halflife=100), (50, 50), (50, 100)) == 0.5  # the size of a round does not matter
    assert average_of(Ema(halflife=100), (200, 200)) == 0.75
    assert average_of(Ema(halflife=100, start=300), (300, 300)) == 1.0  # before the start it is the player
    assert average_of(Ema(halflife=100, start=300), (100, 301)) == 0.5
    assert average_of(Ema(halflife=1e9, rampup=0.05), (100, 2000)) == 0.5  # 0.05 * 2000 images
    assert average_of(Ema(halflife=100), (0, 100)) == 0.0  # a round without reals


def test_average_copies_buffers():
    """Batch norm's statistics belong to the newest weights."""
    tested = recipe(networks={"G": Spec("test-mlp", norm=True), "D": D}, ema={"G": Ema(halflife=1e9)})
    opened = session(tested)
    play(opened, 3)
    ema_network, player = opened.ema_networks["G"].network, opened.game.G
    assert not ema_network.training and player.training
    assert torch.equal(ema_network.norm.running_mean, player.norm.running_mean) and player.norm.running_mean.any()
    assert int(ema_network.norm.num_batches_tracked) == int(player.norm.num_batches_tracked) > 0
    assert not torch.equal(ema_network.first.weight, player.first.weight)


def test_what_is_shipped_is_the_average(tmp_path):
    from zoo import hub

    run = train.train(recipe(ema={"G": Ema(halflife=1e9)}), tmp_path / "run", runtime=CPU)
    tensors, _ = checkpoint.load(run / CHECKPOINT)
    shipped = hub.load(run)
    assert torch.equal(shipped.G.first.weight, tensors["ema.G.first.weight"])
    assert not torch.equal(shipped.G.first.weight, tensors["game.G.first.weight"])


# Stopping -------------------------------------------------------------------------------------------------------------


@game
class Breaking(Duel):
    """D's loss is ``value`` in the sixth round."""

    value = float("nan")

    def __init__(self, networks):
        super().__init__(networks)
        self.register_buffer("rounds", torch.zeros(()))

    def loss_D(self, batch):
        self.rounds.add_(1)
        batch.log("D/strange", torch.where(self.rounds == 2, torch.inf, 0.0))  # a log may be what it likes
        return super().loss_D(batch) + torch.where(self.rounds == 6, self.value, 0.0)


@pytest.mark.parametrize("count", [1, log.FOLD - 1, log.FOLD, log.FOLD + 1, 3 * log.FOLD + 5])
def test_running_mean_is_the_mean(count):
    """However many values were added up before; and the first one that is not finite is known."""
    values = torch.rand(count, generator=torch.Generator().manual_seed(0))
    for bad in (None, 0, count // 2, count - 1):
        mean = log.RunningMean()
        for i, value in enumerate(values):
            broken = bad is not None and i >= bad and (i - bad) % 2 == 0
            mean.add(10 + 3 * i, torch.tensor(-math.inf) if broken else value)
            assert len(mean.recent) < log.FOLD
        mean.fold()
        assert mean.count == count and not mean.recent
        if bad is None:
            assert mean.sum.item() / count == pytest.approx(values.mean().item(), rel=1e-6)
            assert math.isinf(mean.first_bad[0])
        else:
            assert mean.first_bad.tolist() == [10 + 3 * bad, -math.inf]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stops_the_run(tmp_path, monkeypatch, value):
    """One line names the round, the player and the last good checkpoint, which loads, is finite and can be resumed."""
    monkeypatch.setattr(train, "Clock", Every)
    monkeypatch.setattr(Breaking, "value", value)
    with pytest.raises(RuntimeError) as caught:
        train.train(recipe(Breaking.spec), tmp_path / "run", runtime=CPU)
    message = str(caught.value)
    assert "round 5 of stage 1" in message and "player D" in message and str(tmp_path / "run" / CHECKPOINT) in message
    tensors, facts = checkpoint.load(tmp_path / "run" / CHECKPOINT)
    assert facts["round"] == 3
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert log_of(tmp_path / "run")[1]["D/strange"] is None  # JSON has no infinity
    monkeypatch.setattr(Breaking, "value", 0.0)
    train.resume(tmp_path / "run")
    assert len(log_of(tmp_path / "run")) == 10


def test_weight_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    """A step may break a weight while its loss was finite; the next checkpoint must not be written."""
    monkeypatch.setattr(train, "Clock", Every)

    @game
    class Exploding(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, after=self.burst)]

        def burst(self, batch):
            self.G.last.bias.div_(0.0)

    with pytest.raises(RuntimeError, match=r"weight of player G is not finite after round 1 of stage 1.*checkpoint"):
        train.train(recipe(Exploding.spec), tmp_path / "run", runtime=CPU)
    tensors, facts = checkpoint.load(tmp_path / "run" / CHECKPOINT)
    assert facts["round"] == 0 and all(torch.isfinite(t).all() for t in tensors.values())


@pytest.mark.parametrize("place", ["buffer", "EMA", "moment"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_saved_that_is_not_finite(tmp_path, monkeypatch, place, value):
    """Buffers, averages and moments are no weights of a player; the checkpoint and the weights before them stay."""
    monkeypatch.setattr(train, "Clock", Every)
    networks = {"G": Spec("test-mlp", norm=True), "D": Spec("test-mlp", outputs=1)}
    settings = recipe(networks=networks, ema={"G": Ema(halflife=50)}, optimizer=Adam(lr=0.01))
    files, save = {}, train.save

    def break_and_save(run, folder, *args):
        if run.round == 3:
            files.update({path: path.read_bytes() for path in (folder.path / CHECKPOINT, folder.path / WEIGHTS)})
            with torch.no_grad():
                tensors = {
                    "buffer": lambda: next(iter(run.game.G.buffers())),
                    "EMA": lambda: next(run.ema_networks["G"].network.parameters()),
                    "moment": lambda: next(iter(run.learner.optimizers["D"].state.values()))["exp_avg_sq"],
                }
                tensors[place]().view(-1)[0] = value
        save(run, folder, *args)

    monkeypatch.setattr(train, "save", break_and_save)
    with pytest.raises(RuntimeError, match=r"checkpoint .*: (game|ema|optimizers)\..* has values that are NaN or inf"):
        train.train(settings, tmp_path / "run", runtime=CPU)
    assert files and all(path.read_bytes() == content for path, content in files.items())
    assert not list(tmp_path.rglob("*.partial"))


def test_collapse_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EARLY_IMAGES", 0)

    @game
    class Collapsing(Duel):
        def turns(self):
            return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, after=self.shrink)]

        def shrink(self, batch):
            self.G.last.weight.zero_()

    events = []
    for name, spec in (("collapsed", Collapsing.spec), ("fine", Duel.spec)):
        train.train(recipe(spec), tmp_path / name, runtime=CPU, progress=lambda event, **f: events.append((event, f)))
        warnings = [f["text"] for event, f in events if event == "warning"]
        assert len(warnings) == 1 and "collapse" in warnings[0] and "80 images" in warnings[0]


@NETWORKS.register("test-hungry")
class Hungry(nn.Module):
    """Runs out of memory on more than ``most`` samples."""

    def __init__(self, most: int = 3):
        super().__init__()
        self.most, self.layer = most, nn.Linear(2, 1)

    def forward(self, x):
        if x.device.type != "meta" and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.layer(x)


@game
class Greedy(Duel):
    """G's turn has a size of its own, an argument of the game."""

    def __init__(self, networks, generator_batch=None):
        super().__init__(networks)
        self.size = generator_batch

    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, batch=self.size)]


@pytest.mark.parametrize(
    ("most", "size", "advice"),
    [
        (3, None, "out of memory at batch=8: try --set batch=4, --precision bf16"),
        (8, 16, "out of memory at batch=8: try --set batch=4 --set game.generator_batch=4, --precision bf16"),
    ],
)
def test_out_of_memory_advises(tmp_path, most, size, advice):
    spec = Greedy.spec.replace(generator_batch=size)
    small = recipe(spec, networks={"G": G, "D": Spec("test-hungry", most=most)})
    with pytest.raises(RuntimeError) as error:
        train.train(small, tmp_path / "run", runtime=CPU)
    assert advice in str(error.value)
    checkpoint.load(tmp_path / "run" / CHECKPOINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_round(tmp_path, number, monkeypatch):
    """The round is finished, the checkpoint written, and the command that continues is printed; the old handlers come
    back."""
    monkeypatch.setattr(train, "Clock", Every)
    handler = signal.getsignal(number)
    events = []

    def progress(event, **facts):
        events.append((event, facts))
        if event == "tick" and facts["round"] == 4:
            os.kill(os.getpid(), number)

    run = train.train(recipe(), tmp_path / "run", runtime=CPU, progress=progress)
    assert signal.getsignal(number) == handler
    event, facts = events[-1]
    assert event == "done" and facts["stopped_by"] == signal.Signals(number).name
    assert facts["resume"] == f"zoo resume {run}"
    assert checkpoint.load(run / CHECKPOINT)[1]["round"] == facts["images"] // 8 == 5
    train.resume(run)
    train.train(recipe(), tmp_path / "whole", runtime=CPU)
    assert same(checkpoint.load(run / CHECKPOINT)[0], checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0])
    assert log_of(run) == log_of(tmp_path / "whole")


def test_minutes_stop_early(tmp_path):
    events = []
    run = train.train(recipe(), tmp_path / "run", runtime=CPU, minutes=0, progress=lambda e, **f: events.append((e, f)))
    assert events[-1][1]["stopped_by"] == "minutes" and events[-1][1]["images"] == 8
    assert checkpoint.load(run / CHECKPOINT)[1]["round"] == 1


# Beginning ------------------------------------------------------------------------------------------------------------


def test_init_begins_from_other_weights(tmp_path):
    """From a run folder all its players, from a weights file what it ships; data-dependent starts do not undo it."""
    first = train.train(recipe(), tmp_path / "first", runtime=CPU, seed=1)
    tensors, _ = checkpoint.load(first / CHECKPOINT)

    @game
    class Prepared(Duel):
        def prepare(self, batch):
            self.G.last.bias.fill_(3.0)
            self.D.last.bias.fill_(4.0)

    beginnings = {}

    def begin(name, init):
        def progress(event, **facts):
            if event == "tick":
                raise Killed

        prepared = recipe(Prepared.spec, ema={"G": Ema(halflife=10)})
        with pytest.raises(Killed):
            train.train(prepared, tmp_path / name, runtime=CPU, init=init, minutes=0, progress=progress)
        beginnings[name] = checkpoint.load(tmp_path / name / CHECKPOINT)[0]
        assert checkpoint.load(tmp_path / name / CHECKPOINT)[1]["round"] == 0
        return beginnings[name]

    from_run, from_file = begin("run", first), begin("file", first / "weights.safetensors")
    for key in ("G.last.bias", "G.first.weight"):
        for tensors_now in (from_run, from_file):
            assert torch.equal(tensors_now[f"game.{key}"], tensors[f"game.{key}"])
            assert torch.equal(tensors_now[f"ema.{key}"], tensors[f"game.{key}"])
    assert torch.equal(from_run["game.D.last.bias"], tensors["game.D.last.bias"])
    assert (from_file["game.D.last.bias"] == 4).all()  # a weights file holds no D


def test_init_mistakes(tmp_path):
    first = train.train(recipe(), tmp_path / "first", runtime=CPU)
    wide = recipe(networks={"G": Spec("test-mlp", hidden=9), "D": D})
    with pytest.raises(ValueError, match=r"network G does not fit the recipe's.*first"):
        train.train(wide, tmp_path / "a", runtime=CPU, init=first)
    other = recipe(Renamed.spec, "H K", networks={"H": G, "K": D})
    with pytest.raises(ValueError, match=r"must have a network of the recipe \(H, K\), got D, G"):
        train.train(other, tmp_path / "b", runtime=CPU, init=first)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@game
class Renamed(Duel):
    """The same play with other names."""

    G, D = property(lambda self: self.H), property(lambda self: self.K)

    def turns(self):
        return [Turn(("K",), self.loss_D), Turn(("H",), self.loss_G, draw=None)]


def test_a_folder_that_exists_is_refused_before_any_work(tmp_path, monkeypatch):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(train, "check_streams", lambda *a, **k: pytest.fail("data fetched"))
    with pytest.raises(ValueError, match="exists already; name another folder with --out") as error:
        train.train(recipe(), folder, runtime=CPU)
    assert str(error.value).endswith(f"zoo resume '{folder}'")  # as the shell reads it
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_needs_of_the_game_and_keys_of_the_data():
    """A stream yields what it names, and all keys if it names none."""

    @game
    class Classes(Duel):
        needs = ("x", "y")

    with pytest.raises(ValueError, match="needs 'y', but 'ring' has x"):
        describe(recipe(Classes.spec))
    describe(image_recipe(Classes.spec, resolution=28).replace(dataset="fashion-mnist-10k"))
    renamed = Data(streams={"data": Stream(keys={"x": "x"})})  # y is left out
    with pytest.raises(ValueError, match="needs 'y', but 'fashion-mnist-10k' has x"):
        describe(image_recipe(Classes.spec, resolution=28, data=renamed).replace(dataset="fashion-mnist-10k"))


# Layout, order, noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01, weight_decay=0.1), SGD(lr=0.1, momentum=0.9, dampening=0.5)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_fused_equals_unfused(optimizer, layout):
    """CPU's fused kernels pair elements by storage order: moments, gradients and weights must share a layout, after a
    restored checkpoint too."""
    ends = []
    for fused in (True, False):
        opened = session(image_recipe(optimizer=optimizer), images(), runtime=Runtime(device="cpu", layout=layout))
        opened.learner = Learner(opened.game, opened.stage, fused=fused)
        assert opened.learner._fused == dict.fromkeys("DG", fused)
        play(opened, 2)
        tensors = {k: v.contiguous().clone() for k, v in checkpoint.collect(opened.game, opened.learner, {}).items()}
        opened.learner = Learner(opened.game, opened.stage, fused=fused)
        checkpoint.restore(tensors, opened.game, opened.learner, {})
        play(opened, 2)
        weight = opened.game.G.layers[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
        ends.append(weights(opened.game))
    for key, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][key], rtol=0, atol=1e-6)


def test_layouts_agree():
    ends = []
    for layout in ("contiguous", "channels_last"):
        opened = session(image_recipe(optimizer=Adam(lr=0.01)), images(), runtime=Runtime(device="cpu", layout=layout))
        play(opened, 3)
        ends.append(weights(opened.game))
    for key, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][key], rtol=0, atol=1e-5)


def test_order_of_the_data():
    """A function of seed and position: every image once an epoch, another order in the next, the same one again."""

    @game
    class Looking(Duel):
        def loss_D(self, batch):
            self.values += batch["x"][:, 0, 0, 0].tolist()
            return super().loss_D(batch)

    x = torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 8, 8).contiguous()

    def look(seed, rounds, start=0):
        opened = session(image_recipe(Looking.spec, data=Data(range=(0.0, 255.0))), x, seed=seed)
        opened.loaders["data"].position = start
        opened.game.values = []
        play(opened, rounds)
        return opened.game.values

    whole = look(0, 4)
    first, second = whole[:16], whole[16:]
    assert sorted(first) == sorted(second) == list(range(16)) and first != second
    assert look(0, 4) == whole and look(1, 4) != whole
    assert look(0, 2, start=16) == second


def test_noise_is_for_all_processes_and_sliced():
    def noise(rank, world):
        generator = torch.Generator().manual_seed(3)
        batch = Batch(8 // world, generator=generator, rank=rank, world=world)
        draw = [batch.randn(2), batch.rand(1, 1), batch.randint(10)[:, None]]
        batch.size = 4 // world
        return [*draw, batch.latent(lambda n, g, d: torch.randn(n, 3, generator=g, device=d))]

    parts = zip(*(noise(rank, 2) for rank in range(2)), strict=True)
    for whole, part in zip(noise(0, 1), parts, strict=True):
        assert torch.equal(whole, torch.cat(part))


def test_randomness_of_a_round_is_a_function_of_seed_stage_and_round():
    seeds = {
        seed_for(*where) for where in ((0, "noise", 0, 1), (1, "noise", 0, 1), (0, "noise", 1, 0), (0, "layers", 0, 1))
    }
    assert len(seeds) == 4 and all(0 <= s < 2**63 for s in seeds)
    assert seed_for(0, "noise", 0, 1) == seed_for(0, "noise", 0, 1)


def test_runs_repeat_and_differ_by_seed(tmp_path):
    ends = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(1)  # what others draw does not matter
        run = train.train(recipe(), tmp_path / name, runtime=CPU, seed=seed)
        ends[name] = checkpoint.load(run / CHECKPOINT)[0]
    assert same(ends["a"], ends["b"]) and not same(ends["a"], ends["c"])


def test_the_average_counts_all_reals_of_a_round():
    """Those of each of D's three steps."""
    opened = session(recipe(Spec("adversarial", n_critic=3), ema={"G": Ema(halflife=24)}))
    before = weights(opened.game.G)
    assert opened.play_round() == 24
    average = opened.ema_networks["G"].network.state_dict()
    for key, value in opened.game.G.state_dict().items():
        torch.testing.assert_close(average[key], (before[key] + value) / 2)


def test_a_lazy_penalty_of_D_draws_no_reals():
    opened = session(recipe(Spec("adversarial", penalties=(Spec("r1", every=2),))))
    assert [opened.play_round() for _ in range(2)] == [8, 8]


def test_fakes_have_the_classes_of_the_reals_of_each_step():
    """They are not drawn in advance: the next reals are of other classes."""
    reduced = small("cgan-mnist")
    (stage,) = reduced.stages
    game = stage.game.replace(order="D-first", n_critic=3)
    reduced = reduced.replace(stages=(dataclasses.replace(stage, game=game),))
    run = session(reduced, stand_in(reduced))
    play_turn, classes = run.learner.play, []

    def check(turn, batch, round):
        values = play_turn(turn, batch, round)
        assert torch.equal(batch["y_fake"], batch["y"])
        classes.append(batch["y"].tolist())
        return values

    run.learner.play = check
    play(run)
    assert len(classes) == 4 and classes[0] != classes[1] != classes[2]
