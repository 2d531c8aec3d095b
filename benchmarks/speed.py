"""The cost of the engine, and the gain of the networks' layers.

    python benchmarks/speed.py                  # everything, into results/speed.jsonl
    python benchmarks/speed.py --only overhead  # one part: overhead, memory, layers, exact, start, checksums
    python benchmarks/speed.py --device cuda    # on a GPU, into results/speed-device.jsonl (device_speed.py)
    python benchmarks/speed.py --check          # do the committed results hold?

*overhead*: the engine against a plain loop (loops.py) over the same networks and the same arithmetic: folded
resampling, channels_last, fused optimizers, D frozen in G's step. gan-mnist has the most rounds a second, so a round's
fixed cost shows there first. *memory*: their peaks, each in a process of its own, the engine with its whole run (log,
grids, checkpoints, exported weights). *layers*: the engine against the same loop over networks as most public code has
them: a convolution after nearest x2 and before pooling, shortcuts on the large image, contiguous layout, D's weight
gradients computed in G's step and discarded. *exact*: the differences of those networks' outputs and gradients from
ours. *start*: ``zoo list`` and ``import zoo``. *checksums*: their share of the first ``zoo.load`` of a process, of a
shipped file by its path, and of the first epoch on the embedded images by the recipe of the quickest rounds.

Both sides of a ratio alternate, a few rounds each, and the ratio is the median over these pairs. Time is CPU time on
one thread, which other work on the machine hardly changes. Images are real images, as in every log.
"""

from __future__ import annotations

import copy
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import device_speed
import rows
import torch
import torch.nn.functional as F
from loops import Engine, Line, Plain, pictures, setting, setting_of
from torch import Tensor, nn

from zoo import hub, settings
from zoo.data import facts as facts_of
from zoo.data import open_data
from zoo.engine.runtime import Runtime
from zoo.engine.stage import build_networks, resolve
from zoo.engine.train import train
from zoo.networks import layers
from zoo.recipe import Recipe

# Networks as most public code has them ----------------------------------------------------------------------------


