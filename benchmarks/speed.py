"""What the engine costs, and what the networks' layers save.

    python benchmarks/speed.py                  # everything, into results/speed.jsonl
    python benchmarks/speed.py --only overhead  # one part: overhead, memory, layers, exact, start
    python benchmarks/speed.py --check          # do the committed results hold?

*overhead*: the engine against a plain loop (below) over the same networks and the same arithmetic: folded resampling,
channels_last, fused Adam, D frozen in G's step. *memory*: their peaks, each in a process of its own, the engine with
its whole run (log, grids, checkpoints, exported weights). *layers*: the engine against the same loop over networks as
most public code has them: a convolution after nearest x2 and before pooling, shortcuts on the large image, contiguous
layout, D's weight gradients computed in G's step and discarded. *exact*: how far those networks' outputs and gradients
are from ours. *start*: ``zoo list`` and ``import zoo``.

Both sides of a ratio alternate, a round each, and the ratio is the median over these pairs. Time is CPU time on one
thread, which other work on the machine hardly changes. Images are real images, as in every log.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import rows
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine.log import Log
from zoo.engine.runtime import Runtime
from zoo.engine.stage import build_networks, resolve
from zoo.engine.train import Session, train
from zoo.networks import layers
from zoo.recipe import Recipe

# The plain loop ---------------------------------------------------------------------------------------------------

D_LOSS = {
    "non-saturating": lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    "hinge": lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    "wasserstein": lambda real, fake: fake.mean() - real.mean(),
}
G_LOSS = {
    "non-saturating": lambda fake: F.softplus(-fake).mean(),
    "hinge": lambda fake: -fake.mean(),
    "wasserstein": lambda fake: -fake.mean(),
}


class Plain:
    """A training loop as a script would have it, for the recipes measured here. Nothing of the engine is used."""

    def __init__(
        self, recipe: Recipe, networks: dict[str, nn.Module], data: Tensor, frozen: bool, layout: torch.memory_format
    ):
        self.stage = recipe.stages[0]
        self.G, self.D = networks["G"].to(memory_format=layout), networks["D"].to(memory_format=layout)
        self.loss = self.stage.game.kwargs["loss"].name
        self.play = self.stage.game.kwargs
        self.optimizers = {
            n: torch.optim.Adam(net.parameters(), o.lr, o.betas, fused=True)
            for (n, net), o in zip((("G", self.G), ("D", self.D)), map(self.stage.optimizers.get, "GD"), strict=True)
        }
        self.ema_network = copy.deepcopy(self.G).eval().requires_grad_(False) if recipe.ema else None
        self.data, self.frozen, self.layout, self.at = data, frozen, layout, len(data)
        self.two_passes = any(isinstance(m, nn.BatchNorm2d) for m in self.D.modules())

    def reals(self, n: int) -> Tensor:
        if self.at + n > len(self.data):
            self.order, self.at = torch.randperm(len(self.data)), 0
        x = self.data[self.order[self.at : self.at + n]].float()
        self.at += n
        x = x.add_(torch.rand_like(x)).mul_(2 / 256).sub_(1) if self.stage.data.dequantize else x.mul_(2 / 255).sub_(1)
        return x.contiguous(memory_format=self.layout)

    def loss_D(self, x: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            fake = self.G(z)
        if self.two_passes:
            loss = D_LOSS[self.loss](self.D(x), self.D(fake))
        else:
            loss = D_LOSS[self.loss](*self.D(torch.cat([x, fake])).chunk(2))
        for penalty in self.play.get("penalties", ()):
            u = (x + torch.rand(len(x), 1, 1, 1) * (fake - x)).requires_grad_()
            (gradient,) = torch.autograd.grad(self.D(u).sum(), u, create_graph=True)
            loss = loss + penalty.kwargs["weight"] * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return loss

    def loss_G(self, z: Tensor) -> Tensor:
        return G_LOSS[self.loss](self.D(self.G(z)))

    def step_D(self) -> None:
        self.D.requires_grad_(True)
        self.z = torch.randn(self.stage.batch, self.G.latent)
        loss = self.loss_D(self.reals(self.stage.batch), self.z)
        self.optimizers["D"].zero_grad()
        loss.backward()
        self.optimizers["D"].step()

    def step_G(self) -> None:
        self.D.requires_grad_(not self.frozen)
        shared = self.play.get("noise") == "shared"
        z = self.z if shared else torch.randn(self.play.get("generator_batch") or self.stage.batch, self.G.latent)
        loss = self.loss_G(z)
        self.optimizers["G"].zero_grad()
        loss.backward()
        self.optimizers["G"].step()

    def round(self) -> int:
        """One round; the images consumed."""
        steps = [self.step_D] * self.play.get("n_critic", 1)
        for step in [self.step_G, *steps] if self.play.get("order") == "G-first" else [*steps, self.step_G]:
            step()
        if self.ema_network is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema_network.parameters()), list(self.G.parameters()), 0.01)
                for mine, new in zip(self.ema_network.buffers(), self.G.buffers(), strict=True):
                    mine.copy_(new)
        return len(steps) * self.stage.batch


# Networks as most public code has them ----------------------------------------------------------------------------


class Unfolded(layers.Conv2d):
    """The convolution whose resampling is a step of its own, as papers write it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2.0)
        x = F.conv2d(x, self.kernel(), self.bias, padding=self.padding)
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


