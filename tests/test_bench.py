"""The checks of the benchmarks can fail; ``zoo bench`` runs the scripts of a checkout."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny import translate_spec

import zoo
from zoo import hub, settings
from zoo.data import Facts, ImageData, ImageSet, Rows, Source, facts
from zoo.data.fields import Image, Label
from zoo.engine.runtime import Runtime
from zoo.engine.stage import build_networks, load_pretrained, resolve
from zoo.files import tensor_hash
from zoo.metrics import baselines, feature_networks, images, statistics
from zoo.metrics.baselines import Gaussian
from zoo.metrics.features import FeatureExtractor
from zoo.models import build_model
from zoo.models.image import ImageModel
from zoo.recipe import decode
from zoo.registry import DATASETS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def quality(benchmark, monkeypatch):
    """The benchmark with few samples and few scores; ``quality.run(*arguments)`` is its exit status."""
    quality = benchmark("quality")
    monkeypatch.setattr(quality, "COUNT", 1000)
    monkeypatch.setattr(quality, "SETS", 3)
    few = dataclasses.replace(ImageModel.bench, metrics=("fd", "recall", "near-copies"))
    monkeypatch.setattr(ImageModel, "bench", few)
    monkeypatch.setattr(quality, "GENERATOR", few)
    quality.run = lambda *arguments: quality.rows.run(quality.command, arguments)
    return quality


def test_the_commit_outside_a_checkout(quality, tmp_path, monkeypatch):
    """A source archive has none: benchmarks and their tests run there too, and the commit is "unknown"."""
    monkeypatch.setattr(quality.rows, "ROOT", tmp_path)
    assert quality.rows.commit() == "unknown"


def test_check_fails_for_other_weights(quality, tmp_path, monkeypatch, capsys):
    """A shipped file passes, on another machine and with another Card too; with a little noise in its weights it fails
    because of its tensors and its scores."""
    name, shipped = "dcgan-fashion-mnist", tmp_path / "weights"
    shipped.mkdir()
    file, entry = hub.find(name), hub.index()[name]
    shutil.copy(file, shipped)
    (shipped / "index.json").write_text(json.dumps({name: entry}))
    monkeypatch.setattr(hub, "SHIPPED", shipped)
    monkeypatch.setattr(quality.rows, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(quality, "COUNT", 2_000)
    monkeypatch.setattr(quality, "SETS", 3)
    quality.thumbnails.write(name)
    assert quality.run(name) == 0
    (row,) = quality.rows.read("quality")
    assert quality.run("--check") == 1
    assert "'mixture of 100 local Gaussians' has no line on fashion-mnist" in capsys.readouterr().out
    (bar,) = quality.bars("fashion-mnist")
    baseline = {**row, "what": "mixture of 100 local Gaussians", "kind": "baseline"}
    baseline["scores"] = dict.fromkeys(row["scores"], 100.0)
    quality.rows.write("quality", baseline, ("kind", "dataset", "what", "to"))
    assert quality.run("--check") == 1
    assert "fd-fashion-mnist must be 100.0 as in the committed line" in capsys.readouterr().out
    baseline["scores"] |= bar["scores"]
    quality.rows.write("quality", baseline, ("kind", "dataset", "what", "to"))
    assert quality.run("--check") == 0

    def ship(model, card):
        ship_file(shipped, name, model, card)
        capsys.readouterr()

    model = hub.load(name)
    ship(model, {**model.card, "seconds": 1})  # another Card around the same tensors
    assert hub.index()[name]["sha256"] != entry["sha256"]
    with monkeypatch.context() as elsewhere:  # a machine whose kernels round otherwise
        call, read_cache = FeatureExtractor.__call__, statistics.read_cache
        generator = torch.Generator().manual_seed(0)

        def near(x):
            return x * (1 + 1e-6 * torch.randn(x.shape, generator=generator, dtype=x.dtype))

        elsewhere.setattr(FeatureExtractor, "__call__", lambda self, x: tuple(map(near, call(self, x))))
        elsewhere.setattr(statistics, "read_cache", lambda path: {k: near(v) for k, v in read_cache(path).items()})
        assert quality.run("--check") == 0, capsys.readouterr()

    ship(quality.with_weight_noise(name, 0.2), model.card)
    assert quality.run("--check") == 1
    output = capsys.readouterr().out
    assert "the committed line is of the weights" in output and "fd-fashion-mnist must be" in output

    protocol = {**baseline["protocol"], "features_hash": "of another network"}
    assert quality.baseline_changes(row, [{**baseline, "protocol": protocol}])
    assert not quality.baseline_changes(row, [baseline])


def ship_file(folder, name, model, card):
    """Write a model as the shipped file of that name, and its entry of the index."""
    hub.save_weights(folder / f"{name}.safetensors", model.networks, card, half=True)
    path, index = folder / f"{name}.safetensors", folder / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else {}
    own = {"file": path.name, "sha256": hub.sha256(path), "tensors": tensor_hash(path)}
    index.write_text(json.dumps({**entries, name: {**entries.get(name, {}), **own}}))


def change_one_weight(model, by=1.0):
    """The same model; one weight of the last layer that its images come from is another one."""
    recognizers = {entry["recognizer"] for entry in getattr(model, "entries", {}).values() if "recognizer" in entry}
    recognizers |= {*model.spec.get("recognition", ())}
    others = {*getattr(model, "encoder", torch.nn.Module()).parameters()}
    others |= {p for name in recognizers for p in model.networks[name].parameters()}
    parameter = [p for p in model.parameters() if p not in others][-1]
    with torch.no_grad():
        parameter.view(-1)[0] += by
    return model


@pytest.mark.parametrize("name", hub.index())
def test_one_changed_weight_of_any_file_is_noticed(quality, tmp_path, monkeypatch, name):
    """Each shipped file has its thumbnail; with one changed weight its images differ from it, and its tensors from the
    committed line, without any score."""
    lines, shelf = quality.rows.read("quality"), hub.index()
    assert not quality.thumbnails.check([name]) and not quality.tensor_changes([name], lines)
    model = change_one_weight(hub.load(name))
    ship_file(tmp_path, name, model, model.card)
    entries = json.loads((tmp_path / "index.json").read_text())
    for plain in model.spec.get("pretrained", {}).values():  # shipped files that it needs
        if plain["source"] in shelf:
            entries[plain["source"]] = shelf[plain["source"]]
            shutil.copy(hub.find(plain["source"]), tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(entries))
    shelf = entries
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    (message,) = quality.thumbnails.check([name])
    assert message.startswith(f"{name}: its 16 images must be those of its thumbnail to 1/255")
    (message,) = set(quality.tensor_changes([name], lines))
    assert message.endswith(f"the shipped ones are {shelf[name]['tensors'][:16]}")


def test_a_thumbnail_that_is_missing_or_of_another_size(quality, tmp_path, monkeypatch):
    name = "dcgan-fashion-mnist"
    monkeypatch.setattr(quality.rows, "RESULTS", tmp_path)
    assert quality.thumbnails.check([name]) == [f"{name}: has no thumbnail; run benchmarks/thumbnails.py {name}"]
    quality.thumbnails.write(name)
    assert quality.thumbnails.check([name]) == []
    monkeypatch.setattr(quality.thumbnails, "COUNT", 4)
    (message,) = quality.thumbnails.check([name])
    assert "must have 138x36 pixels, got 138x138" in message


def test_six_files_in_turn(quality, monkeypatch, tmp_path):
    """Consecutive commits score all files; a commit always scores the same ones."""
    names = [f"file-{i}" for i in range(20)]
    assert quality.in_turn(names) == quality.in_turn(names) and len(set(quality.in_turn(names))) == 6
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(quality.rows, "ROOT", tmp_path)
    scored = []
    for _ in range(4):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "commit"], check=True)
        scored.append(quality.in_turn(names))
    assert set().union(*scored) == set(names) and scored[0] != scored[1]
    assert sorted(quality.in_turn(names[:4])) == names[:4]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{tmp_path}", str(clone)], check=True)
    monkeypatch.setattr(quality.rows, "ROOT", clone)
    assert len(set(quality.in_turn(names))) == 6


def test_a_set_that_cannot_be_fetched(quality, tmp_path, monkeypatch, capsys):
    """A generated set, whose images are there when the line is made and not afterwards: its weights are scored against
    the committed features; with one changed weight the check fails."""
    name, dataset, images = "gan-generated", "fashion-mnist-generated", tmp_path / "images"
    fields = {"x": Image(1, 28), "y": Label(("a", "b"))}
    own = Facts(dataset, "Generated images", splits={"train": 2000, "test": 500}, license="CC0", fields=fields)

    def fetch(folder):
        if not images.exists():
            raise OSError("no answer")
        return folder

    def read(folder, split):
        generator, n = torch.Generator().manual_seed(len(split)), own.splits[split]
        x = torch.nn.functional.interpolate(torch.rand(n, 1, 7, 7, generator=generator), (28, 28))
        return Rows([{"x": (255 * i[0]).byte().numpy(), "y": k % 2} for k, i in enumerate(x)], n)

    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(DATASETS._entries, dataset, lambda: ImageSet(own, (Source("here", fetch, read),)))
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    monkeypatch.setattr(quality.rows, "RESULTS", tmp_path / "results")
    images.touch()
    model = hub.read_model(ROOT / "zoo/weights/dcgan-fashion-mnist.safetensors")
    card = {**model.card, "name": name, "dataset": {"name": dataset, "license": own.license}}
    ship_file(tmp_path, name, model, card)
    quality.thumbnails.write(name)
    assert quality.run(name) == 0 and quality.run("--references", name) == 0
    (row,) = quality.rows.read("quality")
    bar = {**row, "what": "mixture of 100 local Gaussians", "kind": "baseline", "scores": {}}
    bar["scores"] = dict.fromkeys(row["scores"], 1000.0)
    quality.rows.write("quality", bar, ("kind", "dataset", "what", "to"))
    monkeypatch.setattr(quality, "shipping_errors", lambda *args: [])  # nobody trained it on these images

    images.unlink()
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(OSError, match="no answer"):
        quality.open_data(dataset)
    capsys.readouterr()
    assert quality.run("--check") == 0, capsys.readouterr()
    path = quality.reference_path(row["protocol"])
    assert path.name in capsys.readouterr().out
    scores = quality.zoo.evaluate(name, n=1000, reference=path)
    assert "near-copies" not in scores["scores"] and scores["protocol"]["reference"] == row["protocol"]["reference"]
    with pytest.raises(ValueError, match=r"must have split=train, got test|must have split=test, got train"):
        other = "test" if row["protocol"]["split"] == "train" else "train"
        quality.zoo.evaluate(name, ["fd"], n=100, split=other, reference=path)

    ship_file(tmp_path, name, change_one_weight(model, 20.0), card)
    assert any(f"{name}: fd-fashion-mnist must be" in e for e in quality.score_changes(name, [row, bar]))
    assert quality.run("--check") == 1
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^reference='.*': its content has changed: the checksum differs"):
        quality.zoo.evaluate(name, ["fd"], n=100, reference=path)


def test_each_data_set_has_bars_of_its_own(quality):
    """Trivial translators if shipped weights translate, else the mixture: one for each domain of a coupled model."""
    labels = {"identity", "mean color", "nearest training image", "training images copied"}
    assert {label for label, _ in quality.trivial_models("emoji")} == labels
    bars = [(bar["what"], bar["to"]) for bar in quality.bars("fashion-mnist")]
    assert bars == [("mixture of 100 local Gaussians", to) for to in ("plain", "inverse", "")]


def test_bars_of_a_set_with_generators_and_translators(quality, monkeypatch):
    """Both have baselines; a set of models without bars has none to beat."""
    translator, generator = zoo.load("pix2pix-emoji-fluent3d-small"), zoo.load("dcgan-fashion-mnist")
    monkeypatch.setattr(quality, "score", lambda what, to="", **options: {"to": to, "options": options})
    monkeypatch.setattr(quality, "trivial_models", lambda dataset: [("identity", translator)])
    for models, expected in (
        ([translator, generator], {"identity", "mixture of 100 local Gaussians"}),
        ([translator], {"identity"}),
    ):
        monkeypatch.setattr(quality, "shipped_for", lambda dataset, models=models: models)
        names = {line["what"] for line in quality.baselines_of("fashion-mnist-10k")}
        assert expected <= names and ("mixture of 100 local Gaussians" in names) == (generator in models)
    monkeypatch.setattr(quality, "shipped_for", lambda dataset: [zoo.load("stackgan-emoji-small")])
    assert list(quality.bars("fashion-mnist-10k")) == []


def test_check_of_the_protocol(quality):
    """A score against other images, or with another feature network, is not the committed one."""
    row = {
        "what": "m",
        "to": "",
        "scores": {},
        "protocol": {"weights": {"tensors": "1"}, "split": "test", "versions": {}},
    }
    other = {**row, "protocol": row["protocol"] | {"split": "train", "versions": {"torch": "3"}}}
    assert quality.changes(row, row) == []
    (message,) = quality.changes(row, other)
    assert "split=test" in message and "train" in message


def test_shipping_errors(quality):
    """Worse than a mixture of Gaussians, low recall, copies, or no worse with noise in the weights: a line for each."""
    mixture = {"what": "mixture of 100 local Gaussians", "to": "", "dataset": "d", "scores": {"fd-d": 2.0}}
    good = {"what": "m", "to": "", "dataset": "d", "noise": {"fd-d": 0.1}, "weight_noise": {"0.4": 1.5}}
    good["scores"] = {"fd-d": 1.0, "recall-d": 0.4, "near-copies": 0.0}
    assert quality.shipping_errors(good, [mixture], ImageModel.bench) == []
    for scores, message in [
        ({"fd-d": 2.5}, "mixture"),
        ({"fd-d": 1.45}, "with noise in the weights"),
        ({"recall-d": 0.2}, "recall"),
        ({"near-copies": 0.02}, "near-copies"),
        ({"recall-d": float("nan")}, "must be finite"),
    ]:
        row = {**good, "scores": good["scores"] | scores}
        assert any(message in line for line in quality.shipping_errors(row, [mixture], ImageModel.bench)), message
    (message,) = quality.shipping_errors({**good, "noise": {"fd-d": 0.3}}, [mixture], ImageModel.bench)
    assert "must be at most 0.25 of it" in message
    now = {**good, "scores": dict.fromkeys(good["scores"], float("nan"))}
    noise = {"noise": dict.fromkeys(good["scores"], 9.0)}
    protocol = {"protocol": {"weights": {"tensors": "1"}}}
    assert len(quality.changes(good | noise | protocol, now | protocol)) == 3


def test_bars_of_models_of_texts(quality):
    """Five times the chance to find one caption among 50; nothing if the data have no captions."""
    bench, row = zoo.load("stackgan-emoji-small").bench, {"what": "m", "to": "", "dataset": "d"}
    for scores, count in (({"caption-retrieval": 0.09}, 1), ({"caption-retrieval": 0.1}, 0), ({"fd-d": 1.0}, 0)):
        assert len(quality.bar_errors({**row, "scores": scores}, [], bench)) == count


def test_copies_are_scored_once(quality):
    """An image beside its own copy has no other neighbor, so that recall would be 0."""
    x = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 1, 8, 8)
    real = images.from_data(ImageData(Facts("d", "D", 1, 8, splits={"test": 30}), {"x": x}, "unused"))
    assert quality.few(baselines.Copies(real)) == {"n": 30} and quality.few(Gaussian(real)) == {}
    assert quality.few(baselines.Copies(real.map(lambda x: x.repeat(400, 1, 1, 1)))) == {}


def test_bars_of_translators(quality):
    """Nearer to the domain and to the targets than trivial translators, and with more of the input than the nearest
    training image; if it was trained on pairs, nearer to the targets than that one, too."""
    names = ("identity", "mean color", "nearest training image")
    beside = [{"what": w, "to": "x", "dataset": "d"} for w in names]
    for row, l1, retrieval in zip(beside, (0.2, 0.2, 0.1), (1.0, 1.0, 0.1), strict=True):
        row["scores"] = {"l1": l1, "fd-d": 0.5, "input-retrieval-d": retrieval}
    weak = {"what": "t", "to": "x", "dataset": "d", "noise": {"fd-d": 0.1}, "weight_noise": {"0.4": 9.0}}
    weak["scores"] = {"fd-d": 0.6, "input-retrieval-d": 0.05, "l1": 0.25}
    good = {**weak, "scores": {"fd-d": 0.4, "input-retrieval-d": 0.2, "l1": 0.15}}
    unpaired, paired = (build_model(translate_spec(paired=p), card={}).bench for p in (False, True))
    assert [len(quality.shipping_errors(weak, beside, b)) for b in (unpaired, paired)] == [5, 5]
    assert quality.shipping_errors(good, beside, unpaired) == []
    (message,) = quality.shipping_errors(good, beside, paired)
    assert message == "t x: l1 must be below 0.1 of 'nearest training image', got 0.15"
    other_source = [{**line, "from": "y"} for line in beside]
    assert "has no line" in quality.shipping_errors(good, other_source, unpaired)[0]
    del good["scores"]["l1"]  # of data without pairs
    assert quality.shipping_errors(good, beside, unpaired) == []
    assert quality.shipping_errors(good, beside[:1], unpaired)[0].startswith("t x: 'mean color' has no line on d")


@pytest.mark.parametrize("name", ["cyclegan-emoji-small", "stackgan-emoji-small", "char-cnn-rnn-emoji-hashed"])
def test_what_is_given_images_or_captions_is_not_scored_again_without_them(
    name, quality, monkeypatch, capsys, tmp_path
):
    """Data that everybody has to get himself are missing on a clean machine: this is printed, and the committed lines
    are compared with the bars."""
    lines = quality.rows.read("quality")
    emoji = facts("emoji")
    assert quality.missing_images(name) == ""

    def fetch(folder):
        raise OSError("put its files there")

    missing = ImageSet(dataclasses.replace(emoji, by_hand=True), (Source("by hand", fetch, lambda *_: None),))
    monkeypatch.setitem(DATASETS._entries, "emoji", lambda: missing)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    assert quality.score_changes(name, lines) == []
    assert "not scored again: " in (output := capsys.readouterr().out) and "put its files there" in output


def test_weights_below_the_bar_are_marked(benchmark, quality, monkeypatch):
    """Marked weights pass the check as long as they are below the bar; the tables have the mark and the reason."""
    name, reason = "lsgan-fashion-mnist", "a paper of 2016"
    lines = quality.rows.read("quality")
    row = next(r for r in lines if r["what"] == name)
    low = {**row, "scores": {k: 0.1 if k.startswith("recall") else v for k, v in row["scores"].items()}}
    assert quality.shipping_errors(row, lines, ImageModel.bench) == []
    assert any("recall must be at least 0.3" in line for line in quality.shipping_errors(low, lines, ImageModel.bench))
    render = benchmark("render")
    assert f"{name}.safetensors)§" not in render.models()
    shelf = hub.index()
    monkeypatch.setattr(hub, "index", lambda *_: {**shelf, name: {**shelf[name], "below_bar": reason}})
    assert quality.shipping_errors(low, lines, ImageModel.bench) == []
    value = quality.rows.distance(low["scores"])
    for factors, count in (((2, 0.9), 0), ((0.95, 0.9), 1)):  # with little and with much noise
        noisy = {**low, "weight_noise": {k: value * f for k, f in zip(("0.05", "0.4"), factors, strict=True)}}
        errors = quality.shipping_errors(noisy, lines, ImageModel.bench)
        assert len(errors) == count and all("with noise in the weights must be worse" in e for e in errors)
    (message,) = quality.shipping_errors(row, lines, ImageModel.bench)
    assert message == f"{name}: is marked below the bar ({reason}), but reaches it"
    table = " ".join(render.models().split())
    assert f"{name}.safetensors)§ | MIT |" in table and f"§ {name}: {reason}." in table
    assert f", below the bar: {reason}" in render.quality()


def test_the_licenses_of_the_data_are_everywhere(benchmark):
    """In each shipped Card, in the index, in README's table and in NOTICE."""
    render = benchmark("render")
    table, notice = render.models(), (ROOT / "NOTICE").read_text()
    assert notice == render.notice()
    for name, entry in hub.index().items():
        card = hub.read_header(hub.find(name))["card"]
        assert entry["license"] == hub.data_license(card) == card["dataset"]["license"] != ""
        assert entry["below_bar"] == card["below_bar"]
        assert f"zoo/weights/{entry['file']}: {card['dataset']['name']}: {entry['license']}\n" in notice
        assert any(name in line and entry["license"] in line for line in table.splitlines())


