"""The benchmarks' checks can fail, and ``zoo bench`` finds them."""

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from zoo import hub

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def quality(monkeypatch):
    """The benchmark, with few samples."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delitem(sys.modules, "quality", raising=False)
    import quality

    monkeypatch.setattr(quality, "COUNT", 300)
    monkeypatch.setattr(quality, "GENERATED", ("fd", "precision", "recall"))
    return quality


def test_the_commit_outside_a_checkout(quality, tmp_path, monkeypatch):
    """A source archive has no commit: benchmarks and their tests run there all the same, and say so."""
    monkeypatch.setattr(quality.rows, "ROOT", tmp_path)
    assert quality.rows.commit() == "unknown"


def test_changed_weights_turn_the_check_red(quality, tmp_path, monkeypatch):
    """The same file holds; one with a little noise in its weights does not, by its content and by its score."""
    name = "dcgan-fashion-mnist"
    (row,) = quality.lines_of(name)
    (again,) = quality.lines_of(name, anew=False)
    assert quality.moved(row, again) == []
    changed = tmp_path / f"{name}.safetensors"
    shutil.copyfile(hub.find(name), changed)
    held = load_file(changed)
    held = {k: v + 0.2 * v.float().std().to(v.dtype) if v.dim() == 4 else v for k, v in held.items()}
    from safetensors import safe_open

    with safe_open(changed, "pt") as opened:
        header = opened.metadata()
    save_file(held, changed, metadata=header)
    (now,) = quality.lines_of(str(changed), anew=False)
    said = quality.moved(row, now)
    assert "another file" in said[0]
    assert any("fd-fashion-mnist is" in line for line in said[1:])
    monkeypatch.setattr(quality, "lines_of", lambda name, anew: [{**now, "what": name}])
    monkeypatch.setattr(quality.rows, "read", lambda name: [row])
    monkeypatch.setattr(quality, "unworthy", lambda row, lines: [])
    assert quality.check([name]) == said


def test_what_may_not_be_shipped(quality):
    """Worse than a mixture of Gaussians, too few modes, or copies: a line for each."""
    mixture = {"what": "mixture of 100 local Gaussians", "to": "", "dataset": "d", "scores": {"fd-d": 2.0}}
    good = {"what": "m", "to": "", "dataset": "d"}
    good["scores"] = {"fd-d": 1.0, "recall-d": 0.4, "near-copies": 0.0}
    assert quality.unworthy(good, [mixture]) == []
    for changed, said in [
        ({"fd-d": 2.5}, "mixture"),
        ({"recall-d": 0.2}, "recall"),
        ({"near-copies": 0.02}, "near-copies"),
    ]:
        row = {**good, "scores": good["scores"] | changed}
        assert any(said in line for line in quality.unworthy(row, [mixture])), said
    beside = [{"what": w, "to": "x", "dataset": "d", "scores": {"psnr": 10.0}} for w in ("identity", "mean colour")]
    translator = {"what": "t", "to": "x", "dataset": "d", "scores": {"fd-d": 1.0, "psnr": 9.0}}
    assert len(quality.unworthy(translator, beside)) == 2


def test_bench_needs_a_checkout(tmp_path, monkeypatch, capsys):
    import zoo.cli.bench
    from zoo.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo.cli.bench, "__file__", str(tmp_path / "a" / "b" / "bench.py"))
    with pytest.raises(SystemExit) as stop:
        main(["bench", "quality"])
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and str(tmp_path) in said and "checkout" in said


def test_bench_runs_the_checkouts_own(monkeypatch):
    """Its status is the benchmark's, and what it does not know goes there."""
    import zoo.cli.bench
    from zoo.cli import main

    monkeypatch.chdir(ROOT / "docs")
    called = []

    class Done:
        returncode = 1

    monkeypatch.setattr(zoo.cli.bench.subprocess, "run", lambda command: called.append(command) or Done)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "modes", "--check", "--loss", "hinge"])
    assert stop.value.code == 1
    assert called == [[sys.executable, str(ROOT / "benchmarks" / "modes.py"), "--check", "--loss", "hinge"]]


def test_the_page_shows_the_help_that_the_command_shows(monkeypatch, shell):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import pages

    made = pages.command_page()
    monkeypatch.setenv("COLUMNS", "112")  # two of margin
    for verb in ("train", "resume"):
        assert "\n".join(line.rstrip() for line in shell(verb, "-h").out.strip().splitlines()) in made
