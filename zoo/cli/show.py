"""``zoo show NAME``: all that is known of a model, a recipe, weights or a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from zoo import settings
from zoo.cli.output import amount, json_option, print_json


@click.command("show", short_help="All about a model, recipe, weights or data set.")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """A model, a recipe, weights (a name, a file, a run's folder) or a data set.

    Of a recipe: the paper and where we differ, networks with their parameters, budget, settings. Of weights: their Card.
    """
    found = look_up(name)
    if as_json:
        print_json(found)
    else:
        click.echo(_text(found))


def look_up(name: str) -> dict[str, Any]:
    """The facts, as plain JSON values. ValueError where nothing is called ``name``."""
    from zoo import api, hub
    from zoo.registry import nearest

    if name.startswith("hf:") or Path(name).exists() or name.endswith(".safetensors"):
        return weights(name)
    shipped = hub.index()
    if name in api.list_recipes(name):
        return {**of_recipe(name), **({"weights": shipped[name]} if name in shipped else {})}
    if name in shipped:
        return weights(name)
    if name in api.list_models(name):
        entries = [e for e in settings.RECIPES.values() if e["model"] == name]
        about = {n: e["about"] for n, e in settings.RECIPES.items() if e["model"] == name}
        return {"model": name, "doc": entries[0]["doc"].strip(), "recipes": about}
    if name in api.list_datasets(name):
        return {"data set": name, **of_dataset(name)}
    known = [*api.list_models(), *api.list_recipes(), *shipped, *api.list_datasets()]
    raise ValueError(f"unknown name '{name}'{nearest(name, known)} (zoo list shows all)")


def weights(name: str) -> dict[str, Any]:
    from zoo import hub

    path = hub.find(name)
    header = hub.read_header(path)
    counts: dict[str, int] = {}
    for tensor, count in header["parameters"].items():
        network = tensor.split(".")[0]
        counts[network] = counts.get(network, 0) + count
    return {"weights": str(path), "bytes": header["bytes"], "elements": counts, **header["card"]}


def of_recipe(name: str) -> dict[str, Any]:
    from zoo import recipe
    from zoo.engine.dry_run import describe

    found = settings.find(name)
    entry = settings.RECIPES[name]
    cost = describe(found)
    return {
        "recipe": name,
        "about": entry["about"],
        "doc": entry["doc"].strip(),
        "dataset": found.dataset,
        "images": found.images,
        "parameters": cost["parameters"],
        "networks": cost["networks"],
        "stages": cost["stages"],
        "settings": recipe.encode(found),
    }


def of_dataset(name: str) -> dict[str, Any]:
    from zoo import data

    return dataclasses.asdict(data.facts(name))


# As text --------------------------------------------------------------------------------------------------------------


def _text(found: dict[str, Any]) -> str:
    lines = []
    doc = found.pop("doc", None)
    if doc:
        lines += [doc, ""]
    found.pop("settings", None) if "stages" in found and "networks" in found else None
    for key, value in found.items():
        if key in ("networks", "parameters") and "networks" in found and "stages" in found:
            if key == "networks":
                lines += _networks(found)
            continue
        if key == "stages":
            lines += _stages(value)
        else:
            lines += _entry(key, value, 0)
    return "\n".join(lines)


def _networks(found: dict[str, Any]) -> list[str]:
    lines = ["networks:"]
    for name, spec in found["networks"].items():
        inside = ", ".join(f"{k}={v}" for k, v in spec["kwargs"].items())
        lines.append(f"  {name}: {spec['name']}({inside}), {found['parameters'][name]:,} parameters")
    return lines


def _stages(stages: list[dict[str, Any]]) -> list[str]:
    lines = []
    for i, stage in enumerate(stages):
        work = amount(stage["multiply_adds_a_round"] * stage["rounds"])
        lines.append(f"stage {i + 1}: {stage['images']:,} images in {stage['rounds']:,} rounds, {work} multiply-adds")
        for turn in stage["turns"]:
            real = {"fresh": "new real images", "last": "the last real images"}.get(turn["draw"], "no real images")
            players = " and ".join(turn["players"])
            lines.append(f"  {players}: {turn['times']:g} times a round, batch {turn['batch']}, {real}")
    return lines


def _entry(key: str, value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, dict):
        inside = [line for k, v in value.items() if k != "@" for line in _entry(k, v, depth + 1)]
        return [f"{pad}{key}:", *inside] if inside else []
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, dict) for v in value):
            return [f"{pad}{key}:", *(line for i, v in enumerate(value) for line in _entry(str(i), v, depth + 1))]
        value = ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    return [f"{pad}{key}: {value}"] if value not in ("", None) else []