def test_the_table_says_what_each_file_makes(benchmark):
    """The first setting of a model may have classes, and its shipped weights none."""
    render = benchmark("render")
    assert render.task("r3gan", []) == "images by class"
    assert render.task("r3gan", ["r3gan-fashion-mnist"]) == "images by class; r3gan-fashion-mnist: images"
    assert render.task("biggan", ["biggan-fashion-mnist"]) == "images by class"


def test_render_check_fails_for_another_result(benchmark, tmp_path, monkeypatch, capsys):
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


def test_speed_of_simultaneous_and_of_alternating_steps(benchmark, monkeypatch):
    """Engine and plain loop consume the same images in a round, and change both networks."""
    speed = benchmark("speed")
    for name, width in [("gan-mnist-small", None), ("dcgan-cifar10-small", 8), ("wgan-gp-cifar10-small", None)]:
        recipe = speed.setting(name, batch=4, width=width)
        data = speed.pictures(recipe, 64)
        engine = speed.Engine(recipe, data)
        plain = speed.Plain(recipe, engine.networks(), data, True, torch.channels_last)
        before = [p.clone() for network in (plain.G, plain.D) for p in network.parameters()]
        assert engine.round() == plain.round() == engine.run.total_images
        after = [p for network in (plain.G, plain.D) for p in network.parameters()]
        assert not any(torch.equal(p, q) for p, q in zip(before, after, strict=True) if q.grad.any())
        assert speed.compare(engine, plain, pairs=2)["ratio"] > 0


