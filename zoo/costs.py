"""Costs of recipes: parameters, turns, rounds, multiply-adds. The zoo's own recipes have theirs in ``costs.json``;
others need a dry run (:mod:`zoo.engine.dry_run`).

torch imports its compiler and sympy for any computation on the ``meta`` device, which takes as long as importing torch.
With the table ``zoo show`` needs no torch, and ``zoo train`` prints the cost at once (``--dry-run`` still plays a round
of every stage). ``python -m zoo.costs`` writes it anew after a change of recipes, networks or games;
tests/test_costs.py compares it with the dry run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from pathlib import Path

from zoo import data, settings
from zoo.files import Json, beside
from zoo.recipe import Recipe, encode

TABLE = Path(__file__).parent / "costs.json"  # recipe name -> {"key", "cost"}


def cost(recipe: Recipe, images: int | None = None, from_table: bool = True, micro_batch: int | None = None) -> Json:
    """The cost of a recipe, with the budget ``images`` if it is not None; see :func:`zoo.engine.dry_run.describe`.
    ``from_table``: use the table if it has the recipe, without playing a round. ``micro_batch``: of the Runtime, for
    the round.

    Raises ValueError for an error in the recipe.
    """
    rescaled = recipe if images is None else recipe.rescaled(images)
    entry = table().get(recipe.name)
    if not from_table or entry is None or entry["key"] != key(recipe):
        from zoo.engine.dry_run import describe

        return describe(rescaled, micro_batch=micro_batch)
    stages = []
    for stage, facts in zip(rescaled.stages, entry["cost"]["stages"], strict=True):
        rounds = math.ceil(stage.images / facts["images_a_round"])
        stages.append({**facts, "images": stage.images, "rounds": rounds})
    return {**entry["cost"], "images": rescaled.images, "stages": stages}


def multiply_adds(recipe: Recipe) -> float:
    """Those of its whole training. Raises ValueError for an error in the recipe."""
    return total(cost(recipe))


def total(cost: Json) -> float:
    """The multiply-adds of all stages of a cost."""
    return sum(stage["multiply_adds_a_round"] * stage["rounds"] for stage in cost["stages"])


def key(recipe: Recipe) -> str:
    """A hash of the recipe and of the facts of its data set."""
    facts = data.facts(recipe.dataset).to_json()
    text = json.dumps([encode(recipe), facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def table() -> dict[str, Json]:
    """The entries of ``costs.json``."""
    return json.loads(TABLE.read_text()) if TABLE.is_file() else {}


def entry(name: str) -> Json:
    """The entry of the recipe ``name``, by a dry run."""
    from zoo.engine.dry_run import describe

    recipe = settings.find(name)
    return {"key": key(recipe), "cost": json.loads(json.dumps(describe(recipe)))}


def write() -> None:
    """Write the table of all recipes."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry(name))}" for name in settings.names()]
    with beside(TABLE) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write()
