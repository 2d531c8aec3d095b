"""torch.compile of the losses and bf16, once for each kind of training step, on small networks."""

import functools

import pytest
import torch
import torch._inductor.config
from helpers.play import Duel, game, moved, play, recipe, session, weights
from helpers.recipes import small, stand_in
from helpers.rounds import KINDS, compare_values
from torch._dynamo.utils import counters

import zoo
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun
from zoo.registry import Spec


def stage_run(name: str, **runtime) -> StageRun:
    recipe = small(name)
    return session(recipe, stand_in(recipe), runtime=Runtime(device="cpu", layout="contiguous", **runtime))


@pytest.mark.parametrize("name", KINDS)
def test_compiled_equals_eager(name, monkeypatch):
    """Losses, penalties and gradients, traced ahead of time, give the same weights after three rounds with the same
    noise. Each loss is one graph, and from the fourth round on none is compiled again."""
    torch._dynamo.reset()
    counters.clear()
    losses = []
    compile = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda loss, **_: losses.append(loss) or compile(loss))
    eager, compiled = stage_run(name), stage_run(name, compile=True)
    assert len(losses) == len(compiled.learner.turns)
    expected, scalars = play(eager, 3), play(compiled, 3)
    assert expected.keys() == scalars.keys()
    for key, values in expected.items():
        assert scalars[key] == pytest.approx(values, rel=1e-4, abs=1e-5), key
    compare_values(weights(eager.game), weights(compiled.game), 1e-4)
    assert counters["stats"]["unique_graphs"] and not counters["graph_break"], counters["graph_break"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        play(compiled, 2)


@game
class Powered(Duel):
    """Its losses differ from stage to stage, as those of networks that grow."""

    def __init__(self, networks, power):
        super().__init__(networks)
        self.power = power

    def loss_D(self, batch):
        return super().loss_D(batch) ** self.power

    def loss_G(self, batch):
        return super().loss_G(batch) ** self.power


def test_every_stage_is_compiled(monkeypatch):
    """More stages than torch compiles one function for by default; PGGAN has nine to 1024x1024."""
    torch._dynamo.reset()
    counters.clear()
    compile = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda loss, **_: compile(loss))
    with torch._dynamo.config.patch(recompile_limit=8):  # torch's own, which a learner raises
        for power in range(1, 11):
            run = session(recipe(Powered.spec.replace(power=power)), runtime=Runtime(device="cpu", compile=True))
            play(run, 2)
            assert counters["stats"]["unique_graphs"] == 2 * power


@pytest.mark.parametrize("name", KINDS)
def test_what_a_graph_leaves_is_copied(name, monkeypatch):
    """The next replay writes into the same memory: what a loss left in the batch, and its scalars, are in memory of
    their own when the next loss begins; so are the gradients of a slice. Weights are those of eager rounds."""
    marks, outputs = [], []

    def compile(loss, mode):
        assert mode == "reduce-overhead"

        def replay(batch):
            assert len(marks) == len(outputs) + 1, "a replay must begin with a mark"
            for output in outputs[-1:]:
                for tensor in output:
                    tensor.fill_(torch.nan)
            before = dict(batch), dict(batch.logs)
            value = loss(batch)
            new = [v for now, old in zip((batch, batch.logs), before, strict=True) for k, v in now.items()
                   if isinstance(v, torch.Tensor) and v is not old.get(k) and v.is_floating_point()]  # fmt: skip
            outputs.append([v.detach() for v in new])
            return value

        return replay

    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(0))
    monkeypatch.setattr(torch, "compile", compile)
    eager, graphs = stage_run(name), stage_run(name, cuda_graphs=True)
    expected, scalars = play(eager, 3), play(graphs, 3)
    assert scalars == expected and outputs
    compare_values(weights(eager.game), weights(graphs.game), 0)


@pytest.mark.parametrize("penalties", [("gradient-penalty",), ("r1", "r2")], ids="+".join)
@torch._inductor.config.patch(compile_threads=1)
def test_compiled_to_machine_code(penalties):
    """All of compilation once: a step of D with penalties, whose loss contains a gradient, of a pass of its own or of
    the pass that is scored."""
    torch._dynamo.reset()
    with_penalty = recipe(Spec("adversarial", loss=Spec("wasserstein"), penalties=tuple(map(Spec, penalties))))
    results = []
    for compile in (False, True):
        run = session(with_penalty, runtime=Runtime(device="cpu", compile=compile))
        run.seed_round()
        for _ in range(2):  # the first step is eager
            batch = run.new_batch()
            run.draw(batch)
            loss = run.learner.play(run.learner.turns[0], batch, 0)["D"]
        assert all(batch.logs[f"penalty/{i}"] > 0 for i in range(len(penalties)))
        results.append({"loss": loss, **weights(run.game)})
    compare_values(*results, 1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_bf16(name):
    """Under autocast weights, losses and penalties stay in float32, and losses are the same to rounding."""
    fp32, bf16 = stage_run(name), stage_run(name, precision="bf16")
    before = weights(bf16.game)
    losses = []
    play_turn, expected = bf16.learner.play, play(fp32, 1)

    def check_turn(turn, batch, round):
        values = play_turn(turn, batch, round)
        losses.extend(values.values())
        assert all(v.dtype == torch.float32 for k, v in batch.logs.items() if k.startswith("penalty"))
        return values

    bf16.learner.play = check_turn
    scalars = play(bf16, 1)
    assert losses and all(v.dtype == torch.float32 and torch.isfinite(v) for v in losses)
    assert all(p.dtype == torch.float32 for p in bf16.game.parameters())
    assert set(bf16.learner.players) & moved(before, bf16.game)
    for key in (k for k in expected if k.startswith("loss/")):
        assert scalars[key][0] == pytest.approx(expected[key][0], rel=0.05, abs=0.05), key
    assert scalars != expected  # bf16 had an effect


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    with pytest.raises(ValueError, match=r"on a CPU it needs a C\+\+ compiler; there is no .*g\+\+ here"):
        zoo.train("lsgan", "ring", images=512, out=tmp_path / "run", compile=True)
    assert not (tmp_path / "run").exists()
