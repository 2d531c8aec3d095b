"""torch.compile of the losses and bf16, once for each kind of game, on small networks."""

import functools

import pytest
import torch
import torch._inductor.config
from helpers.play import moved, play, recipe, session, weights
from helpers.recipes import small, stand_in

from zoo.engine.runtime import Runtime
from zoo.registry import Spec

# One recipe for each kind of play: one pass for real and fake, batch norm and bursts, a penalty that differentiates D,
# classes and both players at once, two domains.
KINDS = ["sngan-cifar10-small", "wgan-fashion-mnist", "wgan-gp-mnist-small", "cgan-mnist", "cyclegan-emoji-small"]


def opened(name: str, **runtime):
    made = small(name)
    return session(made, stand_in(made), runtime=Runtime(device="cpu", layout="contiguous", **runtime))


def close(a: dict, b: dict, tolerance: float) -> None:
    for key, value in a.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                b[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("name", KINDS)
def test_compiled_equals_eager(name, monkeypatch):
    """Losses, penalties and gradients traced ahead of time give the same weights after two rounds; the noise is the same."""
    counted = []
    compile = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda loss: counted.append(loss) or compile(loss))
    plain, traced = opened(name), opened(name, compile=True)
    assert len(counted) == len(traced.learner.turns)
    expected, found = play(plain, 2), play(traced, 2)
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-5), key
    close(weights(plain.game), weights(traced.game), 1e-4)


def test_compiled_to_machine_code(monkeypatch):
    """The whole way down once: a critic's turn with the gradient penalty, whose loss holds a gradient."""
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    torch._dynamo.reset()
    penalty = Spec("gradient-penalty")
    made = recipe(Spec("adversarial", loss=Spec("wasserstein"), penalties=(penalty,)))
    ends = []
    for compile in (False, True):
        one = session(made, runtime=Runtime(device="cpu", compile=compile))
        one.seed_round()
        batch = one.new_batch()
        one.draw(batch)
        loss = one.learner.play(one.learner.turns[0], batch, 0)["D"]
        assert batch.logs["penalty/0"] > 0
        ends.append({"loss": loss, **weights(one.game)})
    close(*ends, 1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_bf16(name):
    """Under autocast weights, losses and penalties stay in float32, and the play is the same but for rounding."""
    plain, rough = opened(name), opened(name, precision="bf16")
    before = weights(rough.game)
    losses = []
    rough_play, plain_loss = rough.learner.play, play(plain, 1)

    def watched(turn, batch, round):
        out = rough_play(turn, batch, round)
        losses.extend(out.values())
        assert all(v.dtype == torch.float32 for k, v in batch.logs.items() if k.startswith("penalty"))
        return out

    rough.learner.play = watched
    found = play(rough, 1)
    assert losses and all(v.dtype == torch.float32 and torch.isfinite(v) for v in losses)
    assert all(p.dtype == torch.float32 for p in rough.game.parameters())
    assert set(rough.learner.players) & moved(before, rough.game)
    for key in (k for k in plain_loss if k.startswith("loss/")):
        assert found[key][0] == pytest.approx(plain_loss[key][0], rel=0.05, abs=0.05), key
    assert found != plain_loss  # it did something
