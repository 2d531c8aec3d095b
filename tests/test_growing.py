"""Networks that grow from stage to stage: the level, the factor of the fade, and what is shipped at each level."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers.play import CPU, Duel, Every, Killed, image_recipe, images, kill_at, play, same, session
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

import zoo
from zoo import hub, overrides
from zoo.choice import Choice
from zoo.data import facts as facts_of
from zoo.engine import train
from zoo.engine.dry_run import dry_run
from zoo.engine.export import model_of
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS
from zoo.engine.stage import StageRun, build_networks, resolve, shipped
from zoo.recipe import Adam, Ema, Recipe, Schedule, Stage, from_json, to_json
from zoo.registry import NETWORKS, Spec

SIDES = (4, 8, 16)
SOURCE = images(side=16).arrays["x"]


class Growing(nn.Module):
    """Layers for sides 4, 8 and 16; the level chooses those of a pass. ``fade``: the share of the newest layer."""

    fade: Tensor

    def __init__(self):
        super().__init__()
        self.level = 0
        self.register_buffer("fade", torch.ones(()))

    def at(self, level: int):
        if level >= len(SIDES):
            raise ValueError(f"level={level}: must be below {len(SIDES)}")
        self.level = level
        return self


@NETWORKS.register("test-growing-generator")
class Generator(Growing):
    """Noise [N, 4] -> images [N, C, S, S], S = 4, 8, 16 at level 0, 1, 2."""

    def __init__(self, channels: int, width: int = 4):
        super().__init__()
        self.latent, self.first = 4, nn.Linear(4, width * 16)
        self.blocks = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in SIDES])
        self.to_image = nn.ModuleList([nn.Conv2d(width, channels, 1) for _ in SIDES])

    def forward(self, z: Tensor) -> Tensor:
        h = torch.tanh(self.blocks[0](self.first(z).reshape(len(z), -1, 4, 4)))  # [N, width, 4, 4]
        if self.level == 0:
            return torch.tanh(self.to_image[0](h))
        for level in range(1, self.level + 1):
            before, h = h, interpolate(h, scale_factor=2)
            h = torch.tanh(self.blocks[level](h))  # [N, width, S, S]
        old = interpolate(self.to_image[self.level - 1](before), scale_factor=2)
        return torch.tanh(torch.lerp(old, self.to_image[self.level](h), self.fade))


@NETWORKS.register("test-growing-discriminator")
class Discriminator(Growing):
    """Images [N, C, S, S] -> scores [N]."""

    def __init__(self, channels: int, width: int = 4):
        super().__init__()
        self.from_image = nn.ModuleList([nn.Conv2d(channels, width, 1) for _ in SIDES])
        self.blocks = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in SIDES])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.from_image[self.level](x))  # [N, width, S, S]
        for level in range(self.level, 0, -1):
            h = avg_pool2d(torch.tanh(self.blocks[level](h)), 2)
            if level == self.level:
                h = torch.lerp(self.from_image[level - 1](avg_pool2d(x, 2)), h, self.fade)
        return self.blocks[0](h).mean((1, 2, 3))


def stage(level: int, rounds: int = 6) -> Stage:
    """The newest layers are faded in during the first half of a stage."""
    fade = tuple(
        Schedule(f"game.{name}.fade", ((0, 0.0), (rounds * 4, 1.0)) if level else ((0, 1.0),)) for name in "GD"
    )
    adam = Adam(lr=0.01)
    fields = {"images": rounds * 8, "batch": 8, "resolution": SIDES[level], "schedules": fade, "level": level}
    return Stage(game=Duel.spec, optimizers={"G": adam, "D": adam}, **fields)


def growing(**more) -> Recipe:
    networks = {"G": Spec("test-growing-generator"), "D": Spec("test-growing-discriminator")}
    stages = tuple(stage(level) for level in range(len(SIDES)))
    return image_recipe().replace(networks=networks, stages=stages, ema={"G": Ema(halflife=16)}, **more)


def test_shipped_at_each_level(tmp_path, monkeypatch):
    """Whenever a file is written, its model makes the images that the run's own makes, at the level of the stage."""
    monkeypatch.setattr(train, "Clock", Every)
    save, states = train.save, []

    def save_and_compare(run, folder, *args):
        save(run, folder, *args)
        own = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
        own, model = own.sample(4), zoo.load(folder.path)
        assert torch.equal(model.sample(4), own)
        assert model.card["model"]["level"] == run.stage.level and model.G.fade == run.game.G.fade
        states.append((run.stage.level, own.shape[-1], round(model.G.fade.item(), 3)))

    monkeypatch.setattr(train, "save", save_and_compare)
    train.train(growing(), tmp_path / "run", runtime=CPU, dataset=SOURCE)
    # The first file of a stage, before its first round, has the schedule's first value.
    assert [state for i, state in enumerate(states) if state not in states[:i]] == [
        (0, 4, 1.0),
        *((1, 8, fade) for fade in (0.0, 0.667, 1.0)),
        *((2, 16, fade) for fade in (0.0, 0.667, 1.0)),
    ]


def test_a_stage_that_was_stopped_ships_its_level(tmp_path, monkeypatch):
    """Training ends in the second stage, at 8x8."""
    monkeypatch.setattr(train, "Clock", Every)
    with pytest.raises(Killed):
        train.train(growing(), tmp_path / "run", runtime=CPU, dataset=SOURCE, progress=kill_at(4, 1))
    assert zoo.load(tmp_path / "run").sample(2).shape == (2, 3, 8, 8)


