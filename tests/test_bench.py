"""The benchmarks' checks can fail, and ``zoo bench`` finds them."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo import hub, settings
from zoo.data import facts
from zoo.engine import checkpoint
from zoo.engine.stage import build_networks, resolve
from zoo.files import tensor_hash
from zoo.metrics import feature_networks, statistics
from zoo.metrics.baselines import Gaussian
from zoo.metrics.features import Features
from zoo.recipe import decode

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    """``benchmark(name)``: the module of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.fixture
def quality(benchmark, monkeypatch):
    """The benchmark with few samples and few scores; ``quality.run(*arguments)`` is its exit status."""
    quality = benchmark("quality")
    monkeypatch.setattr(quality, "COUNT", 1000)
    monkeypatch.setattr(quality, "SETS", 3)
    monkeypatch.setattr(quality, "USUAL", ("fd", "recall"))
    monkeypatch.setattr(quality, "GENERATED", ("fd", "recall", "near-copies"))
    quality.run = lambda *arguments: quality.rows.run(quality.command, arguments)
    return quality


def test_the_commit_outside_a_checkout(quality, tmp_path, monkeypatch):
    """A source archive has no commit: benchmarks and their tests run there all the same, and say so."""
    monkeypatch.setattr(quality.rows, "ROOT", tmp_path)
    assert quality.rows.commit() == "unknown"


def test_changed_weights_turn_the_check_red(quality, tmp_path, monkeypatch, capsys):
    """A shipped file holds, on another machine and with another Card too; with a little noise in its weights it does not, by
    its tensors and by its scores."""
    name, shipped = "dcgan-fashion-mnist", tmp_path / "weights"
    shipped.mkdir()
    file, entry = hub.find(name), hub.index()[name]
    shutil.copy(file, shipped)
    (shipped / "index.json").write_text(json.dumps({name: entry}))
    monkeypatch.setattr(hub, "SHIPPED", shipped)
    monkeypatch.setattr(quality.rows, "RESULTS", tmp_path / "results")
    assert quality.run(name) == 0
    (row,) = quality.rows.read("quality")
    assert quality.run("--check") == 1
    assert "'mixture of 100 local Gaussians' has no line on fashion-mnist" in capsys.readouterr().out
    (bar,) = quality.bars("fashion-mnist")
    known = {**row, "what": "mixture of 100 local Gaussians", "kind": "baseline"}
    known["scores"] = dict.fromkeys(row["scores"], 100.0)
    quality.rows.write("quality", known, ("kind", "dataset", "what", "to"))
    assert quality.run("--check") == 1
    assert "the committed line has 100.0" in capsys.readouterr().out
    known["scores"] |= bar["scores"]
    quality.rows.write("quality", known, ("kind", "dataset", "what", "to"))
    assert quality.run("--check") == 0

    def ship(model, card):
        hub.save_weights(shipped / file.name, model.networks, card, half=True)
        changed = {**entry, "sha256": hub.sha256(shipped / file.name)}
        (shipped / "index.json").write_text(json.dumps({name: changed}))
        capsys.readouterr()

    model = hub.load(name)
    ship(model, {**model.card, "seconds": 1})  # another Card around the same tensors
    assert hub.index()[name]["sha256"] != entry["sha256"]
    with monkeypatch.context() as elsewhere:  # a machine whose kernels round otherwise
        look, recall, generator = Features.__call__, statistics.recall, torch.Generator().manual_seed(0)

        def near(x):
            return x * (1 + 1e-6 * torch.randn(x.shape, generator=generator, dtype=x.dtype))

        elsewhere.setattr(Features, "__call__", lambda self, x: tuple(map(near, look(self, x))))
        elsewhere.setattr(statistics, "recall", lambda path: {k: near(v) for k, v in recall(path).items()})
        assert quality.run("--check") == 0, capsys.readouterr().out

    ship(quality.disturbed(name, 0.2), model.card)
    assert quality.run("--check") == 1
    said = capsys.readouterr().out
    assert "of other weights" in said and "fd-fashion-mnist is" in said

    measured = {**known["protocol"], "features_hash": "of another network"}
    assert quality.other_feature_networks(
        row, [{**known, "protocol": measured}]
    ) and not quality.other_feature_networks(row, [known])


