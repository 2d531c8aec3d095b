"""Modes found on ``ring`` (8 Gaussians) and ``grid`` (25) by each adversarial loss.

    python benchmarks/modes.py                                        # all losses, both sets, three seeds
    python benchmarks/modes.py --data ring --loss hinge --seed 1      # one of them
    python benchmarks/modes.py --check                                # do the committed results hold what must hold?

One network, one optimizer and 7,000 steps of G for all: three ReLU layers of 128 units for G and for D, Adam, batches of
128, one step of D for one of G, rates that stay for half of the run and then fall to 0, and a short average of G's weights,
which is what is sampled. A loss says only what it adds: its penalty, clipping, spectral normalization. The last has two steps
of D for one of G, and so twice the images: so bounded a D learns slowly, and beside one step of G it ran behind in one seed of
three. 10,000 samples are drawn; a mode is found
if 80 of them (a fifth of a fair share on the grid) lie within 3 standard deviations of it. The truth's own share within
3 standard deviations is 0.989.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import rows
import torch

import zoo
from zoo.data import open_data
from zoo.engine.runtime import Runtime
from zoo.engine.train import train
from zoo.recipe import Adam, Ema, Recipe, Schedule, Spec, Stage

SETS, SEEDS, SAMPLES = ("ring", "grid"), (0, 1, 2), 10_000
ROUNDS, BATCH, HIDDEN = 7_000, 128, (128, 128, 128)

LOSSES = {
    "minimax": dict(loss=Spec("minimax")),
    "non-saturating": dict(loss=Spec("non-saturating")),
    "least-squares": dict(loss=Spec("least-squares")),
    "hinge": dict(loss=Spec("hinge")),
    "wasserstein + clip": dict(loss=Spec("wasserstein"), clip=0.05),
    "wasserstein + gradient-penalty": dict(loss=Spec("wasserstein"), penalties=(Spec("gradient-penalty", weight=1.0),)),
    "non-saturating + r1": dict(loss=Spec("non-saturating"), penalties=(Spec("r1", weight=1.0),)),
    "hinge + spectral normalization": dict(loss=Spec("hinge"), sn=True, n_critic=2),
}
MUST = ("wasserstein + gradient-penalty", "non-saturating + r1", "hinge + spectral normalization")
AT_LEAST = {"ring": (8, 0.7), "grid": (24, 0.7)}  # modes, share


def recipe(dataset: str, loss: str, rounds: int = ROUNDS) -> Recipe:
    """The recipe of one line of the table."""
    play = dict(LOSSES[loss])
    D = {"sn": True} if play.pop("sn", False) else {}
    images, rate = rounds * play.get("n_critic", 1) * BATCH, 1e-3
    adam = Adam(lr=rate, betas=(0.0, 0.9))
    return Recipe(
        networks={
            "G": Spec("mlp-generator", latent=2, hidden=HIDDEN),
            "D": Spec("mlp-discriminator", hidden=HIDDEN, **D),
        },
        stages=(
            Stage(
                game=Spec("adversarial", **play),
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=BATCH,
                resolution=0,
                schedules=(Schedule("optimizers.*.lr", ((images / 2, rate), (images, 0.0))),),
            ),
        ),
        ema={"G": Ema(halflife=images / 200)},
        model="modes",
        dataset=dataset,
    )


def measure(dataset: str, loss: str, seed: int, rounds: int = ROUNDS) -> dict:
    """Train once; the result line."""
    made = recipe(dataset, loss, rounds)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        run = train(made, Path(folder) / "run", seed=seed, runtime=Runtime(device="cpu"))
        seconds = time.monotonic() - began
        model = zoo.load(run)
        if model.card["images"] < made.images:
            raise SystemExit("stopped; nothing is written of this run")
        x = model.sample(SAMPLES, seed=0, chunk=1000)
    found, share = open_data(dataset).count_modes(x, at_least=SAMPLES // 125)
    command = f"python benchmarks/modes.py --data {dataset} --loss '{loss}' --seed {seed}"
    numbers = {"dataset": dataset, "loss": loss, "seed": seed, "modes": found, "share": round(share, 4)}
    return {**numbers, "images": made.images, "seconds": round(seconds, 1), **rows.facts(command, seed)}


def worst(lines: list[dict]) -> dict[tuple[str, str], tuple[int, float, int]]:
    """(set, loss) -> the fewest modes and the smallest share of any seed, and how many seeds there are."""
    found: dict[tuple[str, str], list[dict]] = {}
    for line in lines:
        found.setdefault((line["dataset"], line["loss"]), []).append(line)
    return {k: (min(r["modes"] for r in v), min(r["share"] for r in v), len(v)) for k, v in found.items()}


def check(lines: list[dict]) -> list[str]:
    """What does not hold of the results, a line each."""
    holdout, wrong = worst(lines), []
    for dataset, (modes, share) in AT_LEAST.items():
        for loss in MUST:
            got = holdout.get((dataset, loss))
            if got is None or got[2] < len(SEEDS) or got[0] < modes or got[1] < share:
                wrong.append(f"{dataset}, {loss}: {got}, wanted {modes} modes and a share of {share} from 3 seeds")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--loss", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--seed", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        wrong = check(rows.read("modes"))
        print("\n".join(wrong) or "modes: all that must hold holds")
        sys.exit(bool(wrong))
    torch.set_num_threads(1)
    for dataset in arguments.data:
        for loss in arguments.loss:
            for seed in arguments.seed:
                row = measure(dataset, loss, seed)
                rows.write("modes", row, ("dataset", "loss", "seed"))
                print(
                    f"{dataset:5} {loss:32} seed {seed}: {row['modes']} modes, {row['share']:.3f}, {row['seconds']} s"
                )


if __name__ == "__main__":
    rows.run(main)
