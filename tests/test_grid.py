"""Every adversarial loss with every penalty on every pair of networks that plays the plain game: the grid over the registries.

Pairs are those of the recipes, with few channels. A penalty that reads D's features is left out where D has none.
"""

import copy
import functools
import inspect

import pytest
import torch
from test_recipes import NAMES, small
from torch import nn

from zoo import recipe as recipes
from zoo.data import facts as facts_of
from zoo.engine import plan
from zoo.engine.turn import Learner
from zoo.game import Batch, seed_for
from zoo.recipe import Adam, Stage
from zoo.registry import LOSSES, NETWORKS, PENALTIES, Spec

BATCH = 4


def own(registry) -> list[str]:
    return [n for n in registry.names() if registry[n].__module__.startswith("zoo.")]


def pairs() -> dict[tuple[str, str], str]:
    """For each pair of networks of the plain game the recipe with the smallest images."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for name in NAMES:
        made = recipes.find(name)
        if all(stage.game.name == "adversarial" for stage in made.stages):
            key = (made.networks["G"].name, made.networks["D"].name)
            found[key] = min(found.get(key, (10**9, "")), (made.stages[-1].resolution, name))
    return {key: name for key, (_, name) in found.items()}


PAIRS = pairs()


def reads_features(penalty: str) -> bool:
    return "D.features" in inspect.getsource(PENALTIES[penalty])


def fits(pair: tuple[str, str], penalty: str | None) -> bool:
    return penalty is None or not reads_features(penalty) or hasattr(NETWORKS[pair[1]], "features")


GRID = [
    pytest.param(pair, loss, penalty, id=f"{pair[0]}+{pair[1]}-{loss}-{penalty}")
    for pair in PAIRS
    for loss in own(LOSSES)
    for penalty in (None, *own(PENALTIES))
    if fits(pair, penalty)
]


@functools.cache
def prepared(pair: tuple[str, str]):
    made = small(PAIRS[pair], BATCH)
    facts = facts_of(made.dataset)
    made = plan.resolve(made, facts)
    return made, facts, plan.build_networks(made)


def opened(pair: tuple[str, str], loss: str, penalty: str | None) -> tuple[Learner, Stage]:
    made, facts, networks = prepared(pair)
    given = made.stages[-1]
    game = Spec(
        "adversarial",
        loss=Spec(loss),
        penalties=(Spec(penalty),) if penalty else (),
        **{k: v for k, v in given.game.kwargs.items() if k in ("prior", "labels")},
    )
    adam = Adam(lr=1e-3, betas=(0.5, 0.9))
    stage = Stage(game, {"G": adam, "D": adam}, 1, BATCH, given.resolution, given.data)
    return Learner(plan.build_game(stage, copy.deepcopy(networks), facts), stage), stage


def draw(learner: Learner, stage: Stage, facts, round: int) -> Batch:
    """Random images or points, and labels."""
    batch = Batch(BATCH, generator=torch.Generator().manual_seed(seed_for(0, round)))
    torch.manual_seed(round)
    shape = (facts.channels, stage.resolution, stage.resolution) if stage.resolution else (facts.channels,)
    low, high = stage.data.range
    batch["x"] = low + (high - low) * batch.rand(*shape)
    if "y" in learner.game.needs:
        batch["y"] = batch.randint(len(facts.classes))
    return batch


def on_the_way(network: nn.Module, run, x: torch.Tensor) -> list[nn.Parameter]:
    """The weights (not biases and gains) of the layers that what is differentiable in ``x`` passes."""
    found, hooks = [], []

    def seen(module, inputs, output):
        if any(isinstance(i, torch.Tensor) and i.requires_grad for i in inputs):
            found.extend(p for p in module.parameters(recurse=False) if p.dim() > 1)

    for module in network.modules():
        hooks.append(module.register_forward_hook(seen))
    network.requires_grad_(False)
    run(x.detach().requires_grad_())
    network.requires_grad_(True)
    for hook in hooks:
        hook.remove()
    return found


def check_reach(learner: Learner, batch: Batch) -> None:
    """The penalty's gradient comes to every weight of its player on the way from images (G: from noise) to score, and to no
    weight of the other player."""
    (penalty,), game = learner.game.penalties, learner.game
    game.requires_grad_(True)
    fake = game.fakes(batch)
    if penalty.player == "D":
        batch["fake"] = fake.detach()
        mine = on_the_way(game.D, lambda x: game.score(x, batch), batch["x"])
    else:
        told = {"y": batch["y_fake"]} if game.classes else {}
        mine = on_the_way(game.G, lambda z: game.G(z, **told), batch["z"])
        batch["fake"] = game.G(batch["z"], **told)
    value = penalty(game, batch)
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    other = list((game.G if penalty.player == "D" else game.D).parameters())
    gradients = torch.autograd.grad(value, mine + other, allow_unused=True)
    assert mine
    for g in gradients[: len(mine)]:
        assert g is not None and g.isfinite().all() and g.any()
    if penalty.player == "D":
        assert all(g is None for g in gradients[len(mine) :])


@pytest.mark.parametrize("pair, loss, penalty", GRID)
def test_two_rounds(pair, loss, penalty):
    """Finite values, both players move, the penalty reaches what it should."""
    learner, stage = opened(pair, loss, penalty)
    facts = prepared(pair)[1]
    before = {k: p.detach().clone() for k, p in learner.game.named_parameters()}
    for round in range(2):
        batch = draw(learner, stage, facts, round)
        for turn in learner.turns:
            losses = learner.play(turn, batch, round)
            assert all(v.isfinite() for v in losses.values())
        assert all(v.isfinite() for v in batch.logs.values())
        if penalty and round == 1:  # what starts as the identity has moved, and so has what is inside it
            check_reach(learner, draw(learner, stage, facts, 2))
            learner._learning = None
    after = dict(learner.game.named_parameters())
    assert all(p.isfinite().all() for p in after.values())
    for player in ("G", "D"):
        assert any((p != before[k]).any() for k, p in after.items() if k.startswith(player + "."))


def test_the_grid_is_whole():
    """Each loss, penalty and pair is in it, and every penalty meets every loss."""
    seen = [p.values for p in GRID]
    assert {s[1] for s in seen} == set(own(LOSSES)) and {s[0] for s in seen} == set(PAIRS)
    for penalty in own(PENALTIES):
        assert {s[1] for s in seen if s[2] == penalty} == set(own(LOSSES))
