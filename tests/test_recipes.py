"""Every recipe of the registry: checked, dry-run, played for two rounds with small networks, exported and loaded."""

import dataclasses
import inspect
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from helpers.play import session, weights
from helpers.recipes import NAMES, every_recipe, every_stage, small, stand_in
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo import hub, overrides, settings
from zoo import recipe as recipes
from zoo.data import facts as facts_of
from zoo.data.loader import DeviceFeed
from zoo.engine.dry_run import describe, meta_batch
from zoo.engine.export import export, finished_model
from zoo.engine.stage import build_game, build_networks, load_pretrained, resolve, shipped
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.pretrained import Frozen
from zoo.recipe import Data, Ema, Recipe, Schedule, Stage, Stream, encode
from zoo.registry import AUGMENTATIONS, GAMES, HEADS, LOSSES, NETWORKS, PENALTIES, PRIORS, Spec

ROOT = Path(__file__).resolve().parent.parent

# Without playing ------------------------------------------------------------------------------------------------------


@every_recipe
def test_recipe(name):
    """It is consistent, survives JSON, and its file says what it is."""
    recipe = settings.find(name)
    overrides.check(recipe)
    assert recipe.name == name
    text = recipes.to_json(recipe)
    assert recipes.from_json(text) == recipe and hash(recipes.from_json(text)) == hash(recipe)
    json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    entry = settings.RECIPES[name]
    assert entry["about"], "a setting needs a line that `zoo list` shows"
    assert "ifferences" in entry["doc"] and "arXiv" in entry["doc"]
    for stage in recipe.stages:
        for registry, spec in parts(stage):
            registry.check(spec)


@every_recipe
def test_meta_round(name):
    """A round at full size on ``meta``: shapes fit, every player has an optimizer, schedules and EMA have targets."""
    recipe = settings.find(name)
    facts = describe(recipe)
    assert facts["images"] == recipe.images > 0
    assert all(count > 0 for count in facts["parameters"].values())
    players = [{p for turn in plan["turns"] for p in turn["players"]} for plan in facts["stages"]]
    for stage, plan, of_stage in zip(recipe.stages, facts["stages"], players, strict=True):
        assert of_stage == set(stage.optimizers)
        assert plan["rounds"] * plan["images_a_round"] >= stage.images
    assert not idle(recipe, set().union(*players)), "weights that no stage trains"


def idle(recipe: Recipe, players: set[str]) -> set[str]:
    """The recipe's weights that belong to none of the players."""
    networks = build_networks(resolve(recipe, facts_of(recipe.dataset)), device="meta")
    names = {f"{n}.{k}" for n, network in networks.items() for k, _ in network.named_parameters()}
    return {k for k in names if not any(k.startswith(p + ".") for p in players)}


def test_idle_weights_are_detected():
    recipe = settings.find("lapgan-cifar10")
    assert idle(recipe, {p for stage in recipe.stages[:-1] for p in stage.optimizers})


def test_settings_that_are_compared_cost_the_same():
    """Rows of the table of scores on Fashion-MNIST compare the papers, not their budgets."""
    work = {
        n: sum(s["multiply_adds_a_round"] * s["rounds"] for s in describe(settings.find(n))["stages"])
        for n in NAMES
        if settings.find(n).dataset == "fashion-mnist"
    }
    assert len(work) > 20
    assert max(work.values()) < 1.01 * min(work.values()), work


# Nothing is left on the CPU -------------------------------------------------------------------------------------------


class OffDevice(TorchDispatchMode):
    """Collects the operators that touch a tensor elsewhere than on CUDA."""

    def __init__(self):
        super().__init__()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(isinstance(t, torch.Tensor) and t.device.type != "cuda" for t in tree_leaves((args, kwargs, out))):
            self.operators.add(str(func))
        return out


