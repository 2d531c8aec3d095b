"""Recipes are tested with generated rows of the same fields as their data sets, so that no set has to be fetched."""

import dataclasses

import pytest
import torch
from helpers.play import play, session
from helpers.recipes import NAMES, small, stand_in

from zoo import settings
from zoo.data import facts as facts_of

SETS = {settings.find(name).dataset: name for name in NAMES if facts_of(settings.find(name).dataset).resolution}


def prepared(home):
    """The data sets in a folder, without the one that is installed with the zoo."""
    names = {path.name for path in (home / "data").glob("*")}
    return {name for name in names if not name.startswith("fashion-mnist-10k")}


@pytest.mark.parametrize("dataset", SETS)
def test_the_rows_have_the_fields_of_the_set(dataset, own_home):
    """Each field of the set, by name and type, with values in its range; nothing is fetched."""
    recipe, facts = settings.find(SETS[dataset]), facts_of(dataset)
    data = stand_in(recipe)
    side = data.facts.resolution
    assert data.facts == dataclasses.replace(facts, resolution=side)
    rows = data.rows(torch.arange(8))
    assert set(rows) == set(facts.keys) and rows["x"].shape[1:] == (facts.channels, side, side)
    if "y" in rows:
        assert set(rows["y"].tolist()) <= set(range(len(facts.classes) or 2))
    assert not prepared(own_home)


def test_a_set_that_nobody_can_fetch(own_home, monkeypatch):
    """A recipe of a set without any source that answers takes its rounds on the generated rows."""
    name = next(n for n in NAMES if settings.find(n).dataset == "celeba")
    recipe = small(name)
    run = session(recipe, stand_in(recipe))
    before = {k: v.clone() for k, v in run.game.state_dict().items()}
    play(run)
    assert any(not torch.equal(v, before[k]) for k, v in run.game.state_dict().items())
    assert not prepared(own_home)
