"""benchmarks/train_all.py: lists, data without a network, deadlines, kills, and the packed results."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zoo import settings
from zoo.engine import checkpoint

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "train_all.py"
LISTS = sorted((ROOT / "benchmarks" / "campaigns").glob("*.txt"))


@pytest.fixture
def train_all(benchmark):
    train_all = benchmark("train_all")
    train_all.run = lambda *arguments: train_all.rows.run(train_all.command, [str(a) for a in arguments])
    return train_all


def test_started_resumed_and_left_out(train_all, monkeypatch, tmp_path, capsys):
    """An unknown recipe is one line."""
    calls = []

    def call(campaign, arguments, output):
        """In place of a process: it trains half of the budget, then the rest."""
        calls.append(arguments)
        if arguments[0] == "eval":
            output.write_text('{\n "scores": {}\n}')
            return 0
        folder = Path(arguments[1] if arguments[0] == "resume" else arguments[arguments.index("--out") + 1])
        folder.mkdir(exist_ok=True)
        (folder / "recipe.json").write_text("{}")
        images = 100 if arguments[0] == "resume" else 50
        checkpoint.save(folder / "checkpoint.safetensors", {"w": torch.zeros(1)}, {"total_images": images})
        return 0

    monkeypatch.setattr(train_all.Campaign, "call", call)
    common = ["gan-mnist*", "--out", tmp_path, "--images", 100, "--processes", 2]
    assert train_all.select(["gan-mnist*"]) == ["gan-mnist", "gan-mnist-small"]
    for verbs in (["train"], ["resume", "eval"], []):
        calls.clear()
        assert train_all.run(*common) == 0
        assert sorted(c[0] for c in calls) == sorted(2 * verbs)
    assert "2 of 2 runs are finished" in capsys.readouterr().out
    assert train_all.run(*common, "--seed", 1, "--status") == 0
    assert "gan-mnist-seed1: 0 of 100 images" in capsys.readouterr().out
    assert train_all.run("nothing-*", "--out", tmp_path) == 2
    assert "no recipe matches 'nothing-*'" in capsys.readouterr().err


def test_a_failed_run_is_reported(train_all, tmp_path):
    """A real process, whose folder is not empty."""
    job = train_all.Job("gan-mnist-small", 0, 100, tmp_path)
    job.run.mkdir()
    (job.run / "something").write_text("a file")
    assert train_all.run("gan-mnist-small", "--out", tmp_path, "--images", 100) == 1
    assert "exists already" in (tmp_path / "gan-mnist-small-seed0.txt").read_text()


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_committed_lists(train_all, path, tmp_path):
    """Each line is a run of its own. Those of Fashion-MNIST have the recipe's budget, or ten times as much."""
    jobs = train_all.read_list(path, tmp_path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(jobs) == len(lines) > 0
    factor = 10 if path.stem.endswith("x10") else 1
    assert all(job.images == factor * settings.find(job.recipe).images for job in jobs)
    assert all(("-x10-" in job.label) == (factor == 10) for job in jobs)


@pytest.mark.parametrize(
    ("line", "message"),
    [("nothing-*", "no recipe"), ("gan-mnist seed", "KEY=VALUE"), ("gan-mnist images=x", "images=xN"),
     ("gan-mnist precision=fp8", "fp32|tf32|bf16")],
)  # fmt: skip
def test_mistakes_in_a_list(train_all, tmp_path, line, message, capsys):
    path = tmp_path / "list.txt"
    path.write_text(f"# first\n{line}\n")
    assert train_all.run(path, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and "line 2" in error


def test_data_without_a_network(train_all, tmp_path, capsys):
    """Whole files and numbered parts; what is missing is named, and its runs are left out."""
    data, home = tmp_path / "data", tmp_path / "home"
    for name, content in {"a-8/train.safetensors": b"whole", "b-8/test.safetensors.000": b"in ",
                          "b-8/test.safetensors.001": b"parts"}.items():  # fmt: skip
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    for _ in range(2):
        train_all.link_data(data, home)
    assert (home / "data/a-8/train.safetensors").read_bytes() == b"whole"
    assert (home / "data/b-8/test.safetensors").read_bytes() == b"in parts"
    assert train_all.run("dcgan-celeba", "--out", tmp_path / "out", "--data", data) == 0
    assert "left out" in (out := capsys.readouterr().out) and "celeba-64/train.safetensors" in out
    job = train_all.Job("dcgan-celeba", 0, 1, tmp_path)
    for size in (64, 178):
        (home / f"data/celeba-{size}").mkdir()
        (home / f"data/celeba-{size}/train.safetensors").touch()
        assert not train_all.missing_data(job, home)
        shutil.rmtree(home / f"data/celeba-{size}")
    assert train_all.missing_data(job, home)
    assert not train_all.missing_data(train_all.Job("lsgan-ring", 0, 1, tmp_path), home)


def processes_in(folder: Path) -> list[str]:
    """The commands of running processes that name the folder."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in text:
            commands.append(text)
    return commands


def wait_until(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with their parent on Linux only")
def test_killed_resumed_packed_and_unpacked(train_all, tmp_path):
    """A real kill ends the runs too; the same command finishes them, and the parts alone are enough to go on."""
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "lsgan-ring", "--seed", "0", "--seed", "1", "--out", str(out), "--device",
               "cpu", "--processes", "2", "--budget", "3%", "--max-file-mb", "0.1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(out.glob("*/checkpoint.safetensors"))) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(out))
    jobs = train_all.list_jobs(["lsgan-ring"], out, (0, 1), None, 0.03)
    assert not any(job.finished() for job in jobs)

    # Stopped by the deadline: every run has a checkpoint, and the parts have it too
    subprocess.run([*command, "--minutes", "0.1"], check=True)
    parts = sorted(out.glob("results.tar.*"))
    assert len(parts) > 1 and all(p.stat().st_size <= 100_000 for p in parts)
    other = tmp_path / "other"
    other.mkdir()
    for part in parts:
        shutil.copy(part, other)
    command[command.index(str(out))] = str(other)
    subprocess.run([*command, "--minutes", "5"], check=True)
    jobs = train_all.list_jobs(["lsgan-ring"], other, (0, 1), None, 0.03)
    assert all(job.finished() and job.scores.exists() for job in jobs)
    assert all((job.run / "weights.safetensors").exists() and list((job.run / "samples").iterdir()) for job in jobs)

    # The parts of finished runs are enough to know that they are finished
    third = tmp_path / "third"
    third.mkdir()
    for part in other.glob("results.tar.*"):
        shutil.copy(part, third)
    command[command.index(str(other))] = str(third)
    status = subprocess.run([*command, "--status"], check=True, capture_output=True, text=True).stdout
    assert status.count(": finished") == 2
