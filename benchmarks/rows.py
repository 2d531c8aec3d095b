"""Result lines: their files, and the facts that every benchmark writes beside its numbers, for all scripts."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo import settings
from zoo.allocator import reuse_memory
from zoo.files import beside, folder_lock

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark's command; the exit status. A user's mistake is one line on stderr and status 2."""
    reuse_memory()
    try:
        status = command.main(arguments, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 0
    except click.ClickException as error:
        message, status = error.format_message(), error.exit_code
    except (ValueError, OSError) as error:
        message, status = str(error), 2
    except click.Abort:
        message, status = "interrupted", 130
    else:
        return int(status or 0)
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return status


def commit() -> str:
    """The commit that is measured, with "-dirty" if files differ from it (result lines and tables apart); "unknown" if
    the files are no checkout of their own, as in a source archive."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if not (ROOT / ".git").exists():  # of a repository further up the commit would be another project's
        return "unknown"

    changed = git("status", "--porcelain", "--", "zoo", "recipes", "benchmarks/*.py")
    return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


def machine() -> str:
    """The processor (and accelerator) in words, and how many threads torch uses."""
    import torch

    from zoo.engine.runtime import processor

    threads = torch.get_num_threads()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}{gpu}"


def facts(command: str, seed: int) -> dict[str, Any]:
    """The command, seed, versions, commit and machine of a line: the same keys in every results file."""
    import torch

    from zoo.version import __version__

    versions = {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"command": command, "seed": seed, "versions": versions, "commit": commit(), "machine": machine()}


FLAGS = ("compile", "cuda_graphs", "deterministic")  # of a run's Runtime


def training(recipe: Any, seed: int, runtime: Mapping[str, Any]) -> str:
    """The command that trains a recipe again; with its budget, if that is not the one that its name has, and with the
    options of its ``runtime`` that change its speed or rounding."""
    variant = f" --variant {recipe.variant}" if recipe.variant else ""
    images = "" if recipe.images == settings.find(recipe.name).images else f" --images {recipe.images}"
    options = "".join(f" --{key.replace('_', '-')}" for key in FLAGS if runtime.get(key))
    if runtime.get("precision", "fp32") != "fp32":
        options += f" --precision {runtime['precision']}"
    return f"zoo train {recipe.model} --dataset {recipe.dataset}{variant}{images} --seed {seed}{options}"


def machines_of(run: Mapping[str, Any]) -> str:
    """The machines of a run, from its folder's recipe.json: accelerator or processor, threads, torch's version."""
    machines = []
    for m in run["machines"]:
        threads = f"{m['processor']}, {m['threads']} thread{'s' if m['threads'] > 1 else ''}"
        machines.append(f"{threads if m['device'] == 'cpu' else m['device']}, torch {m['versions']['torch']}")
    return ", then ".join(dict.fromkeys(machines))


SQUASH = {  # commits of lines that were later joined with others into one, beaf6d755e
    "069aea2479", "113a23a684", "20e52f1373", "353c694e4d", "7c1dab7d49",
    "8b0c4a1eca", "aa1b83e657", "b6c3ad7", "de562b1ef1",
}  # fmt: skip


# Commits of runs whose setting was corrected later without a change of its budget: BiGAN's first weights of D;
# VAE/GAN's first weights, weight decay and eps.
BEFORE_CORRECTION = {
    "bigan-fashion-mnist": {"f613f4633d"},
    "vaegan-fashion-mnist": {"34625cbc59"},
}


def is_outdated(row: Mapping[str, Any]) -> bool:
    """Whether a line's setting was changed after its run: its budget is no longer the recipe's, or the recipe was
    corrected (``BEFORE_CORRECTION``)."""
    corrected = row["commit"] in BEFORE_CORRECTION.get(row["recipe"], ())
    return corrected or row["budget"] != settings.find(row["recipe"]).images


def label(row: Mapping[str, Any]) -> str:
    """The name of a run's log and grid: its recipe's, with the seed if that is not 0, and x10 for ten budgets."""
    longer = f"-x{row['times']}" if row.get("times", 1) > 1 else ""
    return row["recipe"] + longer + (f"-seed-{row['seed']}" if row["seed"] else "")


def file_of(row: Mapping[str, Any]) -> str:
    """The results file of a run: those of ten budgets have a table of their own."""
    return "runs" if row.get("times", 1) == 1 else f"runs-x{row['times']}"


def minutes(row: Mapping[str, Any]) -> str:
    """How long a run took, and on what: "27 (AMD EPYC)". A line without ``trained_on`` is of a run on its
    ``machine``."""
    machine = row.get("trained_on", row["machine"])
    return f"{row['seconds'] / 60:.0f} ({machine.split(',')[0]})"


def read(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The lines of ``NAME.jsonl`` in ``folder``, by default of the results; none if there is no such file."""
    path = (folder or RESULTS) / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write(name: str, row: Mapping[str, Any], keys: Sequence[str], folder: Path | None = None) -> None:
    """Put a line into ``NAME.jsonl`` in ``folder``, by default of the results, in place of the one that agrees with it
    in ``keys`` ("" if it has none of that name); sorted by them. A kill leaves the old file or the new one."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):  # another script may write its own line
        others = [r for r in read(name, folder) if any(r.get(k, "") != row.get(k, "") for k in keys)]
        rows = sorted([*others, row], key=lambda r: [str(r.get(k, "")) for k in keys])
        with beside(folder / f"{name}.jsonl") as partial:
            partial.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def distance(scores: Mapping[str, float]) -> float:
    """The Frechet distance among scores, by whichever feature network: of images or of patches."""
    return next(v for k, v in scores.items() if k.startswith(("fd-", "patch-fd-")))


def main_score(scores: Mapping[str, float]) -> tuple[str, float]:
    """The name and the value of the score that a run is shown by: of the Frechet distance, of a model without images of
    the first score."""
    if any(key.startswith(("fd-", "patch-fd-")) for key in scores):
        return "fd", distance(scores)
    return next(iter(scores.items()))