def test_speed_check(benchmark):
    """A small ratio, much memory, or a missing line: an error each."""
    speed = benchmark("speed")
    lines = speed.rows.read("speed")
    assert speed.check(lines) == []
    for what, key, value in [("overhead", "ratio", 0.9), ("memory", "ratio", 1.1), ("start", "seconds_to_start", 0.4)]:
        worse = [{**r, key: value} if r["what"] == what else r for r in lines]
        assert speed.check(worse) and all(str(value) in error for error in speed.check(worse)), what
    assert "no line" in speed.check([r for r in lines if r["recipe"] != "gan-mnist"])[0]


def test_checkpoints_of_two_runs_are_equal_as_a_whole(benchmark):
    equal = benchmark("measure").equal
    a = {"game.G.weight": torch.ones(2), "optimizer.G.step": torch.ones(())}
    assert equal(a, {k: v.clone() for k, v in a.items()})
    assert not equal(a, {**a, "optimizer.G.step": torch.zeros(())}) and not equal(a, {"game.G.weight": torch.ones(2)})


def test_lines_of_an_earlier_setting(benchmark):
    name = "dcgan-fashion-mnist"
    budget, is_outdated = settings.find(name).images, benchmark("rows").is_outdated
    assert not is_outdated({"recipe": name, "budget": budget, "images": budget // 2, "commit": "1"})
    assert is_outdated({"recipe": name, "budget": budget + 1, "images": budget, "commit": "1"})


def test_runs_before_a_correction_are_marked(benchmark):
    """Those that are listed, as long as they are in the results."""
    rows = benchmark("rows")
    for name, commits in rows.BEFORE_CORRECTION.items():
        budget = settings.find(name).images
        runs = {c: rows.is_outdated({"recipe": name, "budget": budget, "commit": c}) for c in (*commits, "1")}
        assert runs == {**dict.fromkeys(commits, True), "1": False}
        assert commits <= {row["commit"] for row in rows.read("runs") if row["recipe"] == name}, "no run of that commit"


def test_training_command_of_a_run(benchmark):
    rows = benchmark("rows")
    recipe = settings.find("stylegan2", "fashion-mnist", "2000")
    command = "zoo train stylegan2 --dataset fashion-mnist --variant 2000"
    assert rows.training(recipe, 1, vars(Runtime())) == f"{command} --seed 1"
    runtime = vars(Runtime(compile=True, precision="bf16"))
    assert (
        rows.training(recipe.rescaled(800), 0, runtime) == f"{command} --images 800 --seed 0 --compile --precision bf16"
    )


def test_steps_of_a_run(benchmark):
    """WGAN's bursts of critic steps among them: ten rounds have one step of G each, and 10 * 100 of the critic."""
    recipe = resolve(settings.find("wgan-lsun-bedroom-mlp"), facts("lsun-bedroom"))
    networks = build_networks(recipe, device="meta")
    ((critic, steps), (_, generator)) = benchmark("measure").turns_played(recipe, networks, 0, 10)[0]
    assert critic["players"] == ["D"] and (steps, generator) == (1000, 10)


def test_bench_needs_a_checkout(tmp_path, monkeypatch, capsys):
    import zoo.cli.bench
    from zoo.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo.cli.bench, "__file__", str(tmp_path / "a" / "b" / "bench.py"))
    with pytest.raises(SystemExit) as stop:
        main(["bench", "quality"])
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and str(tmp_path) in message and "checkout" in message


def test_bench_runs_the_checkouts_own(monkeypatch):
    """Its exit status is the benchmark's, to which further options go."""
    import zoo.cli.bench
    from zoo.cli import main

    monkeypatch.chdir(ROOT / "docs")
    calls = []

    class Done:
        returncode = 1

    monkeypatch.setattr(zoo.cli.bench.subprocess, "run", lambda command: calls.append(command) or Done)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "modes", "--check", "--loss", "hinge"])
    assert stop.value.code == 1
    assert calls == [[sys.executable, str(ROOT / "benchmarks" / "modes.py"), "--check", "--loss", "hinge"]]


