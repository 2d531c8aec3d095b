"""Every recipe of the registry: checked, dry-run, played for two rounds with small networks, exported and loaded.

What is real here: the play (turns, losses, penalties, optimizers, schedules, averages, data pipeline) and the images, which are those
of the embedded set, enlarged to the recipe's size. Only the networks' widths, the batch and the budget are reduced.
"""

import dataclasses
import functools
import inspect
import json

import pytest
import torch
from helpers.play import session, weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo import hub, overrides, settings
from zoo import recipe as recipes
from zoo.data import ImageData, open_data
from zoo.data import facts as facts_of
from zoo.engine.dry_run import describe, meta_batch
from zoo.engine.export import export, model_of
from zoo.engine.stage import build_game, build_networks, resolve, shipped
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.recipe import Data, Recipe, Rounds, Stage, Stream
from zoo.registry import GAMES, LOSSES, NETWORKS, PENALTIES, PRIORS, Spec

NAMES = settings.names()
STEPS = 2  # of a player in a round
SIZES = {"width": 8, "widths": 8, "hidden": 16, "units": 16, "maps": 8, "embed": 8, "blocks": 1}
STAGES = [(name, i) for name in NAMES for i in range(len(settings.find(name).stages))]
every_recipe = pytest.mark.parametrize("name", NAMES)
every_stage = pytest.mark.parametrize(("name", "stage"), STAGES, ids=[f"{n}-{i + 1}" if i else n for n, i in STAGES])


def at_most(value, limit: int):
    if isinstance(value, (tuple, list)):
        return tuple(at_most(v, limit) for v in value)
    return min(value, limit) if type(value) is int else value


def small_network(spec: Spec) -> Spec:
    """The same network with few channels: the arguments that name a size, given or by default."""
    known = NETWORKS.parameters(spec.name)
    given = {k: spec.kwargs.get(k, known[k].default) for k in SIZES if k in known}
    inside = {k: small_network(v) for k, v in spec.kwargs.items() if isinstance(v, Spec)}
    return spec.replace(**inside, **{k: at_most(v, SIZES[k]) for k, v in given.items()})


def fewer(times):
    """A shorter schedule of the same kind: bursts of 3 for bursts of 100."""
    if not isinstance(times, Rounds):
        return at_most(times, STEPS)
    bursts = {
        k: (getattr(times, k)[0], at_most(getattr(times, k)[1], STEPS + 1))
        for k in ("first", "every")
        if getattr(times, k)
    }
    return dataclasses.replace(times, base=at_most(times.base, STEPS), **bursts)


def small(name: str, batch: int = 4) -> Recipe:
    """A recipe with small networks and batches and few steps a round; its play is untouched."""
    found = settings.find(name)

    def reduce(stage: Stage) -> Stage:
        given = stage.game.kwargs
        sizes = {k: at_most(v, batch) for k, v in given.items() if k.endswith("batch")}
        times = {k: fewer(v) for k, v in given.items() if k.startswith("n_")}
        game = stage.game.replace(**sizes, **times)
        classes = len(facts_of(found.dataset).classes)
        streams = {
            n: dataclasses.replace(s, batch=s.batch and min(s.batch, batch), balanced=s.balanced and classes)
            for n, s in stage.data.streams.items()
        }
        data = dataclasses.replace(stage.data, streams=streams)
        return dataclasses.replace(stage, batch=min(stage.batch, batch), data=data, game=game)

    networks = {n: small_network(spec) for n, spec in found.networks.items()}
    return found.replace(networks=networks, stages=tuple(map(reduce, found.stages)))


@functools.cache
def garments() -> ImageData:
    return open_data("fashion-mnist-10k")


def stand_in(recipe: Recipe, stage: int = 0) -> ImageData:
    """Real images with the facts of the recipe's data set, of the size that a stage reads: nothing is fetched. Points come
    from the set itself."""
    facts, chosen = facts_of(recipe.dataset), recipe.stages[stage]
    if not chosen.resolution:
        return open_data(recipe.dataset)
    side = facts.resolution if chosen.data.pad else chosen.data.load or chosen.resolution
    count = 24
    x = garments().arrays["x"][:count].float()
    x = torch.nn.functional.interpolate(x, (side, side)).round().byte().expand(-1, facts.channels, -1, -1).contiguous()
    labels = {k: torch.arange(count) % (len(facts.classes) if k == "y" else 2) for k in facts.keys}
    known = dataclasses.replace(facts, resolution=side)
    return ImageData(known, {**labels, "x": x}, "stand-in")