def unfolded(network: nn.Module) -> nn.Module:
    """A twin with the same weights and buffers, in contiguous layout.

    The first shortcut of a discriminator pools the image before its 1x1 convolution in public code, too.
    """
    twin = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in twin.modules():
        if isinstance(module, layers.Conv2d) and (module.kernel_size != (1, 1) or module.in_channels > 4):
            module.__class__ = Unfolded
    return twin


def difference(recipe: Recipe, networks: dict[str, nn.Module], data: Tensor) -> dict[str, float]:
    """Relative differences (in norm) between folded and unfolded networks, the largest of both players.

    ``difference``: of G's images and D's scores and, in float64, of the losses' gradients. ``float32``: of the
    gradients in float32. ``rounding``: of the unfolded networks' gradients in float32 and in float64, for comparison:
    rounding changes the sign of the input of some ReLUs.
    """
    outputs, gradients = [], {}
    for make, layout in ((copy.deepcopy, torch.channels_last), (unfolded, torch.contiguous_format)):
        for dtype in (torch.float32, torch.float64):
            loop = Plain(recipe, {n: make(net).to(dtype) for n, net in networks.items()}, data[:8], True, layout)
            torch.manual_seed(0)
            x, z = loop.reals(8).to(dtype), torch.randn(8, loop.G.latent).to(dtype)
            for loss, network in ((loop.loss_D(x, z), loop.D), (loop.loss_G(z), loop.G)):
                grads = torch.autograd.grad(loss, list(network.parameters()))
                gradients.setdefault((make, dtype), []).append(torch.cat([g.reshape(-1).double() for g in grads]))
            if dtype == torch.float32:  # last: a forward pass moves what spectral and batch norm remember
                with torch.no_grad():
                    outputs.append([loop.G(z), loop.D(x)])

    def apart(a: list[Tensor], b: list[Tensor]) -> float:
        return float(f"{max(((p - q).norm() / q.norm()).item() for p, q in zip(a, b, strict=True)):.1e}")

    mine, theirs = (
        {t: gradients[make, t] for t in (torch.float32, torch.float64)} for make in (copy.deepcopy, unfolded)
    )
    return {
        "difference": max(apart(*outputs), apart(mine[torch.float64], theirs[torch.float64])),
        "float32": apart(mine[torch.float32], theirs[torch.float32]),
        "rounding": apart(theirs[torch.float32], theirs[torch.float64]),
    }


# Measuring ----------------------------------------------------------------------------------------------------------


def setting(name: str, batch: int | None = None, width: int | None = None) -> Recipe:
    """A recipe of the registry, with another batch or width if they are not None."""
    recipe = settings.find(name)
    networks = dict(recipe.networks)
    if width:
        networks = {n: s.replace(width=width) for n, s in networks.items()}
    stage = recipe.stages[0]
    # Random images at the stage's own resolution: nothing to load larger and crop, nothing to pad.
    stage = dataclasses.replace(
        stage, batch=batch or stage.batch, data=dataclasses.replace(stage.data, load=None, pad=False)
    )
    return recipe.replace(networks=networks, stages=(stage,))