def test_each_data_set_has_bars_of_its_own(quality):
    """Where weights translate, translators that know nothing; elsewhere the mixture, whatever else is shipped."""
    assert quality.translator("emoji") == "cyclegan-emoji-small" and quality.translator("fashion-mnist") is None
    (bar,) = quality.bars("fashion-mnist")
    assert (bar["what"], bar["to"]) == ("mixture of 100 local Gaussians", "")


def test_what_a_score_depends_on_is_checked(quality):
    """A line measured against other images, or with another feature network, is not the committed one's."""
    row = {
        "what": "m",
        "to": "",
        "scores": {},
        "protocol": {"weights": {"tensors": "1"}, "split": "test", "versions": {}},
    }
    other = {**row, "protocol": row["protocol"] | {"split": "train", "versions": {"torch": "3"}}}
    assert quality.moved(row, row) == []
    (said,) = quality.moved(row, other)
    assert "split=test" in said and "train" in said


def test_what_may_not_be_shipped(quality):
    """Worse than a mixture of Gaussians, too few modes, copies, or no worse with noise in it: a line for each."""
    mixture = {"what": "mixture of 100 local Gaussians", "to": "", "dataset": "d", "scores": {"fd-d": 2.0}}
    good = {"what": "m", "to": "", "dataset": "d", "noise": {"fd-d": 0.1}, "disturbed": {"0.4": 1.5}}
    good["scores"] = {"fd-d": 1.0, "recall-d": 0.4, "near-copies": 0.0}
    assert quality.unworthy(good, [mixture]) == []
    for changed, said in [
        ({"fd-d": 2.5}, "mixture"),
        ({"fd-d": 1.45}, "with noise in its weights"),
        ({"recall-d": 0.2}, "recall"),
        ({"near-copies": 0.02}, "near-copies"),
        ({"recall-d": float("nan")}, "no number"),
    ]:
        row = {**good, "scores": good["scores"] | changed}
        assert any(said in line for line in quality.unworthy(row, [mixture])), said
    (said,) = quality.unworthy({**good, "noise": {"fd-d": 0.3}}, [mixture])
    assert "too uncertain" in said
    now = {**good, "scores": dict.fromkeys(good["scores"], float("nan"))}
    noise = {"noise": dict.fromkeys(good["scores"], 9.0)}
    protocol = {"protocol": {"weights": {"tensors": "1"}}}
    assert len(quality.moved(good | noise | protocol, now | protocol)) == 3
    beside = [{"what": w, "to": "x", "dataset": "d"} for w in ("identity", "mean color")]
    for row in beside:
        row["scores"] = {"psnr": 10.0, "fd-d": 0.5}
    translator = {**good, "what": "t", "to": "x", "scores": good["scores"] | {"psnr": 9.0}}
    translator |= {"noise": {"psnr": 0.1}, "disturbed": {"0.4": 8.95}}
    assert len(quality.unworthy(translator, beside)) == 5
    worthy = {**translator, "scores": translator["scores"] | {"psnr": 11.0, "fd-d": 0.4}}
    assert quality.unworthy(worthy, beside) == []


def test_a_changed_result_turns_the_tables_red(benchmark, tmp_path, monkeypatch, capsys):
    render = benchmark("render")
    results = shutil.copytree(render.rows.RESULTS, tmp_path / "results")
    monkeypatch.setattr(render.rows, "RESULTS", results)
    assert render.rows.run(render.command, ["--check"]) == 0
    text = (results / "quality.jsonl").read_text()
    (value,) = {
        str(r["scores"]["fd-fashion-mnist"])
        for r in map(json.loads, text.splitlines())
        if r["what"] == "dcgan-fashion-mnist"
    }
    (results / "quality.jsonl").write_text(text.replace(value, "9.5"))
    assert render.rows.run(render.command, ["--check"]) == 1
    out = capsys.readouterr().out
    assert "out of date: README.md" in out and "out of date: docs/results.md" in out


def test_two_runs_of_one_seed_are_compared_whole(benchmark):
    equal = benchmark("measure").equal
    a = {"game.G.weight": torch.ones(2), "optimizer.G.step": torch.ones(())}
    assert equal(a, {k: v.clone() for k, v in a.items()})
    assert not equal(a, {**a, "optimizer.G.step": torch.zeros(())}) and not equal(a, {"game.G.weight": torch.ones(2)})