def to_cuda(module: torch.nn.Module, mode) -> torch.nn.Module:
    """What ``module.to("cuda")`` does, with fake tensors: parameters and buffers move, whatever else a module holds
    stays."""

    def move(tensor):
        return mode.from_tensor(tensor.detach()).to("cuda")

    done: dict[int, torch.nn.Parameter] = {}
    modules = list(module.modules())
    modules += [m for frozen in modules if isinstance(frozen, Frozen) for m in frozen.network.modules()]
    for m in modules:
        for k, p in m._parameters.items():
            if p is not None:
                m._parameters[k] = done.setdefault(id(p), torch.nn.Parameter(move(p)))
        for k, b in m._buffers.items():
            if b is not None:
                m._buffers[k] = move(b)
    return module


@every_stage
def test_everything_is_on_the_device(name, stage, monkeypatch):
    """Every loss and every update of state on fake tensors of a CUDA device. A gradient inside a loss becomes a pass
    forward: there is no autograd for a missing device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def vjp(function, *images, has_aux):
        value, rest = function(*images)
        return value, lambda slope: tuple(slope * x for x in images), rest

    monkeypatch.setattr(torch.func, "grad", lambda f: lambda v: v * f(v))
    monkeypatch.setattr(torch.func, "vjp", vjp)
    facts = facts_of(settings.find(name).dataset)
    recipe = resolve(small(name), facts)
    played = recipe.stages[stage]
    stays_on_the_device(played, build_game(played, build_networks(recipe), facts), facts, FakeTensorMode)


def stays_on_the_device(stage: Stage, game, facts, FakeTensorMode) -> None:
    reals = tensors_of(meta_batch(stage, facts, stage.batch, networks=dict(game.named_children())))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        to_cuda(game, mode)
        learner = Learner(game, stage, device="cuda")
        batch = Batch(stage.batch, device="cuda")
        batch.update({k: torch.zeros(v.shape, dtype=v.dtype).to("cuda") for k, v in reals.items()})
        with OffDevice() as off, torch.no_grad():
            game.prepare(batch)
            for turn in learner.turns:
                batch.size = turn.batch or stage.batch
                if callable(turn.streams):
                    turn.streams(batch)
                for key, value in tensors_of(batch).items():
                    batch[key] = value[:1].expand(batch.size, *value.shape[1:])
                if turn.before:
                    turn.before(batch)
                loss = turn.loss(batch)
                assert all(v.device.type == "cuda" for v in tree_leaves(loss) if isinstance(v, torch.Tensor))
                if turn.after:
                    turn.after(batch)
            assert all(v.device.type == "cuda" for v in batch.logs.values())
    assert not off.operators


def tensors_of(batch: dict) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}


def test_that_test_can_fail():
    """A constant outside of a module's buffers is detected."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Forgetful(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.ones(())

        def forward(self, x):
            return x * self.scale

    module = Forgetful()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        to_cuda(module, mode)
        with OffDevice() as off:
            module(torch.ones(3, device="cuda"))
    assert off.operators


# Two rounds -----------------------------------------------------------------------------------------------------------

READS = (
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
    "item",
    "repeat_interleave.Tensor",
)


