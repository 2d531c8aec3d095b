"""``speed.py --device cuda``: the engine on a GPU beside plain loops, by precision, with and without CUDA graphs.

A line of ``speed-device.jsonl`` is one recipe in one mode: images/s of the engine, of the plain loop in eager mode and
of the plain loop with the same choices; the share of the card's peak, from counted multiply-adds; kernels, launches and
host time a round; peak memory; and every call in a round that waits for the device. ``profiles/`` has a table of the
longest operations of each line.

Lines are written as soon as they are measured. The script stops at its deadline, also in the middle of a line; called
again, it measures what is missing. With ``--budget 1%`` all of it runs on small networks and batches, a few rounds
each, so that ``--device cpu --budget 1%`` tries the script on any machine; such lines count for no goal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import json
import math
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rows
import torch
from loops import Engine, Line, Plain, PlainTranslator, pictures, setting, setting_of
from torch.profiler import ProfilerActivity, profile, record_function

from zoo.data import Facts, ImageData
from zoo.data import facts as facts_of
from zoo.data.fields import Image, Label
from zoo.engine.dry_run import dry_run
from zoo.engine.runtime import Runtime
from zoo.engine.stage import resolve
from zoo.files import beside
from zoo.recipe import Recipe

FILE, PROFILES = "speed-device", "profiles"
KEYS = ("device", "recipe", "batch", "mode", "budget")

# What is measured -----------------------------------------------------------------------------------------------------

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "bf16-graphs": {"precision": "bf16", "cuda_graphs": True},
}
EAGER = [mode for mode, choices in MODES.items() if not choices.get("cuda_graphs")]


@dataclass(frozen=True)
class Case:
    """A recipe, with its own batch (None) or another one. ``batch`` is of all but the generator's own."""

    recipe: str
    batch: int | None = None

    def resolved(self, budget: float) -> Recipe:
        """The recipe to measure; with less than the whole budget, batches and widths are smaller."""
        recipe = setting(self.recipe, self.batch)
        stage = recipe.stages[0]
        share = stage.batch / setting(self.recipe).stages[0].batch * budget
        batch = stage.batch if budget == 1 else min(stage.batch, max(2, round(stage.batch * budget)))
        own = {k: max(2, round(v * share)) for k, v in stage.game.kwargs.items() if k == "generator_batch" and v}
        networks = dict(recipe.networks)
        if budget < 1:
            networks = {name: smaller(spec, math.sqrt(budget)) for name, spec in networks.items()}
        stage = dataclasses.replace(stage, batch=batch, game=stage.game.replace(**own))
        return recipe.replace(networks=networks, stages=(stage,))


def smaller(spec: Any, share: float) -> Any:
    """A network's Spec with a share of its width, in steps of 8."""

    def less(width: int) -> int:
        return max(8, round(width * share / 8) * 8)

    sizes = {k: v for k, v in spec.kwargs.items() if k in ("width", "widths")}
    return spec.replace(**{k: less(v) if isinstance(v, int) else tuple(map(less, v)) for k, v in sizes.items()})


LAUNCHES = "dcgan-cifar10-small"  # its kernels are so short that launching them takes longer
LARGE = Case("sngan-cifar10", 512)
MAIN = [Case(name) for name in (LAUNCHES, "sngan-cifar10", "wgan-gp-cifar10", "cyclegan-emoji")]
MORE = [
    Case(name) for name in ("dcgan-celeba", "gan-mnist", "sngan-cifar10-cnn", "wgan-gp-cifar10-dcgan")
]  # as time is left
PLAN: list[tuple[Case, str]] = [
    *itertools.product(MAIN, EAGER),
    (LARGE, "bf16"),
    *itertools.product([*MAIN, LARGE], ["bf16-graphs"]),
    *itertools.product(MORE, MODES),
]

