"""``zoo show NAME``: the facts about a model, a recipe, weights or a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from zoo import settings
from zoo.cli.output import amount, echo, json_option, plain, print_json, times
from zoo.files import Json
from zoo.reports.values import number_text, value_text


@click.command("show", short_help="Describe a model, recipe, weights or data set.")
@click.argument("name")
@click.option(
    "--cost",
    is_flag=True,
    help="Of a recipe: parameters and the size of its weights file; by turn multiply-adds an image, activation memory.",
)
@click.option("--batch", type=click.IntRange(min=1), help="With --cost: another batch size than the recipe's.")
@json_option
def command(name: str, cost: bool, batch: int | None, as_json: bool) -> None:
    """A model, a recipe, a recipe file, weights (a name, a file, a run's folder) or a data set.

    A recipe: the paper and our differences from it, networks with their parameters, budget, settings. Weights: their
    Card.
    """
    if batch is not None and not cost:
        raise ValueError(f"--batch {batch}: only with --cost")
    facts = cost_of(name, batch) if cost else look_up(name)
    if as_json:
        print_json(facts)
    elif cost:
        echo(_cost_text(facts))
    else:
        echo(_text(facts))


def cost_of(name: str, batch: int | None) -> Json:
    """Parameters of a recipe's networks; the bytes of its weights file; of each turn multiply-adds for each image of
    its batch, and activation memory. Raises ValueError if there is no such recipe."""
    from zoo import costs, data
    from zoo.engine.memory import activations, weights_file

    recipe = settings.find(name)
    of_data = data.facts(recipe.dataset)
    cost, memory = costs.cost(recipe), activations(recipe, of_data, batch)
    stages = []
    for stage, turns in zip(cost["stages"], memory, strict=True):
        each = [round(turn["multiply_adds"] / turn["batch"]) for turn in stage["turns"]]
        stages.append([{**turn, "multiply_adds_an_image": n} for turn, n in zip(turns, each, strict=True)])
    file = weights_file(recipe, of_data)
    return {"recipe": name, "parameters": cost["parameters"], "weights_file": file, "stages": stages}


def _cost_text(facts: Json) -> str:
    lines = [f"recipe: {facts['recipe']}", "parameters:"]
    lines += [f"  {name}: {count:,}" for name, count in facts["parameters"].items()]
    file = facts["weights_file"]
    half, full = (f"{file[kind] / 1e6:,.2f} MB" for kind in ("half", "float32"))
    lines.append(f"weights file ({', '.join(file['networks'])}): {half} in half precision, {full} in float32")
    for i, turns in enumerate(facts["stages"]):
        lines.append(f"stage {i + 1}:")
        for turn in turns:
            memory = f"{turn['bytes'] / 2**20:,.1f} MiB of activations at a batch of {turn['batch']:,}"
            work = amount(turn["multiply_adds_an_image"])
            lines.append(f"  {' and '.join(turn['players'])}: {work} multiply-adds an image, {memory}")
    return "\n".join(lines)


def look_up(name: str) -> Json:
    """The facts, as JSON values. Raises ValueError if nothing has this name."""
    from zoo import api, hub
    from zoo.registry import nearest

    if name.endswith(".py"):
        model = settings.load_file(name)
        names = [n for n, e in settings.RECIPES.items() if e["model"] == model]
        return of_recipe(names[0]) if len(names) == 1 else of_model(model)
    if name.startswith("folder:"):
        return {"data set": name, **of_dataset(name)}
    if name.startswith("hf:") or Path(name).exists() or name.endswith(".safetensors"):
        return weights(name)
    shipped = hub.index()
    if name in api.list_recipes(name):
        return {**of_recipe(name), **({"weights": shipped[name]} if name in shipped else {})}
    if name in shipped:
        return weights(name)
    if name in api.list_models(name):
        return of_model(name)
    if name in api.list_datasets(name):
        return {"data set": name, **of_dataset(name)}
    names = [*api.list_models(), *api.list_recipes(), *shipped, *api.list_datasets()]
    raise ValueError(f"unknown name '{name}'{nearest(name, names)} (zoo list shows all)")


def of_model(name: str) -> Json:
    entries = {n: e for n, e in settings.RECIPES.items() if e["model"] == name}
    doc = next(iter(entries.values()))["doc"].strip()
    return {"model": name, "doc": doc, "recipes": {n: e["about"] for n, e in entries.items()}}


def weights(name: str) -> Json:
    from zoo import hub

    path = hub.find(name)
    header = hub.read_header(path)
    counts: dict[str, int] = {}
    for tensor, count in header["parameters"].items():
        network = tensor.split(".")[0]
        counts[network] = counts.get(network, 0) + count
    facts = {"weights": str(path), "bytes": header["bytes"], "elements": counts}
    return {**facts, **header["card"], **facts}  # what a Card says of these does not count


def of_recipe(name: str) -> Json:
    from zoo import costs, recipe

    entry = settings.RECIPES[name]
    built = entry["build"]()
    cost = costs.cost(built)
    return {
        "recipe": name,
        "about": entry["about"],
        "doc": entry["doc"].strip(),
        "dataset": built.dataset,
        "images": built.images,
        "parameters": cost["parameters"],
        "networks": cost["networks"],
        **({"pretrained": cost["pretrained"]} if "pretrained" in cost else {}),
        **({"sampling": f"with {words}"} if (words := built.sampling.words) else {}),
        "stages": cost["stages"],
        "settings": recipe.encode(built),
    }


def of_dataset(name: str) -> Json:
    from zoo import data
    from zoo.data.fields import describe

    facts = data.facts(name)
    return {**facts.to_json(), "fields": {key: describe(field) for key, field in facts.fields.items()}}


# As text --------------------------------------------------------------------------------------------------------------


def _text(facts: Json) -> str:
    of_weights = "bytes" in facts
    of_a_recipe = "stages" in facts and not of_weights
    lines = [facts["doc"], ""] if facts.get("doc") and not of_weights else []
    for key, value in facts.items():
        if (key == "doc" and not of_weights) or (of_a_recipe and key in ("settings", "parameters")):
            continue
        if of_a_recipe and key == "networks":
            lines += _networks(value, facts["parameters"])
        elif of_a_recipe and key == "pretrained":
            lines += _pretrained(value)
        elif of_a_recipe and key == "stages":
            lines += _stages(value, facts["settings"])
        else:
            lines += _entry(key, value, 0)
    return "\n".join(lines)


def _networks(networks: Json, parameters: Mapping[str, int]) -> list[str]:
    lines = ["networks:"]
    for name, spec in networks.items():
        arguments = ", ".join(f"{k}={v}" for k, v in spec["kwargs"].items())
        lines.append(f"  {name}: {spec['name']}({arguments}), {parameters[name]:,} parameters")
    return lines


def _pretrained(networks: Json) -> list[str]:
    lines = ["pretrained, not trained here:"]
    for name, facts in networks.items():
        arguments = ", ".join(f"{k}={v}" for k, v in facts["kwargs"].items())
        lines.append(
            f"  {name}: {facts['name']}({arguments}) from {facts['source']}, {facts['parameters']:,} parameters"
        )
    return lines


def _stages(stages: list[Json], settings: Json) -> list[str]:
    """The budget and the turns of each stage, and what ``--set`` changes most often, by its keys."""
    lines = []
    for i, (stage, recipe) in enumerate(zip(stages, settings["stages"], strict=True)):
        work = amount(stage["multiply_adds_a_round"] * stage["rounds"])
        lines.append(f"stage {i + 1}: {stage['images']:,} images in {stage['rounds']:,} rounds, {work} multiply-adds")
        for turn in stage["turns"]:
            real = {"fresh": "new real images", "last": "the last real images"}.get(turn["draw"], "no real images")
            players = " and ".join(turn["players"])
            lines.append(f"  {players}: {times(turn['times'])} a round, batch {turn['batch']}, {real}")
        at = f"stages.{i}." if i else ""
        lines.append(f"  {at}game: {value_text(recipe['game'])}")
        lines += [f"  {at}optimizers.{player}: {value_text(o)}" for player, o in recipe["optimizers"].items()]
        for j, schedule in enumerate(recipe["schedules"]):
            points = ", ".join(f"{number_text(v)} at {number_text(images)}" for images, v in schedule["points"])
            lines.append(f"  {at}schedules.{j}: {schedule['target']} is {points} images, {schedule['shape']}")
    ema = settings["ema"].items()
    return [*lines, *(f"ema.{network}: half-life of {number_text(e['halflife'])} images" for network, e in ema)]


def _entry(key: str, value: object, depth: int) -> list[str]:
    pad, key = "  " * depth, plain(key, lines=False)
    if isinstance(value, dict):
        lines = [line for k, v in value.items() if k != "@" for line in _entry(k, v, depth + 1)]
        return [f"{pad}{key}:", *lines] if lines else []
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, dict) for v in value):
            return [f"{pad}{key}:", *(line for i, v in enumerate(value) for line in _entry(str(i), v, depth + 1))]
        value = ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    return [f"{pad}{key}: {plain(value, lines=False)}"] if value not in ("", None) else []
