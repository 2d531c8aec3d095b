"""benchmarks/train_all.py: lists, data without a network, deadlines, kills, and the packed results."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo import settings
from zoo.data import facts as facts_of
from zoo.data.facts import Rows
from zoo.data.store import write
from zoo.engine import checkpoint
from zoo.recipe import encode

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
        (folder / "recipe.json").write_text(json.dumps({"recipe": encode(settings.find("gan-mnist").rescaled(100))}))
        images = 100 if arguments[0] == "resume" else 50
        checkpoint.save(folder / "checkpoint.safetensors", {"w": torch.zeros(1)}, {"total_images": images})
        return 0

    monkeypatch.setattr(train_all.Campaign, "call", call)
    monkeypatch.setattr(train_all, "directions", lambda job: ["a", "b"] if job.recipe == "gan-mnist" else [""])
    common = ["gan-mnist*", "--out", tmp_path, "--images", 100, "--processes", 2]
    assert train_all.select(["gan-mnist*"]) == ["gan-mnist", "gan-mnist-small"]
    for verbs in (["train"] * 2, ["eval"] * 3 + ["resume"] * 2, []):
        calls.clear()
        assert train_all.run(*common) == 0
        assert sorted(c[0] for c in calls) == verbs
        assert sorted(c[-1] for c in calls if "--to" in c) == ["a", "b"] * ("eval" in verbs)
    assert [*json.loads((tmp_path / "gan-mnist-seed0.json").read_text())] == ["a", "b"]
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


def write_store(home: Path, name: str, size: int, split: str, count: int) -> Path:
    """A prepared file of noise."""
    facts, noise = facts_of(name), np.random.default_rng(0)

    def rows():
        for i in range(count):
            row = {"x": noise.integers(0, 256, (size, size, facts.channels), dtype=np.uint8)}
            others = {"y": i % 10, "attributes": [i % 2] * 40}
            yield row | {key: others[key] for key in facts.keys if key in others}

    path = home / f"{name}-{size}" / f"{split}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, facts, Rows(rows(), count), resolution=size, source="noise")
    return path


def cut(path: Path, size: int) -> None:
    """A file in numbered parts."""
    content = path.read_bytes()
    for i in range(0, len(content), size):
        path.with_name(f"{path.name}.{i // size:03d}").write_bytes(content[i : i + size])
    path.unlink()


def test_links_of_data(train_all, tmp_path):
    """Whole files and numbered parts, below data or not; another folder of data later; a missing part."""
    data, home = tmp_path / "data", tmp_path / "home"
    for name, content in {"a-8/train.safetensors": b"whole", "b-8/test.safetensors.000": b"in ",
                          "b-8/test.safetensors.001": b"parts", "data/c-8/train.safetensors": b"below",
                          "pretrained/net.safetensors.000": b"weights"}.items():  # fmt: skip
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    for _ in range(2):
        train_all.link_data(data, home)
    contents = {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    assert contents == {
        "data/a-8/train.safetensors": b"whole", "data/b-8/test.safetensors": b"in parts",
        "data/c-8/train.safetensors": b"below", "pretrained/net.safetensors": b"weights",
    }  # fmt: skip
    data.rename(moved := tmp_path / "moved")
    train_all.link_data(moved, home)
    assert (home / "data/a-8/train.safetensors").read_bytes() == b"whole"
    (moved / "b-8/test.safetensors.000").rename(moved / "b-8/test.safetensors.002")
    (home / "data/b-8/test.safetensors").unlink()
    (moved / "b-8/test.safetensors.000").touch()
    with pytest.raises(ValueError, match="without a gap"):
        (moved / "b-8/test.safetensors.001").unlink()
        train_all.link_data(moved, home)


def test_missing_data(train_all, tmp_path, capsys):
    """Of training and of scores: at the recipe's size or the set's, at native size, damaged, or a folder of images."""
    home, out = tmp_path / "home", tmp_path / "out"
    job = train_all.Job("dcgan-celeba", 0, 1, tmp_path)
    assert train_all.run("dcgan-celeba", "--out", out, "--data", tmp_path) == 0
    assert "left out" in (text := capsys.readouterr().out) and "celeba-64/train.safetensors" in text
    for size in (64, 148):
        path = write_store(home / "data", "celeba", size, "train", 2)
        assert not train_all.missing_data(job, home)
        path.write_bytes(path.read_bytes()[:-100])
        assert "celeba-64/train.safetensors" in train_all.missing_data(job, home)[0]
        shutil.rmtree(path.parent)
    assert train_all.missing_data(job, home, scores=True) == [
        "celeba-64/train.safetensors", "celeba-64/test.safetensors",
    ]  # fmt: skip
    assert train_all.score_stores(settings.find("sngan-fashion-mnist")) == [
        (("fashion-mnist-28",), "train"), (("fashion-mnist-28",), "test"),
    ]  # fmt: skip
    recipe = settings.find("srgan-sunhays80-small")
    assert train_all.score_stores(recipe) == [(("set14-native",), "test")]
    assert train_all.training_stores(recipe) == [(("sunhays80-native",), "train")]
    assert not train_all.missing_data(train_all.Job("lsgan-ring", 0, 1, tmp_path), home, scores=True)
    (tmp_path / "list.txt").write_text("dcgan-celeba dataset=folder:faces?fit=pad")
    (job,) = [train_all.with_path(j, tmp_path) for j in train_all.read_list(tmp_path / "list.txt", out)]
    assert job.label == "dcgan-celeba-on-faces-seed0" and train_all.missing_data(job, home) == [f"{tmp_path}/faces"]
    (tmp_path / "faces").mkdir()
    assert not train_all.missing_data(job, home)
    for command in (job.command(1.0, "cpu"), job.scoring("cpu")):
        assert command[command.index("--dataset") + 1] == f"folder:{tmp_path}/faces?fit=pad"


def test_trained_and_scored_without_a_network(train_all, tmp_path):
    """From parts, with the test images that the scores need; without these the run is finished and says so."""
    for split in ("train", "test"):
        cut(write_store(tmp_path / "data", "mnist", 28, split, 300), 100_000)
    test = tmp_path / "data" / "mnist-28" / "test.safetensors.000"
    test.rename(hidden := tmp_path / "hidden")
    rest = [p.rename(tmp_path / p.name) for p in test.parent.glob("test.*")]
    command = ["gan-mnist-small", "--out", tmp_path / "out", "--device", "cpu", "--images", "64", "--data",
               tmp_path / "data"]  # fmt: skip
    (job,) = train_all.list_jobs(["gan-mnist-small"], tmp_path / "out", (), 64, 1)
    assert train_all.run(*command) == 0
    assert job.finished() and "mnist-28/test.safetensors" in job.no_scores()
    hidden.rename(test)
    for path in rest:
        path.rename(test.parent / path.name)
    log = (job.run / "log.jsonl").read_text()
    assert train_all.run(*command) == 0
    assert not job.no_scores() and "fd-mnist" in job.scores.read_text()
    assert (job.run / "log.jsonl").read_text() == log  # it was not trained again
    with pytest.raises(ValueError, match="its budget is 64 images, not 128"):
        train_all.list_jobs(["gan-mnist-small"], tmp_path / "out", (), 128, 1)[0].check_budget()


def test_downloads_fail_at_once(train_all, monkeypatch):
    for name, value in train_all.OFFLINE.items():
        monkeypatch.setenv(name, value)
    start_time = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        # A new opener: the one of urlopen() has the proxies of when it was first used in this process.
        urllib.request.build_opener().open("http://example.com/file", timeout=60)
    assert time.monotonic() - start_time < 5


def test_parts(train_all, tmp_path, capsys):
    """At most so many files of so many MB, checkpoints last; parts that are not complete are refused; an unpacking that
    was interrupted is repeated."""
    out = tmp_path / "out"
    jobs = [train_all.Job("gan-mnist-small", seed, 100, out) for seed in (0, 1)]
    for job in jobs:
        (job.run / "samples").mkdir(parents=True)
        for name, size in {"recipe.json": 10, "weights.safetensors": 90_000, "samples/0.png": 7}.items():
            (job.run / name).write_bytes(os.urandom(size))
        tensors = {"w": torch.rand(40_000)}
        checkpoint.save(job.run / "checkpoint.safetensors", tensors, {"total_images": 50})

    def names(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.glob("*/**/*") if p.is_file()}

    everything = names(out)
    train_all.pack(jobs, out, 0.1)
    assert len(parts := sorted(out.glob("results.tar.*"))) == 6
    train_all.pack(jobs, out, 0.1, max_files=4)
    parts = sorted(out.glob("results.tar.*"))
    assert len(parts) <= 4 and all(p.stat().st_size <= 100_000 for p in parts)
    assert "gan-mnist-small-seed1/checkpoint.safetensors: 0.2 MB do not fit" in capsys.readouterr().out
    other = tmp_path / "other"
    other.mkdir()
    for path in parts:
        shutil.copy(path, other)
    (other / "results.tar.whole").write_bytes(b"of an unpacking that was killed")
    (other / jobs[0].label).mkdir()
    (other / jobs[0].label / "recipe.json").write_bytes(b"")
    train_all.unpack(other)
    assert names(other) == everything - {f"{jobs[1].label}/checkpoint.safetensors"}
    assert (other / jobs[0].label / "recipe.json").stat().st_size == 10 and not (other / "results.tar.whole").exists()
    for index, message in ((-1, "last of the"), (0, "without a gap")):
        torn = tmp_path / message
        torn.mkdir()
        for path in parts:
            if path != parts[index]:
                shutil.copy(path, torn)
        with pytest.raises(ValueError, match=message):
            train_all.unpack(torn)
        assert not list(torn.glob("*/recipe.json"))


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
    jobs = train_all.list_jobs(["lsgan-ring"], out, (0, 1), None, 0.03)

    def starts(job) -> int:
        path = out / f"{job.label}.txt"
        return path.read_text().count("training on") if path.exists() else 0

    # Stopped by SIGTERM, once the runs train: the parts have their checkpoints too
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: all(starts(job) == 1 for job in jobs))
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 130 and not processes_in(out)
    with tarfile.open(fileobj=io.BytesIO(b"".join(p.read_bytes() for p in sorted(out.glob("results.tar.*"))))) as tar:
        assert len([name for name in tar.getnames() if name.endswith("checkpoint.safetensors")]) == 2
    stopped = [job.progress() for job in jobs]
    assert all(stopped)

    # Killed, once the runs go on
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: all(starts(job) == 2 for job in jobs))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(out))
    assert not any(job.finished() for job in jobs)

    # Stopped by the deadline; no image is lost
    subprocess.run([*command, "--minutes", "0.1"], check=True)
    assert all(job.progress() >= images for job, images in zip(jobs, stopped, strict=True))
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