def test_the_page_shows_the_help_that_the_command_shows(benchmark, monkeypatch, shell):
    page = benchmark("render").command_page()
    monkeypatch.setenv("COLUMNS", "112")  # two of margin
    for verb in ("train", "resume"):
        assert "\n".join(line.rstrip() for line in shell(verb, "-h").out.strip().splitlines()) in page


def training_results() -> dict[str, dict]:
    """The committed line of each trained recipe, that of seed 0."""
    lines = map(json.loads, (ROOT / "benchmarks/results/runs.jsonl").open())
    return {row["recipe"]: row for row in lines if not row["seed"]}


def test_shipped_weights_are_of_their_recipes():
    """Each file's Card has the present recipe of its name, and the images and budget of its line."""
    for name in hub.index():
        card, recipe = hub.read_header(hub.find(name))["card"], settings.find(name)
        present, _ = load_pretrained(resolve(recipe, facts(recipe.dataset)))
        assert decode(card["recipe"]) == present, name
        assert (card["images"], recipe.images) == tuple(training_results()[name][k] for k in ("images", "budget")), name


def test_lines_have_the_reference_of_their_baselines(quality):
    """The committed lines of weights were compared with the same real images, by the same feature network, as the
    baselines beside them."""
    lines = [json.loads(line) for line in (ROOT / "benchmarks/results/quality.jsonl").open()]
    assert [e for row in lines if row["kind"] == "weights" for e in quality.baseline_changes(row, lines)] == []