def test_lines_of_a_changed_setting_say_so(benchmark):
    name = "dcgan-fashion-mnist"
    budget, outdated = settings.find(name).images, benchmark("rows").outdated
    assert not outdated({"recipe": name, "budget": budget, "images": budget // 2})
    assert outdated({"recipe": name, "budget": budget + 1, "images": budget})


def test_steps_are_those_that_were_played(benchmark):
    """WGAN's bursts of critic steps among them: ten rounds hold one step of G each, and 10 * 100 of the critic."""
    recipe = resolve(settings.find("wgan-lsun-bedroom-mlp"), facts("lsun-bedroom"))
    networks = build_networks(recipe, device="meta")
    ((critic, steps), (_, generator)) = benchmark("measure").played(recipe, networks, 0, 10)[0]
    assert critic["players"] == ["D"] and (steps, generator) == (1000, 10)


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


def test_the_page_shows_the_help_that_the_command_shows(benchmark, monkeypatch, shell):
    page = benchmark("render").command_page()
    monkeypatch.setenv("COLUMNS", "112")  # two of margin
    for verb in ("train", "resume"):
        assert "\n".join(line.rstrip() for line in shell(verb, "-h").out.strip().splitlines()) in page


def trained() -> dict[str, dict]:
    """The committed lines of trained recipes, of each that of seed 0."""
    lines = map(json.loads, (ROOT / "benchmarks/results/runs.jsonl").open())
    return {row["recipe"]: row for row in lines if not row["seed"]}


def test_shipped_weights_are_what_their_recipes_make():
    """Each file's Card holds the recipe of its name as it is now; a line says how far it was trained, of how much."""
    for name in hub.index():
        card, recipe = hub.read_header(hub.find(name))["card"], settings.find(name)
        assert decode(card["recipe"]) == resolve(recipe, facts(recipe.dataset)), name
        assert (card["images"], recipe.images) == tuple(trained()[name][k] for k in ("images", "budget")), name


def test_runs_beat_a_gaussian_in_ten_principal_components(benchmark):
    """Every committed line of a generator, of any seed: a run that does not has learned no more than a covariance."""
    rows = benchmark("rows")
    known = {r["dataset"]: rows.distance(r["scores"]) for r in rows.read("quality") if r["what"] == Gaussian.name}
    runs = [r for r in rows.read("runs") if "" in r["end"]]
    assert {r["dataset"] for r in runs} == set(known)
    assert not [(r["recipe"], r["seed"]) for r in runs if rows.distance(r["end"][""]) >= known[r["dataset"]]]


def test_feature_networks_are_sane_and_of_the_files_that_ship(benchmark):
    """Every committed answer is yes, and is of these networks and these weights."""
    rows, shipped = benchmark("rows"), hub.index()
    lines = {r["features"]: r for r in rows.read("features")}
    assert set(lines) == set(feature_networks.names())
    for name, r in lines.items():
        assert all(r["sane"].values()) and {"blur", "noise", "dropped", "accuracy"} <= set(r["sane"]), (name, r["sane"])
        assert r["hash"] == feature_networks.load(name).hash, name
        for file, w in r.get("weights", {}).items():
            assert w["tensors"] == tensor_hash(hub.find(file))[:16], (name, file)
    ranked = {file for r in lines.values() for file in r.get("weights", {})}
    assert ranked == set(shipped)
    for r in rows.read("pairs"):
        assert r["tensors"] == tensor_hash(hub.find(r["recipe"]))[:16]
    assert all(r["same_weights"] for r in rows.read("spread"))


def test_files_are_ranked_if_no_sets_overlap(benchmark):
    features = benchmark("features")
    order, rankings = features.order, features.rankings
    assert [order([1, 2], b) for b in ([3, 4], [2, 3], [0, 0.5])] == [-1, 0, 1]
    files = {n: {"by": by} for n, by in {"a": [[1, 2], [1, 2]], "b": [[3, 4], [1, 3]], "c": [[5, 6], [0, 0.5]]}.items()}
    assert rankings(files) == {"alike": 0, "opposite": 2, "one": 1, "neither": 0}


def test_no_line_is_of_changed_files(benchmark):
    for path in (ROOT / "benchmarks/results").glob("*.jsonl"):
        assert not [
            r
            for r in benchmark("rows").read(path.stem)
            if "dirty" in str(r.get("commit", "")) + str(r.get("scored_at", ""))
        ], path


def test_classifiers_codes_and_encoders_reach_their_bounds(benchmark):
    """At least 30 % fewer errors than the same classifier on the labels alone; 1.5 nat, and 70 % of MNIST's digits by
    the code; 5 points over a random encoder; 85 % of the pixels of coupled digits, more than of two GANs."""
    render, rows = benchmark("render"), benchmark("rows")
    lines, models = rows.read("classifiers"), set()
    for r in lines:
        if "error" in r["scores"] and r["verb"] != "classify":
            alone = render.alone(r, lines)
            assert r["scores"]["error"] <= 0.7 * alone["scores"]["error"], r["recipe"]
            models.add(r["model"])
        if "information" in r["scores"]:
            assert r["scores"]["information"] > 1.5, r["recipe"]
            assert r["dataset"] != "mnist" or r["scores"]["code-accuracy"] >= 0.7, (r["recipe"], r["seed"])
            models.add(r["model"])
    for r in rows.read("encoders"):
        more = (
            5 if "-fashion-mnist" in r["recipe"] else 0
        )  # of digits a random code says too much to leave room for 5 points
        for score, value in r["code"]["trained"].items():
            assert value > r["code"]["random"][score] + more, (r["recipe"], score)
        models.add(r["recipe"].split("-")[0])
    pairs = {r["recipe"]: r["agreement"] for r in rows.read("coupled")}
    assert pairs["cogan-mnist-small"] >= max(0.85, pairs["cogan-mnist-uncoupled-small"] + 0.03)
    assert models == {"improved-gan", "triplegan", "infogan", "bigan", "vaegan"}


def test_shipped_weights_that_are_compared_cost_the_same():
    """What was spent, not what was planned."""
    work = {name: trained()[name]["multiply_adds"] for name in hub.index() if name.endswith("-fashion-mnist")}
    assert len(work) > 2 and max(work.values()) < 1.01 * min(work.values()), work


def test_many_recipes_are_trained_and_resumed_in_one_folder(benchmark, monkeypatch, tmp_path, capsys):
    """Started, resumed and left out if finished; an unknown recipe is one line."""
    train_all = benchmark("train_all")
    calls = []

    def run(command, env, **_):
        """In place of a process: it trains half of the budget, then the rest."""
        arguments = command[command.index("zoo") + 1 :]
        calls.append(arguments)
        assert env["OMP_NUM_THREADS"] == "1"
        folder = Path(arguments[1] if arguments[0] == "resume" else arguments[arguments.index("--out") + 1])
        folder.mkdir(exist_ok=True)
        (folder / "recipe.json").write_text("{}")
        seen = 100 if arguments[0] == "resume" else 50
        checkpoint.save(folder / "checkpoint.safetensors", {"w": torch.zeros(1)}, {"seen": seen})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(train_all.subprocess, "run", run)
    common = ["gan-mnist*", "--out", str(tmp_path), "--images", "100", "--processes", "2"]
    assert train_all.select(["gan-mnist*"]) == ["gan-mnist", "gan-mnist-small"]
    for verb, count in ("train", 2), ("resume", 2), ("", 0):
        calls.clear()
        assert train_all.rows.run(train_all.command, common) == 0
        assert [c[0] for c in calls] == [verb] * count
    assert "2 of 2 runs are finished" in capsys.readouterr().out
    assert train_all.rows.run(train_all.command, [*common, "--seed", "1", "--status"]) == 0
    assert "gan-mnist-seed1: 0 of 100 images" in capsys.readouterr().out
    assert train_all.rows.run(train_all.command, ["nothing-*", "--out", str(tmp_path)]) == 2
    assert "no recipe matches 'nothing-*'" in capsys.readouterr().err


def test_a_failed_run_is_reported(benchmark, tmp_path):
    """A real process, whose folder is not empty."""
    train_all = benchmark("train_all")
    job = train_all.Job("gan-mnist-small", 0, 100, tmp_path)
    job.run.mkdir()
    (job.run / "something").write_text("in the way")
    arguments = ["gan-mnist-small", "--out", str(tmp_path), "--images", "100"]
    assert train_all.rows.run(train_all.command, arguments) == 1
    assert "is not empty" in (tmp_path / "gan-mnist-small-seed0.txt").read_text()