# Multiply-adds a second at the peak, in 1e12, of dense products with sums in float32: half of the floating-point
# operations that NVIDIA gives, a quarter of those "with sparsity". NVIDIA's figures are on the product pages
# www.nvidia.com/en-us/data-center/h100 (also h200, a100, l40s, l4, a10) and in the white papers on the architectures
# Hopper, GA102 and Ada; compared with glennklockwood.com/garden/processors/h100 (H100, H200), hmc-tech.com/gpu (A100,
# L40S, L4, RTX 3090 Ti) and waredb.com (RTX 4090). A name is a pattern of the whole name that torch gives, without
# "NVIDIA": the share of any other card is not known, such as a laptop's, or a part of a card (MIG).
HOPPER_SXM = {"fp32": 33.5, "tf32": 247.3, "bf16": 494.7}
HOPPER_NVL = {"fp32": 30.0, "tf32": 208.8, "bf16": 417.8}
PEAKS: dict[str, dict[str, float]] = {
    "H200": HOPPER_SXM,
    "H200 NVL": HOPPER_NVL,
    "H100 80GB HBM3": HOPPER_SXM,
    "H100 NVL": HOPPER_NVL,
    "H100 PCIe": {"fp32": 25.6, "tf32": 189, "bf16": 378},
    r"A100-(SXM4|PCIE)-\d+GB|A100 80GB PCIe": {"fp32": 9.75, "tf32": 78, "bf16": 156},
    "L40S": {"fp32": 45.8, "tf32": 91.5, "bf16": 181},
    "L4": {"fp32": 15.15, "tf32": 30, "bf16": 60.5},
    "A10": {"fp32": 15.6, "tf32": 31.25, "bf16": 62.5},
    "GeForce RTX 4090": {"fp32": 41.3, "tf32": 41.3, "bf16": 82.6},
    "GeForce RTX 3090": {"fp32": 17.8, "tf32": 17.8, "bf16": 35.6},
}


def peak(card: str, mode: str) -> float | None:
    """Multiply-adds a second of a card at its peak, by its name; None if the table does not have it."""
    precision, name = MODES[mode].get("precision", "fp32"), card.removeprefix("NVIDIA ")
    return next((peaks[precision] * 1e12 for pattern, peaks in PEAKS.items() if re.fullmatch(pattern, name)), None)


def data_of(recipe: Recipe) -> Any:
    """Random images: of a translator in two domains, else a tensor."""
    if "F" not in recipe.networks:
        return pictures(recipe)
    side, facts = recipe.stages[0].resolution, facts_of(recipe.dataset)
    count = 64
    fields = {"x": Image(facts.channels, side), "domain": Label(())}
    own = Facts(recipe.dataset, facts.title, facts.channels, side, fields=fields)
    return ImageData(own, {"x": pictures(recipe, count), "domain": torch.arange(count) % 2}, "random")


# Measuring ------------------------------------------------------------------------------------------------------------

PAIRS = 5  # of windows, in turn
WINDOW = 0.4  # seconds of the engine in a window
WARM_UP = 6  # rounds in which libraries choose kernels; and losses are played in eager mode, compiled and recorded

WAITS = (  # calls that wait for the device, in a trace
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize",
    "aten::item", "aten::_local_scalar_dense", "aten::nonzero",
)  # fmt: skip
LAUNCH = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


class Meter:
    """Clock and memory of a device. On a CPU time is CPU time, and memory is left to ``speed.py --only memory``."""

    def __init__(self, device: torch.device):
        self.device, self.cuda = device, device.type == "cuda"
        self.clock: Callable[[], float] = time.perf_counter if self.cuda else time.process_time

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, side: Any, rounds: int) -> tuple[float, int]:
        """Seconds of some rounds, and their images."""
        self.wait()
        start_time = self.clock()
        images = sum(side.round() for _ in range(rounds))
        self.wait()
        return self.clock() - start_time, images

    def host(self, side: Any, rounds: int) -> float:
        """Milliseconds that the host needs for a round, without waiting for the device: the least of some rounds."""
        times = []
        for _ in range(rounds):
            self.wait()
            start_time = self.clock()
            side.round()
            times.append(self.clock() - start_time)
        self.wait()
        return 1e3 * min(times)

    @contextlib.contextmanager
    def memory(self) -> Iterator[dict[str, float | None]]:
        """The peak of what the block allocates, in MiB, under "mib"."""
        result: dict[str, float | None] = {"mib": None}
        if not self.cuda:
            yield result
            return
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield result
        self.wait()
        result["mib"] = round((torch.cuda.max_memory_allocated(self.device) - before) / 2**20, 1)