def test_baselines_of_another_task_have_another_reference(quality):
    """Generators and upscalers of one data set have no score in common."""
    now = {"dataset": "d", "to": "", "what": "m", "scores": {"fd-d": 1.0}}
    now["protocol"] = {"split": "test", "features_hash": "1", "reference": {"content": "1"}}
    same = {**now, "kind": "baseline", "what": "mixture"}
    other = {**same, "protocol": {**now["protocol"], "reference": {"content": "2"}}}
    upscaler = {**other, "what": "bicubic", "scores": {"psnr-y": 22.0}}
    assert quality.baseline_changes(now, [same, upscaler]) == []
    assert quality.baseline_changes(now, [same, upscaler, other]) == [
        "mixture on d: has another reference; run --baselines"
    ]


def test_changes_of_baselines(quality, monkeypatch):
    """A distance that moved, and a baseline without a line; a score that only another task has is not compared."""
    now = [{"dataset": "d", "to": "", "what": "bicubic", "scores": {"psnr-y": 22.0, "fd-d": 9.0}}]
    monkeypatch.setattr(quality, "bars", lambda dataset: now)
    monkeypatch.setattr(quality, "dataset_of", lambda name: "d")
    line = {**now[0], "kind": "baseline", "scores": {"psnr-y": 22.0}}
    assert quality.bar_changes(["m"], [line]) == []
    (error,) = quality.bar_changes(["m"], [{**line, "scores": {"psnr-y": 25.0}}])
    assert error == "bicubic on d: psnr-y must be 25.0 as in the committed line, got 22.0"
    assert len(quality.bar_changes(["m"], [])) == 2


