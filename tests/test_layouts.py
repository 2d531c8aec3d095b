"""A round has the same result, to rounding, in every memory layout."""

import pytest
from helpers.play import CPU
from helpers.rounds import first_round, same_round
from test_recipes import NAMES, small, stand_in

from zoo.engine.runtime import Runtime


@pytest.mark.parametrize("name", NAMES)
def test_layout_changes_nothing(name):
    """From the same weights, images and noise."""
    recipe, channels_last = small(name), Runtime(device="cpu", layout="channels_last")
    same_round(*(first_round(recipe, stand_in(recipe), runtime) for runtime in (CPU, channels_last)))
