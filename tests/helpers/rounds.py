"""A round on two devices or in two memory layouts, and recipes of a few rounds."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from helpers.play import play, session, weights
from zoo.data import ImageData, facts
from zoo.engine.dry_run import dry_run
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, resolve
from zoo.recipe import SGD, Recipe

ROUNDS = 6

# One recipe for each kind of training step: one pass for real and fake images, batch norm and several steps of D, a
# penalty that differentiates D, classes with both players at once, a head on D's features, two domains.
KINDS = [
    *("sngan-cifar10-small", "wgan-fashion-mnist", "wgan-gp-mnist-small", "cgan-mnist", "acgan-fashion-mnist"),
    "cyclegan-emoji-small",
]


def short(recipe: Recipe) -> Recipe:
    """The recipe with a budget of ``ROUNDS`` rounds for each stage; its schedules shrink with it."""
    plans = dry_run(resolve(recipe, facts(recipe.dataset)), facts(recipe.dataset))
    stages = (
        recipe.replace(stages=(stage,)).rescaled(int(ROUNDS * plan["images_a_round"])).stages[0]
        for stage, plan in zip(recipe.stages, plans, strict=True)
    )
    return recipe.replace(stages=tuple(stages))


class SameNoise(TorchFunctionMode):
    """Noise is sampled on the CPU and copied to the device, so that it is the same on every device."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randn, torch.randint):
            device = kwargs.pop("device", None) or "cpu"
            return func(*args, **{**kwargs, "generator": self.generator}).to(device)
        if func is torch.randn_like:
            return torch.randn(args[0].shape, generator=self.generator).to(args[0].device)
        if func is torch.nn.functional.dropout:
            return self.dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def dropout(self, x, p=0.5, training=True, inplace=False):
        mask = torch.rand(x.shape, generator=self.generator) >= p
        return x * mask.to(x.device) / (1 - p) if training else x


def with_gradient_descent(recipe: Recipe) -> Recipe:
    """The recipe with plain gradient descent: Adam's first step is the sign of a gradient, which rounding may
    change."""
    stages = (
        dataclasses.replace(
            stage,
            optimizers=dict.fromkeys(stage.optimizers, SGD(lr=0.01)),
            schedules=tuple(s for s in stage.schedules if not s.target.startswith("optimizers.")),
        )
        for stage in recipe.stages
    )
    return recipe.replace(stages=tuple(stages))


class Round(NamedTuple):
    run: StageRun
    scalars: dict[str, list[float]]
    changes: dict[str, Tensor]  # of weights and buffers, on the CPU


def first_round(recipe: Recipe, source: ImageData, runtime: Runtime, stage: int = 0) -> Round:
    """The first round of a stage with gradient descent, on images of noise: in flat areas instance norm amplifies
    rounding."""
    recipe = with_gradient_descent(recipe)
    torch.manual_seed(0)
    if recipe.stages[stage].resolution:
        source.arrays["x"] = torch.randint(256, source.arrays["x"].shape, dtype=torch.uint8)
    with SameNoise():
        run = session(recipe, source, stage=stage, runtime=runtime)
        before = weights(run.game)
        scalars = play(run, 1)
    after = weights(run.game)
    return Round(run, scalars, {k: (v - before[k]).cpu() for k, v in after.items() if v.is_floating_point()})


def same_round(one: Round, other: Round) -> None:
    """Assert equal losses, and equal changes of each player's weights, to rounding."""
    assert other.scalars.keys() == one.scalars.keys()
    for key, values in one.scalars.items():
        assert other.scalars[key] == pytest.approx(values, rel=1e-3, abs=1e-4), key
    for player in one.run.learner.players:
        a, b = (
            torch.cat([v.flatten() for k, v in side.changes.items() if k.startswith(player + ".")])
            for side in (one, other)
        )
        assert (a - b).norm() <= 0.01 * a.norm() + 1e-6, player


def compare_values(a: dict[str, Any], b: dict[str, Any], tolerance: float) -> None:
    """Assert that the floating-point tensors of ``a`` are those of ``b`` to a relative and absolute ``tolerance``."""
    for key, value in a.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                b[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
            )