class NoReads(TorchDispatchMode):
    """Fails if a value is read from a tensor: on an accelerator the host would wait for it. Boolean indexing is a
    ``nonzero`` inside ``index``."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        assert not name.split(".")[0].lstrip("_").startswith(tuple(r.lstrip("_") for r in READS)), (
            f"{name} reads a value"
        )
        if name.startswith("index"):
            for t in tree_leaves(args[1:]):
                assert not (isinstance(t, torch.Tensor) and t.dtype == torch.bool), f"{name} with a mask reads a value"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_reads(monkeypatch):
    """Reads that no dispatch mode catches are refused by name."""

    def refuse(name):
        return lambda *args, **kwargs: pytest.fail(f"Tensor.{name} reads a value")

    mode = NoReads()

    class Guard:
        active = False

        def __enter__(self):
            self.active = True
            self.patch = pytest.MonkeyPatch()
            for name in ("tolist", "numpy", "cpu"):
                self.patch.setattr(torch.Tensor, name, refuse(name))
            mode.__enter__()

        def __exit__(self, *error):
            self.active = False
            mode.__exit__(*error)
            self.patch.undo()

    guard, captions = Guard(), DeviceFeed.captions

    def on_the_host(*args):
        if not guard.active:
            return captions(*args)
        guard.__exit__(None, None, None)
        try:
            return captions(*args)
        finally:
            guard.__enter__()

    monkeypatch.setattr(DeviceFeed, "captions", on_the_host)  # captions and their order are never on the device
    return guard


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
        lambda x: torch.equal(x, x),
        lambda x: f"{float(x[0])}",
    ],
)
def test_reads_are_detected(read, no_reads):
    with pytest.raises((AssertionError, pytest.fail.Exception)), no_reads:
        read(torch.ones(3))


@every_stage
def test_two_rounds_export_and_load(name, stage, no_reads, tmp_path):
    """Each turn changes its players' weights and no others; networks that no turn names do not change; no value is read
    in a round; the exported weights load and give the same images."""
    recipe = small(name)
    run = session(recipe, stand_in(recipe, stage), stage=stage)
    play_turn = run.learner.play
    start = weights(run.game)
    learned: set[str] = set()
    values: list[torch.Tensor] = []

    def play(turn, batch, round):
        before = {k: p.detach().clone() for k, p in run.game.named_parameters()}
        losses = play_turn(turn, batch, round)
        values.extend(losses.values())
        changed = {k for k, p in run.game.named_parameters() if torch.any(p != before[k]).detach_()}
        for key in changed:
            assert any(key.startswith(p + ".") for p in turn.players), f"{key} changed in the turn of {turn.players}"
        # Once is enough: the gradient of a hinge may be zero.
        learned.update(p for p in turn.players if any(key.startswith(p + ".") for key in changed))
        return losses

    scalars: list[str] = []
    with no_reads:
        run.play_round(lambda round, n, value: scalars.append(n))
    assert scalars
    run.learner.play = play
    for done in range(10):  # more than two, if a round has a part of the players
        if done < 2 or learned != set(run.learner.players):
            run.play_round()
    assert learned == set(run.learner.players) == set(run.stage.optimizers)
    assert all(torch.isfinite(v).all() for v in values)
    for key, value in run.game.state_dict().items():
        assert torch.isfinite(value).all(), key
        if key.split(".")[0] in run.recipe.networks and not any(key.startswith(p + ".") for p in learned):
            assert torch.equal(value, start[key]), f"{key} changed, and no turn names it"

    exports_and_loads(run, name, stage, tmp_path / "weights.safetensors")


def exports_and_loads(run, name: str, stage: int, path) -> None:
    """The model as it is and the one that is loaded from its file show the same images."""
    facts = {"images": run.total_images, "seconds": 0.0, "seed": 0}
    with_hashes, _ = load_pretrained(run.recipe)
    export(path, run.game, run.ema_networks, with_hashes, stage, run.facts, run.new_batch, facts)
    spec = shipped(run.game, run.recipe, run.stage, run.facts)
    here, there = finished_model(run.game, run.ema_networks, spec, run.new_batch), hub.load(path)
    reals = run.new_batch()
    run.draw(reals)
    for k, v in reals.items():
        reals[k] = v[:4]
    small_here, small_there = (show(model, reals) for model in (here, there))
    assert torch.equal(small_here, small_there)
    assert small_here.std() > 0
    assert there.card["name"] == name and there.card["images"] == run.total_images
    assert recipes.decode(there.card["recipe"]).networks == run.recipe.networks


def show(model, reals) -> torch.Tensor:
    if model.verb == "sample":
        chunk = model.chunk_size(None, 4)
        return model.sample(4, seed=3, chunk=chunk, **({"to": "both"} if hasattr(model, "pairs") else {}))
    if model.verb == "generate":
        return model.generate(["one", "two", "three", "four"], seed=3)
    if model.verb == "classify":
        return model.classify(model.to_unit(reals["labeled"]))
    if model.verb == "upscale":
        return model.upscale(model.to_unit(reals["x"])[..., ::2, ::2])
    images = {key: x for key, x in reals.items() if isinstance(x, torch.Tensor) and x.ndim == 4}
    return model.outputs(4, inputs={key: model.to_unit(x) for key, x in images.items()})


# No unused options ----------------------------------------------------------------------------------------------------


def documented() -> list[tuple[str, Recipe]]:
    """The commands of docs/settings.md, and the recipe that each of them trains."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if line.startswith("zoo train ")]
    result = []
    for command in commands:
        _, _, model, *options = shlex.split(command, comments=True)
        values = list(zip(options[::2], options[1::2], strict=True))
        only = dict(v for v in values if v[0] != "--set")
        recipe = settings.find(model, only["--dataset"], only.get("--variant", ""))
        for _, change in (v for v in values if v[0] == "--set"):
            key, _, value = change.partition("=")
            recipe = overrides.override(recipe, key, value)
        result.append((command, recipe))
    return result


