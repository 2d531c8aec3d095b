"""The contract carries the papers to come: a skeleton of each one's training procedure, with tiny networks.

A file of tests/skeletons has ``recipe()``, all stages of the paper, ``data()``, generated rows with the fields that it
needs, and, if the paper asks for more than what is tested here of all, ``check(*runs)``, called with the stages after
their rounds. A skeleton goes when its paper lands.
"""

import dataclasses

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, play, same, session, state
from helpers.recipes import small, stand_in
from helpers.skeletons import FOLDER, NAMES, ROUNDS, lines_of_code, load, play_stages, watch
from safetensors.torch import load_file, save_file
from test_micro_batch import ROUNDING, compare_run, float64  # noqa: F401  # a fixture
from test_parallel import in_group, processes

import zoo
from zoo.data import facts as facts_of
from zoo.engine import train
from zoo.engine.dry_run import dry_run
from zoo.engine.export import export, model_of
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.stage import build_game, build_networks, load_pretrained, resolve, shipped
from zoo.engine.step import Learner
from zoo.game import whole_batch_parts
from zoo.hub import WEIGHTS

skeletons = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("pretrained_weights")
VERBS = {  # of those that are not "sample"
    "srgan": "upscale",
}
# Without batch statistics, or with those of all processes
IN_PROCESSES = ["pggan-cifar10-small", "stylegan-cifar10-small", "stylegan2-celeba-small"]


@skeletons
def test_a_skeleton_is_short(name):
    assert lines_of_code(FOLDER / f"{name}.py") <= 40


@skeletons
def test_dry_run(name):
    """Every stage, on ``meta``."""
    recipe, data, _ = load(name)
    facts = facts_of(data)
    plans = dry_run(resolve(recipe, facts), facts)
    assert [plan["rounds"] for plan in plans] == [ROUNDS] * len(recipe.stages)


@skeletons
def test_two_rounds_of_every_stage(name):
    """The players of each turn move and nothing else does; all values are finite."""
    recipe, data, module = load(name)
    runs = play_stages(recipe, data)
    for run in runs:
        assert run.moved == set(run.learner.players)
    if hasattr(module, "check"):
        module.check(*runs)


def learn_frozen(game):
    """A pass of D changes a weight of a frozen network."""

    def change(D, inputs):
        game.G[0].layers[-2].weight.data.fill_(9.0)

    game.D[1].layers.register_forward_pre_hook(change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (learn_frozen, r"G\.0\.layers\.\d+\.weight moved in the turn of D"),
        (lambda game: game.G[0].train(), r"G\.0\.first\.1\.running_mean is frozen and moved"),
        (lambda game: game.D[1].layers[0].weight.data.fill_(float("nan")), r"a value of D\.1 is not finite"),
    ],
)
def test_the_watch_can_fail(spoil, message):
    recipe = small("stackgan-emoji-small")
    run = session(recipe, stand_in(recipe, 1), stage=1)
    watch(run)
    spoil(run.game)
    with pytest.raises(AssertionError, match=message):
        play(run)


@pytest.fixture
def bare(monkeypatch):
    """A checkpoint every round, one thread."""
    monkeypatch.setattr(Every, "save", 1)
    monkeypatch.setattr(train, "Clock", Every)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@skeletons
def test_resume(name, tmp_path, bare):
    """A run that is killed in the second round of a stage goes on, bit-equal, from its checkpoint after the first; so
    is the weights file, which is loaded and used by its verb."""
    recipe, data, _ = load(name)
    whole = train.train(recipe, tmp_path / "whole", runtime=CPU, dataset=data)
    for stage in range(len(recipe.stages)):
        run = tmp_path / f"stage-{stage}"
        with pytest.raises(Killed):
            train.train(recipe, run, runtime=CPU, dataset=data, progress=kill_at(2, stage))
        train.resume(run, runtime=CPU, dataset=data)
        for file in (CHECKPOINT, WEIGHTS):
            assert same(*(load_file(path / file) for path in (whole, run))), file
        assert log_of(whole) == log_of(run)
    assert torch.equal(*(use(zoo.load(path)) for path in (whole, run)))
    assert list((whole / "samples").glob("*.png"))