# Without playing ------------------------------------------------------------------------------------------------------


@every_recipe
def test_recipe(name):
    """It is consistent, survives JSON, and its file says what it is."""
    found = settings.find(name)
    overrides.check(found)
    assert found.name == name
    text = recipes.to_json(found)
    assert recipes.from_json(text) == found and hash(recipes.from_json(text)) == hash(found)
    json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    entry = settings.RECIPES[name]
    assert entry["about"], "a setting needs a line that `zoo list` shows"
    assert "ifferences" in entry["doc"] and "arXiv" in entry["doc"]
    for stage in found.stages:
        for registry, spec in parts(stage):
            registry.check(spec)


@every_recipe
def test_meta_round(name):
    """A round at full size on ``meta``: shapes fit, every player has an optimizer, schedules and averages their targets."""
    found = settings.find(name)
    facts = describe(found)
    assert facts["images"] == found.images > 0
    assert all(count > 0 for count in facts["parameters"].values())
    players = [{p for turn in planned["turns"] for p in turn["players"]} for planned in facts["stages"]]
    for stage, planned, of_stage in zip(found.stages, facts["stages"], players, strict=True):
        assert of_stage == set(stage.optimizers)
        assert planned["rounds"] * planned["images_a_round"] >= stage.images
    assert not idle(found, set().union(*players)), "weights that no stage trains"


def idle(recipe: Recipe, players: set[str]) -> set[str]:
    """The recipe's weights that belong to none of the players."""
    networks = build_networks(resolve(recipe, facts_of(recipe.dataset)), device="meta")
    names = {f"{n}.{k}" for n, network in networks.items() for k, _ in network.named_parameters()}
    return {k for k in names if not any(k.startswith(p + ".") for p in players)}


def test_weights_of_a_stage_left_out_are_found():
    found = settings.find("lapgan-cifar10")
    assert idle(found, {p for stage in found.stages[:-1] for p in stage.optimizers})


def test_settings_that_are_compared_cost_the_same():
    """Rows of the table of scores on Fashion-MNIST compare the papers, not their budgets."""
    work = {
        n: sum(s["multiply_adds_a_round"] * s["rounds"] for s in describe(settings.find(n))["stages"])
        for n in NAMES
        if settings.find(n).dataset == "fashion-mnist"
    }
    assert len(work) > 20
    assert max(work.values()) < 1.01 * min(work.values()), work


# Nothing is left on the CPU --------------------------------------------------------------------------------------------


class OffDevice(TorchDispatchMode):
    """Collects the operators that touch a tensor elsewhere than on CUDA."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(isinstance(t, torch.Tensor) and t.device.type != "cuda" for t in tree_leaves((args, kwargs, out))):
            self.found.add(str(func))
        return out


def to_cuda(module: torch.nn.Module, mode) -> torch.nn.Module:
    """What ``module.to("cuda")`` does, with fake tensors: parameters and buffers move, whatever else a module holds stays."""

    def moved(tensor):
        return mode.from_tensor(tensor.detach()).to("cuda")

    done: dict[int, torch.nn.Parameter] = {}
    for m in module.modules():
        for k, p in m._parameters.items():
            if p is not None:
                m._parameters[k] = done.setdefault(id(p), torch.nn.Parameter(moved(p)))
        for k, b in m._buffers.items():
            if b is not None:
                m._buffers[k] = moved(b)
    return module


@every_stage
def test_nothing_is_left_on_the_cpu(name, stage, monkeypatch):
    """Every loss and every update of state on fake tensors of a CUDA device. A gradient inside a penalty becomes a pass
    forward: there is no autograd for a device that is not there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(torch.func, "grad", lambda f: lambda v: v * f(v))
    found, facts = small(name), facts_of(settings.find(name).dataset)
    found = resolve(found, facts)
    chosen = found.stages[stage]
    stays_on_the_device(chosen, build_game(chosen, build_networks(found), facts), facts, FakeTensorMode)


