"""Losses, penalties and networks in every combination of two: the grid over the registries, in each game of G against D.

Networks are those of the recipes, with few channels. In its game each set of them meets every loss and every penalty, in turns such
that over the sets each penalty meets each loss; two small sets meet them all crosswise. A penalty that reads D's features is left
out where D has none. Games that take a loss alone meet every loss with each of their sets, the boundary game, which has a loss of its
own, every penalty.
"""

import copy
import dataclasses
import fnmatch
import functools
import inspect

import pytest
import torch
from helpers.recipes import NAMES, small
from torch import nn

from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine.stage import build_game, build_networks, resolve
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.losses import DIVERGENCES
from zoo.networks.autoencoder import Autoencoder
from zoo.recipe import Adam, Stage
from zoo.registry import LOSSES, NETWORKS, PENALTIES, Spec
from zoo.seeds import seed_for

BATCH = 4
GAMES = ("adversarial", "auxiliary", "energy", "information", "semi-supervised")  # those that take a loss and penalties
LOSS_ALONE = ("autoencoding", "coupled", "inference", "pyramid")
LENT = ("vaegan", "triplegan")  # models of other games whose G and D play the plain one too

Key = tuple[str, ...]  # a game and the names of its networks

ELSEWHERE = {  # why a network is in no cell of the grid
    "bigan-*": "D judges pairs of an image and a code: with every loss below",
    "cogan-*": "G makes two images of one z, D judges two domains: with every loss below",
    "laplacian-*": "a level's G starts from the coarser image: with every loss below",
    "cyclegan-*": "translators start from images",
    "patch-*": "of translators",
    "*-encoder": "no G and no D",
    "*classifier": "no G and no D",
}


def own(registry) -> list[str]:
    return [n for n in registry.names() if registry[n].__module__.startswith("zoo.")]


def sets() -> dict[Key, str]:
    """For each set of networks of a game the recipe with the smallest images; a game's own D and G play the plain one too, where
    they can."""
    found: dict[Key, tuple[int, str]] = {}
    for name in NAMES:
        made = settings.find(name)
        stage = made.stages[-1]
        games = {stage.game.name} & set(GAMES)
        if stage.game.name == "boundary":
            games = {"energy"}
        if games - {"energy"} or made.model in LENT:
            games.add("adversarial")
        for game in games if {"G", "D"} <= set(made.networks) else ():
            names = sorted(made.networks) if game == stage.game.name else ("D", "G")  # of LENT and of BEGAN only these
            key = (game, *(made.networks[n].name for n in names))
            found[key] = min(found.get(key, (10**9, "")), (stage.resolution, name))
    return {key: name for key, (_, name) in sorted(found.items())}


SETS = sets()


@functools.cache
def prepared(key: Key):
    made = small(SETS[key], BATCH)
    facts = facts_of(made.dataset)
    made = resolve(made, facts)
    networks = build_networks(made)
    if key[0] != made.stages[-1].game.name:
        networks = {n: networks[n] for n in "GD"}
    return made, facts, networks


def reads_features(penalty: str) -> bool:
    return "features(game" in inspect.getsource(PENALTIES[penalty])


def fits(key: Key, penalty: str | None) -> bool:
    return penalty is None or not reads_features(penalty) or hasattr(prepared(key)[2]["D"], "features")


def cells() -> list[tuple[Key, Spec, Spec | None]]:
    losses, penalties = own(LOSSES), [None, *own(PENALTIES)]
    made = []
    for k, key in enumerate(SETS):
        for i, loss in enumerate(losses):
            crosswise = key[1:] in CROSSWISE
            chosen = penalties if crosswise else [penalties[(i + k) % len(penalties)]]
            made += [(key, Spec(loss), penalty and Spec(penalty)) for penalty in chosen if fits(key, penalty)]
    return made


CROSSWISE = [("mlp-discriminator", "mlp-generator"), ("sngan-cnn-discriminator", "sngan-cnn-generator")]

VARIANTS = [  # leaves away from their defaults
    *((Spec("f-divergence", divergence=d, generator=g), None) for d in DIVERGENCES for g in ("exact", "alternative")),
    (Spec("relativistic", average=False), None),
    (Spec("relativistic", base=Spec("least-squares", a=-1.0, b=1.0), scale=1.0), None),
    (Spec("relativistic", base=Spec("hinge")), Spec("gradient-penalty")),
    (Spec("non-saturating", smooth=0.9), None),
    (Spec("minimax", smooth=0.9), None),
    (Spec("non-saturating"), Spec("dragan", noise="normal", size=0.1)),
    (Spec("non-saturating"), Spec("feature-matching", distance="absolute")),
    (Spec("non-saturating"), Spec("historical-averaging", player="G")),
]

