"""A round has the same result, to rounding, in every memory layout."""

from helpers.play import CPU
from helpers.recipes import every_stage, small, stand_in
from helpers.rounds import first_round, same_round

from zoo.engine.runtime import Runtime


@every_stage
def test_layout_changes_nothing(name, stage):
    """From the same weights, images and noise."""
    recipe, channels_last = small(name), Runtime(device="cpu", layout="channels_last")
    same_round(*(first_round(recipe, stand_in(recipe, stage), runtime, stage) for runtime in (CPU, channels_last)))
