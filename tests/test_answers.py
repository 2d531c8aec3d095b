"""Answers to what strangers try first."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.cli.train import HINTS
from zoo.priors import build_prior
from zoo.registry import Spec
from zoo.reports.progress import Progress

OPTIONS = [(option, instead) for options, instead in HINTS.items() for option in options]


@pytest.mark.parametrize(("option", "instead"), OPTIONS, ids=[option for option, _ in OPTIONS])
def test_options_of_other_programs(shell, option, instead):
    result = shell("train", "dcgan", "--dataset", "cifar10", option, "5")
    assert result.status == 2 and f"no such option: {option}; use {instead}" in result.err


def test_what_the_answers_name_exists(shell):
    changes = (
        "--set",
        "batch=8",
        "--set",
        "optimizers.G.lr=2e-4",
        "--set",
        "optimizers.D.lr=2e-4",
        "--set",
        "resolution=64",
    )
    assert shell("train", "dcgan", "--dataset", "cifar10", *changes, "--dry-run").status == 0
    assert (
        "no such option '--imges'. (did you mean one of: '--images'" in shell("train", "x", "--imges", "5").err.lower()
    )


def test_a_distance_of_few_images_is_noted():
    few, more = torch.rand(5, 3, 32, 32), torch.rand(30, 3, 32, 32)
    notes = zoo.evaluate(few, "fd", dataset=more, features="cifar10")["notes"]
    assert len(notes) == 1 and "fd-cifar10 of 5 images against 30 mean nothing by themselves" in notes[0]


def test_enough_images_have_no_note():
    images = torch.rand(1000, 1, 28, 28)
    assert zoo.evaluate(images, "fd", dataset=images, features="fashion-mnist")["notes"] == []


def test_the_bar_counts_what_the_time_left_counts(capsys):
    """With --minutes both go to the end that comes first."""
    progress = Progress(minutes=1)
    progress.last = -1e9
    progress.on_tick(images=1_000, total=1_000_000, images_per_second=100.0, seconds_left=50.0)
    assert "1,000 of 6,000 images" in capsys.readouterr().out
    progress.last = -1e9
    progress.on_tick(images=1_000, total=2_000, images_per_second=100.0, seconds_left=10.0)
    assert "1,000 of 2,000 images" in capsys.readouterr().out


def test_a_network_without_latent():
    with pytest.raises(ValueError, match=r"the network Linear has no attribute 'latent', .* \(self.latent = 64\)"):
        build_prior(Spec("normal"), nn.Linear(2, 2))
    assert build_prior(Spec("normal", dim=3), nn.Linear(2, 2))(2, torch.Generator(), "cpu").shape == (2, 3)


SMALL = {"networks.G.width": 2, "networks.D.width": 2, "batch": 8}


def train(path, **options):
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return images, zoo.train("dcgan", images, out=path, images=64, settings=SMALL, device="cpu", **options)


def test_numbers_of_numpy(tmp_path):
    """A sweep over NumPy's numbers; what is no number is a mistake, found before anything is written."""
    images, settings = torch.rand(16, 3, 32, 32), {**SMALL, "batch": np.int64(8), "data.dequantize": np.bool_(True)}
    common = {"out": tmp_path / "run", "device": "cpu", "progress": None}
    options = {"images": np.int64(64), "seed": np.int64(3), "micro_batch": np.int64(8)}
    run = zoo.train("dcgan", images, settings=settings, **options, **common)
    zoo.resume(run, images=np.int64(80), dataset=images, progress=None)
    facts = json.loads((run / "recipe.json").read_text())
    assert facts["seed"] == 3 and facts["changes"]["images"] == 80 and facts["recipe"]["stages"][0]["batch"] == 8
    with pytest.raises(
        ValueError, match=r"settings: batch=\{8\}: must be a number, a text, a list or a part of a recipe"
    ):
        zoo.train("dcgan", images, settings={"batch": {8}}, **common)


def test_training_in_python_shows_the_progress_of_the_command_line(tmp_path, capsys):
    train(tmp_path / "run")
    output = capsys.readouterr().out
    assert "dcgan has no setting of its own for a Tensor: its setting for cifar10 is used" in output
    for line in (
        "training on cpu: 64 images of tensor",
        "images/s: the whole budget takes about",
        "done: 64 images in",
    ):
        assert line in output
    train(tmp_path / "silent", progress=None)
    assert capsys.readouterr().out == ""
    events = []
    train(tmp_path / "own", progress=lambda event, **facts: events.append(event))
    assert events[0] == "note" and events[-1] == "done" and capsys.readouterr().out == ""
    train(tmp_path / "stopped", minutes=1e-9)  # the command line has no tensor
    assert f"continue: zoo.resume('{tmp_path}/stopped', dataset=...)\n" in capsys.readouterr().out


def test_a_bar_in_a_notebook(monkeypatch, capsys):
    class Shell:
        has_trait = staticmethod(lambda name: name == "kernel")

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    progress = Progress()
    for images in (250, 500):
        progress.on_tick(images=images, total=1_000, images_per_second=10.0, seconds_left=50.0)
    progress.on_grid(path="grid.png")
    progress.close()
    output = capsys.readouterr().out
    assert "█" * 6 + "░" * 18 + " 250/1,000" in output and "█" * 12 + "░" * 12 + " 500/1,000" in output
    assert output.count("\n") == 1 and output.endswith("samples: grid.png\n")


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    images, run = train(tmp_path / "run", log="tensorboard", progress=None)
    zoo.resume(run, images=128, dataset=images, log="tensorboard", progress=None)
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = {event.step: event.value for event in board.Scalars("loss/G")}
    assert losses == {line["images"]: pytest.approx(line["loss/G"], abs=1e-5) for line in lines} and 128 in losses
    assert {image.step for image in board.Images("samples")} >= {0, 64, 128}
    with pytest.raises(ValueError, match="log='wandb': must be tensorboard"):
        train(tmp_path / "other", log="wandb")
    assert not (tmp_path / "other").exists()


def test_tensorboard_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r'needs the package tensorboard \(pip install ".\[board\]"'):
        train(tmp_path / "run", log="tensorboard")
    assert not (tmp_path / "run").exists()


def test_a_kernel_of_a_notebook(tmp_path):
    """The bar is one line, written again, and what is printed beside it stays."""
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    pytest.importorskip("ipykernel")
    code = (
        "import torch, zoo\n"
        f"run = zoo.train('dcgan', torch.rand(16, 3, 32, 32), out={str(tmp_path / 'run')!r}, images=100_000, "
        f"minutes=0.1, settings={SMALL!r}, device='cpu')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    text = "".join(output.text for output in notebook.cells[0].outputs)
    assert "\r" in text and "█" in text
    for line in text.split("\n"):
        visible = line.rpartition("\r")[2]
        assert "█" not in visible, line  # no bar is left behind
    assert "training on cpu: 100,000 images of tensor\n" in text and "(stopped by: minutes)" in text
