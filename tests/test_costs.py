"""The table of costs: what a dry run of each recipe gives."""

import pytest

from zoo import costs, settings
from zoo.engine.dry_run import describe


@pytest.mark.parametrize("name", settings.names())
def test_costs_are_those_of_a_dry_run(name):
    assert costs.table().get(name) == costs.entry(name), "run `python -m zoo.costs`"


def test_no_entry_without_a_recipe():
    assert set(costs.table()) == set(settings.names())


def test_rescaled_cost():
    recipe = settings.find("sngan-cifar10-small")
    assert costs.cost(recipe, 12_345) == describe(recipe.rescaled(12_345))
    assert costs.cost(recipe) == describe(recipe)


def test_cost_of_a_changed_recipe():
    recipe = settings.find("sngan-cifar10-small")
    networks = {**recipe.networks, "G": recipe.networks["G"].replace(width=8)}
    changed = recipe.replace(networks=networks)
    assert costs.cost(changed)["parameters"]["G"] < costs.cost(recipe)["parameters"]["G"]