def test_runs_beat_a_gaussian_in_ten_principal_components(benchmark):
    """Every committed line of a generator, of any seed: otherwise it has learned no more than a covariance. Models of
    texts have a bar of their own, the retrieval of captions."""
    rows = benchmark("rows")
    bars = {r["dataset"]: rows.distance(r["scores"]) for r in rows.read("quality") if r["what"] == Gaussian.name}
    runs = [r for r in rows.read("runs") if any(k.startswith("fd-") for k in r["end"].get("", ()))]
    runs = [r for r in runs if "caption-retrieval" not in r["end"][""]]
    assert {r["dataset"] for r in runs} == set(bars)
    assert not [(r["recipe"], r["seed"]) for r in runs if rows.distance(r["end"][""]) >= bars[r["dataset"]]]


def test_feature_networks_are_sane(benchmark):
    """By committed lines of the shipped networks and weights."""
    rows, shipped = benchmark("rows"), hub.index()
    lines = {r["features"]: r for r in rows.read("features")}
    assert set(lines) == set(feature_networks.names())
    for name, r in lines.items():
        assert all(r["sane"].values()) and {"blur", "noise", "dropped", "accuracy"} <= set(r["sane"]), (name, r["sane"])
        assert r["hash"] == feature_networks.load(name).hash, name
        for file, w in r.get("weights", {}).items():
            assert w["tensors"] == tensor_hash(hub.find(file))[:16], (name, file)
    ranked = {file for r in lines.values() for file in r.get("weights", {})}
    models = {name: hub.load(name) for name in shipped}
    distant = {n: model for n, model in models.items() if model.generates and "fd" in model.bench.metrics}
    own = {n for n, model in distant.items() if not facts(model.card["dataset"]["name"]).features}
    assert ranked == own  # the others are scored by a feature network that is not the zoo's, or was made for other data
    assert all(r["same_weights"] for r in rows.read("spread"))


