"""The benchmarks' checks can fail, and ``zoo bench`` finds them."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch
from play import CPU
from safetensors.torch import load_file, save_file

import zoo
from zoo import hub
from zoo import recipe as recipes
from zoo.data import open_data
from zoo.engine import train

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


# Encoders and coupled generators ----------------------------------------------------------------------------------------


@pytest.fixture
def results(monkeypatch, tmp_path, home):
    """The benchmarks' folder on the path; what they write goes to a folder of the test's own."""
    monkeypatch.setenv("ZOO_HOME", str(home))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import rows

    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def trained(name: str, run: Path, sizes: dict) -> Path:
    """Two rounds of a recipe with tiny networks on the images that come with the zoo."""
    found = recipes.find(name)
    (stage,) = found.stages
    stage = dataclasses.replace(stage, images=16, batch=8, ramps=())
    networks = {n: spec.replace(**sizes[n]) for n, spec in found.networks.items()}
    made = found.replace(dataset="fashion-mnist-10k", networks=networks, stages=(stage,))
    return train.train(made, run, runtime=CPU)


def test_encoders(results, tmp_path, monkeypatch):
    """From a run to its line and the table: classifiers on both layers of three encoders, distances of reconstructions."""
    import encoders
    import table

    run = trained("bigan-mnist-small", tmp_path / "run", {n: {"hidden": 12, "latent": 3} for n in "GED"})
    model, generator = zoo.load(run), torch.Generator().manual_seed(0)
    for p in model.parameters():  # after so few rounds all images would have one reconstruction
        p.data.copy_(0.5 * torch.randn(p.shape, generator=generator))
    monkeypatch.setattr(zoo, "load", lambda what: model)
    monkeypatch.setattr(sys, "argv", ["encoders.py", str(run), "--images", "60"])
    encoders.main()
    (row,) = encoders.rows.read("encoders")
    assert (row["recipe"], row["images"], row["train"], row["test"]) == ("bigan-fashion-mnist-10k-small", 16, 60, 60)
    assert (row["code"]["size"], row["features"]["size"]) == (3, 12)
    for layer in ("code", "features"):
        for way in ("trained", "random", "components"):
            assert all(0 <= row[layer][way][k] <= 100 for k in ("linear", "nearest")), (layer, way)
    x = open_data("fashion-mnist-10k", split="test").arrays["x"][:60].float() / 255
    again = model.reconstruct(x)
    for key, other in ("own", x), ("other", x.roll(1, 0)):
        expected = (other - again).flatten(1).norm(dim=1).mean().item()
        assert row["reconstruction"][key] == pytest.approx(expected, abs=1e-3)
    lines = [line for line in table.encoders().splitlines() if "`bigan" in line]
    assert [line.count("|") for line in lines] == [11, 11]
    assert "| code, 3 |" in lines[0] and f"| {row['reconstruction']['own']:.2f} |" in lines[0]
    assert "| last hidden layer, 12 |" in lines[1] and lines[1].endswith("|  |  |")


def test_what_encoders_are_given(results):
    """Images as training prepares them; an encoder as initialised, whose norms have seen them."""
    import encoders

    found = recipes.find("vaegan-fashion-mnist").replace(dataset="fashion-mnist-10k")
    x, y = encoders.images(found, "train", 20)
    held = open_data("fashion-mnist-10k").arrays
    assert x.shape == (20, 1, 32, 32) and torch.equal(y, held["y"][:20].long())
    torch.testing.assert_close(x[:, :, 2:30, 2:30], held["x"][:20] / 127.5 - 1)
    assert (x[:, :, :2] == -1).all() and (x[..., 30:] == -1).all()
    one, other = (encoders.random_encoder(found, seed, "E", x) for seed in (0, 1))
    conv, norm = one.layers[0], one.layers[1]
    torch.testing.assert_close(norm.running_mean, conv(x).mean((0, 2, 3)))
    assert not one.training and not torch.equal(conv.weight, other.layers[0].weight)


def test_the_classifiers_of_features(results):
    import encoders

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = centres[y] + 0.3 * torch.randn(300, 2, generator=generator)
    for classify in (encoders.nearest, encoders.linear):
        assert torch.equal(classify(x[:150], y[:150], x[150:]), y[150:])
    rings = x / x.norm(dim=1, keepdim=True) * (1 + (torch.arange(300) % 2))[:, None]  # no line parts two rings
    halves = torch.arange(300) % 2
    lines, near = (
        (f(rings[:150], halves[:150], rings[150:]) == halves[150:]).float().mean()
        for f in (encoders.linear, encoders.nearest)
    )
    assert near > 0.95 > 0.8 > lines
    wide = torch.randn(200, 6, generator=generator) * torch.tensor([1.0, 5.0, 1.0, 1.0, 3.0, 1.0])
    axes = encoders.components(wide, 2)(wide)
    torch.testing.assert_close(axes.var(0), torch.linalg.eigvalsh(torch.cov(wide.T))[-2:])


def test_coupled(results, tmp_path, monkeypatch):
    """The agreement of a run, and the table that sets it beside that of two GANs which share nothing."""
    import coupled
    import table

    monkeypatch.setattr(coupled, "PAIRS", 20)
    for variant in ("small", "uncoupled-small"):
        found = recipes.find("cogan", "mnist", variant)
        run = trained(found.name, tmp_path / variant, {"G": {"widths": (6, 5, 4, 3)}, "D": {}})
        monkeypatch.setattr(sys, "argv", ["coupled.py", str(run)])
        coupled.main()
    one, other = coupled.rows.read("coupled")
    assert one["pairs"] == 20 and one["domains"] == ["plain", "edges"] and 0 < one["agreement"] < 1
    assert zoo.evaluate(run, ["agreement"], n=20)["scores"]["agreement"] == pytest.approx(other["agreement"], abs=1e-4)
    (line,) = (line for line in table.encoders().splitlines() if "`cogan" in line)
    cells = [f"{r['agreement']:.4f} ± {r['error']:.4f}" for r in (one, other)]
    assert line == f"| `{one['recipe']}` | plain and edges | {cells[0]} | {cells[1]} |"


def test_no_results_yet(results):
    import table

    assert table.encoders() == "No results yet."
    results.mkdir()
    (results / "encoders.jsonl").touch()
    assert table.encoders() == "No results yet."