DOCUMENTED = documented()


@pytest.mark.parametrize(
    "recipe", [r for _, r in DOCUMENTED], ids=[c.removeprefix("zoo train ") for c, _ in DOCUMENTED]
)
def test_documented_settings(recipe):
    """Each command of the page changes something and survives a dry run."""
    assert recipe != settings.find(recipe.model, recipe.dataset, recipe.variant)
    assert describe(recipe)["stages"]


@pytest.mark.parametrize("name", [name for name in NAMES if any(s.schedules for s in settings.find(name).stages)])
def test_fields_of_schedules(name):
    """What a schedule sets at once cannot be set beside it, which would have no effect; its points can."""
    recipe = settings.find(name)
    for i, stage in enumerate(recipe.stages):
        for j, schedule in enumerate(stage.schedules):
            points = f"stages.{i}.schedules.{j}.points"
            assert overrides.override(recipe, points, "[[0, 0.125]]").stages[i].schedules[j].at(10) == 0.125
            kind, _, rest = schedule.target.partition(".")
            if kind != "optimizers":
                continue
            player, field = next((p, rest[len(p) + 1 :]) for p in (*stage.optimizers, "*") if rest.startswith(f"{p}."))
            player = next(iter(stage.optimizers)) if player == "*" else player
            key = f"{f'stages.{i}.' if i else ''}optimizers.{player}.{field}"
            with pytest.raises(
                ValueError, match=rf"--set {re.escape(key)}=0\.125: has no effect, since .*schedules\.\d"
            ):
                overrides.override(recipe, key, "0.125")


@pytest.mark.parametrize(("text", "number"), [(".5", 0.5), ("5.", 5.0), ("-.5", -0.5), (".5e-3", 5e-4), ("5e-4", 5e-4)])
def test_numbers_as_people_write_them(text, number):
    recipe = overrides.override(settings.find("wgan-gp-mnist"), "game.adversarial_weight", text)
    assert recipe.stages[0].game.kwargs["adversarial_weight"] == number


@pytest.mark.parametrize(
    ("name", "key", "value", "sets"),
    [
        ("cyclegan-emoji", "optimizers.G", '{"@": "Adam", "lr": 1e-5}', "optimizers.G.lr=1e-05"),
        ("r3gan-fashion-mnist", "optimizers.D.betas", "[0.0, 0.5]", "optimizers.D.betas.1=0.5"),
        ("r3gan-fashion-mnist", "game.penalties.0", '{"@": "Spec", "name": "r1", "kwargs": {"weight": 3}}', "weight=3"),
        ("r3gan-fashion-mnist", "ema.G", '{"@": "Ema", "halflife": 7}', "ema.G.halflife=7"),
    ],
)
def test_fields_around_those_of_schedules(name, key, value, sets):
    with pytest.raises(ValueError, match=re.escape(sets) + ": has no effect, since schedules"):
        overrides.override(settings.find(name), key, value)


