"""Losses, penalties, heads and networks in all pairs: a grid over the registries.

The networks are those of the recipes, with few channels. Each set of networks is tested, with its heads and without,
with every loss and every penalty; over the sets each penalty occurs with each loss; two small sets have all
combinations. Penalties on D's features need a D with features. Games with a loss only are tested with every loss.
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
from zoo.discriminate import Discriminate, Inputs
from zoo.engine.stage import build_game, build_networks, resolve
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.losses import DIVERGENCES
from zoo.networks.autoencoder import Autoencoder
from zoo.penalties import Orthogonal
from zoo.recipe import Adam, Stage
from zoo.registry import HEADS, LOSSES, NETWORKS, PENALTIES, Spec
from zoo.seeds import seed_for

BATCH = 4
LOSS_ONLY = ("bigan", "cogan", "lapgan", "vaegan")
PLAIN = ("vaegan", "triplegan")  # models whose G and D are also tested in the adversarial game

Key = tuple[str, ...]  # the name of a head or "", and those of the networks

NOT_IN_THE_GRID = {  # networks and the reason
    "bigan-*": "D takes pairs of an image and a code: tested with every loss below",
    "cogan-*": "two domains: tested with every loss below",
    "laplacian-*": "a level's G takes the coarser image: tested with every loss below",
    "cyclegan-*": "translators take images",
    "stargan-*": "translators take images, and D recognizes attributes",
    "combogan-*": "an encoder, a decoder and a D for each of several domains",
    "xgan-*": "autoencoders of two domains",
    "stackgan-*": "G takes texts; several generators and discriminators",
    "patch-*": "for translators",
    "unet": "a translator",
    "sr*": "for upscaling",
    "pggan-*": "networks that grow, in a game of their own",
    "stylegan-*": "networks that grow, in a game of their own",
    "stylegan2-*": "G has styles, in a game of their own",
    "vgg19-*": "a loss network",
    "*-encoder": "neither a G nor a D",
    "char-cnn-rnn": "a text encoder",
    "hashed-projection": "a text encoder",
    "letters": "what a text encoder reads",
    "*classifier": "neither a G nor a D",
}


STYLES_ONLY = ("path-length",)  # penalties of a G with styles: tests/papers/test_stylegan2.py


def own(registry) -> list[str]:
    return [n for n in registry.names() if registry[n].__module__.startswith("zoo.") and n not in STYLES_ONLY]


def sets() -> dict[Key, str]:
    """For each set of networks the recipe with the smallest images; G and D of those with heads also without them."""
    smallest: dict[Key, tuple[int, str]] = {}
    for name in NAMES:
        recipe = settings.find(name)
        stage = recipe.stages[-1]
        if not {"G", "D"} <= set(recipe.networks) or not (stage.game.name == "adversarial" or recipe.model in PLAIN):
            continue
        for head in {"", *(h.name for h in stage.game.kwargs.get("heads", ()))}:
            names = sorted(recipe.networks) if head else ("D", "G")
            key = (head, *(recipe.networks[n].name for n in names))
            smallest[key] = min(smallest.get(key, (10**9, "")), (stage.resolution, name))
    return {key: name for key, (_, name) in sorted(smallest.items())}


SETS = sets()


@functools.cache
def small_set(key: Key):
    """The small recipe of a set, its data set's facts and its networks."""
    recipe = small(SETS[key], BATCH)
    facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    networks = build_networks(recipe)
    if not key[0]:
        networks = {n: networks[n] for n in "GD"}
    return recipe, facts, networks


def reads_features(penalty: str) -> bool:
    return "features(" in inspect.getsource(PENALTIES[penalty].forward)


def fits(key: Key, penalty: str | None) -> bool:
    return penalty is None or not reads_features(penalty) or hasattr(small_set(key)[2]["D"], "features")


def cells() -> list[tuple[Key, Spec, Spec | None]]:
    losses, penalties = own(LOSSES), [None, *own(PENALTIES)]
    result = []
    for k, key in enumerate(SETS):
        for i, loss in enumerate(losses):
            turn = [penalties[(j + k) % len(penalties)] for j in range(i, len(penalties), len(losses))]
            some = penalties if key[1:] in ALL_COMBINATIONS else turn
            result += [(key, Spec(loss), penalty and Spec(penalty)) for penalty in some if fits(key, penalty)]
    return result


ALL_COMBINATIONS = [("mlp-discriminator", "mlp-generator"), ("sngan-cnn-discriminator", "sngan-cnn-generator")]