def test_weights_to_begin_from_are_in_no_fade(tmp_path, monkeypatch):
    """A run that begins from weights that were stopped in a fade begins without one, if its first stage fades in
    nothing; a stage with a fade begins it anew."""
    monkeypatch.setattr(train, "Clock", Every)
    with pytest.raises(Killed):
        train.train(growing(), tmp_path / "first", runtime=CPU, dataset=SOURCE, progress=kill_at(4, 1))
    assert 0 < load_file(tmp_path / "first" / CHECKPOINT)["game.G.fade"] < 1
    facts, device = facts_of(SOURCE), torch.device("cpu")
    for init in (tmp_path / "first", tmp_path / "first" / WEIGHTS):
        for schedules, fade in (((), 1.0), (stage(1).schedules, 0.0)):
            recipe = growing().replace(stages=(replace(stage(1), schedules=schedules),))
            run = StageRun(resolve(recipe, facts), 0, SOURCE, facts, CPU, device, 0)
            run.prepare(init)
            networks = run.game.G, run.game.D, run.ema_networks["G"].network
            assert [network.fade.item() for network in networks] == [fade] * 3


def test_a_fade_that_ends_with_its_stage_is_over():
    """The next stage of the level has no schedule for it: it begins with the last value, not with that of the last
    round."""
    fade = tuple(replace(schedule, points=((0, 0.0), (24, 1.0))) for schedule in stage(1).schedules)
    stages = replace(stage(1), images=24, schedules=fade), replace(stage(1), schedules=())
    first = session(growing().replace(stages=stages), SOURCE)
    play(first, 3)
    second = session_after(first, 1)
    networks = second.game.G, second.game.D, second.ema_networks["G"].network
    assert [network.fade.item() for network in networks] == [1.0] * 3


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_stage_resumes(level, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Clock", Every)
    whole = train.train(growing(), tmp_path / "whole", runtime=CPU, dataset=SOURCE)
    with pytest.raises(Killed):
        train.train(growing(), tmp_path / "run", runtime=CPU, dataset=SOURCE, progress=kill_at(Every.save + 1, level))
    train.resume(tmp_path / "run", runtime=CPU, dataset=SOURCE)
    for name in (CHECKPOINT, WEIGHTS):
        assert same(*(load_file(path / name) for path in (whole, tmp_path / "run")))


def test_ema_weights_are_at_the_level_of_the_stage(tmp_path):
    """With the buffers of the network, before and after a round; what a level does not use stays as it was."""
    first = session(growing(), SOURCE)
    play(first, 2)
    unused = copy.deepcopy(first.game.G.blocks[2].state_dict())
    second = session_after(first, 1)
    for rounds in (0, 2):
        play(second, rounds)
        average = second.ema_networks["G"].network
        assert average.level == second.game.G.level == second.game.D.level == 1
        assert average.fade == second.game.G.fade == (rounds - 1 if rounds > 1 else 0) * 8 / 24
        assert average(torch.rand(2, 4)).shape == (2, 3, 8, 8)
    assert same(unused, second.game.G.blocks[2].state_dict())
    assert same(unused, second.ema_networks["G"].network.blocks[2].state_dict())


def session_after(before, index):
    """The next stage, with the networks of the one before."""
    run = type(before)(before.recipe, index, SOURCE, before.facts, CPU, before.device, 0, before=before)
    run.prepare()
    return run


def test_the_dry_run_plays_every_level():
    """The work of a round grows with the level."""
    facts = facts_of(SOURCE)
    work = [s["multiply_adds_a_round"] for s in dry_run(resolve(growing(), facts), facts)]
    assert work == sorted(work) and len(set(work)) == 3


def test_an_untrained_model_is_at_the_last_level(monkeypatch, tmp_path):
    recipe = growing()
    monkeypatch.setattr("zoo.api.choose", lambda *a: Choice(recipe))
    assert zoo.create("growing", dataset=torch.zeros(4, 3, 16, 16)).sample(2).shape == (2, 3, 16, 16)


def test_mistakes(tmp_path):
    recipe, facts = growing(), facts_of(SOURCE)

    def check(recipe):
        dry_run(resolve(recipe, facts), facts)

    for key, value, message in (
        ("stages.1.level", "null", r"level: G and D can grow, so that each stage must have a level"),
        ("stages.1.level", "3", r"networks\.G: level=3: must be below 3"),
        ("stages.1.level", "-1", r"stages\.1\.level=-1: must be 0 or more"),
        ("stages.1.level", '"high"', r"level"),
    ):
        with pytest.raises(ValueError, match=message):
            check(overrides.override(recipe, key, value))
    plain = image_recipe(resolution=16, level=1)
    with pytest.raises(ValueError, match=r"level=1: no network of the recipe can grow; leave it out"):
        check(plain)
    assert from_json(to_json(recipe)) == recipe


@pytest.mark.parametrize("level", ["high", 3, -1, True, None])
def test_a_card_with_another_level(level, tmp_path):
    run = train.train(growing(), tmp_path / "run", runtime=CPU, dataset=SOURCE)
    card = hub.read_header(run / WEIGHTS)["card"]
    card["model"]["level"] = level
    hub.save_weights(tmp_path / "file.safetensors", zoo.load(run).networks, card)
    with pytest.raises(ValueError, match=r"file\.safetensors': .*level="):
        zoo.load(tmp_path / "file.safetensors")


def test_all_layers_are_there_from_the_start():
    """The same tensors at every level."""
    network = build_networks(resolve(growing(), facts_of(SOURCE)))["G"]
    assert len({tuple(network.at(level).state_dict()) for level in range(3)}) == 1