def test_players_with_dots():
    recipe = overrides.override(settings.find("lapgan-fashion-mnist"), "stages.1.optimizers.G.levels.1.lr", "0.5")
    assert recipe.stages[1].optimizers["G.levels.1"].lr == 0.5


def test_changes_that_only_fit_together():
    recipe = settings.find("pix2pix-facades-small")
    both = [f"data.streams.{k}.batch=2" for k in "ab"]
    changed = overrides.override_all(recipe, both)
    assert {s.batch for s in changed.stages[0].data.streams.values()} == {2}
    for one in both:
        with pytest.raises(ValueError, match="must be that of"):
            overrides.override_all(recipe, [one])
    values = overrides.override_all(settings.find("gan-mnist-small"), ["schedules=[]", "optimizers.G.lr=0.5"])
    assert values.stages[0].optimizers["G"].lr == 0.5


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("wgan-gp-fashion-mnist", "game.penalties.0.every=0", "every=0: must be at least 1"),
        ("wgan-gp-fashion-mnist", "game.n_critic=0", r"game\.n_critic=0: must be at least 1"),
        ("wgan-gp-fashion-mnist", "game.n_generator=-1", r"game\.n_generator=-1: must be at least 1"),
        ("sngan-fashion-mnist", "game.generator_batch=0", r"game\.generator_batch=0: must be at least 1"),
        ("stargan-emoji-small", "game.n_critic=0", "repeat of a turn of D must be at least 1, got 0"),
        ("lapgan-fashion-mnist", "stages.1.game.generator_batch=0", "batch of a turn of .* must be at least 1, got 0"),
        ("wgan-fashion-mnist", "game.clip=0", r"game\.clip=0: must be above 0"),
        ("wgan-fashion-mnist", 'game.n_critic={"@": "Rounds", "base": 5, "every": [0, 5]}', r"every=\(0, 5\)"),
        ("wgan-fashion-mnist", 'game.n_critic={"@": "Rounds", "base": 5, "first": [3, -1]}', r"first=\(3, -1\)"),
        ("lapgan-fashion-mnist", "game.prior.dim=7", r"game\.prior\.dim=7: must be left out"),
        ("dcgan-fashion-mnist", "ema.G.rampup=0", r"ema\.G\.rampup=0: must be above 0"),
        ("dcgan-fashion-mnist", "data.load=40", r"data\.load=40: must be left out with data\.pad"),
        ("stargan-emoji-small", "game.cycle=0", r"game\.identity=0\.5: must be 0 with game\.cycle=0"),
        ("cyclegan-emoji-small", "game.augment=ada", r"game\.augment\.target=0\.6: must be null"),
    ],
)
def test_values_without_effect(name, change, message):
    """Refused, not taken for another value or left out."""
    with pytest.raises(ValueError, match=message):
        describe(overrides.override_all(settings.find(name), [change]))


@pytest.mark.parametrize(("name", "mode"), [("r3gan-fashion-mnist", "batch"), ("dcgan-fashion-mnist", "dropout")])
def test_ways_of_sampling_without_effect(name, mode):
    recipe = overrides.override(settings.find(name), "sampling.mode", mode)
    facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    with torch.device("meta"):
        game = build_game(recipe.stages[0], build_networks(recipe, device="meta"), facts)
    with pytest.raises(ValueError, match=f"sampling.mode={mode}: must be running, since G has no"):
        shipped(game, recipe, recipe.stages[0], facts)


def test_two_budgets():
    with pytest.raises(ValueError, match="--set images=5000: has no effect with --images 100"):
        overrides.override_all(settings.find("dcgan-mnist"), ["images=5000"], 100)
    several = overrides.override_all(settings.find("lapgan-fashion-mnist"), ["stages.1.images=5000"], 100)
    assert several.stages[1].images == 5000, "its share of the budget"