@dataclass(frozen=True)
class Trace:
    """One round in a profile. ``kernels``, ``launches``: None on a CPU. ``waits``: names of calls that wait for the
    device. ``longest``: a table of operations."""

    kernels: int | None
    launches: int | None
    waits: list[str]
    longest: str


def trace(side: Any, meter: Meter) -> Trace:
    """Profile one round."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * meter.cuda
    meter.wait()
    with profile(activities=kinds) as profiler:
        with record_function("one round"):
            side.round()
        meter.wait()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    order = "self_cuda_time_total" if meter.cuda else "self_cpu_time_total"
    return read_trace(events, meter.cuda, profiler.key_averages().table(sort_by=order, row_limit=20))


def read_trace(events: Sequence[Mapping[str, Any]], cuda: bool, longest: str) -> Trace:
    """What a trace's events say of the span "one round". Raises ValueError if it has no such span."""
    spans = [e for e in events if e.get("cat") == "user_annotation" and e["name"] == "one round"]
    if not spans:
        raise ValueError("a trace must have the span 'one round'")
    start, end = spans[0]["ts"], spans[0]["ts"] + spans[0]["dur"]
    host = [e["name"] for e in events if e.get("cat") in ("cpu_op", "cuda_runtime", "cuda_driver")
            and start <= e["ts"] <= end]  # fmt: skip
    waits = {name for name in host if name in WAITS}
    if not cuda:
        return Trace(None, None, sorted(waits), longest)
    # Of the device's own events all are the round's: nothing else is in the profile.
    waits |= {e["name"] for e in events if e.get("cat") == "gpu_memcpy" and "DtoH" in e["name"]}
    kernels = sum(e.get("cat") == "kernel" for e in events)
    return Trace(kernels, sum(name.startswith(LAUNCH) for name in host), sorted(waits), longest)


def measure(case: Case, mode: str, device: str, budget: float) -> tuple[Line, str]:
    """A line without its facts, and the text of its profile."""
    recipe = case.resolved(budget)
    runtime = Runtime(device=device, **MODES[mode])
    target = runtime.prepare_device()
    meter, data = Meter(target), data_of(recipe)
    if meter.cuda:  # the libraries' workspaces belong to no side
        torch.nn.functional.conv2d(torch.ones(8, 8, 8, 8, device=target), torch.ones(8, 8, 3, 3, device=target)).sum()
    plan = dry_run(resolve(recipe, facts_of(data)), facts_of(data))[0]
    loop = PlainTranslator if "F" in recipe.networks else Plain

    sides: dict[str, Any] = {}
    facts: dict[str, dict[str, Any]] = {}
    texts = []
    choices = {"engine": runtime, "plain": dataclasses.replace(runtime, device=str(target))}
    if runtime.cuda_graphs:
        choices["eager"] = dataclasses.replace(choices["plain"], cuda_graphs=False)
    for name, choice in choices.items():
        networks = sides["engine"].networks() if name != "engine" else {}
        with meter.memory() as peak_memory:
            if name == "engine":
                sides[name] = Engine(recipe, data, choice)
            else:
                sides[name] = loop(recipe, networks, data, True, torch.channels_last, choice)
            for _ in range(WARM_UP if budget == 1 else 3):
                sides[name].round()
        profile_of_round = trace(sides[name], meter)
        texts.append(f"{name}\n\n{profile_of_round.longest}")
        facts[name] = {
            "kernels": profile_of_round.kernels,
            "launches": profile_of_round.launches,
            "host_ms": round(meter.host(sides[name], 5 if budget == 1 else 1), 3),
            "waits": profile_of_round.waits,
            **peak_memory,
        }

    rates = windows(sides, meter, budget)
    eager = rates.get("eager", rates["plain"])
    engine = statistics.median(rates["engine"])
    work = engine * plan["multiply_adds_a_round"] / plan["images_a_round"]
    card = torch.cuda.get_device_name(target) if meter.cuda else "cpu"
    limit = peak(card, mode) if meter.cuda else None
    own, plain = facts["engine"], facts["plain"]
    line = {
        "what": "device",
        "device": card,
        **setting_of(recipe, case.recipe),
        "mode": mode,
        "budget": budget,
        "images_per_second": round(engine, 1),
        "eager": round(statistics.median(eager), 1),
        "plain": round(statistics.median(rates["plain"]), 1),
        "ratio_eager": ratio(rates["engine"], eager),
        "ratio": ratio(rates["engine"], rates["plain"]),
        "multiply_adds_per_second": round(work),
        "share": None if limit is None else round(work / limit, 4),
        **own,
        **{f"plain_{k}": plain[k] for k in ("kernels", "launches", "host_ms", "mib")},
        "memory_ratio": None if own["mib"] is None else round(own["mib"] / plain["mib"], 3),
    }
    return line, "\n\n".join(texts)