def pictures(recipe: Recipe, n: int = 1024) -> Tensor:
    """Random uint8 images of the recipe's shape: the time does not depend on what they show."""
    channels = facts_of(recipe.dataset).channels
    side = recipe.stages[0].resolution
    return torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()


class Engine:
    """The engine's own rounds, with its log."""

    def __init__(self, recipe: Recipe, data: Tensor):
        facts = facts_of(data)
        recipe = resolve(recipe, facts)
        self.session = Session(recipe, data, facts, Runtime(device="cpu"), torch.device("cpu"), 0, None)
        self.session.open_data(0)
        self.session.build_stage()
        self.session.prepare()
        self.log = Log(self.session)

    def round(self) -> int:
        seen = self.session.seen
        self.session.play_round(self.log.record)
        for values in self.log.holdout.values():  # what a tick would read once in a while
            del values[:-100]
        return self.session.seen - seen

    def networks(self) -> dict[str, nn.Module]:
        return {n: copy.deepcopy(self.session.game.get_submodule(n)).requires_grad_(True) for n in ("G", "D")}


def rate(side: Engine | Plain) -> float:
    """Images a second of the processor in one round."""
    began = time.process_time()
    return side.round() / (time.process_time() - began)


def compare(engine: Engine, other: Plain, pairs: int) -> dict:
    """Both in turns. Their median rates, and the median of the pairs' ratios."""
    engine.round(), other.round()  # the first ones allocate
    rates = []
    for i in range(pairs):
        if i % 2:  # neither side is always the first
            rates.append((rate(engine), rate(other)))
        else:
            rates.append((rate(other), rate(engine))[::-1])
    mine, theirs = (statistics.median(v) for v in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    return {"images_per_second": round(mine, 1), "other": round(theirs, 1), "ratio": round(ratio, 3)}


OVERHEAD = [  # recipe, batch, width (None: the recipe's)
    *(("dcgan-cifar10-small", batch, None) for batch in (16, 32, 64, 128)),
    *(("dcgan-cifar10-small", 64, width) for width in (16, 32, 96)),
    *(("sngan-cifar10-small", batch, None) for batch in (16, 32, 64, 128)),
    *(("sngan-cifar10-small", 64, width) for width in (32, 64)),
]
MEMORY = ["dcgan-cifar10-small", "sngan-cifar10-small"]
LAYERS = ["sngan-cifar10", "wgan-gp-cifar10"]


def shown(recipe: Recipe, model: str) -> dict:
    widths = [s.kwargs.get("width") or s.kwargs.get("widths", (0,))[0] for s in recipe.networks.values()]
    return {"recipe": model, "batch": recipe.stages[0].batch, "width": "/".join(map(str, dict.fromkeys(widths)))}


def overhead(model: str, batch: int, width: int | None) -> dict:
    recipe = setting(model, batch, width)
    data = pictures(recipe)
    engine = Engine(recipe, data)
    plain = Plain(recipe, engine.networks(), data, True, torch.channels_last)
    return {"what": "overhead", **shown(recipe, model), **compare(engine, plain, pairs=60)}


def faster(model: str) -> dict:
    recipe = setting(model)
    data = pictures(recipe)
    engine = Engine(recipe, data)
    twins = {n: unfolded(net) for n, net in engine.networks().items()}
    plain = Plain(recipe, twins, data, False, torch.contiguous_format)
    return {"what": "layers", **shown(recipe, model), **compare(engine, plain, pairs=3)}


def exact(model: str) -> dict:
    recipe = setting(model)
    data = pictures(recipe)
    return {"what": "exact", **shown(recipe, model), **difference(recipe, Engine(recipe, data).networks(), data)}


def peak_memory(side: str, model: str, rounds: int = 20) -> float:
    """Peak resident memory of this process, in MiB, after training ``rounds`` rounds of 64."""
    recipe = setting(model, 64)
    data = pictures(recipe)
    if side == "engine":
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Path(folder) / "run", images=rounds * 64, dataset=data, runtime=Runtime(device="cpu"))
    else:
        networks = build_networks(resolve(recipe, facts_of(data)))
        loop = Plain(recipe, networks, data, True, torch.channels_last)
        for _ in range(rounds):
            loop.round()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(model: str) -> dict:
    def peak(side: str) -> float:
        command = [sys.executable, __file__, "--alone", side, "--model", model]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    peaks = [(peak("engine"), peak("plain")) for _ in range(3)]
    mine, theirs = (statistics.median(v) for v in zip(*peaks, strict=True))
    numbers = {"mib": round(mine), "other_mib": round(theirs), "ratio": round(mine / theirs, 3)}
    return {"what": "memory", **shown(setting(model, 64), model), **numbers}


