"""``zoo bench``: the benchmarks of a checkout, which write benchmarks/results/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

KINDS = {
    "quality": "Scores of the shipped weights, or with --baselines of the baselines. --check compares the images of "
    "all with committed ones and scores six again, others at each commit; --check --all scores all.",
    "speed": "The engine compared with a plain loop: images a second, memory, start-up.",
    "modes": "Modes of toy sets that each loss covers.",
}


@click.command(
    "bench",
    short_help="Run a benchmark of the repository.",
    context_settings={"ignore_unknown_options": True},
    epilog="\n\n".join(f"{k}: {v}" for k, v in KINDS.items()),
)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--check", is_flag=True, help="Exit with 1 if the committed results are not reproduced.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(kind: str, check: bool, arguments: tuple[str, ...]) -> None:
    """Run a benchmark of the repository, from within a checkout of it; results go to benchmarks/results/.

    Further options are the benchmark's: `zoo bench modes --loss hinge --seed 1`; python benchmarks/KIND.py --help lists
    it.
    """
    script = checkout() / "benchmarks" / f"{kind}.py"
    process = subprocess.run([sys.executable, str(script), *(["--check"] if check else []), *arguments])
    sys.exit(process.returncode)


def checkout() -> Path:
    """The repository's folder: the current one or one above it, or the one of the package zoo. Raises ValueError if
    there is none."""
    here = Path(os.path.abspath("."))
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "benchmarks" / "rows.py").is_file() and (folder / "zoo" / "registry.py").is_file():
            return folder
    raise ValueError(
        f"zoo bench: {here} is not a checkout of the repository; clone it and run there (zoo eval scores anywhere)"
    )
