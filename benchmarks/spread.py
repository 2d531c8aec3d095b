"""What the seed alone changes: short runs of one recipe from three seeds, and one of them twice.

    python benchmarks/spread.py                        # dcgan-fashion-mnist, 64,000 images, seeds 0 to 2

Each is scored as ``quality.py`` scores. A line in results/spread.jsonl: the distance of each seed, their mean and standard
deviation, and whether the second run of the first seed ended in the same state bit for bit: weights, averages, moments of the
optimizers (if not, it exits with 1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import quality
import rows
import torch

from zoo import settings
from zoo.engine import checkpoint
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.runtime import Runtime
from zoo.engine.train import train

SEEDS = (0, 1, 2)


def state(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the run's last checkpoint."""
    return checkpoint.load(run / CHECKPOINT)[0]


def same(first: dict[str, torch.Tensor], again: dict[str, torch.Tensor]) -> bool:
    return first.keys() == again.keys() and all(torch.equal(first[k], again[k]) for k in first)


def measure(name: str, images: int) -> dict:
    """The line of a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for seed, copy in ((0, ""), *((s, "") for s in SEEDS[1:]), (0, "again")):
            runs[seed, copy] = out = Path(folder) / f"{seed}{copy}"
            train(settings.find(name), out, images=images, seed=seed, runtime=Runtime(device="cpu"))
            if checkpoint.load(out / CHECKPOINT)[1]["seen"] < images:
                raise SystemExit("stopped; nothing is written of these runs")
        equal = same(state(runs[0, ""]), state(runs[0, "again"]))
        found = {s: rows.distance(quality.score(runs[s, ""], metrics=("fd",))["scores"]) for s in SEEDS}
    numbers = {"mean": statistics.mean(found.values()), "deviation": statistics.stdev(found.values())}
    return {"recipe": name, "images": images, "fd": found, **quality.rounded(numbers), "same_weights": equal}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dcgan-fashion-mnist")
    parser.add_argument("--images", type=int, default=64_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(arguments.recipe, arguments.images)
    command = f"python benchmarks/spread.py --recipe {arguments.recipe} --images {arguments.images}"
    rows.write("spread", row | rows.facts(command, 0), ("recipe",))
    print(json.dumps(row))
    return int(not row["same_weights"])


if __name__ == "__main__":
    rows.run(main)