def windows(sides: Mapping[str, Any], meter: Meter, budget: float) -> dict[str, list[float]]:
    """Images a second of every side in each of some windows, in turn, another one first each time."""
    seconds, _ = meter.seconds(sides["engine"], 1)
    rounds = max(1, math.ceil(WINDOW * budget / max(seconds, 1e-6)))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(PAIRS if budget == 1 else 1):
        names = [*sides]
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seconds, images = meter.seconds(sides[name], rounds)
            rates[name].append(images / max(seconds, 1e-9))
    return rates


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(mine, theirs, strict=True)), 3)


# The run --------------------------------------------------------------------------------------------------------------


class Deadline:
    """Ends the process at a time, whatever it does: a compilation cannot be interrupted otherwise. Lines are written as
    they are measured, so that the same command continues."""

    def __init__(self, minutes: float, at_end: Callable[[], None]):
        self.end, self.at_end = time.monotonic() + 60 * minutes, at_end
        self.timer = threading.Timer(60 * minutes, self.stop)
        self.timer.daemon = True
        self.timer.start()

    def stop(self) -> None:
        try:
            print("stopped by the deadline; the same command continues", flush=True)
            self.at_end()
        finally:
            os._exit(0)

    def leaves(self, seconds: float) -> bool:
        """Whether as much time is left."""
        return self.end - time.monotonic() > seconds


def run(device: str, minutes: float, budget: float, folder: Path, only: Sequence[str] = ()) -> int:
    """Measure the plan, as far as time allows and lines are missing, then judge the goals; the exit status. ``only``:
    recipes."""
    if budget < 1 and device == "cpu":
        compile_quickly()
    card = "cpu" if device == "cpu" else torch.cuda.get_device_name(Runtime(device=device).prepare_device())
    facts = rows.facts(f"python benchmarks/speed.py --device {device}", 0)

    def lines() -> list[Line]:  # of this card, budget and code
        now = (card, budget, facts["commit"])
        return [r for r in rows.read(FILE, folder) if (r["device"], r["budget"], r["commit"]) == now]

    def judge() -> None:
        print(("" if budget == 1 else "a trial, whose lines count for no goal\n") + judgement(lines()), flush=True)

    deadline = Deadline(minutes, judge)
    done = {(r["recipe"], r["batch"], r["mode"]) for r in lines() if "error" not in r}
    longest, failed = dict.fromkeys(MODES, 0.0), 0
    for case, mode in PLAN:
        key = (case.recipe, case.resolved(budget).stages[0].batch, mode)
        if (only and case.recipe not in only) or key in done:
            continue
        if not deadline.leaves(longest[mode]):
            print(f"not measured, no time is left: {case.recipe}, batch {key[1]}, {mode}", flush=True)
            continue
        start_time = time.monotonic()
        try:
            line, text = measure(case, mode, device, budget)
        except Exception as error:  # of any library: the other lines are measured all the same
            where = {"what": "device", "device": card, **setting_of(case.resolved(budget), case.recipe)}
            line = {**where, "mode": mode, "budget": budget, "error": " ".join(f"{error!r}".split())[:300]}
            text, failed = "", failed + 1
        longest[mode] = max(longest[mode], time.monotonic() - start_time)
        print(json.dumps(line), flush=True)
        if text:  # before the line, which says that all of it is there
            (folder / PROFILES).mkdir(parents=True, exist_ok=True)
            with beside(folder / PROFILES / f"{case.recipe}-{line['batch']}-{mode}.txt") as partial:
                partial.write_text(text, encoding="utf-8")
        rows.write(FILE, {**line, "seconds": round(time.monotonic() - start_time, 1), **facts}, KEYS, folder)
        clear(device)
    deadline.timer.cancel()
    judge()
    return int(bool(failed))


