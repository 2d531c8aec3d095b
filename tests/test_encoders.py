"""The benchmarks of encoders and of coupled generators, on tiny networks."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.play import CPU

import zoo
from zoo import settings
from zoo.data import open_data
from zoo.engine import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def results(monkeypatch, tmp_path, home):
    """The benchmarks' folder on the path; results go to a folder of the test."""
    monkeypatch.setenv("ZOO_HOME", str(home))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import rows

    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def train_tiny(name: str, run: Path, sizes: dict) -> Path:
    """Two rounds of a recipe with tiny networks on the embedded images."""
    recipe = settings.find(name)
    (stage,) = recipe.stages
    stage = dataclasses.replace(stage, images=16, batch=8, schedules=())
    networks = {n: spec.replace(**sizes[n]) for n, spec in recipe.networks.items()}
    recipe = recipe.replace(dataset="fashion-mnist-10k", networks=networks, stages=(stage,))
    return train.train(recipe, run, runtime=CPU)


def test_encoders(results, tmp_path, monkeypatch):
    """From a run to its line and the table: classifiers on both layers of three encoders, distances of
    reconstructions."""
    import measure
    import render

    run = train_tiny("bigan-mnist-small", tmp_path / "run", {n: {"hidden": 12, "latent": 3} for n in "GED"})
    model, generator = zoo.load(run), torch.Generator().manual_seed(0)
    for p in model.parameters():  # after so few rounds all images would have one reconstruction
        p.data.copy_(0.5 * torch.randn(p.shape, generator=generator))
    monkeypatch.setattr(zoo, "load", lambda what: model)
    assert measure.rows.run(measure.command, ["encoders", str(run), "--images", "60"]) == 0
    (row,) = measure.rows.read("encoders")
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
    lines = [line for line in render.encoders().splitlines() if "`bigan" in line]
    assert [line.count("|") for line in lines] == [11, 11]
    assert "| code, 3 |" in lines[0] and f"| {row['reconstruction']['own']:.2f} |" in lines[0]
    assert "| last hidden layer, 12 |" in lines[1] and lines[1].endswith("|  |  |")


def test_inputs_of_encoders(results):
    """Images as in training; the initial encoder with batch statistics of them."""
    import measure

    recipe = settings.find("vaegan-fashion-mnist").replace(dataset="fashion-mnist-10k")
    x, y = measure.load_split(recipe, "train", 20)
    arrays = open_data("fashion-mnist-10k").arrays
    assert x.shape == (20, 1, 32, 32) and torch.equal(y, arrays["y"][:20].long())
    torch.testing.assert_close(x[:, :, 2:30, 2:30], arrays["x"][:20] / 127.5 - 1)
    assert (x[:, :, :2] == -1).all() and (x[..., 30:] == -1).all()
    one, other = (measure.random_encoder(recipe, seed, "E", x) for seed in (0, 1))
    conv, norm = one.layers[0], one.layers[1]
    torch.testing.assert_close(norm.running_mean, conv(x).mean((0, 2, 3)))
    assert not one.training and not torch.equal(conv.weight, other.layers[0].weight)


def test_the_classifiers_of_features(results):
    import measure

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = centers[y] + 0.3 * torch.randn(300, 2, generator=generator)
    for classify in (measure.nearest, measure.linear):
        assert torch.equal(classify(x[:150], y[:150], x[150:]), y[150:])
    rings = x / x.norm(dim=1, keepdim=True) * (1 + (torch.arange(300) % 2))[:, None]  # no line separates two rings
    halves = torch.arange(300) % 2
    lines, near = (
        (f(rings[:150], halves[:150], rings[150:]) == halves[150:]).float().mean()
        for f in (measure.linear, measure.nearest)
    )
    assert near > 0.95 > 0.8 > lines
    wide = torch.randn(200, 6, generator=generator) * torch.tensor([1.0, 5.0, 1.0, 1.0, 3.0, 1.0])
    axes = measure.components(wide, 2)(wide)
    torch.testing.assert_close(axes.var(0), torch.linalg.eigvalsh(torch.cov(wide.T))[-2:])


def test_coupled(results, tmp_path, monkeypatch):
    """The agreement of a run, and the table that compares it with two GANs that share nothing."""
    import measure
    import render

    monkeypatch.setattr(measure, "PAIRS", 20)
    for variant in ("small", "uncoupled-small"):
        recipe = settings.find("cogan", "mnist", variant)
        run = train_tiny(recipe.name, tmp_path / variant, {"G": {"widths": (6, 5, 4, 3)}, "D": {}})
        assert measure.rows.run(measure.command, ["coupled", str(run)]) == 0
    one, other = measure.rows.read("coupled")
    assert one["pairs"] == 20 and one["domains"] == ["plain", "edges"] and 0 < one["agreement"] < 1
    assert zoo.evaluate(run, ["agreement"], n=20)["scores"]["agreement"] == pytest.approx(other["agreement"], abs=1e-4)
    (line,) = (line for line in render.encoders().splitlines() if "`cogan" in line)
    cells = [f"{r['agreement']:.4f} ± {r['error']:.4f}" for r in (one, other)]
    assert line == f"| `{one['recipe']}` | plain and edges | {cells[0]} | {cells[1]} |  |  |"


def test_projection(results, tmp_path, monkeypatch):
    """Images of a run's own, and held-out ones, are nearer to their projections than to any sample."""
    import measure
    import render

    run = train_tiny("gan-fashion-mnist", tmp_path / "run", {"G": {"hidden": (8,)}, "D": {}})
    monkeypatch.setattr(measure, "STARTS", 30)
    assert measure.rows.run(measure.command, ["projection", str(run), "--images", "3", "--steps", "20"]) == 0
    (row,) = measure.rows.read("projection")
    model = zoo.load(run)
    x = torch.cat([*model.iter_samples(30)])
    nearest = (x - model.sample(1, seed=measure.OWN_SEED)).square().mean((1, 2, 3)).min()
    assert row["psnr"]["own"]["nearest sample"][0] == pytest.approx(-10 * nearest.log10().item(), abs=0.01)
    for values in row["psnr"].values():
        assert all(a > b for a, b in zip(values["projected"], values["nearest sample"], strict=True))
    own, other = (line for line in render.projections().splitlines() if line.startswith("| `gan"))
    assert "| own |" in own and own.endswith("| 3 of 3 |") and "| held-out |" in other


def test_no_results_yet(results):
    import render

    assert render.encoders() == "No results yet."
    results.mkdir()
    (results / "encoders.jsonl").touch()
    assert render.encoders() == "No results yet."
