"""The recipe of a run, the Card of its weights, the machine, and the next commands, as values for the template."""

from __future__ import annotations

import json
import re

from zoo import recipe as recipes
from zoo import settings
from zoo.engine.dry_run import describe
from zoo.engine.export import uses
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS, needs_object, resume_command
from zoo.engine.stage import build_networks, parameters
from zoo.files import Json, sha256, shell_word
from zoo.registry import DATASETS
from zoo.reports.reading import Run
from zoo.reports.values import number, number_text, value_text


def recipe(run: Run) -> Json:
    """Citation and differences from the paper if the recipe is the zoo's; networks, stages, all settings."""
    settings.names()
    entry = settings.RECIPES.get(run.name)
    docs = [e["doc"].strip() for e in settings.RECIPES.values() if e["model"] == run.recipe.get("model")]
    counts, costs_of_stages = costs(run)
    networks = []
    for name, spec in run.recipe.get("networks", {}).items():
        arguments = ", ".join(f"{k}={value_text(v)}" for k, v in spec.get("kwargs", {}).items())
        count = number_text(counts[name]) if name in counts else "-"
        networks.append((name, f"{spec.get('name')}({arguments})", count))
    ema = {k: f"half-life {number_text(v['halflife'])} images" for k, v in run.recipe.get("ema", {}).items()}
    return {
        "about": entry["about"] if entry else None,
        "paper": cite(docs[0]) if docs else None,
        "networks": networks,
        "ema": ", ".join(f"{k}: {v}" for k, v in ema.items()),
        "sampling": sampling_words(run.recipe.get("sampling")),
        "stages": [
            stage_facts(stage, costs_of_stages[i] if i < len(costs_of_stages) else None)
            for i, stage in enumerate(run.recipe["stages"])
        ],
        "settings": json.dumps(run.facts, indent=2),
    }


def sampling_words(sampling: object) -> str:
    """How the run's samples are drawn, in words; "" for evaluation mode, and if recipe.json does not say it."""
    try:
        value = recipes.decode(sampling)
    except (TypeError, ValueError, KeyError):
        return ""
    return value.words if isinstance(value, recipes.Sampling) else ""


def stage_facts(stage: Json, cost: Json | None) -> Json:
    """Game, budget, turns, optimizers and schedules of a stage."""
    game = stage["game"]
    facts = {
        "game": " ".join([game["name"], *(f"{k}={value_text(v)}" for k, v in game["kwargs"].items())]),
        "real images": stage["images"],
        "batch": stage.get("batch"),
        "resolution": stage.get("resolution") or None,
    }
    if cost:
        facts["rounds"] = cost["rounds"]
        for turn in cost["turns"]:
            real = {"fresh": "new real images", "last": "the last real images"}.get(turn["draw"], "no real images")
            players = " and ".join(turn["players"])
            facts[f"turn of {players}"] = f"{turn['times']:g} a round, batch {turn['batch']}, {real}"
    for player, optimizer in stage.get("optimizers", {}).items():
        facts[f"optimizer of {player}"] = value_text(optimizer)
    for schedule in stage.get("schedules", []):
        points = ", ".join(
            f"{number_text(value)} at {number_text(images)} images" for images, value in schedule["points"]
        )
        facts[f"schedule of {schedule['target']}"] = f"{points} ({schedule['shape']})"
    return facts


def costs(run: Run) -> tuple[dict[str, int], list[Json]]:
    """Parameters by network and the costs of each stage, if the recipe's parts are installed here."""
    from torch import random

    counts: dict[str, int] = {}
    stages: list[Json] = []
    try:
        with random.fork_rng(devices=[]):
            built = recipes.decode(run.recipe)
            counts = parameters(build_networks(built, device="meta"))
            if built.dataset in DATASETS.names() and not needs_object(run.facts):
                stages = describe(built)["stages"]
    except Exception:  # a user's own parts that are not installed here may fail in any way
        pass
    return counts, stages


def card(run: Run) -> Json:
    """The Card of the weights file. ``images``: of the checkpoint, if the run has seen more; else None."""
    if isinstance(run.card, str):
        return {"error": run.card}
    card = run.card["card"]
    elements: dict[str, int] = {}
    for tensor, count in run.card["parameters"].items():
        network = tensor.split(".")[0]
        elements[network] = elements.get(network, 0) + count
    facts = {
        "file": WEIGHTS,
        "bytes": run.card["bytes"],
        "sha256": sha256(run.path / WEIGHTS),
        "elements": ", ".join(f"{k} {v:,}" for k, v in elements.items()),
        **{k: v for k, v in card.items() if k not in ("recipe", "model")},
    }
    images = number(card.get("images"))
    behind = images is not None and images < run.images
    return {"error": None, "images": images if behind else None, "facts": facts, "text": json.dumps(card, indent=2)}


def machines(run: Run) -> tuple[list[tuple[str, Json]], str]:
    """(heading, facts) of each machine that the run was trained on, and a note if recipe.json does not name them all.
    A single machine has no heading."""
    content = run.facts.get("machines", [])
    whole = [m for m in content if isinstance(m, dict)] if isinstance(content, list) else []
    note = "" if whole else "This run's recipe.json does not name its machine."
    if not isinstance(content, list) or len(whole) < len(content):
        note = "This run's recipe.json has machines that can't be read."
    result = []
    for facts in whole:
        first = number(facts.get("from_images"))
        heading = "From a time on that recipe.json does not name"
        heading = heading if first is None else f"From image {number_text(first)} on"
        result.append((heading if len(whole) > 1 else "", {**facts, "from_images": None}))
    return result, note


def runtime(run: Run) -> Json:
    """The version of the zoo and the machine's options."""
    return {"zoo at the start": run.facts.get("zoo"), **run.facts.get("runtime", {})}


def commands(run: Run) -> list[tuple[str, str, str]]:
    """(text, command, note): how to continue the run and to use the weights."""
    path = shell_word(run.path)
    result = []
    if run.images < run.budget:
        start = "" if (run.path / CHECKPOINT).exists() else " (from the start: there is no checkpoint yet)"
        from_object = needs_object(run.facts)
        command = resume_command(run.path, from_object)
        note = "The data set was an object: resume the run in Python, with the same object." if from_object else ""
        result.append((f"Continue{start}:", command, note))
    if not isinstance(run.card, str):
        try:
            result.append(("Use the weights:", "\n".join(uses(run.card["card"]["model"], run.path)), ""))
        except Exception:  # a Card that somebody else wrote may have anything there
            result.append(("Use the weights:", "", "The model in their Card is none that this zoo knows."))
    return [*result, ("Make this page again:", f"zoo report {path}", "")]


def cite(doc: str) -> list[tuple[str, str]]:
    """A docstring in parts: (text, the arXiv number after it, or '')."""
    parts = re.split(r"(arXiv:?\s*)([0-9]{4}\.[0-9]{4,5})", doc)  # text, "arXiv:", number, text, ...
    texts = [parts[0], *parts[3::3]]
    pairs = [(text + prefix, arxiv) for text, prefix, arxiv in zip(texts, parts[1::3], parts[2::3], strict=False)]
    return [*pairs, (texts[-1], "")]
