"""A run that goes on with another budget, or with its data at another place.

What changes is written beside the recipe, in recipe.json's ``changes``, so that the recipe and its fingerprint in the
checkpoint stay what the run began with. All stages but the last keep their length, and all schedules their values.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.engine.run_folder import RECIPE, RunFolder
from zoo.recipe import Recipe


def recipe_of(folder: RunFolder, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a run with ``changes``, by default those in recipe.json. Raises ValueError if that has no recipe,
    or other changes."""
    recipe, changes = folder.recipe(), changes_of(folder) if changes is None else changes
    if "images" in changes:
        recipe = with_budget(recipe, changes["images"])
    return recipe.replace(dataset=changes.get("dataset", recipe.dataset))


def changes_of(folder: RunFolder) -> dict[str, Any]:
    """What was changed after a run's start: ``images``, ``dataset``."""
    changes = folder.facts().get("changes", {})
    types = {"images": int, "dataset": str}
    if not isinstance(changes, dict) or any(type(v) is not types.get(k) for k, v in changes.items()):
        raise folder.wrong("changes: must be an object with images, a whole number, and dataset, a name")
    return changes


def with_budget(recipe: Recipe, images: int) -> Recipe:
    """The recipe with ``images`` real images in all; the last stage takes the difference. Raises ValueError if nothing
    is left for it, or if its learning rates have fallen to 0 by then."""
    *before, last = recipe.stages
    rest = images - sum(stage.images for stage in before)
    if rest < 1:
        raise ValueError(f"--images {images}: must be more than the stages before the last have, {images - rest:,}")
    rates = [s for s in last.schedules if s.target.endswith(".lr")]
    if rest > last.images and rates and all(s.at(last.images) == 0 for s in rates):
        raise ValueError(
            f"--images {images}: the learning rate is 0 after the {recipe.images:,} images of this run, so that more "
            "change nothing; begin a new run with --init RUN --images N"
        )
    return recipe.replace(stages=(*before, dataclasses.replace(last, images=rest)))


def more_changes(folder: RunFolder, images: int | None = None, dataset: str | None = None) -> dict[str, Any]:
    """The changes of a run with another budget or place of the data. Raises ValueError if the run cannot go on with
    that budget. Nothing is written yet: that comes once the run is known to go on."""
    changes = {**changes_of(folder)}
    if images is not None:
        done = trained(folder)
        if images <= done:
            raise ValueError(f"--images {images}: must be more than the {done:,} images that the run has had")
        with_budget(folder.recipe(), images)
        changes["images"] = images
    if dataset is not None:
        changes["dataset"] = absolute(dataset)
    return changes


def absolute(dataset: str) -> str:
    """The name of a data set; of ``folder:PATH`` with a path that leads to it from any working folder."""
    path = dataset.removeprefix("folder:")
    return dataset if path in (dataset, "") or path.startswith("~") else f"folder:{Path.cwd() / path}"


def write_changes(folder: RunFolder, changes: Mapping[str, Any]) -> None:
    """Write the changes of a run into its recipe.json, if there are new ones."""
    if changes != changes_of(folder):
        folder.write_text(RECIPE, json.dumps({**folder.facts(), "changes": changes}, indent=2))


def trained(folder: RunFolder) -> int:
    """The real images that a run's last checkpoint has had; 0 without one."""
    from zoo.engine import checkpoint
    from zoo.engine.run_folder import CHECKPOINT

    path = folder.path / CHECKPOINT
    return checkpoint.load(path)[1]["total_images"] if path.exists() else 0
