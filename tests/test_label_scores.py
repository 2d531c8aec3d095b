"""The benchmark of classifiers, codes and class agreement."""

from pathlib import Path

import pytest
import torch
from helpers.recipes import small, stand_in

import zoo
from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine import train
from zoo.engine.runtime import Runtime
from zoo.engine.stage import build_game, build_networks, resolve, shipped

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def measure_run(monkeypatch, tmp_path):
    """A function from a recipe's name to the line of a short run on stand-in images, and the module that renders
    lines."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import measure
    import render

    monkeypatch.setattr(measure.rows, "RESULTS", tmp_path / "results")
    evaluate = zoo.evaluate

    def line(name: str) -> dict:
        recipe = small(name)
        source = stand_in(recipe)

        def few(run, metrics):
            return evaluate(run, metrics, dataset=source, n=20 if "class-accuracy" in metrics else None)

        monkeypatch.setattr(zoo, "evaluate", few)
        monkeypatch.setattr(measure, "open_data", lambda dataset, split: source)
        short = recipe.rescaled(8 * len(recipe.stages))
        train.train(short, tmp_path / name, runtime=Runtime(device="cpu"), dataset=source)
        row = measure.classifier_line(tmp_path / name, "a1b2c3")
        measure.rows.write("classifiers", row, ("recipe",))
        return row

    return line, render


def test_scores_depend_on_the_model(measure_run):
    line, render = measure_run
    assert render.classifiers() == "No results yet."
    for name, scores in [
        ("triplegan-mnist-supervised", {"error"}),
        ("triplegan-mnist-small", {"error", "class-accuracy-mnist"}),
        ("infogan-mnist-small", {"information", "code-accuracy"}),
        ("acgan-mnist-small", {"class-accuracy-mnist"}),
    ]:
        row = line(name)
        assert row["scores"].keys() == scores and row["commit"] == "a1b2c3" and row["recipe"] == name
        assert (row["features"] is not None) == ("class-accuracy-mnist" in scores)
    text = render.classifiers()
    for title, *names in [
        ("Classifiers", "triplegan-mnist-small", "triplegan-mnist-supervised"),
        ("Codes", "infogan-mnist-small"),
        ("Class agreement", "acgan-mnist-small", "triplegan-mnist-small"),
    ]:
        part = text.split(f"**{title}**")[1].split("**")[0]
        assert [line.split("](")[0][3:] for line in part.splitlines() if line.startswith("| [")] == names
    with pytest.raises(ValueError, match="nothing to score"):
        line("dcgan-fashion-mnist")


def test_table_of_semi_supervised_errors(measure_run):
    """Beside the same classifier on the same labels alone, and the paper's figure on that data set."""
    _, render = measure_run
    base = {"classifier": {"name": "c", "kwargs": {"width": 16}}, "labels": 100, "seed": 0, "dataset": "mnist"}
    base |= {"model": "triplegan", "errors": {}}
    semi = {**base, "verb": "sample", "scores": {"error": 0.02}}
    twin = {**base, "verb": "classify", "scores": {"error": 0.08}}
    cells = render.errors(semi, [semi, twin])
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
        assert render.alone(semi, [{**twin, **other}]) is None
    assert render.alone(twin, [semi, twin]) is None
    assert render.errors({**semi, "dataset": "cifar10"}, [])["the paper's test error, %"] == ""


@pytest.mark.parametrize("model", ["improved-gan", "triplegan"])
def test_both_runs_of_a_comparison_have_the_same_classifier(model):
    """At full size, as their model specs say."""
    classifiers = []
    for variant in ("small", "supervised"):
        recipe = settings.find(f"{model}-mnist-{variant}")
        facts = facts_of("mnist")
        recipe = resolve(recipe, facts)
        with torch.device("meta"):
            game = build_game(recipe.stages[-1], build_networks(recipe), facts)
        spec = shipped(game, recipe, recipe.stages[-1], facts)
        classifiers.append(spec["networks"][spec["classifier"]])
    assert classifiers[0] == classifiers[1]


def test_the_reduced_command_of_a_page(monkeypatch):
    """The small variant, even if it is not the last in the recipe file."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import render

    page = render.page("triplegan", {n: e for n, e in settings.RECIPES.items() if e["model"] == "triplegan"}, [])
    assert "--variant small\n```" in page and "--variant supervised" not in page
