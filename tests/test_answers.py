"""Answers to what strangers try first."""

import pytest
import torch
from torch import nn

import zoo
from zoo.cli.progress import Progress
from zoo.cli.train import HINTS
from zoo.priors import build_prior
from zoo.registry import Spec

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
