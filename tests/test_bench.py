"""The benchmarks' checks can fail, and ``zoo bench`` finds them."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_recipes import small, stand_in

import zoo
from zoo import hub
from zoo import recipe as recipes
from zoo.data import facts as facts_of
from zoo.engine import plan, train
from zoo.engine.run import Runtime

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


# What models say of images --------------------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch, tmp_path):
    """Lines of short runs on stand-in images, by recipe, and the table's module that reads them."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import meaning
    import table

    monkeypatch.setattr(meaning.rows, "RESULTS", tmp_path / "results")
    evaluate = zoo.evaluate

    def line(name: str) -> dict:
        recipe = small(name)
        source = stand_in(recipe)
        monkeypatch.setattr(zoo, "evaluate", lambda run, chosen: evaluate(run, chosen, dataset=source, n=20))
        monkeypatch.setattr(meaning, "open_data", lambda dataset, split: source)
        short = recipe.rescaled(8 * len(recipe.stages))
        train.train(short, tmp_path / name, runtime=Runtime(device="cpu"), dataset=source)
        row = meaning.line(tmp_path / name, "a1b2c3")
        meaning.rows.write("meaning", row, ("recipe",))
        return row

    return line, table


def test_a_model_is_scored_by_what_it_can(said):
    line, table = said
    assert table.meaning() == "No results yet."
    for name, scores in [
        ("triplegan-mnist-supervised", {"error"}),
        ("triplegan-mnist-small", {"error", "recognised-mnist"}),
        ("infogan-mnist-small", {"information", "code-accuracy"}),
        ("acgan-mnist-small", {"recognised-mnist"}),
    ]:
        row = line(name)
        assert row["scores"].keys() == scores and row["commit"] == "a1b2c3" and row["recipe"] == name
        assert (row["ruler"] is not None) == ("recognised-mnist" in scores)
    text = table.meaning()
    for title, *names in [
        ("Classifiers", "triplegan-mnist-small", "triplegan-mnist-supervised"),
        ("Codes", "infogan-mnist-small"),
        ("Classes that were asked for", "acgan-mnist-small", "triplegan-mnist-small"),
    ]:
        part = text.split(f"**{title}**")[1].split("**")[0]
        assert [line.split("](")[0][3:] for line in part.splitlines() if line.startswith("| [")] == names
    with pytest.raises(ValueError, match="nothing to score"):
        line("dcgan-fashion-mnist")


def test_what_a_semi_supervised_error_stands_beside(said, monkeypatch):
    """The same classifier on the same labels alone, and the paper's figure on that data set."""
    _, table = said
    base = {"classifier": {"name": "c", "kwargs": {"width": 16}}, "labels": 100, "seed": 0, "dataset": "mnist"}
    base |= {"model": "triplegan", "errors": {}}
    semi = {**base, "verb": "sample", "scores": {"error": 0.02}}
    twin = {**base, "verb": "classify", "scores": {"error": 0.08}}
    cells = table.errors(semi, [semi, twin])
    assert (
        list(cells.values())[1:5] == ["2.00%", "8.00%", "75%", "0.91 ± 0.58"] and "100 labels" in cells["its protocol"]
    )
    for other in (
        {"classifier": {"name": "c", "kwargs": {"width": 32}}},
        {"labels": 50},
        {"seed": 1},
        {"dataset": "cifar10"},
        {"verb": "sample"},
    ):
        assert table.alone(semi, [{**twin, **other}]) is None
    assert table.alone(twin, [semi, twin]) is None
    assert table.errors({**semi, "dataset": "cifar10"}, [])["the paper's test error, %"] == ""


@pytest.mark.parametrize("model", ["improved-gan", "triplegan"])
def test_the_runs_to_be_compared_have_the_same_classifier(model):
    """At full size, as their model specs say."""
    found = []
    for variant in ("small", "supervised"):
        recipe = recipes.find(f"{model}-mnist-{variant}")
        facts = facts_of("mnist")
        recipe = plan.resolve(recipe, facts)
        with torch.device("meta"):
            game = plan.build_game(recipe.stages[-1], plan.build_networks(recipe), facts)
        spec = plan.shipped(game, recipe, recipe.stages[-1], facts)
        found.append(spec["networks"][spec["classifier"]])
    assert found[0] == found[1]


def test_the_reduced_command_of_a_page(monkeypatch):
    """The small variant, whatever stands behind it in the recipe file."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import pages

    made = pages.page("triplegan", {n: e for n, e in recipes.RECIPES.items() if e["model"] == "triplegan"}, [])
    assert "--variant small\n```" in made and "--variant supervised" not in made


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
