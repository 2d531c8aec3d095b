"""What the run was: the recipe, the Card of its weights, the machine, and the commands that go on from it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from zoo import hub, settings
from zoo import recipe as recipes
from zoo.engine.dry_run import describe
from zoo.engine.export import uses
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS
from zoo.engine.stage import build_networks, parameters
from zoo.registry import DATASETS
from zoo.reports.html import Html, pairs, plain, rows, said, tag, text
from zoo.reports.reading import Run, number


def recipe(run: Run) -> list[Any]:
    """Citation and differences where the recipe is the zoo's, networks, stages, then every setting."""
    settings.names()
    entry = settings.RECIPES.get(run.name)
    docs = [e["doc"].strip() for e in settings.RECIPES.values() if e["model"] == run.recipe.get("model")]
    counts, turns = costs(run)
    networks = []
    for name, spec in run.recipe.get("networks", {}).items():
        inside = ", ".join(f"{k}={said(v)}" for k, v in spec.get("kwargs", {}).items())
        networks.append((name, f"{spec.get('name')}({inside})", plain(counts[name]) if name in counts else "-"))
    stages = [stage_part(i, stage, turns) for i, stage in enumerate(run.recipe["stages"])]
    average = {k: f"half-life {plain(v['halflife'])} images" for k, v in run.recipe.get("ema", {}).items()}
    return [
        tag("p", entry["about"]) if entry else None,
        details("The paper, and where we differ", cite(docs[0]), class_="wrap") if docs else None,
        tag("h3", "Networks"),
        rows(("network", "what it is", "parameters"), networks),
        [tag("p", "Averaged weights (", ", ".join(f"{k}: {v}" for k, v in average.items()), ").")] if average else None,
        stages,
        details("All settings, as recipe.json has them", json.dumps(run.facts, indent=2)),
    ]


def stage_part(index: int, stage: Mapping[str, Any], turns: list[Any]) -> list[Html]:
    """A stage: game, budget, turns, optimizers, schedules."""
    facts: dict[str, Any] = {
        "game": " ".join([stage["game"]["name"], *(f"{k}={said(v)}" for k, v in stage["game"]["kwargs"].items())]),
        "real images": stage["images"],
        "batch": stage.get("batch"),
        "resolution": stage.get("resolution") or None,
    }
    if index < len(turns):
        facts["rounds"] = turns[index]["rounds"]
        for turn in turns[index]["turns"]:
            real = {"fresh": "new real images", "last": "the last real images"}.get(turn["draw"], "no real images")
            players = " and ".join(turn["players"])
            facts[f"turn of {players}"] = f"{turn['times']:g} a round, batch {turn['batch']}, {real}"
    for player, optimizer in stage.get("optimizers", {}).items():
        facts[f"optimizer of {player}"] = said(optimizer)
    for schedule in stage.get("schedules", []):
        points = ", ".join(f"{plain(value)} at {plain(images)} images" for images, value in schedule["points"])
        facts[f"schedule of {schedule['target']}"] = f"{points} ({schedule['shape']})"
    return [tag("h3", f"Stage {index + 1}"), pairs(facts)]


def costs(run: Run) -> tuple[dict[str, int], list[Any]]:
    """Parameters by network and the turns of each stage, where the recipe's parts are known here."""
    from torch import random

    counts, stages = {}, []
    try:
        with random.fork_rng(devices=[]):
            made = recipes.decode(run.recipe)
            counts = parameters(build_networks(made, device="meta"))
            if made.dataset in DATASETS.names() and not run.facts.get("dataset_object"):
                stages = describe(made)["stages"]
    except Exception:  # own parts that are not installed here, or of another version of the zoo, fail as they like
        pass
    return counts, stages


def card(run: Run) -> list[Any]:
    """What the weights file says of itself."""
    if isinstance(run.card, str):
        return [tag("p", f"No Card: {run.card}")]
    card = dict(run.card["card"])
    whole = json.dumps(card, indent=2)
    kept = {k: v for k, v in card.items() if k not in ("recipe", "model")}
    elements: dict[str, int] = {}
    for tensor, count in run.card["parameters"].items():
        elements[tensor.split(".")[0]] = elements.get(tensor.split(".")[0], 0) + count
    facts = {
        "file": WEIGHTS,
        "bytes": run.card["bytes"],
        "sha256": hub.sha256(run.path / WEIGHTS),
        "elements": ", ".join(f"{k} {v:,}" for k, v in elements.items()),
        **kept,
    }
    images = number(card.get("images"))
    behind = images is not None and images < run.seen
    told = tag("p", f"These weights are the last checkpoint's, after {plain(images)} images.") if behind else None
    return [told, pairs(facts), details("The whole Card", whole)]


def machine(run: Run) -> list[Any]:
    """Where the run was made, and the machine's choices."""
    made: list[Any] = []
    for machine in run.facts.get("machines", []):
        rest = {k: v for k, v in machine.items() if k != "from_images"}
        if len(run.facts["machines"]) > 1:
            made.append(tag("h3", f"From image {plain(machine['from_images'])} on"))
        made.append(pairs(rest))
    if not made:
        made.append(tag("p", "This run's recipe.json does not name its machine."))
    runtime = {"zoo at the start": run.facts.get("zoo"), **run.facts.get("runtime", {})}
    return [made, tag("h3", "Runtime"), pairs(runtime)]


def commands(run: Run) -> list[Any]:
    """How to go on and what to do with the weights."""
    path = shlex.quote(str(run.path))
    made: list[Any] = []
    if run.seen < run.budget:
        begun = "" if (run.path / CHECKPOINT).exists() else " (from the start: there is no checkpoint yet)"
        made.append(tag("p", f"Go on{begun}:"))
        given = run.facts.get("dataset_object")
        made.append(tag("pre", f"zoo.resume({str(run.path)!r}, dataset=...)" if given else f"zoo resume {path}"))
        if given:
            told = "It was trained on a data set given as an object: resume it in Python, with the same."
            made.append(tag("p", told, class_="note"))
    if not isinstance(run.card, str):
        made.append(tag("p", "Use the weights:"))
        made.append(tag("pre", "\n".join(uses(run.card["card"]["model"], run.path))))
    made += [tag("p", "Make this page again:"), tag("pre", f"zoo report {path}")]
    return made


def details(title: str, inside: Any, **attributes: Any) -> Html:
    return tag("details", tag("summary", title), tag("pre", inside, tabindex=0, **attributes))


def cite(doc: str) -> Html:
    """A docstring with its arXiv numbers as links, the only ones that lead out of the page."""
    parts = re.split(r"(arXiv:?\s*)([0-9]{4}\.[0-9]{4,5})", doc)
    made = [parts[0]]
    for before, found, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        made += [before, tag("a", found, href=f"https://arxiv.org/abs/{found}", rel="noreferrer"), after]
    return text(made)