class Unfolded(layers.Conv2d):
    """The convolution whose resampling is a step of its own, as papers write it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2.0)
        x = F.conv2d(x, self.kernel(), self.bias, padding=self.padding)
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


def unfold(network: nn.Module) -> nn.Module:
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
    for make, layout in ((copy.deepcopy, torch.channels_last), (unfold, torch.contiguous_format)):
        for dtype in (torch.float32, torch.float64):
            loop = Plain(recipe, {n: make(net).to(dtype) for n, net in networks.items()}, data[:8], True, layout)
            torch.manual_seed(0)
            x, z = loop.reals(8).to(dtype), loop.noise(8).to(dtype)
            for loss, network in ((loop.loss_D(x, z)[0], loop.D), (loop.loss_G(z)[0], loop.G)):
                grads = torch.autograd.grad(loss, list(network.parameters()))
                gradients.setdefault((make, dtype), []).append(torch.cat([g.reshape(-1).double() for g in grads]))
            if dtype == torch.float32:  # last: a forward pass changes the buffers of spectral and batch norm
                with torch.no_grad():
                    outputs.append([loop.G(z), loop.D(x)])

    def relative(a: list[Tensor], b: list[Tensor]) -> float:
        return float(f"{max(((p - q).norm() / q.norm()).item() for p, q in zip(a, b, strict=True)):.1e}")

    mine, theirs = ({t: gradients[make, t] for t in (torch.float32, torch.float64)} for make in (copy.deepcopy, unfold))
    return {
        "difference": max(relative(*outputs), relative(mine[torch.float64], theirs[torch.float64])),
        "float32": relative(mine[torch.float32], theirs[torch.float32]),
        "rounding": relative(theirs[torch.float32], theirs[torch.float64]),
    }


# Measuring ----------------------------------------------------------------------------------------------------------


def rate(side: Engine | Plain, rounds: int) -> float:
    """Images a second of the processor in some rounds."""
    start_time = time.process_time()
    images = sum(side.round() for _ in range(rounds))
    return images / (time.process_time() - start_time)


def compare(engine: Engine, other: Plain, pairs: int, rounds: int = 1) -> Line:
    """Both in turns, ``rounds`` each. Their median rates, and the median of the pairs' ratios."""
    engine.round(), other.round()  # the first ones allocate
    rates = []
    for i in range(pairs):
        if i % 2:  # neither side is always the first
            rates.append((rate(engine, rounds), rate(other, rounds)))
        else:
            rates.append((rate(other, rounds), rate(engine, rounds))[::-1])
    mine, theirs = (statistics.median(v) for v in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    return {"images_per_second": round(mine, 1), "other": round(theirs, 1), "ratio": round(ratio, 3)}


OVERHEAD = [  # recipe, batch, width (None: the recipe's)
    ("gan-mnist", None, None),
    ("gan-mnist-small", 16, None),
    *(("dcgan-cifar10-small", batch, None) for batch in (16, 32, 64, 128)),
    *(("dcgan-cifar10-small", 64, width) for width in (16, 32, 96)),
    *(("sngan-cifar10-small", batch, None) for batch in (16, 32, 64, 128)),
    *(("sngan-cifar10-small", 64, width) for width in (32, 64)),
]
MIN_RATIO = 0.97  # of overhead
MAX_SHARE = 0.05  # of checksums
SHORT_ROUNDS = 5  # rounds in a pair if a round takes less than a tenth of a second
MEMORY = ["dcgan-cifar10-small", "sngan-cifar10-small"]
LAYERS = ["sngan-cifar10", "wgan-gp-cifar10"]


def overhead(model: str, batch: int | None, width: int | None) -> Line:
    recipe = setting(model, batch, width)
    data = pictures(recipe)
    engine = Engine(recipe, data)
    plain = Plain(recipe, engine.networks(), data, True, torch.channels_last)
    start_time = time.process_time()
    engine.round(), plain.round()
    rounds = 1 if time.process_time() - start_time > 0.2 else SHORT_ROUNDS
    return {"what": "overhead", **setting_of(recipe, model), **compare(engine, plain, pairs=60, rounds=rounds)}


def layers_line(model: str) -> Line:
    recipe = setting(model)
    data = pictures(recipe)
    engine = Engine(recipe, data)
    twins = {n: unfold(net) for n, net in engine.networks().items()}
    plain = Plain(recipe, twins, data, False, torch.contiguous_format)
    return {"what": "layers", **setting_of(recipe, model), **compare(engine, plain, pairs=3)}


def exact(model: str) -> Line:
    recipe = setting(model)
    data = pictures(recipe)
    return {"what": "exact", **setting_of(recipe, model), **difference(recipe, Engine(recipe, data).networks(), data)}


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


def memory(model: str) -> Line:
    def peak(side: str) -> float:
        command = [sys.executable, __file__, "--alone", side, "--model", model]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    peaks = [(peak("engine"), peak("plain")) for _ in range(3)]
    mine, theirs = (statistics.median(v) for v in zip(*peaks, strict=True))
    numbers = {"mib": round(mine), "other_mib": round(theirs), "ratio": round(mine / theirs, 3)}
    return {"what": "memory", **setting_of(setting(model, 64), model), **numbers}


def start() -> list[Line]:
    """CPU seconds of starting a process, the least of ten."""
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


LOAD = """
import json, sys, time, torch, zoo
from zoo import hub, tensor_file
torch.set_num_threads(1)
path = hub.find(sys.argv[1])
start = time.process_time()
zoo.load(path)
whole = time.process_time() - start
start = time.process_time()
tensor_file.verify(path, tensor_file.read_header(path))
print(json.dumps([whole, time.process_time() - start]))
"""


def share(what: str, pairs: list[list[float]]) -> Line:
    """A line of *checksums*. ``pairs``: the seconds of the whole and of the checksums in it, several times."""
    whole, part = (statistics.median(v) for v in zip(*pairs, strict=True))
    numbers = {
        "milliseconds": round(1e3 * whole, 1),
        "checksums": round(1e3 * part, 2),
        "share": round(part / whole, 4),
    }
    return {"what": "checksums", "recipe": what, "batch": 0, "width": "", **numbers}


def checksums(recipe: str = "gan-fashion-mnist") -> Iterable[Line]:
    """The share of checksums in the first ``zoo.load`` of a process, of each shipped file, and in the first epoch."""
    for name in hub.index():
        command = [sys.executable, "-c", LOAD, name]
        runs = [subprocess.run(command, capture_output=True, check=True, cwd=rows.ROOT) for _ in range(5)]
        yield share(f"zoo.load, {name}", [json.loads(run.stdout) for run in runs])
    pairs = []
    for _ in range(3):
        data = open_data("fashion-mnist-10k")
        engine, images = Engine(settings.find(recipe), data), 0
        start_time = time.process_time()
        while images < len(data):
            images += engine.round()
        epoch = time.process_time() - start_time
        data = open_data("fashion-mnist-10k")
        start_time = time.process_time()
        data.check()
        pairs.append([epoch, time.process_time() - start_time])
    yield share(f"first epoch, {recipe}", pairs)


def check(lines: list[Line]) -> list[str]:
    """What does not hold of the results, a line each."""
    errors = []

    def require(what: str, model: str, key: str, low: float, high: float, batch: int | None = None) -> None:
        rows_ = [r for r in lines if r["what"] == what and r["recipe"] == model and batch in (None, r["batch"])]
        values = [r[key] for r in rows_]
        if not values or not all(low <= v <= high for v in values):
            text = f"at most {high}" if low == -math.inf else f"at least {low}"
            errors.append(f"{what} of {model}: {key} must be {text}, got {values or 'no line'}")

    require("overhead", "gan-mnist", "ratio", MIN_RATIO, math.inf)
    for model in MEMORY:
        require("overhead", model, "ratio", MIN_RATIO, math.inf, batch=64)
        require("memory", model, "ratio", -math.inf, 1.05)
    for model in LAYERS:
        require("layers", model, "ratio", 1.7, math.inf)
        require("exact", model, "difference", -math.inf, 1e-4)
        for r in lines:
            if r["what"] == "exact" and r["recipe"] == model:
                require("exact", model, "float32", -math.inf, max(1e-4, 2 * r["rounding"]))
    require("start", "zoo list", "seconds_to_start", -math.inf, 0.3)
    for what in [r["recipe"] for r in lines if r["what"] == "checksums"] or ["zoo.load"]:
        require("checksums", what, "share", -math.inf, MAX_SHARE)
    return errors


PARTS: dict[str, Callable[[], Iterable[Line]]] = {
    "overhead": lambda: (overhead(*o) for o in OVERHEAD),
    "memory": lambda: map(memory, MEMORY),
    "layers": lambda: map(layers_line, LAYERS),
    "exact": lambda: map(exact, LAYERS),
    "start": start,
    "checksums": checksums,
}


def share_of_budget(ctx: click.Context, option: click.Parameter, text: str) -> float:
    """``--budget 1%`` as 0.01. Raises BadParameter unless it is a percentage above 0 and up to 100."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = 0.0
    if not text.endswith("%") or not 0 < value <= 1:
        raise click.BadParameter(f"must be a percentage such as 1%, got {text}")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--only", multiple=True, help="Parts of the CPU's measurements, or with --device recipes; default: all.")
@click.option("--device", help="Measure this device (cuda) by device_speed.py, instead of the parts.")
@click.option(
    "--minutes",
    default=6.0,
    type=click.FloatRange(min=0, min_open=True),
    show_default=True,
    help="With --device: stop after so many minutes; the same command continues.",
)
@click.option(
    "--budget",
    default="100%",
    callback=share_of_budget,
    show_default=True,
    help="With --device: less than 100% is a trial on small networks, which counts for no goal.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --device: the folder of its files.  [default: benchmarks/results; of a trial runs/speed]",
)
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed results do not hold.")
@click.option("--alone", type=click.Choice(["engine", "plain"]), hidden=True)
@click.option("--model", hidden=True)
def command(
    only: tuple[str, ...],
    device: str | None,
    minutes: float,
    budget: float,
    out: Path | None,
    checking: bool,
    alone: str | None,
    model: str,
) -> int:
    """Measure the engine beside a plain loop, on one thread, into results/speed.jsonl; or on a GPU with --device."""
    torch.set_num_threads(1)
    if checking:
        errors = check(rows.read("speed"))
        print("\n".join(errors) or "speed: the committed results hold")
        lines = rows.read(device_speed.FILE, out)
        print(device_speed.judgement(lines))
        return int(bool(errors) or any(state == "not reached" for _, state, _ in device_speed.check(lines)))
    if alone:
        print(peak_memory(alone, model))
        return 0
    if device:
        folder = out or (rows.RESULTS if budget == 1 else rows.ROOT / "runs" / "speed")
        return device_speed.run(device, minutes, budget, folder, only)
    for part in only or PARTS:
        if part not in PARTS:
            raise ValueError(f"--only {part}: must be one of {', '.join(PARTS)}")
        start_time = time.monotonic()
        for row in PARTS[part]():
            print(json.dumps(row), flush=True)
            seconds = {"seconds": round(time.monotonic() - start_time, 1)}
            facts = rows.facts(f"python benchmarks/speed.py --only {part}", 0)
            rows.write("speed", row | seconds | facts, ("what", "recipe", "batch", "width"))
            start_time = time.monotonic()
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
