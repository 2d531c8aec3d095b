"""A round has the same result, to rounding, in every memory layout."""

import pytest
import torch
from helpers.play import CPU
from helpers.recipes import STAGES, small, stand_in
from helpers.rounds import first_round, same_round
from test_micro_batch import float64  # noqa: F401  # a fixture

from zoo import settings
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun

LARGE = 256  # from this side on batch norm in many layers amplifies the rounding of float32: computed in float64
STAGES = [both for both in STAGES if settings.find(both[0]).stages[both[1]].resolution <= LARGE]  # others take minutes


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_layout_changes_nothing(name, stage, request, monkeypatch):
    """From the same weights, images and noise."""
    recipe, channels_last = small(name), Runtime(device="cpu", layout="channels_last")
    if recipe.stages[stage].resolution >= LARGE:
        request.getfixturevalue("float64")
        to_layout = StageRun.to_layout

        def to_double(run, value):
            real = isinstance(value, torch.Tensor) and value.is_floating_point()
            return to_layout(run, value.double() if real else value)

        monkeypatch.setattr(StageRun, "to_layout", to_double)
    same_round(*(first_round(recipe, stand_in(recipe, stage), runtime, stage) for runtime in (CPU, channels_last)))
