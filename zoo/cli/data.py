"""``zoo data``: download and prepare data sets, and list the prepared ones."""

from __future__ import annotations

import click

from zoo.cli.output import json_option, print_json, print_table


@click.group("data")
def command() -> None:
    """Download and prepare data sets."""


@command.command("get")
@click.argument("name")
@click.option("--resolution", type=click.IntRange(min=1), help="Store at this size.  [default: as published]")
@click.option("--split", help="train, test, ...  [default: all]")
@click.option("--check", is_flag=True, help="Read a prepared set again and compare its checksum.")
@json_option
def get(name: str, resolution: int | None, split: str | None, check: bool, as_json: bool) -> None:
    """Download NAME (a registered set, or folder:PATH) and prepare it once for all runs."""
    from zoo import data
    from zoo.data.store import read_header
    from zoo.reports.progress import Progress

    if resolution is not None and data.keeps_native_size(name):
        raise ValueError(f"--resolution {resolution}: {name} is kept at native size; leave --resolution out")
    splits = [split] if split else list(data.facts(name).splits) or ["train"]
    rows = []
    for part in splits:
        progress = Progress()
        try:
            path = data.prepare(name, resolution, part, None if as_json else progress.prepare, check)
        finally:
            progress.close()
        images = read_header(path)[0].splits[part]
        rows.append({"data set": name, "split": part, "images": images, "path": str(path)})
    if as_json:
        print_json(rows)
    else:
        print_table(rows, False)


@command.command("remove")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All prepared sets.")
@json_option
def remove(names: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Delete prepared copies by the NAMES or paths that `zoo data list` shows; a run prepares them again. Your own
    files, and those in $ZOO_RAW, are not touched."""
    from zoo import data
    from zoo.data.store import remove_file
    from zoo.registry import nearest

    files = data.list_files()
    known = {str(word) for name, _, _, _, path in files for word in (name, path, path.parent.name, path.parent)}
    for name in names:
        if name not in known:
            raise ValueError(f"'{name}': no prepared set has this name{nearest(name, known)} (zoo data list)")
    if names and every:
        raise ValueError("--all: must be without NAMES")
    if not names and not every:
        raise ValueError("NAMES: must be one of those that `zoo data list` shows, or --all")
    rows = []
    for name, resolution, split, size, path in files:
        if every or {name, str(path), path.parent.name, str(path.parent)} & {*names}:
            remove_file(path)
            rows.append({"removed": name, "resolution": resolution, "split": split, "bytes": size, "path": str(path)})
    print_table(rows, as_json)


@command.command("list")
@json_option
def show(as_json: bool) -> None:
    """The prepared data sets on this machine. (`zoo list datasets` lists all sets.)"""
    from zoo import data

    keys = ("data set", "resolution", "split", "bytes", "path")
    print_table([dict(zip(keys, row, strict=True)) for row in data.list_files()], as_json)
