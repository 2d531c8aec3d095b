"""benchmarks/device_speed.py: its lines, goals and traces; a trial on the CPU that is killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "speed.py"


@pytest.fixture
def device_speed(benchmark):
    return benchmark("device_speed")


def lines_of(device_speed, **changes) -> list[dict]:
    """A line of every case and mode, on a card that meets all goals."""
    line = {"device": "card", "budget": 1, "ratio_eager": 3.5, "share": 0.5, "waits": [], "memory_ratio": 1.0}
    return [
        {**line, "recipe": case.recipe, "batch": case.resolved(1).stages[0].batch, "mode": mode, **changes}
        for case, mode in device_speed.PLAN
    ]


def states(results) -> set[str]:
    return {state for _, state, _ in results}


def test_goals(device_speed):
    """Met, not met, not measured; trials, CPUs and errors count for nothing."""
    assert states(device_speed.check([])) == {"not measured"}
    assert states(device_speed.check(lines_of(device_speed))) == {"met"}
    for changes in ({"budget": 0.01}, {"device": "cpu"}, {"error": "out of memory"}):
        assert states(device_speed.check(lines_of(device_speed, **changes))) == {"not measured"}
    assert len(device_speed.GOALS) == 5
    for key, value, count in (("ratio_eager", 0.9, 2), ("ratio_eager", 2.0, 1), ("share", 0.3, 1),
                              ("waits", ["aten::item"], 1), ("memory_ratio", 1.1, 1)):  # fmt: skip
        results = device_speed.check(lines_of(device_speed, **{key: value}))
        assert [state for _, state, _ in results].count("not met") == count, key
        assert all(str(value) in detail for _, state, detail in results if state == "not met")
    assert states(device_speed.check(lines_of(device_speed)[:3])) == {"not measured"}


def test_peaks(device_speed):
    """By the card's name; another card has none."""
    assert device_speed.peak("NVIDIA H100 80GB HBM3", "bf16") == 495e12
    assert device_speed.peak("NVIDIA H100 PCIe", "bf16-graphs") == 378e12
    assert device_speed.peak("NVIDIA L4", "fp32") == 15.1e12 != device_speed.peak("NVIDIA L40S", "fp32")
    assert device_speed.peak("another card", "fp32") is None


def test_waits_of_a_trace(device_speed):
    """Calls in the round only, and copies to the host."""

    def event(cat, name, ts=5, dur=1):
        return {"cat": cat, "name": name, "ts": ts, "dur": dur}

    good = [
        event("user_annotation", "one round", 0, 10), event("cpu_op", "aten::add"), event("kernel", "add", 12),
        event("cuda_runtime", "cudaLaunchKernel"), event("cuda_runtime", "cudaDeviceSynchronize", 11),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)"),
    ]  # fmt: skip
    trace = device_speed.read_trace(good, True, "")
    assert (trace.kernels, trace.launches, trace.waits) == (1, 1, [])
    for bad in (event("cuda_runtime", "cudaStreamSynchronize"), event("cpu_op", "aten::_local_scalar_dense"),
                event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 20)):  # fmt: skip
        assert device_speed.read_trace([*good, bad], True, "").waits == [bad["name"]]
    with pytest.raises(ValueError, match="one round"):
        device_speed.read_trace(good[1:], True, "")


def test_a_wait_is_in_the_trace(device_speed):
    class Reads:
        def round(self):
            return int(torch.ones(()).item())

    assert "aten::item" in device_speed.trace(Reads(), device_speed.Meter(torch.device("cpu"))).waits


@pytest.mark.parametrize("case", ["cyclegan-emoji", "sngan-cifar10", "wgan-gp-cifar10", "dcgan-celeba", "gan-mnist"])
def test_both_loops_learn(device_speed, case):
    """Engine and plain loop consume the same images and change every network."""
    recipe = device_speed.Case(case).resolved(0.01)
    data = device_speed.data_of(recipe)
    engine = device_speed.Engine(recipe, data)
    loop = device_speed.PlainTranslator if "F" in recipe.networks else device_speed.Plain
    plain = loop(recipe, engine.networks(), data, True, torch.channels_last)
    before = {n: [p.clone() for p in network.parameters()] for n, network in plain.networks.items()}
    assert engine.round() == plain.round() == engine.run.total_images
    for name, network in plain.networks.items():
        assert any(not torch.equal(p, q) for p, q in zip(before[name], network.parameters(), strict=True)), name


def test_a_trial_is_killed_and_resumed(device_speed, tmp_path):
    """Every file of the real run; what was measured before the kill is not measured again."""
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--budget", "1%", "--out", str(tmp_path),
               "--only", "dcgan-cifar10-small"]  # fmt: skip
    path = tmp_path / f"{device_speed.FILE}.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, "no line was written"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = path.read_text().splitlines()
    assert 1 <= len(first) < 4

    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {r["mode"] for r in lines} == set(device_speed.MODES) and not any("error" in r for r in lines)
    assert all(r["images_per_second"] > 0 and r["plain"] > 0 and r["eager"] > 0 and r["host_ms"] > 0 for r in lines)
    assert len([line for line in output.splitlines() if line.startswith("{")]) == 4 - len(first)
    assert len(list((tmp_path / device_speed.PROFILES).iterdir())) == 4
    assert states(device_speed.check(lines)) == {"not measured"}

    stopped = subprocess.run([*command[:-1], "cyclegan-emoji", "--minutes", "0.01"], capture_output=True, text=True)
    assert stopped.returncode == 0 and "the same command continues" in stopped.stdout
