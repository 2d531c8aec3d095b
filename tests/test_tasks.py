"""A task is one file: its verb, its input, its preview and its score, used by every command."""

import json
import os

import pytest
from helpers.tiny import ROOT, process
from PIL import Image

# A task that no shipped one resembles: numbers in, images out; its verb is `paint`, its score is `evenness`.
TASK = '''"""Levels -> plain images: ``zoo sample NAME --input 0.2,0.8`` paints an image for each level."""

import torch
from torch import nn

from zoo.metrics.inputs import INPUTS, Input
from zoo.metrics.metric import always, metric
from zoo.models import Bench, Model, Program
from zoo.registry import TASKS


@TASKS.register("levels")
class LevelsModel(Model):
    verb = "paint"
    words = "plain images"
    generates = False
    watched = ("evenness",)
    bench = Bench(("evenness",), main="evenness")

    def paint(self, levels):
        levels = torch.as_tensor(levels, dtype=torch.float32)
        with self.inference():
            return self.to_unit(self.G(levels[:, None]))

    def preview(self, reals):
        return self.paint(torch.linspace(0, 1, 12)), 6

    def probe(self):
        yield self.paint(torch.linspace(0, 1, 5))

    @classmethod
    def commands(cls, spec, name):
        return [f"zoo sample {name} --input 0.5 --out gray.png"]

    def write(self, request):
        request.only("source")
        try:
            levels = [float(part) for part in (request.source or "").split(",")]
        except ValueError:
            raise ValueError(f"--input {request.source}: must be numbers, separated by commas") from None
        request.write_grid(self.paint(levels), len(levels))

    def program(self, to):
        class Painter(nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, levels):
                return self.model.to_unit(self.model.G(levels))

        inputs = lambda n: (torch.linspace(0, 1, n)[:, None],)
        return Program(Painter(self).eval(), inputs, ["levels"])


INPUTS["painter"] = Input(
    "a Model with paint", "a model that paints", lambda source: hasattr(source.model, "paint"),
    value=lambda inputs: inputs.source.model,
)


@metric("evenness", needs=("painter",), better="lower", default=always)
def evenness(painter):
    """The spread of the values inside a plain image."""
    return painter.paint([0.1, 0.5, 0.9]).std((1, 2, 3)).mean().item()
'''

PARTS = '''"""A network and a game that leave a model of that task."""

import torch
from torch import nn

from zoo.game import Game, Turn
from zoo.registry import GAMES, NETWORKS


@NETWORKS.register("painter")
class Painter(nn.Module):
    def __init__(self, channels: int = 1, resolution: int = 8):
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.layer = nn.Linear(1, channels * resolution**2)

    def forward(self, level):
        return self.layer(level).unflatten(1, self.shape).tanh()


@GAMES.register("painting")
class Painting(Game):
    takes = ("G",)

    def turns(self):
        return [Turn(("G",), self.loss)]

    def loss(self, batch):
        x = batch["x"]
        return (self.G(x.mean((1, 2, 3))[:, None] / 2 + 0.5) - x).square().mean()

    def ships(self):
        return {"kind": "levels", "networks": ["G"]}
'''

RECIPE = '''"""Painter. A recipe of the tests' own.

Differences from the paper: all.
"""

from zoo.recipe import Adam, Recipe, Spec, Stage
from zoo.settings import setting


@setting("fashion-mnist-10k")
def garments():
    "Images of eight pixels."
    stage = Stage(game=Spec("painting"), optimizers={"G": Adam(lr=1e-2)}, images=64 * 6, batch=64, resolution=8)
    return Recipe(networks={"G": Spec("painter")}, stages=(stage,))
'''

ENTRY_POINTS = """[zoo.models]
levels = levels_task
[zoo.metrics]
levels = levels_task
[zoo.networks]
painter = painting_parts
[zoo.games]
painting = painting_parts
"""


@pytest.fixture(scope="module")
def zoo_with_task(tmp_path_factory):
    """``run(*args)``: the command line as a process, with another distribution's task installed."""
    site, cwd = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("cwd")
    (site / "levels_task.py").write_text(TASK)
    (site / "painting_parts.py").write_text(PARTS)
    facts = site / "levels-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: levels\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    (cwd / "painter.py").write_text(RECIPE)
    home = cwd / "home"
    home.mkdir()
    paths = os.pathsep.join([str(ROOT), str(site)])

    def run(*args):
        return process("-m", "zoo", *args, cwd=cwd, env={"PYTHONPATH": paths, "ZOO_HOME": str(home)})

    trained = run("train", "painter.py", "--out", "run", "--eval-every", 128)
    assert trained.returncode == 0, trained.stderr
    assert "zoo sample run --input 0.5 --out gray.png" in trained.stdout + trained.stderr
    return run, cwd


def test_a_task_of_ones_own_by_every_command(zoo_with_task):
    run, cwd = zoo_with_task

    def passes(*args):
        result = run(*args)
        assert result.returncode == 0, result.stderr
        return result.stdout

    # Its verb and its input
    passes("sample", "run", "--input", "0.1,0.5,0.9", "--out", "levels.png")
    assert Image.open(cwd / "levels.png").size == (3 * 10 + 2, 12)
    for option, message in (
        (("--input", "dark"), "--input dark: must be numbers"),
        (("--input", "0.5", "--y", "3"), "--y: 'run' does not use it; leave --y out"),
        (("--input", "0.5", "--truncation", "0.5"), "leave --truncation out"),
        (("--input", "0.5", "-n", "3"), "leave -n out"),
    ):
        result = run("sample", "run", *option, "--out", "new.png")
        assert result.returncode == 2 and message in result.stderr and not (cwd / "new.png").exists()

    # Its preview in the run's grids, its score in the log and of the file
    grids = sorted((cwd / "run/samples").glob("*.png"))
    assert Image.open(grids[-1]).size == (6 * 10 + 2, 2 * 10 + 2)
    lines = [json.loads(line) for line in (cwd / "run/log.jsonl").read_text().splitlines()]
    assert any("evenness" in line.get("scores", {}) for line in lines)
    scores = json.loads(passes("eval", "run", "--json"))["scores"]
    assert set(scores) == {"evenness"} and scores["evenness"] > 0

    # Its program, its probe, its commands
    exported = json.loads(passes("export", "run", "--format", "torch", "--out", "painter.pt2", "--json"))
    assert exported["inputs"] == ["levels"] and exported["difference"] < 1e-3
    passes("publish", "run", "--to", "weights", "--name", "painter")
    index = json.loads((cwd / "weights/index.json").read_text())
    assert index["painter"]["kind"] == "levels" and index["painter"]["half"]
    passes("report", "run")
    assert "zoo sample run --input 0.5 --out gray.png" in (cwd / "run/report.html").read_text()


def test_a_file_of_a_task_that_is_not_installed(zoo_with_task):
    _, cwd = zoo_with_task
    result = process("-m", "zoo", "sample", "run", "--input", "0.5", "--out", "new.png", cwd=cwd)
    assert result.returncode == 2 and "unknown task 'levels'" in result.stderr