def stays_on_the_device(stage: Stage, game, facts, FakeTensorMode) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        to_cuda(game, mode)
        learner = Learner(game, stage, device="cuda")
        batch = Batch(stage.batch, device="cuda")
        batch.update({k: v.to("cuda") for k, v in fake_reals(stage, facts).items()})
        with OffDevice() as off, torch.no_grad():
            game.prepare(batch)
            for turn in learner.turns:
                batch.size = turn.batch or stage.batch
                for key, value in batch.items():
                    batch[key] = value[:1].expand(batch.size, *value.shape[1:])
                loss = turn.loss(batch)
                assert all(v.device.type == "cuda" for v in tree_leaves(loss) if isinstance(v, torch.Tensor))
                if turn.after:
                    turn.after(batch)
            assert all(v.device.type == "cuda" for v in batch.logs.values())
    assert not off.found


def fake_reals(stage: Stage, facts) -> dict[str, torch.Tensor]:
    shapes = meta_batch(stage, facts, stage.batch)
    return {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in shapes.items()}


def test_that_test_can_fail():
    """A constant that a module keeps outside its buffers is found."""
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
    assert off.found


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
    """Fails where a value is read from a tensor: on an accelerator the host would wait for it. Boolean indexing is a
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
    """Reads that no dispatch mode sees are refused by name."""

    def refuse(name):
        return lambda *args, **kwargs: pytest.fail(f"Tensor.{name} reads a value")

    mode = NoReads()

    class Guard:
        def __enter__(self):
            self.patch = pytest.MonkeyPatch()
            for name in ("tolist", "numpy", "cpu"):
                self.patch.setattr(torch.Tensor, name, refuse(name))
            mode.__enter__()

        def __exit__(self, *error):
            mode.__exit__(*error)
            self.patch.undo()

    return Guard()


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
def test_reads_are_seen(read, no_reads):
    with pytest.raises((AssertionError, pytest.fail.Exception)), no_reads:
        read(torch.ones(3))


@every_stage
def test_two_rounds_export_and_load(name, stage, no_reads, tmp_path):
    """In each turn its players move and no other weight does; what no turn names stays as it is; no value is read in a
    round; the exported weights load and give the same images."""
    recipe = small(name)
    opened = session(recipe, stand_in(recipe, stage), stage=stage)
    play_turn = opened.learner.play
    start = weights(opened.game)
    learned: set[str] = set()
    values: list[torch.Tensor] = []

    def watched(turn, batch, round):
        before = {k: p.detach().clone() for k, p in opened.game.named_parameters()}
        losses = play_turn(turn, batch, round)
        values.extend(losses.values())
        changed = {k for k, p in opened.game.named_parameters() if torch.any(p != before[k]).detach_()}
        for key in changed:
            assert any(key.startswith(p + ".") for p in turn.players), f"{key} moved in the turn of {turn.players}"
        # Once is enough: the gradient of a hinge may be zero.
        learned.update(p for p in turn.players if any(key.startswith(p + ".") for key in changed))
        return losses

    recorded: list[str] = []
    with no_reads:
        opened.play_round(lambda round, n, value: recorded.append(n))  # as it is, unwatched
    assert recorded
    opened.learner.play = watched
    for _ in range(2):
        opened.play_round()
    assert learned == set(opened.learner.players) == set(opened.stage.optimizers)
    assert all(torch.isfinite(v).all() for v in values)
    for key, value in opened.game.state_dict().items():
        assert torch.isfinite(value).all(), key
        if key.split(".")[0] in opened.recipe.networks and not any(key.startswith(p + ".") for p in learned):
            assert torch.equal(value, start[key]), f"{key} moved, and no turn names it"

    exports_and_loads(opened, name, stage, tmp_path / "weights.safetensors")


def exports_and_loads(opened, name: str, stage: int, path) -> None:
    """The model as it is and the one that is loaded from its file show the same images."""
    facts = {"images": opened.total_images, "seconds": 0.0, "seed": 0}
    export(path, opened.game, opened.ema_networks, opened.recipe, stage, opened.facts, opened.new_batch, facts)
    spec = shipped(opened.game, opened.recipe, opened.stage, opened.facts)
    here, there = model_of(opened.game, opened.ema_networks, spec), hub.load(path)
    reals = opened.new_batch()
    opened.draw(reals)
    for k, v in reals.items():
        reals[k] = v[:4]
    small_here, small_there = (show(model, reals) for model in (here, there))
    assert torch.equal(small_here, small_there)
    assert small_here.std() > 0
    assert there.card["name"] == name and there.card["images"] == opened.total_images
    assert recipes.decode(there.card["recipe"]).networks == opened.recipe.networks


def show(model, reals) -> torch.Tensor:
    if model.verb == "sample":
        return model.sample(4, seed=3, chunk=4, **({"to": "both"} if hasattr(model, "pairs") else {}))
    if model.verb == "classify":
        return model.classify(model.to_unit(reals["labeled"]))
    return torch.cat([model.translate(model.to_unit(reals["a" if to == "b" else "b"]), to) for to in model.to_network])


# No dead knobs --------------------------------------------------------------------------------------------------------


def parts(stage: Stage):
    """The registered parts of a stage: (registry, spec)."""
    yield GAMES, stage.game
    kwargs = stage.game.kwargs
    yield from ((LOSSES, kwargs[k]) for k in ("loss",) if k in kwargs)
    yield from ((PRIORS, kwargs[k]) for k in ("prior",) if k in kwargs)
    yield from ((PENALTIES, p) for p in kwargs.get("penalties", ()))


def used() -> dict[tuple[str, str], dict[str, set]]:
    """For each registered part the arguments that recipes give it, with their values."""
    found: dict[tuple[str, str], dict[str, set]] = {}
    for name in NAMES:
        recipe = settings.find(name)
        pairs = [(NETWORKS, spec) for spec in recipe.networks.values()]
        pairs += [pair for stage in recipe.stages for pair in parts(stage)]
        for registry, spec in pairs:
            known = found.setdefault((registry.kind, spec.name), {})
            for key, value in spec.kwargs.items():
                known.setdefault(key, set()).add(json.dumps(recipes.encode(value)))
    return found


KEPT = {
    "classifier": "the network of the feature networks, zoo/metrics/feature networks",
    "minimax": "the game as first written, which the theory is about",
    "r1": "the toy benchmark's penalty, and that of most later papers",
    "non-saturating(smooth)": "one-sided label smoothing, an option of the first papers",
    "minimax(smooth)": "the same",
    "gradient-penalty(every)": "lazy regularization, for any penalty",
    "dragan(every)": "lazy regularization, for any penalty",
    "began(penalties)": "which serve any recipe whose D judges images one by one",
    "cyclegan(cycle)": "the paper's lambda; what a user sets for other domains",
    "cyclegan(identity)": "the paper's second objective, which keeps colors",
    "cyclegan(pool)": "the paper's 50; 0 is its ablation",
    "adversarial(adversarial_weight)": "feature matching alone, which the semi-supervised game hands on",
    "Stream.split": "part of the contract: semi-supervised papers read two splits",
    "Adam.eps": "an optimizer's own constant",
    "RMSProp.alpha": "an optimizer's own constant",
    "RMSProp.eps": "an optimizer's own constant",
    "Ema.start": "part of the contract: averages that begin late",
}
FILLED_IN = {"networks", "channels", "resolution", "classes", "dim"}  # by the engine, from the data or the networks


@pytest.mark.parametrize("registry", [GAMES, NETWORKS, LOSSES, PENALTIES, PRIORS], ids=lambda r: r.kind)
def test_no_dead_knobs(registry):
    """Every registered part is in some recipe, and so is every argument that it takes: an option that no recipe uses is taken
    out. Of networks the arguments are the paper's own sizes and constants, and stay."""
    found = used()
    dead = set()
    for name in registry.names():
        builder = registry[name]
        if not builder.__module__.startswith("zoo."):
            continue  # of the tests' own
        if (registry.kind, name) not in found:
            dead.add(name)
        elif registry is not NETWORKS:
            own = {k for k, p in inspect.signature(builder).parameters.items() if p.kind is not p.VAR_KEYWORD}
            known = own - FILLED_IN - set(found[registry.kind, name])
            dead.update(f"{name}({key})" for key in known)
    assert dead <= set(KEPT)


def test_no_dead_fields():
    """Every field of the recipe's own classes is used by some recipe with another value than its default."""
    seen: dict[type, dict[str, set]] = {}

    def walk(value):
        if isinstance(value, Spec):
            return
        if dataclasses.is_dataclass(value):
            for f in dataclasses.fields(value):
                inside = getattr(value, f.name)
                seen.setdefault(type(value), {}).setdefault(f.name, set()).add(repr(inside))
                walk(inside)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, tuple):
            for v in value:
                walk(v)

    for name in NAMES:
        walk(settings.find(name))
    dead = set()
    for cls, fields in seen.items():
        for f in dataclasses.fields(cls):
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if fields[f.name] == {repr(default)}:
                dead.add(f"{cls.__name__}.{f.name}")
    assert dead <= set(KEPT)
    assert {Data, Stage, Stream} <= set(seen)
