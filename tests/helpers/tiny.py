"""Small models, weights files and a recipe for the tests of what users touch."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from zoo import hub
from zoo.models import Model, build_model
from zoo.registry import NETWORKS

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["cat", "dog", "owl"]

RECIPE = '''"""Small net. A recipe of the tests' own.

Differences from the paper: all.
"""

from zoo.recipe import Adam, Recipe, Spec, Stage
from zoo.settings import setting


def recipe(images, resolution):
    adam = Adam(lr=1e-3, betas=(0.5, 0.9))
    return Recipe(
        networks={"G": Spec("mlp-generator", hidden=(16,), latent=2), "D": Spec("mlp-discriminator", hidden=(16,))},
        stages=(Stage(game=Spec("adversarial"), optimizers={"G": adam, "D": adam}, images=images, batch=64,
                      resolution=resolution),),
    )


@setting("ring")
def ring():
    "Points."
    return recipe(64 * 40, 0)


@setting("fashion-mnist-10k")
def garments():
    "Images of eight pixels, for long."
    return recipe(64 * 10_000_000, 8)


@setting("fashion-mnist-10k", "small")
def garments_small():
    "Images of eight pixels."
    return recipe(64 * 20, 8)
'''


@NETWORKS.register("tiny-conditional")
class Conditional(nn.Module):
    """z [N, 4], y [N] -> [N, 1, 8, 8]."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.latent, self.classes = 4, classes
        self.embed = nn.Embedding(classes, 4)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 64), nn.Tanh())

    def forward(self, z, y):
        return self.layers(z + 3 * self.embed(y)).unflatten(1, (1, 8, 8))


def image_spec(**changes) -> dict:
    kwargs = {"channels": 3, "resolution": 16, "width": 4, "latent": 8}
    spec = {"kind": "image", "networks": {"G": {"name": "dcgan-generator", "kwargs": kwargs}}}
    prior = {"name": "normal", "kwargs": {}}
    return {**spec, "prior": prior, "range": [-1, 1], "resolution": 16, "channels": 3, "classes": [], **changes}


def class_spec(**changes) -> dict:
    networks = {"G": {"name": "tiny-conditional", "kwargs": {}}}
    return image_spec(networks=networks, resolution=8, channels=1, classes=CLASSES, **changes)


def point_spec() -> dict:
    networks = {"G": {"name": "mlp-generator", "kwargs": {"channels": 2, "latent": 3, "hidden": [8]}}}
    return image_spec(networks=networks, resolution=0, channels=2)


def codes_spec() -> dict:
    """A generator whose noise has the codes c1, of three values, and c2, a continuous one."""
    return image_spec(prior={"name": "codes", "kwargs": {"noise": 4, "categorical": [3], "continuous": 1}})


def coded_spec(**changes) -> dict:
    """A generator of 8x8 images with an encoder."""
    kwargs = {"channels": 1, "resolution": 8, "latent": 3, "hidden": 8}
    networks = {n: {"name": f"bigan-mlp-{k}", "kwargs": kwargs} for n, k in {"G": "generator", "E": "encoder"}.items()}
    options = {"networks": networks, "resolution": 8, "channels": 1, "range": [0, 1], **changes}
    return image_spec(kind="autoencoder", **options)


def translate_spec(**changes) -> dict:
    G = {"name": "cyclegan-generator", "kwargs": {"channels": 3, "resolution": 16, "width": 4, "blocks": 1}}
    spec = {"kind": "translate", "networks": {"G": G, "F": G}, "to": {"b": "G", "a": "F"}}
    spec["domains"] = {"a": "twitter", "b": "google"}
    return {**spec, "range": [-1, 1], "resolution": 16, "channels": 3, "classes": [], **changes}


def coupled_spec() -> dict:
    kwargs = {"channels": 1, "latent": 3, "widths": [6, 5, 4, 3]}
    spec = image_spec(resolution=28, channels=1, kind="coupled", domains={"a": "plain", "b": "edges"})
    return {**spec, "networks": {"G": {"name": "cogan-generator", "kwargs": kwargs}}, "range": [0, 1]}


def model(spec: dict, seed: int = 0) -> Model:
    """A model with lively weights: as initialized, images would hardly differ from each other."""
    built = build_model(spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in built.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 if p.ndim > 1 else 0.2))
    return built.eval()


def weights(path: Path, spec: dict, **card) -> Path:
    built = model(spec)
    hub.save_weights(path, built.networks, {"name": "small-net-ring", "model": spec, "images": 1000, **card})
    return path


def process(*args, cwd: Path, **options) -> subprocess.CompletedProcess:
    """``python ARGS`` as a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, **options
    )