def test_a_default_that_is_given_changes_nothing():
    """Runs of such a recipe are those of the recipe itself; another value, also of another type, is a change."""
    recipe = settings.find("stargan-emoji-small")
    assert "cycle" not in recipe.stages[0].game.kwargs
    assert overrides.override(recipe, "game.cycle", "10.0") == recipe
    assert overrides.override(recipe, "game.cycle", "3.0").stages[0].game.kwargs["cycle"] == 3.0
    back = overrides.override(overrides.override(recipe, "game.identity", "0.1"), "game.identity", "0.5")
    assert back == recipe


def test_augmentation_by_name_alone():
    """ADA adapts p to the paper's target."""
    recipe = overrides.override(settings.find("dcgan-mnist"), "game.augment", "ada")
    assert build_game(recipe.stages[0], build_networks(resolve(recipe, facts_of("mnist"))), facts_of("mnist")).adapts


def specs(value, path=()):
    """The Specs in a value, by their paths."""
    if isinstance(value, Spec):
        yield ".".join(path), value
        value = value.kwargs
    elif dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        value = {str(i): v for i, v in enumerate(value)}
    for key, part in value.items() if isinstance(value, Mapping) else ():
        yield from specs(part, (*path, key))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_of_all_parts(name):
    """Every argument that a recipe gives to any of its parts can be set; one that the part does not take is refused."""
    recipe = settings.find(name)
    for path, spec in specs(recipe):
        for key, value in spec.kwargs.items():
            assert overrides.override(recipe, f"{path}.{key}", json.dumps(encode(value))) == recipe
        if spec.kwargs:
            with pytest.raises(ValueError, match=f"'{re.escape(spec.name)}' takes no argument 'nothing'"):
                overrides.override(recipe, f"{path}.nothing", "1")


def parts(stage: Stage):
    """The registered parts of a stage: (registry, spec)."""
    yield GAMES, stage.game
    kwargs = stage.game.kwargs
    yield from ((LOSSES, kwargs[k]) for k in ("loss",) if k in kwargs)
    yield from ((PRIORS, kwargs[k]) for k in ("prior",) if k in kwargs)
    yield from ((PENALTIES, p) for p in kwargs.get("penalties", ()))
    yield from ((HEADS, h) for h in kwargs.get("heads", ()))
    yield from ((AUGMENTATIONS, kwargs[k]) for k in ("augment",) if k in kwargs)


def arguments() -> dict[tuple[str, str], set[str]]:
    """For each registered part the arguments that recipes and documented examples give it."""
    result: dict[tuple[str, str], set[str]] = {}
    for recipe in [*map(settings.find, NAMES), *(recipe for _, recipe in DOCUMENTED)]:
        pairs = [(NETWORKS, spec) for spec in recipe.networks.values()]
        pairs += [(NETWORKS, pretrained.network) for pretrained in recipe.pretrained.values()]
        pairs += [pair for stage in recipe.stages for pair in parts(stage)]
        for registry, spec in pairs:
            result.setdefault((registry.kind, spec.name), set()).update(spec.kwargs)
    return result


FOR_LATER = {
    "classifier": "the shipped feature networks, which no recipe trains",
    "class(network)": "a game of the user's own may have two heads of one kind",
    "codes(network)": "as of the class head",
    "labeled-classes(network)": "as of the class head",
    "Stream.split": "semi-supervised and paired papers read two splits",
    "xgan(teacher)": "the paper's teacher recognizes faces, of which the zoo has no pairs of domains",
    "Stream.dataset": "an example in docs/data.md: two domains may be two data sets",
    "minibatch-discriminator(sync)": "ProGAN and later papers take statistics of the batch across processes",
    "minilm-text-encoder": "an example in docs/add-a-model.md: texts in whole sentences",
    "Pretrained.hash": "of weights that can be fetched; those of VGG-19 are known by their file's checksum",
    "SGD.nan_to_num": "an option of Adam in docs/settings.md; the same for every optimizer",
    "RMSProp.nan_to_num": "an option of Adam in docs/settings.md; the same for every optimizer",
    "SGD.clip": "an option of Adam in docs/settings.md; the same for every optimizer",
    "RMSProp.clip": "an option of Adam in docs/settings.md; the same for every optimizer",
}
# By the engine, from the data or the networks
FILLED_IN = {"networks", "channels", "resolution", "classes", "label_names", "dim"}
# In every game whose D gets images through Discriminate; test_augment.py plays it in each.
IN_ALL_GAMES = {"augment"}


