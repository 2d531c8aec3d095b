"""``zoo list``: models, recipes, data sets and weights, without importing torch."""

from __future__ import annotations

import re

import click

from zoo import settings
from zoo.cli.output import json_option, print_table
from zoo.files import Json

KINDS = ("models", "recipes", "datasets", "weights")


@click.command("list", short_help="List models, recipes, data sets, weights.")
@click.argument("kind", default="models", metavar="[models|recipes|datasets|weights]")
@click.argument("pattern", default="*")
@json_option
def command(kind: str, pattern: str, as_json: bool) -> None:
    """Models (by default), recipes, data sets or weights whose name matches PATTERN.

    A pattern without wildcards matches inside names: `zoo list recipes cifar10`.
    """
    if kind not in KINDS:
        if pattern != "*":
            raise click.UsageError(f"list '{kind}': must be one of {', '.join(KINDS)}")
        kind, pattern = "models", kind
    rows = {"models": models, "recipes": recipes, "datasets": datasets, "weights": weights}[kind](pattern)
    if not rows and pattern != "*":
        from zoo import api
        from zoo.registry import nearest

        names = getattr(api, f"list_{kind}")()
        hint = nearest(pattern, [*names, *KINDS])
        raise ValueError(f"no {kind} match '{pattern}'{hint} (zoo list {kind} shows all)")
    print_table(rows, as_json)


def models(pattern: str) -> list[Json]:
    rows = []
    for name in settings.models(pattern):
        entries = [e for e in settings.RECIPES.values() if e["model"] == name]
        sets = list(dict.fromkeys(e["dataset"] for e in entries))
        first = " ".join(entries[0]["doc"].strip().split("\n\n")[0].split())
        citation = re.match(r".*?arXiv [0-9]{4}\.[0-9]{4,5}", first)
        title = citation[0] if citation else first
        rows.append({"model": name, "recipes": len(entries), "data sets": sets, "title": title})
    return rows


def recipes(pattern: str) -> list[Json]:
    from zoo import hub

    shipped = hub.index()
    rows = []
    for name in settings.names(pattern):
        entry = settings.RECIPES[name]
        images = entry["build"]().images
        weights = "weights" if name in shipped else ""
        rows.append({"recipe": name, "images": images, "shipped": weights, "about": entry["about"]})
    return rows


def datasets(pattern: str) -> list[Json]:
    from zoo import data
    from zoo.registry import DATASETS

    rows = []
    for name in DATASETS.names(pattern):
        facts = data.facts(name)
        rows.append(
            {
                "data set": name,
                "channels": facts.channels,
                "resolution": facts.resolution,
                "classes": len(facts.classes),
                "yields": facts.keys,
                "images": sum(facts.splits.values()) or None,
                "license": facts.license,
                "title": facts.title,
            }
        )
    return rows


def weights(pattern: str) -> list[Json]:
    from zoo import api, hub

    index = hub.index()
    rows = []
    for name in api.list_weights(pattern):
        entry = index[name]
        facts = {key: entry.get(key) for key in ("kind", "bytes", "images", "recipe")}
        own = {"license of the data": entry.get("license"), "below the bar": entry.get("below_bar")}
        rows.append({"weights": name, **facts, **own})
    return rows