GRID = cells()
GRID += [(("adversarial", *pair), loss, penalty) for pair in CROSSWISE for loss, penalty in VARIANTS]


def label(value) -> str:
    if isinstance(value, Spec):
        return "-".join([value.name, *(str(getattr(v, "name", v)) for v in value.kwargs.values())])
    return "+".join(value) if value else "none"


def opened(key: Key, loss: Spec, penalty: Spec | None, **around: Spec) -> tuple[Learner, Stage]:
    """``around``: what a network is replaced by."""
    made, facts, networks = prepared(key)
    given = made.stages[-1]
    kept = ("prior", "labels", "distance") if key[0] == given.game.name else ()
    game = Spec(
        key[0],
        loss=loss,
        penalties=(penalty,) if penalty else (),
        **{k: v for k, v in given.game.kwargs.items() if k in kept},
    )
    networks = copy.deepcopy(networks)
    if around:
        networks.update(build_networks(made.replace(networks=around)))
    adam = Adam(lr=1e-3, betas=(0.5, 0.9))
    stage = Stage(game, dict.fromkeys(networks, adam), 1, BATCH, given.resolution, given.data)
    return Learner(build_game(stage, networks, facts), stage), stage


def draw(learner: Learner, stage: Stage, facts, round: int) -> Batch:
    """Random images or points, and labels."""
    batch = Batch(BATCH, generator=torch.Generator().manual_seed(seed_for(0, round)))
    torch.manual_seed(round)
    shape = (facts.channels, stage.resolution, stage.resolution) if stage.resolution else (facts.channels,)
    low, high = stage.data.range
    for need in learner.game.needs:
        images = not need.startswith("y")
        batch[need] = low + (high - low) * batch.rand(*shape) if images else batch.randint(len(facts.classes))
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


def check_added(learner: Learner, stage: Stage, facts) -> None:
    """What the turn lowers holds the penalty times its weight: so its player's gradients say, with the weight and without."""
    (penalty,), game = learner.game.penalties, learner.game
    turn = next(t for t in learner.turns if penalty.player in t.players)
    mine = list(learner.players[penalty.player].values())
    state = copy.deepcopy(game.state_dict())
    values = []
    hook = penalty.register_forward_hook(lambda module, given, value: values.append(value))

    def gradients(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the turn's loss, and of the penalty that was asked in it."""
        game.load_state_dict(state)
        penalty.weight.fill_(weight)
        value = turn.loss(draw(learner, stage, facts, 2))
        assert len(values) == 1
        return flat(value, mine), flat(values.pop(), mine)

    game.requires_grad_(True)
    without, alone = gradients(0.0)
    assert alone.any()
    weight = (without.norm() or 1.0) / alone.norm()  # so that neither drowns in the other's rounding
    with_it, _ = gradients(float(weight))
    hook.remove()
    assert (with_it - without - weight * alone).norm() < 1e-3 * weight * alone.norm()


def flat(value: torch.Tensor, parameters: list[nn.Parameter]) -> torch.Tensor:
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def play_two_rounds(learner: Learner, stage: Stage, facts) -> None:
    """Finite values, all players move."""
    before = {k: p.detach().clone() for k, p in learner.game.named_parameters()}
    with torch.no_grad():
        learner.game.prepare(draw(learner, stage, facts, 3))
    for round in range(2):
        batch = draw(learner, stage, facts, round)
        for turn in learner.turns:
            losses = learner.play(turn, batch, round)
            assert all(v.isfinite() for v in losses.values())
        assert all(v.isfinite() for v in batch.logs.values())
    after = dict(learner.game.named_parameters())
    assert all(p.isfinite().all() for p in after.values())
    for player in learner.players:
        assert any((p != before[k]).any() for k, p in after.items() if k.startswith(player + "."))


@pytest.mark.parametrize("key, loss, penalty", GRID, ids=label)
def test_two_rounds(key, loss, penalty):
    """They play; then, as what starts as the identity has moved, and so has what is inside it: the penalty is part of the loss, and
    its gradient reaches what it should."""
    learner, stage = opened(key, loss, penalty)
    facts = prepared(key)[1]
    play_two_rounds(learner, stage, facts)
    if penalty:
        check_added(learner, stage, facts)
        check_reach(learner, draw(learner, stage, facts, 2))


# Networks around networks ---------------------------------------------------------------------------------------------


def wrapped() -> list:
    """Every G with batch norm inside virtual batch norm, every D with features of images alone before minibatch features."""
    found = {}
    for key in SETS:
        made, _, networks = prepared(key)
        G, D = networks["G"], networks["D"]
        sizes = {"channels": prepared(key)[1].channels, "resolution": made.stages[-1].resolution}
        if key[0] != "adversarial" or key[1:] == ("minibatch-discriminator", "virtual-batch-norm"):
            continue
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in G.modules()):
            spec = Spec("virtual-batch-norm", network=made.networks["G"], reference=3, **sizes)
            found[made.networks["G"].name] = (key, {"G": spec})
        if hasattr(D, "features") and not getattr(D, "classes", 0) and not isinstance(D, Autoencoder):
            spec = Spec("minibatch-discriminator", network=made.networks["D"], kernels=3, dims=2, **sizes)
            found[made.networks["D"].name] = (key, {"D": spec})
    return [pytest.param(*value, id=name) for name, value in found.items()]