VARIANTS = [  # losses and penalties with other arguments than the defaults
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
GRID += [(("", *pair), loss, penalty) for pair in ALL_COMBINATIONS for loss, penalty in VARIANTS]


def label(value) -> str:
    if isinstance(value, Spec):
        return "-".join([value.name, *(str(getattr(v, "name", v)) for v in value.kwargs.values())])
    return "+".join(value) if value else "none"


def learner_of(key: Key, loss: Spec, penalty: Spec | None, **wrappers: Spec) -> tuple[Learner, Stage]:
    """A learner and its stage; ``wrappers``: specs that replace networks of the set."""
    recipe, facts, networks = small_set(key)
    original = recipe.stages[-1]
    copied = ("prior", "labels", "heads") if key[0] else ("prior", "labels")
    arguments = original.game.kwargs if original.game.name == "adversarial" else {}
    game = Spec(
        "adversarial",
        loss=loss,
        penalties=(penalty,) if penalty else (),
        **{k: v for k, v in arguments.items() if k in copied},
    )
    networks = copy.deepcopy(networks)
    if wrappers:
        networks.update(build_networks(recipe.replace(networks=wrappers)))
    adam = Adam(lr=1e-3, betas=(0.5, 0.9))
    stage = Stage(game, dict.fromkeys(networks, adam), 1, BATCH, original.resolution, original.data)
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


def weights_between(network: nn.Module, run, x: torch.Tensor) -> list[nn.Parameter]:
    """The weights (not biases and gains) of the layers whose input depends on ``x``."""
    weights, hooks = [], []

    def record(module, inputs, output):
        if any(isinstance(i, torch.Tensor) and i.requires_grad for i in inputs):
            weights.extend(p for p in module.parameters(recurse=False) if p.dim() > 1)

    for module in network.modules():
        hooks.append(module.register_forward_hook(record))
    network.requires_grad_(False)
    run(x.detach().requires_grad_())
    network.requires_grad_(True)
    for hook in hooks:
        hook.remove()
    outputs = run(x.detach())
    score = outputs if isinstance(outputs, torch.Tensor) else sum(s.sum() for s in outputs.scores.values())
    used = torch.autograd.grad(score.sum(), weights, allow_unused=True)  # not so the layer that predicts a class
    return [w for w, g in zip(weights, used, strict=True) if g is not None]


def check_gradients(learner: Learner, batch: Batch) -> None:
    """The penalty has a gradient in every weight of its player between images (G: noise) and score, and in no weight of
    the other player."""
    (penalty,), game = learner.game.penalties, learner.game
    game.requires_grad_(True)
    fake = game.fakes(batch)
    discriminate, given = Discriminate(game, batch), game.given(batch, "y")
    if penalty.player == "D":
        fake = fake.detach()
        weights = weights_between(game.D, lambda x: discriminate(x, given), batch["x"])
    else:
        y = {"y": batch["y_fake"]} if game.classes else {}
        weights = weights_between(game.G, lambda z: game.G(z, **y), batch["z"])
        fake = game.G(batch["z"], **y)
    real, fake = Inputs(batch["x"], given), Inputs(fake, game.given(batch, "y_fake"))
    value = penalty(discriminate, real, fake, batch, **game.networks_of(penalty))
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    other = list((game.G if penalty.player == "D" else game.D).parameters())
    gradients = torch.autograd.grad(value, weights + other, allow_unused=True)
    assert weights
    own = gradients[: len(weights)]
    if isinstance(penalty, Orthogonal):  # no gradient in a single row, nor in rows that are orthogonal
        own = [g for g in own if g is not None]
        assert own and any(g.any() for g in own) and all(g.isfinite().all() for g in own)
    else:
        assert all(g is not None and g.isfinite().all() and g.any() for g in own)
    if penalty.player == "D":
        assert all(g is None for g in gradients[len(weights) :])


def check_sum(learner: Learner, stage: Stage, facts) -> None:
    """The turn's loss includes the penalty times its weight: its player's gradients with weight and without differ by
    the penalty's."""
    (penalty,), game = learner.game.penalties, learner.game
    turn = next(t for t in learner.turns if penalty.player in t.players)
    parameters = list(learner.players[penalty.player].values())
    state = copy.deepcopy(game.state_dict())
    values = []
    hook = penalty.register_forward_hook(lambda module, inputs, value: values.append(value))

    def gradients(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of the turn's loss and of the penalty in it."""
        game.load_state_dict(state)
        penalty.weight.fill_(weight)
        batch = draw(learner, stage, facts, 2)
        if turn.before:
            turn.before(batch)
        value = turn.loss(batch)
        assert len(values) == 1
        return flat_gradient(value, parameters), flat_gradient(values.pop(), parameters)

    game.requires_grad_(True)
    without, gradient = gradients(0.0)
    assert gradient.any()
    weight = (without.norm() or 1.0) / gradient.norm()  # equal norms, for accuracy
    with_it, _ = gradients(float(weight))
    hook.remove()
    assert (with_it - without - weight * gradient).norm() < 1e-3 * weight * gradient.norm()


def flat_gradient(value: torch.Tensor, parameters: list[nn.Parameter]) -> torch.Tensor:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def play_two_rounds(learner: Learner, stage: Stage, facts) -> None:
    """All values are finite, and all players change."""
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
    """Two rounds, after which layers that start as the identity have changed; then the penalty is part of the loss, and
    it has its gradients."""
    learner, stage = learner_of(key, loss, penalty)
    facts = small_set(key)[1]
    play_two_rounds(learner, stage, facts)
    if penalty:
        check_sum(learner, stage, facts)
        check_gradients(learner, draw(learner, stage, facts, 2))


# Networks around networks ---------------------------------------------------------------------------------------------


def wrapper_cases() -> list:
    """Every G with batch norm in virtual batch norm, every D with features and without classes with minibatch
    features."""
    cases = {}
    for key in SETS:
        recipe, facts, networks = small_set(key)
        G, D = networks["G"], networks["D"]
        sizes = {"channels": facts.channels, "resolution": recipe.stages[-1].resolution}
        if key[0] or key[1:] == ("minibatch-discriminator", "virtual-batch-norm"):
            continue
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in G.modules()):
            spec = Spec("virtual-batch-norm", network=recipe.networks["G"], reference=3, **sizes)
            cases[recipe.networks["G"].name] = (key, {"G": spec})
        if hasattr(D, "features") and not getattr(D, "classes", 0) and not isinstance(D, Autoencoder):
            spec = Spec("minibatch-discriminator", network=recipe.networks["D"], kernels=3, dims=2, **sizes)
            cases[recipe.networks["D"].name] = (key, {"D": spec})
    return [pytest.param(*value, id=name) for name, value in cases.items()]


@pytest.mark.parametrize("key, wrappers", wrapper_cases())
def test_wrappers(key, wrappers):
    learner, stage = learner_of(key, Spec("non-saturating"), None, **wrappers)
    play_two_rounds(learner, stage, small_set(key)[1])


@pytest.mark.parametrize("penalty", own(PENALTIES))
@pytest.mark.parametrize("key, wrappers", wrapper_cases())
def test_wrappers_with_penalties(key, wrappers, penalty):
    learner, stage = learner_of(key, Spec("hinge"), Spec(penalty), **wrappers)
    if not reads_features(penalty) or hasattr(learner.game.D, "features"):
        play_two_rounds(learner, stage, small_set(key)[1])
        check_gradients(learner, draw(learner, stage, small_set(key)[1], 2))


# Games with a loss only ---------------------------------------------------------------------------------------------


def single_cases() -> list:
    """For each game of LOSS_ONLY a recipe of each set of networks, a stage, and a loss."""
    smallest = {}
    for name in NAMES:
        for i, stage in enumerate(settings.find(name).stages):
            if stage.game.name in LOSS_ONLY:
                key = (stage.game.name, i, *(n.name for n in settings.find(name).networks.values()))
                smallest[key] = min(smallest.get(key, (10**9, "")), (stage.resolution, name))
    return [(name, i, loss) for (_, i, *_), (_, name) in smallest.items() for loss in own(LOSSES)]


@pytest.mark.parametrize("name, i, loss", single_cases())
def test_games_with_a_loss_only(name, i, loss):
    recipe = small(name, BATCH)
    facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    stage = recipe.stages[i]
    stage = dataclasses.replace(stage, game=stage.game.replace(loss=Spec(loss)))
    learner = Learner(build_game(stage, build_networks(recipe), facts), stage)
    play_two_rounds(learner, stage, facts)


@pytest.mark.parametrize("name", ["bigan-mnist", "cogan-mnist", "vaegan-fashion-mnist"])
def test_reference_of_virtual_batch_norm_is_from_the_prior(name):
    """In every game."""
    recipe = small(name, BATCH)
    facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    G = Spec(
        "virtual-batch-norm",
        network=recipe.networks["G"],
        reference=5,
        channels=facts.channels,
        resolution=recipe.stages[-1].resolution,
    )
    stage = recipe.stages[-1]
    stage = dataclasses.replace(stage, game=stage.game.replace(prior=Spec("uniform", low=2.0, high=3.0)))
    networks = build_networks(recipe.replace(networks={**recipe.networks, "G": G}))
    learner = Learner(build_game(stage, networks, facts), stage)
    play_two_rounds(learner, stage, facts)
    assert learner.game.G.reference.min() >= 2 and learner.game.G.reference.max() <= 3


# Completeness --------------------------------------------------------------------------------------------------------


def test_grid_is_complete():
    """Every network, loss, penalty and head is in the grid, or in the list of exceptions; every penalty is tested with
    every loss."""
    networks = {name for key, _, _ in GRID for name in key[1:]}
    missing = [n for n in own(NETWORKS) if n not in networks]
    assert not [n for n in missing if not any(fnmatch.fnmatch(n, pattern) for pattern in NOT_IN_THE_GRID)]
    assert not [p for p in NOT_IN_THE_GRID if not fnmatch.filter(missing, p)], "exceptions without a network"
    assert {key[0] for key, _, _ in GRID} == {"", *own(HEADS)}
    pairs = {(loss.name, penalty and penalty.name) for _, loss, penalty in GRID}
    assert pairs == {(loss, penalty) for loss in own(LOSSES) for penalty in (None, *own(PENALTIES))}
    for key in SETS:
        penalties = {penalty and penalty.name for k, _, penalty in GRID if k == key}
        assert penalties == {p for p in (None, *own(PENALTIES)) if fits(key, p)}, key
