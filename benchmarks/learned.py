"""A result line for each finished run: that its model has been seen to learn.

    python benchmarks/learned.py RUN [RUN ...] --trained-at COMMIT

Writes to benchmarks/results/learned.jsonl what the run's log and weights say, and copies its last grid to docs/images/.
``pixels_start`` and ``pixels_end``: the Frechet distance between Gaussians fitted to 5,000 samples and to as many held-out real
images, both averaged down to 8x8 pixels: of the untrained and of the trained model. It is a crude ruler (colours, shapes
and layout, no detail), no FID, and not to be compared across data sets. Translators have none: see ``pairs.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import rows
import torch
from torch import Tensor

import zoo
from zoo.data import facts as facts_of
from zoo.data import open_data
from zoo.engine import plan
from zoo.engine.run import LOG, RECIPE, SAMPLES
from zoo.model import Model, build_model
from zoo.recipe import Recipe, decode

COUNT = 5_000


def features(x: Tensor) -> Tensor:
    """[N, C, H, W] in [0, 1] -> [N, C * 64], float64."""
    return torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1).double()


def frechet(a: Tensor, b: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of two sets of vectors [N, F]."""
    product = torch.cov(a.T) @ torch.cov(b.T)
    root = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()  # a product of two covariances has real ones
    traces = a.var(0).sum() + b.var(0).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + traces - 2 * root)


def untrained(model: Model, recipe: Recipe, seed: int) -> Model:
    """The model as the run began."""
    networks = plan.build_networks(plan.resolve(recipe, facts_of(recipe.dataset)), seed)
    return build_model(model.spec, networks)


def distance(model: Model, real: Tensor) -> float:
    return frechet(torch.cat([features(x) for x in model.iter_samples(COUNT, seed=0, chunk=100)]), real)


def reals(recipe: Recipe) -> Tensor:
    """Features of held-out images, with the stage's border."""
    stage = recipe.stages[-1]
    data = open_data(recipe.dataset, None if stage.data.pad else stage.resolution, "test")
    x = data.arrays["x"][torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:COUNT]].float() / 255
    border = (stage.resolution - x.shape[-1]) // 2
    return features(torch.nn.functional.pad(x, (border,) * 4))


def line(run: Path, trained_at: str) -> dict:
    """The result line of one run."""
    held = json.loads((run / RECIPE).read_text())
    recipe, seed = decode(held["recipe"]), held["seed"]
    log = [json.loads(text) for text in (run / LOG).read_text().splitlines()]
    losses = [k for k in log[0] if k.startswith("loss/")]
    model = zoo.load(run)
    variant = f" --variant {recipe.variant}" if recipe.variant else ""
    command = f"zoo train {recipe.model} --dataset {recipe.dataset}{variant} --seed {seed}"
    row = {
        "recipe": recipe.name,
        "images": model.card["images"],
        "budget": recipe.images,
        "rounds": log[-1]["round"],
        "seconds": round(model.card["seconds"]),
        "losses_start": {k: round(log[0][k], 4) for k in losses},
        "losses_end": {k: round(log[-1][k], 4) for k in losses},
    }
    if model.verb == "sample":
        real = reals(recipe)
        row["pixels_start"] = round(distance(untrained(model, recipe, seed), real), 3)
        row["pixels_end"] = round(distance(model, real), 3)
    return {**row, **rows.facts(command, seed), "commit": trained_at, "scored_at": rows.commit()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--trained-at", required=True, help="the commit that the runs were trained at")
    arguments = parser.parse_args()
    images = rows.ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for run in arguments.runs:
        row = line(run, arguments.trained_at)
        rows.write("learned", row, ("recipe",))
        shutil.copyfile(max((run / SAMPLES).glob("*.png")), images / f"{row['recipe']}.png")
        print(json.dumps({k: row[k] for k in row if k not in ("versions", "machine")}))


if __name__ == "__main__":
    main()
