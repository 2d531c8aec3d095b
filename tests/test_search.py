"""benchmarks/search.py: the committed searches, mistakes in them, and a search from its file to its lines."""

import itertools
import json
from pathlib import Path

import pytest

import zoo
from zoo import settings
from zoo.engine.train import train
from zoo.overrides import at_start, override_all

ROOT = Path(__file__).parent.parent
SEARCHES = sorted((ROOT / "benchmarks/searches").glob("*.txt"))


@pytest.fixture
def search(benchmark):
    return benchmark("search")


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_committed_searches(search, path, tmp_path):
    """At least four settings, no two alike, the recipe's among them, each for a quarter of the recipe's cost."""
    trials, recipe = search.read_search(path, tmp_path), settings.find(path.stem)
    assert len({trial.changed for trial in trials}) == len({trial.label for trial in trials}) == len(trials) >= 4
    assert sum(at_start(trial.changed) == at_start(recipe) for trial in trials) == 1
    for trial in trials:
        cost = search.multiply_adds(trial.changed.rescaled(trial.images))
        assert cost == pytest.approx(search.multiply_adds(recipe) / 4, rel=0.01)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gan-mnist-small", "optimizers.G.learning=1", "line 1: --set optimizers.G.learning=1"),
        ("gan-mnist-small", "batch=50\n# two\nbatch=20 optimizers.G.clip=0.1", "line 3: must have the fields"),
        ("gan-mnist-small", "batch", "line 1: --set batch: must be KEY=VALUE, as in --set"),
        ("gan-mnist-small", "# nothing", "has no settings"),
        ("gan-minst", "batch=50", "gan-minst"),
    ],
)
def test_mistakes_in_a_search(search, tmp_path, capsys, name, text, message):
    path = tmp_path / f"{name}.txt"
    path.write_text(text)
    assert search.rows.run(search.command, [str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_from_the_file_to_the_lines(search, tmp_path, monkeypatch):
    """Two settings are trained with the values of their lines and scored on the training split; a second call finds
    both finished."""
    calls = []

    def call(campaign, arguments, output):
        """In place of a process: training on the embedded images; scores that depend on nothing."""
        calls.append(arguments[0])
        if arguments[0] == "eval":
            assert arguments[arguments.index("--split") + 1] == "train"
            output.write_text(json.dumps({"scores": {"fd-fashion-mnist": 1.23456789}, "protocol": {}}, indent=1))
            return 0
        pairs = itertools.pairwise(arguments)
        fields = [value for key, value in pairs if key == "--set"]
        recipe = override_all(settings.find(arguments[1]), fields).replace(dataset="fashion-mnist-10k")
        out, images = (arguments[arguments.index(option) + 1] for option in ("--out", "--images"))
        train(recipe, out, images=int(images))
        return 0

    path = tmp_path / "gan-fashion-mnist.txt"
    path.write_text(
        "optimizers.G.clip=0.1 optimizers.D.clip=0.1\noptimizers.G.clip=0.2 optimizers.D.clip=0.1  # faster\n"
    )
    monkeypatch.setattr(search, "SHARE", 1e-4)
    monkeypatch.setattr(search.Campaign, "call", call)
    monkeypatch.setattr(search.rows, "RESULTS", tmp_path / "results")
    for expected in (["train", "eval"] * 2, []):
        calls.clear()
        assert search.rows.run(search.command, [str(path), "--out", str(tmp_path / "out")]) == 0
        assert calls == expected
    lines = search.rows.read("search", tmp_path / "results")
    assert [line["fields"] for line in lines] == [
        "optimizers.G.clip=0.1 optimizers.D.clip=0.1",
        "optimizers.G.clip=0.2 optimizers.D.clip=0.1",
    ]
    assert all(line["scores"] == {"": {"fd-fashion-mnist": 1.2346}} for line in lines)
    rates = {
        zoo.load(run).card["recipe"]["stages"][0]["optimizers"]["G"]["clip"] for run in (tmp_path / "out").glob("*/")
    }
    assert rates == {0.1, 0.2}


def test_scores_of_translators(search, tmp_path, monkeypatch):
    """All that they have, for a distance alone does not show whether the input's content is kept."""
    trial = search.Trial("cyclegan-emoji-small", 0, 4, tmp_path)
    options, models = {}, {name: zoo.load(name) for name in ("cyclegan-emoji-small", "dcgan-fashion-mnist")}
    for name, model in models.items():
        monkeypatch.setattr(search.zoo, "load", lambda run, model=model: model)
        options[name] = trial.scoring("cpu", "noto")
    assert "--metrics" not in options["cyclegan-emoji-small"]
    assert search.METRICS in options["dcgan-fashion-mnist"]
    assert all("train" in several for several in options.values())


def test_settings_that_train_alike():
    """A value that a schedule replaces before the first image does not make another setting; any other value does."""
    recipe = settings.find("combogan-emoji-small")
    changed = override_all(recipe, ["schedules.0.points=[[96000,1e-3],[192000,0.0]]"])
    assert changed.stages[0].optimizers != at_start(changed).stages[0].optimizers
    assert at_start(changed) == at_start(at_start(changed)) != at_start(recipe)
    assert {adam.lr for adam in at_start(changed).stages[0].optimizers.values()} == {1e-3}