@pytest.mark.parametrize("key, around", wrapped())
def test_wrapped(key, around):
    learner, stage = opened(key, Spec("non-saturating"), None, **around)
    play_two_rounds(learner, stage, prepared(key)[1])


@pytest.mark.parametrize("penalty", own(PENALTIES))
@pytest.mark.parametrize("key, around", wrapped())
def test_wrapped_with_penalties(key, around, penalty):
    learner, stage = opened(key, Spec("hinge"), Spec(penalty), **around)
    if not reads_features(penalty) or hasattr(learner.game.D, "features"):
        play_two_rounds(learner, stage, prepared(key)[1])
        check_reach(learner, draw(learner, stage, prepared(key)[1], 2))


# Games that take less -------------------------------------------------------------------------------------------------


def apart() -> list:
    """For each game of LOSS_ALONE, and the boundary game, a recipe with each set of networks, and all of its stages; what they take."""
    found = {}
    for name in NAMES:
        for i, stage in enumerate(settings.find(name).stages):
            if stage.game.name in (*LOSS_ALONE, "boundary"):
                key = (stage.game.name, i, *(n.name for n in settings.find(name).networks.values()))
                found[key] = min(found.get(key, (10**9, "")), (stage.resolution, name))
    given = []
    for (game, i, *_), (_, name) in found.items():
        if game in LOSS_ALONE:
            given += [(name, i, {"loss": Spec(loss)}) for loss in own(LOSSES)]
        else:
            given += [(name, i, {"penalties": (Spec(p),)}) for p in own(PENALTIES)]
    return given


@pytest.mark.parametrize(
    "name, i, taken", apart(), ids=lambda v: "-".join(map(str, v)) if isinstance(v, dict) else None
)
def test_games_that_take_less(name, i, taken):
    made = small(name, BATCH)
    facts = facts_of(made.dataset)
    made = resolve(made, facts)
    stage = made.stages[i]
    stage = dataclasses.replace(stage, game=stage.game.replace(**taken))
    learner = Learner(build_game(stage, build_networks(made), facts), stage)
    play_two_rounds(learner, stage, facts)
    if "penalties" in taken:
        check_reach(learner, draw(learner, stage, facts, 2))


@pytest.mark.parametrize("name", ["bigan-mnist", "cogan-mnist", "vaegan-fashion-mnist"])
def test_virtual_batch_norm_takes_the_prior_of_its_game(name):
    """Its reference is noise of the prior, in every game."""
    made = small(name, BATCH)
    facts = facts_of(made.dataset)
    made = resolve(made, facts)
    G = Spec(
        "virtual-batch-norm",
        network=made.networks["G"],
        reference=5,
        channels=facts.channels,
        resolution=made.stages[-1].resolution,
    )
    stage = made.stages[-1]
    stage = dataclasses.replace(stage, game=stage.game.replace(prior=Spec("uniform", low=2.0, high=3.0)))
    networks = build_networks(made.replace(networks={**made.networks, "G": G}))
    learner = Learner(build_game(stage, networks, facts), stage)
    play_two_rounds(learner, stage, facts)
    assert learner.game.G.reference.min() >= 2 and learner.game.G.reference.max() <= 3


# What is in it --------------------------------------------------------------------------------------------------------


def test_the_grid_is_whole():
    """Each network, loss and penalty is in it, or it is said why not; every penalty meets every loss."""
    networks = {name for key, _, _ in GRID for name in key[1:]}
    missing = [n for n in own(NETWORKS) if n not in networks]
    assert not [n for n in missing if not any(fnmatch.fnmatch(n, pattern) for pattern in ELSEWHERE)]
    assert not [p for p in ELSEWHERE if not fnmatch.filter(missing, p)], "this is no longer needed"
    assert {key[0] for key, _, _ in GRID} == set(GAMES)
    seen = {(loss.name, penalty and penalty.name) for _, loss, penalty in GRID}
    assert seen == {(loss, penalty) for loss in own(LOSSES) for penalty in (None, *own(PENALTIES))}
    for key in SETS:
        met = [(loss.name, penalty and penalty.name) for k, loss, penalty in GRID if k == key]
        assert {p for _, p in met} == {p for p in (None, *own(PENALTIES)) if fits(key, p)}, key
