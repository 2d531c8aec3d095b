"""A round comes out the same, but for rounding, however the device lays images out in memory."""

import dataclasses

import pytest
import torch
from helpers.play import CPU, play, session, weights
from helpers.recipes import every_stage, small, stand_in
from torch.overrides import TorchFunctionMode

from zoo.engine.runtime import Runtime
from zoo.recipe import SGD, Recipe


class SameNoise(TorchFunctionMode):
    """Noise is drawn on the CPU and carried to the device that it was asked for."""

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
        kept = torch.rand(x.shape, generator=self.generator) >= p
        return x * kept.to(x.device) / (1 - p) if training else x


def plainly(name: str) -> Recipe:
    """A small recipe with plain gradient descent: Adam's first step is a gradient's sign, which rounding may turn."""
    made = small(name)
    stages = (
        dataclasses.replace(
            s,
            optimizers=dict.fromkeys(s.optimizers, SGD(lr=0.01)),
            schedules=tuple(r for r in s.schedules if not r.target.startswith("optimizers.")),
        )
        for s in made.stages
    )
    return made.replace(stages=tuple(stages))


def first_round(name: str, runtime: Runtime, stage: int = 0):
    """Its images are noise: over flat areas an instance norm makes much of what is only rounding."""
    made = plainly(name)
    source = stand_in(made, stage)
    torch.manual_seed(0)
    if made.stages[stage].resolution:
        source.arrays["x"] = torch.randint(256, source.arrays["x"].shape, dtype=torch.uint8)
    with SameNoise():
        opened = session(made, source, stage=stage, runtime=runtime)
        before = weights(opened.game)
        said = play(opened, 1)
    return opened, said, {k: (v - before[k]).cpu() for k, v in weights(opened.game).items() if v.is_floating_point()}


def same_round(one, other) -> None:
    """Equal losses, equal movements of each player. Rounds as :func:`first_round` returns them."""
    (opened, said_here, here), (_, said_there, there) = one, other
    assert said_there.keys() == said_here.keys()
    for key, values in said_here.items():
        assert said_there[key] == pytest.approx(values, rel=1e-3, abs=1e-4), key
    for player in opened.learner.players:
        a, b = (
            torch.cat([v.flatten() for k, v in side.items() if k.startswith(player + ".")]) for side in (here, there)
        )
        assert (a - b).norm() <= 0.01 * a.norm() + 1e-6, player


@every_stage
def test_layout_changes_nothing(name, stage):
    """From the same weights, images and noise."""
    other = Runtime(device="cpu", layout="channels_last")
    same_round(first_round(name, CPU, stage), first_round(name, other, stage))