def start() -> list[dict]:
    """Processor seconds of a process that does this, the least of ten."""
    lines = []
    for name, code in {
        "python -c pass": "pass",
        "import zoo": "import zoo, sys; assert 'torch' not in sys.modules",
        "zoo list": "import sys; sys.argv = ['zoo', 'list']; from zoo.cli import main; main()",
    }.items():
        times = []
        for _ in range(10):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=rows.ROOT)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        lines.append(
            {"what": "start", "recipe": name, "batch": 0, "width": "", "seconds_to_start": round(min(times), 3)}
        )
    return lines


MUST = {"dcgan-cifar10-small": 0.97, "sngan-cifar10-small": 0.97}


def check(lines: list[dict]) -> list[str]:
    """What does not hold of the results, a line each."""
    wrong = []

    def must(what: str, model: str, key: str, holds: Callable[[float], bool], wanted: str, batch: int | None = None):
        got = [r for r in lines if r["what"] == what and r["recipe"] == model and batch in (None, r["batch"])]
        if not got or not all(holds(r[key]) for r in got):
            wrong.append(f"{what} of {model}: {key} {[r[key] for r in got] or 'not measured'}, wanted {wanted}")

    for model in MEMORY:
        must("overhead", model, "ratio", lambda v: v >= 0.97, "at least 0.97", batch=64)
        must("memory", model, "ratio", lambda v: v <= 1.05, "at most 1.05")
    for model in LAYERS:
        must("layers", model, "ratio", lambda v: v >= 1.7, "at least 1.7")
        must("exact", model, "difference", lambda v: v <= 1e-4, "at most 1e-4")
        for r in lines:
            if r["what"] == "exact" and r["recipe"] == model and r["float32"] > max(1e-4, 2 * r["rounding"]):
                wrong.append(
                    f"exact of {model}: float32 {r['float32']}, wanted 1e-4 or twice the rounding {r['rounding']}"
                )
    must("start", "zoo list", "seconds_to_start", lambda v: v < 0.3, "below 0.3")
    return wrong


PARTS: dict[str, Callable[[], Iterable[dict]]] = {
    "overhead": lambda: (overhead(*o) for o in OVERHEAD),
    "memory": lambda: map(memory, MEMORY),
    "layers": lambda: map(faster, LAYERS),
    "exact": lambda: map(exact, LAYERS),
    "start": start,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--only", multiple=True, default=[*PARTS], type=click.Choice([*PARTS]), help="Parts; default: all.")
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed results do not hold.")
@click.option("--alone", type=click.Choice(["engine", "plain"]), hidden=True)
@click.option("--model", hidden=True)
def command(only: tuple[str, ...], checking: bool, alone: str | None, model: str) -> int:
    """Measure the engine beside a plain loop, on one thread, into results/speed.jsonl."""
    torch.set_num_threads(1)
    if checking:
        wrong = check(rows.read("speed"))
        print("\n".join(wrong) or "speed: the committed results hold")
        return int(bool(wrong))
    if alone:
        print(peak_memory(alone, model))
        return 0
    for part in only:
        began = time.monotonic()
        for row in PARTS[part]():
            print(json.dumps(row), flush=True)
            seconds = {"seconds": round(time.monotonic() - began, 1)}
            facts = rows.facts(f"python benchmarks/speed.py --only {part}", 0)
            rows.write("speed", row | seconds | facts, ("what", "recipe", "batch", "width"))
            began = time.monotonic()
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
