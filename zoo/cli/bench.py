"""``zoo bench``: the benchmarks of a checkout, which write benchmarks/results/ and are rendered into the tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

KINDS = {
    "quality": "Scores of the shipped weights, or with --baselines of the baselines beside them.",
    "speed": "The engine beside a plain loop: images a second, memory, start-up.",
    "modes": "Modes covered on toy sets by each loss.",
}


@click.command(
    "bench",
    short_help="Run a benchmark of the repository.",
    context_settings={"ignore_unknown_options": True},
    epilog="\n\n".join(f"{k}: {v}" for k, v in KINDS.items()),
)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--check", is_flag=True, help="Exit with 1 if the committed results do not hold.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def command(kind: str, check: bool, more: tuple[str, ...]) -> None:
    """Run a benchmark of the repository, from within a checkout of it; results go to benchmarks/results/.

    Further options go to the benchmark: `zoo bench modes --loss hinge --seed 1`. python benchmarks/KIND.py --help lists
    them.
    """
    script = checkout() / "benchmarks" / f"{kind}.py"
    done = subprocess.run([sys.executable, str(script), *(["--check"] if check else []), *more])
    sys.exit(done.returncode)


def checkout() -> Path:
    """The repository: the current folder, one above it, or the one that contains zoo. Raises ValueError if none is."""
    here = Path(os.path.abspath("."))
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "benchmarks" / "rows.py").is_file() and (folder / "zoo" / "registry.py").is_file():
            return folder
    raise ValueError(
        f"zoo bench: {here} is not a checkout of the repository; clone it and run there (zoo eval scores anywhere)"
    )
