"""Output of the verbs: tables on a terminal, tab-separated lines in a pipe, JSON with --json."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence

import click

from zoo import checks

PRECISIONS = ("fp32", "tf32", "bf16")  # of zoo.engine.runtime, which imports torch

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def check_device(ctx: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """As :func:`zoo.checks.check_device`, if there is a name."""
    if name is not None:
        checks.check_device(name, auto=True)
    return name


def check_finite(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Raises ValueError for NaN and infinity, which click takes as numbers."""
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{option.opts[0]} {value}: must be a finite number")
    return value


code_option = click.option(
    "--code",
    type=click.Path(),
    metavar="FILE",
    help="Your recipe file, if it registers networks, losses, ... of its own. [default: that of the training]",
)
minutes_option = click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    callback=check_finite,
    help="Stop early, after so many minutes.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, callback=check_device, help="auto, cpu, cuda, cuda:N or mps."
)


# Characters that control a terminal or change the order of a line: C0 except newline and tab, DEL, C1, directions.
_CONTROLS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def plain(text: object, lines: bool = True) -> str:
    """A text as it can be printed on a terminal, whoever wrote it: control characters as ``\\x1b``, and without
    ``lines`` newlines and tabs too."""
    escaped = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], str(text))
    return escaped if lines else escaped.replace("\n", "\\n").replace("\t", "\\t")


def echo(text: object, err: bool = False) -> None:
    """Print a line, or several, without control characters."""
    click.echo(plain(text), err=err)


log_option = click.option(
    "--log", type=click.Choice(["tensorboard"]), help="Also write curves and grids into RUN/tensorboard."
)


def print_json(value: object) -> None:
    echo(json.dumps(value, indent=2, default=str))


def print_table(rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Rows with the same keys. In a pipe one line a row, cells separated by tabs, without a heading."""
    if as_json:
        print_json(list(rows))
    elif not sys.stdout.isatty():
        for row in rows:
            echo("\t".join(map(cell, row.values())))
    elif rows:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(*map(str, rows[0]), box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            table.add_row(*map(cell, row.values()))
        Console(highlight=False, markup=False).print(table)


def cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return plain(text, lines=False)


def amount(value: float) -> str:
    """950, 15.3 M, 40.1 T, 59.1 P."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.1f} {prefix}"
    return f"{value:,.0f}"


def times(count: float) -> str:
    """once, twice, 5 times, 0.25 times."""
    return {1.0: "once", 2.0: "twice"}.get(count, f"{count:g} times")


def choose_device(name: str) -> str:
    """``auto`` -> cuda, else mps, else cpu."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
