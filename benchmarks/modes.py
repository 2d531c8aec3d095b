"""Modes found on ``ring`` (8 Gaussians) and ``grid`` (25) by each adversarial loss.

    python benchmarks/modes.py                                        # all losses, both sets, three seeds
    python benchmarks/modes.py --data ring --loss hinge --seed 1      # one of them
    python benchmarks/modes.py --check                                # do the committed results hold?

The same networks, optimizer and 7,000 steps of G for all: three ReLU layers of 128 hidden units for G and for D,
Adam, batches of 128, one step of D for one of G, a learning rate that is constant for half of the run and then falls
to 0, and EMA weights of G with a short halflife, which are sampled. A loss adds only its penalty, clipping or spectral
normalization. The last has two steps of D for one of G, and so twice the images: with one step this D learned too
slowly in one seed of three. 10,000 samples are drawn; a mode counts if 80 of them (a fifth of a fair share on the grid)
lie within 3 standard deviations of it. Of the true distribution 0.989 lie within 3 standard deviations.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import click
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
    setting = recipe(dataset, loss, rounds)
    with tempfile.TemporaryDirectory() as folder:
        start_time = time.monotonic()
        run = train(setting, Path(folder) / "run", seed=seed, runtime=Runtime(device="cpu"))
        seconds = time.monotonic() - start_time
        model = zoo.load(run)
        if model.card["images"] < setting.images:
            raise SystemExit("stopped; finished seeds are written, the one that was stopped is not")
        x = model.sample(SAMPLES, seed=0, chunk=1000)
    modes, share = open_data(dataset).count_modes(x, at_least=SAMPLES // 125)
    command = f"python benchmarks/modes.py --data {dataset} --loss '{loss}' --seed {seed}"
    numbers = {"dataset": dataset, "loss": loss, "seed": seed, "modes": modes, "share": round(share, 4)}
    return {**numbers, "images": setting.images, "seconds": round(seconds, 1), **rows.facts(command, seed)}


def worst(lines: list[dict]) -> dict[tuple[str, str], tuple[int, float, int]]:
    """(set, loss) -> the fewest modes and the smallest share of any seed, and how many seeds there are."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for line in lines:
        groups.setdefault((line["dataset"], line["loss"]), []).append(line)
    return {k: (min(r["modes"] for r in v), min(r["share"] for r in v), len(v)) for k, v in groups.items()}


def check(lines: list[dict]) -> list[str]:
    """What does not hold of the results, a line each."""
    results, wrong = worst(lines), []
    for dataset, (modes, share) in AT_LEAST.items():
        for loss in MUST:
            got = results.get((dataset, loss))
            if got is None or got[2] < len(SEEDS) or got[0] < modes or got[1] < share:
                wrong.append(f"{dataset}, {loss}: {got}, wanted {modes} modes and a share of {share} from 3 seeds")
    return wrong


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--data", multiple=True, default=SETS, type=click.Choice(SETS), help="May be repeated.  [default: both]")
@click.option("--loss", multiple=True, default=[*LOSSES], type=click.Choice([*LOSSES]), help="The same; default: all.")
@click.option("--seed", multiple=True, default=SEEDS, type=int, help="May be repeated.  [default: 0, 1 and 2]")
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed results do not hold.")
def command(data: tuple[str, ...], loss: tuple[str, ...], seed: tuple[int, ...], checking: bool) -> int:
    """Train on toy mixtures with each loss and count the modes that are covered, into results/modes.jsonl."""
    if checking:
        wrong = check(rows.read("modes"))
        print("\n".join(wrong) or "modes: the committed results hold")
        return int(bool(wrong))
    torch.set_num_threads(1)
    for each, name, number in itertools.product(data, loss, seed):
        row = measure(each, name, number)
        rows.write("modes", row, ("dataset", "loss", "seed"))
        print(f"{each:5} {name:32} seed {number}: {row['modes']} modes, {row['share']:.3f}, {row['seconds']} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