def test_files_are_ranked_if_no_sets_overlap(benchmark):
    features = benchmark("features")
    order, rankings = features.order, features.rankings
    assert [order([1, 2], b) for b in ([3, 4], [2, 3], [0, 0.5])] == [-1, 0, 1]
    files = {n: {"by": by} for n, by in {"a": [[1, 2], [1, 2]], "b": [[3, 4], [1, 3]], "c": [[5, 6], [0, 0.5]]}.items()}
    assert rankings(files) == {"alike": 0, "opposite": 2, "one": 1, "neither": 0}
    files["a"]["reals"] = "of other images"
    assert sum(rankings(files).values()) == 1
    del files["a"]["reals"]
    assert order([1, 2], [2.1, 3], 1.1) == 0 and order([1, 2], [2.3, 3], 1.1) == -1
    assert rankings(files, 2.0) == {"alike": 0, "opposite": 0, "one": 1, "neither": 2}


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
        if "error" in r["scores"] and render.generates(r):
            alone = render.alone(r, lines)
            assert r["scores"]["error"] <= 0.7 * alone["scores"]["error"], r["recipe"]
            models.add(r["model"])
        if "information" in r["scores"]:
            assert r["scores"]["information"] > 1.5, r["recipe"]
            assert r["dataset"] != "mnist" or r["scores"]["code-accuracy"] >= 0.7, (r["recipe"], r["seed"])
            models.add(r["model"])
    for r in rows.read("encoders"):
        # Of digits a random code tells too much to leave room for 5 points.
        more = 5 if "-fashion-mnist" in r["recipe"] else 0
        for score, value in r["code"]["trained"].items():
            assert value > r["code"]["random"][score] + more, (r["recipe"], score)
        models.add(r["recipe"].split("-")[0])
    pairs = {r["recipe"]: r["agreement"] for r in rows.read("coupled")}
    assert pairs["cogan-mnist-small"] >= max(0.85, pairs["cogan-mnist-uncoupled-small"] + 0.03)
    assert models == {"improved-gan", "triplegan", "infogan", "bigan", "vaegan"}


