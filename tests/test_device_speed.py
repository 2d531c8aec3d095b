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
    """Reached, not reached, not measured; trials, CPUs and errors count for nothing."""
    assert states(device_speed.check([])) == {"not measured"}
    assert states(device_speed.check(lines_of(device_speed))) == {"reached"}
    for changes in ({"budget": 0.01}, {"device": "cpu"}):
        assert states(device_speed.check(lines_of(device_speed, **changes))) == {"not measured"}
    failed = [{k: r[k] for k in ("device", "budget", "recipe", "batch", "mode")} | {"error": "out of memory"}
              for r in lines_of(device_speed)]  # fmt: skip
    results = device_speed.check(failed)
    assert states(results) == {"not measured"} and all("failed" in detail for _, _, detail in results)
    assert len(device_speed.GOALS) == 5
    for key, value, count in (("ratio_eager", 0.9, 2), ("ratio_eager", 2.0, 1), ("share", 0.3, 1),
                              ("waits", ["aten::item"], 1), ("memory_ratio", 1.1, 1)):  # fmt: skip
        results = device_speed.check(lines_of(device_speed, **{key: value}))
        assert [state for _, state, _ in results].count("not reached") == count, key
        assert all(device_speed.figure(value) in detail for _, state, detail in results if state == "not reached")
    assert states(device_speed.check(lines_of(device_speed)[:3])) == {"not measured"}
    text = device_speed.judgement(lines_of(device_speed, share=None))
    assert [line.partition(":")[0] for line in text.splitlines()] == ["REACHED"] * 2 + ["NOT MEASURED"] + [
        "REACHED"
    ] * 2
    assert "sngan-cifar10 512 bf16: not known" in text and "dcgan-cifar10-small 64 bf16-graphs: 3.5" in text


def test_peaks(device_speed):
    """By the card's whole name, as torch has it; another card has none, nor has a part of one."""
    for name, mode, teraflops in (
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4), ("NVIDIA H200", "tf32", 494.7),
        ("NVIDIA H100 PCIe", "bf16-graphs", 756), ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200 NVL", "fp32", 60), ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100-PCIE-40GB", "bf16", 312), ("NVIDIA A100 80GB PCIe", "fp32", 19.5), ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362), ("NVIDIA GeForce RTX 3090", "bf16", 71.2),
    ):  # fmt: skip
        assert device_speed.peak(name, mode) == pytest.approx(teraflops / 2 * 1e12, rel=1e-3), name
    for name in (
        "another card", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GH200 480GB", "NVIDIA A10G", "NVIDIA L40",
        "NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
    ):  # fmt: skip
        assert device_speed.peak(name, "bf16") is None, name


def test_table_of_a_card(device_speed, benchmark, monkeypatch):
    """A card without a known peak, a measurement that failed, one that is missing."""
    render = benchmark("render")
    first, second, *_ = lines_of(device_speed, device="another card", share=None)
    numbers = dict.fromkeys(
        ("images_per_second", "eager", "plain", "ratio", "kernels", "launches", "host_ms", "mib"), 1
    )
    facts = {"machine": "another machine", "commit": "0123456789"}
    monkeypatch.setattr(render.rows, "read", lambda name: [first | numbers | facts, second | {"error": "x"} | facts])
    body = [
        line.split(" | ") for line in render.device_table().splitlines() if line.startswith("| dcgan-cifar10-small")
    ]
    assert body[0][8] == "not known" and set(body[1][3:-1]) == {"failed"} and set(body[2][3:-1]) == {"not measured"}


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
    """Killed twice: every file of the real run, what was measured before a kill is not measured again, and each line is
    there once."""
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--budget", "1%", "--out", str(tmp_path),
               "--only", "dcgan-cifar10-small"]  # fmt: skip
    path = tmp_path / f"{device_speed.FILE}.jsonl"
    first: list[str] = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not path.exists() or len(path.read_text().splitlines()) == len(first):
            assert time.monotonic() < end, "no line was written"
            time.sleep(0.02)
        os.kill(process.pid, number)
        assert process.wait() == -number
        lines = path.read_text().splitlines()
        assert set(first) < set(lines) and len(lines) < 4
        first = lines

    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(first) < set(path.read_text().splitlines())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(r["mode"] for r in lines) == sorted(device_speed.MODES) and not any("error" in r for r in lines)
    assert all(r["images_per_second"] > 0 and r["plain"] > 0 and r["eager"] > 0 and r["host_ms"] > 0 for r in lines)
    assert len([line for line in output.splitlines() if line.startswith("{")]) == 4 - len(first)
    assert len(list((tmp_path / device_speed.PROFILES).iterdir())) == 4
    assert {p.name for p in tmp_path.iterdir()} == {path.name, device_speed.PROFILES}  # nothing of the killed ones
    assert states(device_speed.check(lines)) == {"not measured"}

    stopped = subprocess.run([*command[:-1], "cyclegan-emoji", "--minutes", "0.01"], capture_output=True, text=True)
    assert stopped.returncode == 0 and "the same command continues" in stopped.stdout
    for text in (output, stopped.stdout):  # the goals at the end, also at the deadline
        assert text.count("NOT MEASURED: ") == len(device_speed.GOALS)
