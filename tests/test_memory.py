"""Activation memory and the size of a weights file, estimated on ``meta``, and those of a real step and file."""

import pytest
import torch
from helpers.play import session
from helpers.recipes import small, stand_in
from torch import nn

from zoo import hub, settings
from zoo.data import facts as facts_of
from zoo.engine.memory import SavedForBackward, activations, weights_file


# The last three have penalties, which take gradients within a pass
@pytest.mark.parametrize(
    "name",
    [
        "biggan-fashion-mnist",
        "s3gan-cifar10-small",
        "dcgan-fashion-mnist",
        "wgan-gp-fashion-mnist",
        "r3gan-fashion-mnist",
        "stylegan2-fashion-mnist",
    ],
)
def test_the_estimate_is_that_of_a_real_step(name):
    recipe = small(name)
    run, measured = session(recipe, stand_in(recipe)), []
    play_turn = run.learner.play

    def play(turn, batch, round):
        with SavedForBackward(run.game) as saved:
            losses = play_turn(turn, batch, round)
        measured.append((list(turn.players), saved.bytes))
        return losses

    run.learner.play = play
    (turns,) = activations(recipe, facts_of(recipe.dataset))
    for _ in range(5):  # of WGAN D alone learns in the first rounds
        if len(measured) < len(turns):
            run.play_round()
    for turn in turns:
        real = [size for players, size in measured if players == turn["players"]]
        assert any(size == pytest.approx(turn["bytes"], rel=0.05) for size in real), (turn, real)


@pytest.mark.parametrize("model", settings.models())
def test_every_model_has_an_estimate(model):
    """Of each turn of each stage of one of its settings."""
    recipe = small(next(name for name in settings.names(f"{model}-*") if settings.find(name).model == model))
    stages = activations(recipe, facts_of(recipe.dataset))
    assert len(stages) == len(recipe.stages) and all(turn["bytes"] > 0 for turns in stages for turn in turns)


def test_memory_grows_with_the_batch():
    """The part of the images is proportional to it."""
    recipe = small("dcgan-fashion-mnist")
    sizes = []
    for batch in (64, 128, 256):
        (turns,) = activations(recipe, facts_of(recipe.dataset), batch)
        assert all(turn["batch"] == batch for turn in turns)
        sizes.append(sum(turn["bytes"] for turn in turns))
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.01)


def test_what_is_counted():
    """Each storage once, no parameter: the input of a linear layer and the output of tanh."""
    layer, x = nn.Linear(10, 20), torch.randn(5, 10, requires_grad=True)
    with SavedForBackward(layer) as saved:
        torch.tanh(layer(x)).sum()
    assert saved.bytes == 4 * (5 * 10 + 5 * 20)


@pytest.mark.parametrize("name", sorted(hub.index()))
def test_size_of_a_weights_file(name):
    """As that of the shipped one, which has a header of names besides."""
    recipe, entry = settings.find(name), hub.index()[name]
    file = weights_file(recipe, facts_of(recipe.dataset))
    size = file["half" if entry["half"] else "float32"]
    assert size < entry["bytes"] < size + 2**16
    assert {tensor.split(".")[0] for tensor in hub.read_header(hub.find(name))["parameters"]} == set(file["networks"])


def test_cost_on_the_command_line(shell):
    facts = shell("show", "biggan-fashion-mnist", "--cost", "--batch", "8", "--json").json
    (turns,) = facts["stages"]
    assert facts["parameters"]["G"] > 1000 and [t["batch"] for t in turns] == [8, 8]
    assert all(t["bytes"] > 0 and t["multiply_adds_an_image"] > 0 for t in turns)
    assert (
        facts["weights_file"]["networks"] == ["G"] and facts["weights_file"]["float32"] > 4 * facts["parameters"]["G"]
    )
    text = shell("show", "biggan-fashion-mnist", "--cost").out
    assert "MiB of activations at a batch of 32" in text and "weights file (G): 0.3" in text
    assert "--batch 8: only with --cost" in shell("show", "dcgan", "--batch", "8").err