@pytest.mark.parametrize(
    "registry", [GAMES, NETWORKS, LOSSES, PENALTIES, HEADS, AUGMENTATIONS, PRIORS], ids=lambda r: r.kind
)
def test_no_unused_options(registry):
    """Every registered part, and every argument that it takes, is used by some recipe or documented example. A
    network's arguments are the paper's own sizes and constants, and stay."""
    given, unused = arguments(), set()
    for name in registry.names():
        builder = registry[name]
        if not builder.__module__.startswith("zoo."):
            continue  # of the tests' own
        if (registry.kind, name) not in given:
            unused.add(name)
        elif registry is not NETWORKS:
            own = {k for k, p in inspect.signature(builder).parameters.items() if p.kind is not p.VAR_KEYWORD}
            unused.update(f"{name}({key})" for key in own - FILLED_IN - IN_ALL_GAMES - given[registry.kind, name])
    assert unused <= set(FOR_LATER)


def test_no_unused_fields():
    """Every field of the recipe's own classes is used by some recipe or documented example with another value than its
    default."""
    values: dict[type, dict[str, set]] = {}

    def walk(value):
        if isinstance(value, Spec):
            return
        if dataclasses.is_dataclass(value):
            for f in dataclasses.fields(value):
                inner = getattr(value, f.name)
                values.setdefault(type(value), {}).setdefault(f.name, set()).add(repr(inner))
                walk(inner)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, tuple):
            for v in value:
                walk(v)

    for recipe in [*map(settings.find, NAMES), *(recipe for _, recipe in DOCUMENTED)]:
        walk(recipe)
    unused = set()
    for cls, fields in values.items():
        for f in dataclasses.fields(cls):
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if fields[f.name] == {repr(default)}:
                unused.add(f"{cls.__name__}.{f.name}")
    assert unused <= set(FOR_LATER)
    assert {Data, Stage, Stream} <= set(values)


def test_reasons_are_current():
    """What waits for a later paper goes off the list when a recipe uses it."""
    given = arguments()
    for key in FOR_LATER:
        assert not any(name == key for _, name in given), f"{key} is used: take it off the list"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_of_a_recipe_are_finite(value):
    """In every place that a float can have: a field, a pair, a schedule's points, an argument of a part."""
    recipe = settings.find("wgan-gp-cifar10-small")
    stage = recipe.stages[0]
    adam = dataclasses.replace(stage.optimizers["G"], betas=(0.0, value))
    penalty = Spec("gradient-penalty", weight=value)
    wrong = {
        "ema.G.halflife": recipe.replace(ema={"G": Ema(halflife=value)}),
        "stages.0.optimizers.G.betas.1": stage_of(recipe, optimizers={**stage.optimizers, "G": adam}),
        "stages.0.schedules.0.points.1.1": stage_of(
            recipe, schedules=(Schedule("optimizers.*.lr", ((0, 1e-4), (10, value))),)
        ),
        "stages.0.game.penalties.0.weight": stage_of(recipe, game=stage.game.replace(penalties=(penalty,))),
        "networks.G.scale": recipe.replace(networks={**recipe.networks, "G": Spec("mlp-generator", scale=value)}),
    }
    for key, changed in wrong.items():
        with pytest.raises(ValueError) as caught:
            overrides.check(changed)
        assert str(caught.value) == f"{key}={value}: must be a finite number"


def stage_of(recipe, **changes):
    return recipe.replace(stages=(dataclasses.replace(recipe.stages[0], **changes),))