def use(model):
    """What a model makes by the verb of its task, of each of its directions: float [N, C, H, W] in [0, 1]."""
    x = torch.rand(4, model.channels, model.resolution, model.resolution, generator=torch.Generator().manual_seed(0))
    images = {
        "sample": lambda: model.sample(4, seed=1),
        "translate": lambda: torch.cat([model.translate(x, to) for to in model.directions]),
        "generate": lambda: model.generate(["a", "b", "c", "d"], seed=1),
        "upscale": lambda: model.upscale(x[..., ::4, ::4]),
    }[model.verb]()
    assert images.shape[1:] == x.shape[1:] and len(images) >= 4
    assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1
    return images


@skeletons
def test_the_weights_of_every_stage(name, tmp_path):
    """Exported after each stage and loaded: by its verb a model makes the images of the networks in memory, of the size
    of the stage, at its level if they grow; with other weights it makes others."""
    recipe, data, _ = load(name)
    run = None
    for index, stage in enumerate(recipe.stages):
        run = session(recipe, data, stage=index, after=run)
        play(run, ROUNDS)
        file, facts = tmp_path / f"{index}.safetensors", {"images": run.total_images, "seed": 0}
        with_hashes, _ = load_pretrained(run.recipe)
        export(file, run.game, run.ema_networks, with_hashes, index, run.facts, run.new_batch, facts)
        own = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
        model = zoo.load(file)
        assert model.verb == VERBS.get(name, "sample") and model.spec.get("level") == stage.level
        images = use(model)
        assert images.shape[-1] == stage.resolution and torch.equal(images, use(own))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        assert not torch.equal(images, use(model))


@skeletons
def test_micro_batches(name, float64):
    """The gradients of every turn are the whole batch's, or the stage is refused with the name of the part."""
    recipe, data, _ = load(name)
    facts = facts_of(data)
    recipe = resolve(recipe, facts)
    for index, stage in enumerate(recipe.stages):
        with torch.device("meta"):
            game = build_game(stage, build_networks(recipe, device="meta"), facts)
            Learner(game, stage, device="meta")  # freezes what is no player's
        parts = list(whole_batch_parts(game))
        if parts:
            with pytest.raises(ValueError, match=rf"^--micro-batch 1: {parts[0]} needs the whole batch$"):
                Learner(game, stage, device="meta", micro_batch=1)
        else:
            assert compare_run(session(recipe, data, stage=index), (1, 1)) <= ROUNDING


def steady(recipe):
    """With a larger epsilon of Adam: a gradient that is only a rounding error (StyleGAN's first bias) gives no step."""
    stages = [
        dataclasses.replace(s, optimizers={n: dataclasses.replace(o, eps=1e-4) for n, o in s.optimizers.items()})
        for s in recipe.stages
    ]
    return recipe.replace(stages=tuple(stages))


@pytest.mark.parametrize("name", [*IN_PROCESSES, "stargan-emoji-small", "combogan-emoji-small"])
def test_two_processes_learn_as_one(name, tmp_path, float64):
    """Weights, the optimizers' state and buffers after two rounds of the first stage are those of one process; also of
    recipes whose labels are exchanged across the batch, or whose rounds choose their streams."""
    recipe = steady(small(name))
    data = stand_in(recipe)

    def states(run):
        play(run, ROUNDS)
        return state(run)

    def work(rank):
        save_file(states(in_group(lambda: session(recipe, data))), tmp_path / f"{rank}.safetensors")

    processes(work)
    parts, alone = [load_file(tmp_path / f"{r}.safetensors") for r in range(2)], states(session(recipe, data))
    assert same(*parts) and parts[0].keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(parts[0][key], value, rtol=ROUNDING, atol=ROUNDING)