def test_shipped_weights_that_are_compared_cost_the_same():
    """The multiply-adds of the runs, not of the recipes."""
    work = {name: training_results()[name]["multiply_adds"] for name in hub.index() if name.endswith("-fashion-mnist")}
    assert len(work) > 2 and max(work.values()) < 1.01 * min(work.values()), work


def test_runs_are_of_a_commit_of_this_repository(benchmark, capsys):
    """A commit that nobody has, such as a mistyped one, is a user's mistake."""
    measure = benchmark("measure")
    if measure.rows.commit() == "unknown":
        pytest.skip("no checkout")
    assert measure.check_commit(None, None, "HEAD") == measure.rows.commit().removesuffix("-dirty")
    for group in ("runs", "classifiers"):
        assert measure.rows.run(measure.command, [group, "a-run", "--trained-at", "0123456789"]) == 2
        assert "--trained-at': must be a commit of this repository, got '0123456789'" in capsys.readouterr().err


def test_truncated_model_of_the_curve(benchmark):
    """Each limit is scored with samples of it; the model is otherwise the same."""
    measure, limits = benchmark("measure"), []

    class Recorder:
        name = "a model"

        def iter_samples(self, n=None, **options):
            limits.append((n, options))
            return iter(())

    model = measure.Truncated(Recorder(), 0.5)
    assert list(model.iter_samples(3, seed=7)) == [] and model.name == "a model"
    assert limits == [(3, {"seed": 7, "truncation": 0.5})]
    assert measure.LIMITS[0] is None and sorted(measure.LIMITS[1:], reverse=True) == [*measure.LIMITS[1:]]