def clear(device: str) -> None:
    """Free what a line left: compiled losses, graphs, memory."""
    torch._dynamo.reset()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def compile_quickly() -> None:
    """For trials on a CPU: losses are traced ahead of time, but no machine code is generated."""
    compile = torch.compile
    torch.compile = lambda function, mode=None: compile(function, backend="aot_eager")  # type: ignore[assignment]


# Goals ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What the lines of ``cases`` must have: a ``key`` that is ``holds``. ``any_of``: one of them is enough."""

    text: str
    cases: list[tuple[Case, str]]
    key: str
    holds: Callable[[Any], bool]
    any_of: bool = False


ALL = [*itertools.product(MAIN, MODES), (LARGE, "bf16"), (LARGE, "bf16-graphs")]
GOALS = [
    Goal("at least 0.97 of the plain loop in eager mode", [*itertools.product(MAIN, EAGER)], "ratio_eager",
         lambda v: v >= 0.97),
    Goal(f"at least 3 times the plain loop in eager mode, {LAUNCHES} with graphs",
         [(Case(LAUNCHES), "bf16-graphs")], "ratio_eager", lambda v: v >= 3),
    Goal("at least 40 % of the card's peak, sngan-cifar10 at batch 512 in bf16",
         [(LARGE, "bf16"), (LARGE, "bf16-graphs")], "share", lambda v: v >= 0.4, any_of=True),
    Goal("no call in a round that waits for the device", ALL, "waits", lambda v: not v),
    Goal("memory at most 1.05 of the plain loop's", ALL, "memory_ratio", lambda v: v <= 1.05),
]  # fmt: skip


def check(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """For each goal its text, "reached", "not reached" or "not measured", and the figures. Lines of trials do not
    count; a card that the table of peaks does not have, or a measurement that failed, is named in place of a figure."""
    whole = [r for r in lines if r["budget"] == 1 and r["device"] != "cpu"]
    results = []
    for device in dict.fromkeys(r["device"] for r in whole) or [""]:
        by = {(r["recipe"], r["batch"], r["mode"]): r for r in whole if r["device"] == device}
        for goal in GOALS:
            values, others = {}, {}
            for case, mode in goal.cases:
                key = (case.recipe, case.resolved(1).stages[0].batch, mode)
                name, line = f"{case.recipe} {key[1]} {mode}", by.get(key, {})
                if line.get(goal.key) is not None:
                    values[name] = line[goal.key]
                elif line:
                    others[name] = "failed" if "error" in line else "not known"
            good = [goal.holds(v) for v in values.values()]
            all_measured = len(good) == len(goal.cases)
            if goal.any_of:
                state = "reached" if any(good) else "not reached" if all_measured else "not measured"
            else:
                state = "not reached" if not all(good) else "reached" if all_measured else "not measured"
            figures = {k: v for k, v in values.items() if not goal.holds(v)} or values
            detail = "; ".join(f"{k}: {figure(v)}" for k, v in (figures | others).items())
            counted = f"{len(values)} of {len(goal.cases)} lines" + (f" ({device})" if device else "")
            results.append((goal.text, state, f"{counted}: {detail}" if detail else counted))
    return results


def figure(value: Any) -> str:
    """A figure, or the names of calls."""
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


def judgement(lines: Sequence[Line]) -> str:
    """The goals, a line each: reached or not, and the figures."""
    return "\n".join(f"{state.upper()}: {text}; {detail}" for text, state, detail in check(lines))
