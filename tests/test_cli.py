"""The command line: what scripts rely on, from `zoo list` to an exported file."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers.tiny import (
    ROOT,
    class_spec,
    coded_spec,
    coupled_spec,
    image_spec,
    model,
    point_spec,
    process,
    translate_spec,
    weights,
)
from PIL import Image

import zoo as package
from zoo import hub, settings
from zoo.cli import VERBS
from zoo.cli import export as exporting
from zoo.cli.train import advice
from zoo.models import Program
from zoo.pictures import save, to_picture

# Start-up -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["models", "recipes", "datasets", "weights"])
def test_list_without_torch(kind, tmp_path):
    code = (
        "import sys\nfrom zoo.cli import main\n"
        f"try: main(['list', '{kind}'])\nexcept SystemExit as e: assert not e.code\n"
        "bad = {'torch', 'torchvision', 'numpy', 'rich'} & set(sys.modules); assert not bad, bad"
    )
    result = process("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_import_without_torch(tmp_path):
    result = process("-c", "import sys, zoo; dir(zoo); assert 'torch' not in sys.modules", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_list_is_quick(tmp_path):
    """Processor time, which other work on the machine does not stretch; the best of five."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process("-m", "zoo", "list", cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(took) < 0.3, took


# list and show --------------------------------------------------------------------------------------------------------


def test_list(shell):
    models = shell("list", "--json").json
    assert "dcgan" in {m["model"] for m in models}
    assert all(re.search(r"arXiv [0-9.]+$", m["title"]) and m["data sets"] for m in models)
    plain = shell("list", "recipes", "dcgan").out.splitlines()
    assert {line.split("\t")[0] for line in plain} == set(package.list_recipes("dcgan"))
    assert shell("list", "dcgan").out.split("\t")[0] == "dcgan"  # a pattern alone means models
    assert {d["data set"] for d in shell("list", "datasets", "--json").json} == set(package.list_datasets())
    assert shell("list", "weights").status == 0
    rows = {row["weights"]: row for row in shell("list", "weights", "--json").json}
    assert rows["dcgan-fashion-mnist"]["license of the data"] == "MIT"
    assert rows["dcgan-fashion-mnist"]["below the bar"] is None


def test_show(shell, tmp_path):
    facts = shell("show", "dcgan-fashion-mnist", "--json").json
    assert facts["parameters"]["G"] > 1000 and facts["settings"]["model"] == "dcgan"
    text = shell("show", "dcgan-fashion-mnist").out
    assert f"{facts['parameters']['G']:,} parameters" in text and "Radford" in text and "rounds" in text
    assert "  game: adversarial(loss=non-saturating" in text and "  optimizers.G: Adam(lr=0.0002, betas=[0.5" in text
    assert "ema.G: half-life of" in text
    srgan = shell("show", "srgan-sunhays80-small").out
    assert "  optimizers.G: Adam(" in srgan and "  stages.1.optimizers.G: Adam(" in srgan
    assert "optimizers.*.lr is 0.0002 at 40,000, 0 at 80,000 images" in shell("show", "cyclegan-facades-small").out
    assert "dcgan-celeba" in shell("show", "dcgan").out
    assert "10,000" in shell("show", "fashion-mnist").out
    path = weights(tmp_path / "w.safetensors", image_spec(), dataset={"name": "ring", "license": "generated"})
    assert shell("show", path, "--json").json["images"] == 1000
    assert "generated" in shell("show", path).out


@pytest.mark.parametrize("name", settings.models())
def test_show_every_model(name, shell):
    facts = shell("show", name, "--json").json
    first = next(iter(facts["recipes"]))
    assert f"recipe: {first}" in shell("show", first).out


def test_terminals_get_tables_and_a_bar(shell, recipe_file, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = shell("list", "models").out
    assert "title" in table.splitlines()[1] and "\t" not in table
    result = shell("train", recipe_file, "--dataset", "ring", "--out", "run", "--images", 640)
    assert result.status == 0 and "images/s" in result.out and "left" in result.out and "640/640" in result.out


def test_help(shell):
    text = shell("--help").out
    assert all(
        verb in text for verb in ("list", "show", "train", "resume", "sample", "report", "data", "export", "publish")
    )
    assert "--variant" in shell("train", "-h").out
    assert package.__version__ in shell("--version").out


def test_help_fits_a_narrow_terminal(shell, monkeypatch):
    """Each verb has a line that is not truncated."""
    monkeypatch.setenv("COLUMNS", "80")
    verbs = shell("--help").out.partition("Commands:")[2].strip().splitlines()
    assert len(verbs) == len(VERBS)
    assert not any(line.rstrip().endswith("...") or len(line) > 80 for line in verbs)


# train and resume -----------------------------------------------------------------------------------------------------


def test_train_sample_resume(shell, recipe_file):
    result = shell("train", recipe_file, "--dataset", "ring", "--out", "run", "--images", 640)
    assert result.status == 0, result.err
    assert "parameters G" in result.out and "640 images" in result.out and "done: 640 images" in result.out
    assert (package.load("run").sample(3).shape, package.load("run").card["name"]) == ((3, 2), "small-net-ring")
    assert shell("sample", "run", "-n", 500, "--out", "points.png").status == 0
    assert Image.open("points.png").size == (256, 256)
    assert shell("resume", "run").status == 0


def test_train_events_in_json(shell, recipe_file):
    result = shell("train", recipe_file, "--dataset", "ring", "--out", "run", "--images", 640, "--json", "--seed", 3)
    events = result.events()
    assert {"start", "rate", "tick", "grid", "checkpoint", "done"} <= {e["event"] for e in events}
    assert len(events) == len(result.out.splitlines())
    assert events[-1]["event"] == "done" and events[-1]["images"] == 640
    assert json.loads((recipe_file.parent / "run/recipe.json").read_text())["seed"] == 3


def test_a_loss_in_the_recipe_file(shell, tmp_path, recipe_file):
    """Resuming needs the file again; it may import a module beside it."""
    (tmp_path / "scores_alone.py").write_text(
        "from zoo.losses import Pair\nfrom zoo.registry import LOSSES\n\n\n"
        '@LOSSES.register("scores-alone")\ndef scores_alone() -> Pair:\n'
        "    return Pair(d=lambda real, fake: (fake - real).mean(), g=lambda real, fake: -fake.mean())\n"
    )
    recipe_file.write_text(recipe_file.read_text() + "\n\nimport scores_alone\n")
    args = ("--dataset", "ring", "--out", "run", "--set", "game.loss=scores-alone")
    options = {"cwd": tmp_path, "text": True, "capture_output": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}

    def zoo(*words):
        return subprocess.run([sys.executable, "-c", "from zoo.cli import main; main()", *words], **options)

    first = zoo("train", recipe_file.name, *args, "--images", "100000000", "--minutes", "0.02")
    assert first.returncode == 0, first.stderr
    second = zoo("resume", "run", "--minutes", "0.02")
    assert second.returncode == 0 and "continue: zoo resume run" in second.stdout, second.stderr
    options["env"]["ZOO_HOME"] = str(tmp_path / "another user's")
    third = zoo("resume", "run")
    assert third.returncode == 2 and "unknown loss 'scores-alone'" in third.stderr and "--code FILE" in third.stderr
    fourth = zoo("resume", "run", "--code", recipe_file.name, "--minutes", "0.02")
    assert fourth.returncode == 0 and "continue: zoo resume run" in fourth.stdout, fourth.stderr


def test_show_a_recipe_file(shell, recipe_file):
    assert "recipes:" in shell("show", recipe_file).out


def test_resume_on_another_device(shell, recipe_file, tmp_path, monkeypatch):
    """A run that started on a GPU continues on a machine without one."""
    assert shell("train", recipe_file, "--dataset", "ring", "--out", "run", "--images", 640).status == 0
    path = tmp_path / "run/recipe.json"
    stored_json = json.loads(path.read_text())
    stored_json["runtime"].update(device="cuda", precision="bf16")
    path.write_text(json.dumps(stored_json))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused = shell("resume", "run")
    assert refused.status == 2 and "torch finds no CUDA device here; use --device cpu" in refused.err
    assert shell("resume", "run", "--device", "cpu", "--precision", "fp32").status == 0
    assert package.resume("run", device="cpu", precision="fp32") == type(path)("run")
    assert shell("resume", "run", "--device", "abacus").status == 2


def test_train_on_images(shell, recipe_file):
    result = shell("train", recipe_file, "--dataset", "fashion-mnist-10k", "--variant", "small", "--images", 128)
    assert result.status == 0, result.err
    run = "runs/small-net-fashion-mnist-10k-small-seed0"
    assert run in result.out
    assert shell("sample", run, "--out", "grid.png").status == 0
    assert Image.open("grid.png").size == (4 * 8 + 5 * 2,) * 2
    again = shell("train", recipe_file, "--dataset", "fashion-mnist-10k", "--variant", "small", "--images", 64)
    assert f"{run}-2" in again.out  # a fresh folder each time
    tuned = shell(
        "train", recipe_file, "--dataset", "fashion-mnist-10k", "--variant", "small", "--images", 64, "--init", run
    )
    assert tuned.status == 0, tuned.err


def test_dry_run_writes_nothing(shell, recipe_file, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = shell("train", recipe_file, "--dataset", "ring", "--dry-run", "--set", "networks.G.hidden=[32]")
    assert result.status == 0 and f"G {2 * 32 + 32 + 32 * 2 + 2}" in result.out
    cost = shell("train", recipe_file, "--dataset", "ring", "--dry-run", "--json", "--images", 6400).json
    assert cost["images"] == 6400 and cost["stages"][0]["rounds"] == 100
    assert sorted(tmp_path.rglob("*")) == before


def test_note_on_another_data_set(shell, recipe_file):
    result = shell("train", recipe_file, "--dataset", "gaussian1d", "--dry-run")
    assert "no setting of its own for gaussian1d: its setting for ring is used" in result.out


def test_advice_for_a_long_run(recipe_file):
    full = settings.find(str(recipe_file), "fashion-mnist-10k")
    text = advice(full, "cpu", 5 * 86_400.0)
    assert "about 5 d 00 h on this CPU" in text
    assert text.endswith("zoo train small-net --dataset fashion-mnist-10k --variant small")
    assert advice(full, "cpu", 600.0) == advice(full, "cuda:0", 5 * 86_400.0) == ""
    assert advice(settings.find("dcgan", "cifar10", "small"), "cpu", 86_400.0) == ""
    assert advice(settings.find("wgan"), "cpu", 86_400.0).endswith("wgan-cifar10-small --dataset lsun-bedroom")
    assert advice(settings.find("sngan", "cifar10", "conditional"), "cpu", 86_400.0).endswith("conditional-small")
    assert advice(settings.find("sngan", "cifar10", "cnn"), "cpu", 86_400.0).endswith("--variant small")


def test_python_trains_too(recipe_file, tmp_path):
    events = []
    run = package.train(
        str(recipe_file),
        torch.rand(64, 1, 8, 8),
        "small",
        out=tmp_path / "run",
        images=128,
        settings={"optimizers.D.lr": 1e-4, "networks.G.hidden": [8]},
        progress=lambda event, **facts: events.append(event),
    )
    stored_json = json.loads((run / "recipe.json").read_text())["recipe"]
    assert stored_json["stages"][0]["optimizers"]["D"]["lr"] == 1e-4 and "done" in events
    assert package.load(run).sample(2).shape == (2, 1, 8, 8)
    m = package.create("dcgan", "cifar10", "small")
    assert m.sample(2).shape == (2, 3, 32, 32) and m.card == {}
    assert torch.equal(m.sample(1), package.create("dcgan", "cifar10", "small").sample(1))


def test_weights_after_ctrl_c(recipe_file, tmp_path):
    args = [
        "-m",
        "zoo",
        "train",
        recipe_file.name,
        "--dataset",
        "ring",
        "--out",
        "run",
        "--images",
        "100000000",
        "--json",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, *args], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in run.stdout:
        if '"tick"' in line:
            break
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0 and not err, err
    last = json.loads(out.splitlines()[-1])
    assert last["stopped_by"] == "SIGINT" and last["resume"] == "zoo resume run"
    assert package.load(tmp_path / "run").sample(2).shape == (2, 2)


def test_two_processes(recipe_file, tmp_path):
    args = ("train", recipe_file.name, "--dataset", "ring", "--out", "run", "--images", 640, "--nproc", 2)
    result = process("-m", "zoo", *args, cwd=tmp_path, env={"ZOO_HOME": os.environ["ZOO_HOME"]})
    assert result.returncode == 0, result.stderr
    assert "in 2 processes" in result.stdout and result.stdout.count("done: 640 images") == 1


# sample ---------------------------------------------------------------------------------------------------------------


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_grid(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    assert shell("sample", path, "-n", 9, "--seed", 2, "--out", "sub/grid.png").out.strip() == "sub/grid.png"
    grid = pixels("sub/grid.png")
    assert grid.shape == (3 * 18 + 2, 3 * 18 + 2, 3)
    expected = (model(image_spec()).sample(1, seed=2 + 4)[0] * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    assert np.array_equal(grid[20:36, 20:36], expected)


def test_single_files_are_continued(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    assert shell("sample", path, "-n", 20, "--seed", 5, "--out", "d/").status == 0
    names = sorted(p.name for p in (tmp_path / "d").glob("*.png"))
    assert names == [f"{s:06d}.png" for s in range(5, 25)]
    modified_at = (tmp_path / "d/000007.png").stat().st_mtime_ns
    first = pixels("d/000006.png")
    (tmp_path / "d/000006.png").unlink()
    assert shell("sample", path, "-n", 30, "--seed", 0, "--out", "d").status == 0
    assert len(list((tmp_path / "d").glob("*.png"))) == 30
    assert (tmp_path / "d/000007.png").stat().st_mtime_ns == modified_at
    assert np.array_equal(pixels("d/000006.png"), first)
    assert not list((tmp_path / "d").glob(".*"))
    other = shell("sample", path, "-n", 2, "--truncation", 0.5, "--out", "d/")
    assert other.status == 2 and "--out d: has samples of other weights or settings" in other.err


def test_memory_stays_flat(shell, tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors", image_spec())
    alive, most = [0], [0]
    save = __import__("zoo.pictures", fromlist=["save"]).save

    def count(image, path, **options):
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        save(image, path, **options)

    monkeypatch.setattr("zoo.models.request.save", count)
    passes = []
    decode = package.models.image.ImageModel.decode

    def count_passes(self, *args, **kwargs):
        for images in decode(self, *args, **kwargs):
            passes.append(alive[0])
            yield images

    monkeypatch.setattr(package.models.image.ImageModel, "decode", count_passes)
    shell("sample", path, "-n", 50, "--out", "d/", "--chunk", 10)
    assert passes == [0, 10, 20, 30, 40]  # each chunk is written before the next is made


def test_classes(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", class_spec())
    assert shell("sample", path, "--classes", "-n", 5, "--out", "c.png").status == 0
    grid = pixels("c.png")
    assert grid.shape[:2] == (3 * 10 + 2, 5 * 10 + 2)
    expected = (model(class_spec()).sample(1, seed=3, y="owl")[0, 0] * 255 + 0.5).byte().numpy()
    assert np.array_equal(grid[22:30, 32:40, 0], expected)
    shell("sample", path, "--y", "owl", "-n", 4, "--out", "named.png")
    shell("sample", path, "--y", "2", "-n", 4, "--out", "number.png")
    shell("sample", path, "--y", "owl,cat,owl,2", "-n", 4, "--out", "mixed.png")
    assert np.array_equal(pixels("named.png"), pixels("number.png"))
    assert not np.array_equal(pixels("named.png"), pixels("mixed.png"))
    assert shell("sample", path, "--y", "dog", "-n", 3, "--out", "dogs/").status == 0
    assert np.array_equal(
        pixels("dogs/000002.png"), (model(class_spec()).sample(1, seed=2, y=1)[0, 0] * 255 + 0.5).byte().numpy()
    )


def test_sampling_with_batch_statistics(shell, tmp_path):
    """Grids and files begin with the same images whatever their number; another --chunk is refused."""
    spec = image_spec(sampling={"mode": "batch", "chunk": 8})
    path = weights(tmp_path / "w.safetensors", spec)
    expected = [(x * 255 + 0.5).byte().permute(1, 2, 0).numpy() for x in model(spec).sample(12, seed=3)]
    assert shell("sample", path, "-n", 4, "--seed", 3, "--scale", 2, "--out", "grid.png").status == 0
    grid = pixels("grid.png")
    assert grid.shape == (2 * 38, 2 * 38, 3) and np.array_equal(grid[4:36:2, 4:36:2], expected[0])
    assert shell("sample", path, "-n", 12, "--seed", 3, "--out", "d/").status == 0
    assert np.array_equal(pixels("d/000013.png"), expected[10])
    (tmp_path / "d/000013.png").unlink()
    assert shell("sample", path, "-n", 12, "--seed", 3, "--out", "d/").status == 0
    assert np.array_equal(pixels("d/000013.png"), expected[10])
    assert "has samples of other" in shell("sample", path, "-n", 12, "--seed", 4, "--out", "d/").err
    refused = shell("sample", path, "--chunk", 4, "--out", "new.png")
    assert refused.status == 2 and "chunk=4: this model draws 8 images together" in refused.err
    assert "with the batch statistics of 64 images" in shell("show", "wgan-gp-cifar10-dcgan").out


def test_walk(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    assert shell("sample", path, "-n", 3, "--interpolate", 4, "--out", "walk.gif").status == 0
    gif = Image.open("walk.gif")
    assert gif.n_frames == 12 and gif.size == (16, 16) and gif.info["loop"] == 0


def test_translators(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", translate_spec())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 24, 3), dtype=np.uint8))
    (tmp_path / "in").mkdir()
    picture.save("in/one.png")
    picture.crop((0, 0, 16, 16)).save("in/two.jpg", quality=95)
    result = shell("sample", path, "--input", "in/one.png", "--to", "google", "--out", "o.png")
    assert result.status == 0 and "24x18 resized to 24x16" in result.err
    assert Image.open("o.png").size == (24, 16)
    assert shell("sample", path, "--input", "in", "--to", "a", "--out", "o/").status == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["one.png", "two.png"]
    expected = model(translate_spec()).translate(Image.open("in/two.jpg"), "a")[0]
    assert np.array_equal(pixels("o/two.png"), (expected * 255 + 0.5).byte().permute(1, 2, 0).numpy())


def test_pairs_of_a_coupled_model(shell, tmp_path):
    """Both domains side by side, or the one that --to names."""
    path = weights(tmp_path / "w.safetensors", coupled_spec())
    pairs = (model(coupled_spec()).pairs(4)[:, :, 0] * 255 + 0.5).byte().numpy()
    assert shell("sample", path, "-n", 4, "--out", "grid.png").status == 0
    assert pixels("grid.png").shape[:2] == (2 * 30 + 2, 2 * 58 + 2)
    assert np.array_equal(pixels("grid.png")[2:30, 30:58, 0], pairs[0, 1])
    assert shell("sample", path, "-n", 4, "--to", "edges", "--out", "d/").status == 0
    assert np.array_equal(pixels("d/000003.png"), pairs[3, 1])
    other = shell("sample", path, "-n", 4, "--to", "plain", "--out", "d/")
    assert other.status == 2 and "has samples of other weights or settings" in other.err
    assert shell("sample", path, "-n", 2, "--interpolate", 2, "--out", "walk.gif").status == 0
    assert Image.open("walk.gif").size == (56, 28)
    wrong = shell("sample", path, "--to", "edge", "--out", "x.png")
    assert wrong.status == 2 and "to='edge': no such domain; did you mean edges" in wrong.err


def test_encoders_reconstruct(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", coded_spec())
    picture = Image.fromarray((np.arange(64, dtype=np.uint8) * 4).reshape(8, 8))
    picture.save("one.png")
    assert shell("sample", path, "--input", "one.png", "--out", "o.png").status == 0
    expected = (model(coded_spec()).reconstruct(picture)[0, 0] * 255 + 0.5).byte().numpy()
    assert np.array_equal(np.asarray(Image.open("o.png")), expected)
    assert shell("sample", path, "-n", 4, "--out", "grid.png").status == 0
    wrong = shell("sample", path, "--input", "one.png", "--to", "b", "--out", "o.png")
    assert wrong.status == 2 and "--to: " in wrong.err and "does not use it" in wrong.err


def test_generators_find_their_nearest_images(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    x = model(image_spec()).sample(2, seed=3)
    (tmp_path / "in").mkdir()
    for k in (0, 1):
        save(to_picture(x[k]), tmp_path / "in" / f"{k}.png")
    result = shell("sample", path, "--input", "in", "--out", "out/")
    assert result.status == 0 and "--input in: PSNR of the nearest images of " in result.err, result.err
    for k in (0, 1):
        difference = np.asarray(Image.open(f"out/{k}.png"), float) - np.asarray(Image.open(f"in/{k}.png"), float)
        assert (difference**2).mean() < 255**2 / 10**2.5  # 25 dB
    several = shell("sample", path, "--input", "in", "--y", "0,1", "--out", "out/")
    assert several.status == 2 and "--y 0,1: must be one class with --input, got 2" in several.err


# data, export, publish ------------------------------------------------------------------------------------------------


def test_data(shell, recipe_file):
    result = shell("data", "get", "fashion-mnist-10k", "--resolution", 8, "--check", "--json")
    assert result.status == 0, result.err
    assert [(r["split"], r["images"]) for r in result.json] == [("train", 10_000), ("test", 1_000)]
    listed = shell("data", "list", "--json").json
    assert {(r["data set"], r["resolution"], r["split"]) for r in listed} >= {("fashion-mnist-10k", 8, "train")}


@pytest.mark.parametrize("form, name", [("onnx", "g.onnx"), ("torch", "g.pt2")])
@pytest.mark.parametrize("kind", ["images", "classes", "points", "translate", "coupled"])
def test_export(form, name, kind, shell, tmp_path):
    specs = {"images": image_spec, "classes": class_spec, "points": point_spec, "translate": translate_spec}
    spec = {**specs, "coupled": coupled_spec}[kind]()
    path = weights(tmp_path / "w.safetensors", spec)
    to = ["--to", "b"] if kind in ("translate", "coupled") else []
    result = shell("export", path, "--format", form, "--out", name, *to, "--json")
    assert result.status == 0, result.err
    assert result.json["difference"] < 1e-3 and sorted(p.name for p in tmp_path.iterdir()) == [name, "w.safetensors"]
    m = model(spec)
    if kind == "translate":
        inputs = (torch.rand(3, 3, 16, 16),)
        expected = m.translate(inputs[0], "b")
    else:
        z, y = m.latents(range(3))
        inputs = (z,) if y is None else (z, y)
        expected = m.sample(3, to="b") if kind == "coupled" else m.sample(3)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(name)
        assert [i.name for i in session.get_inputs()] == result.json["inputs"]
        assert [o.name for o in session.get_outputs()] == [result.json["output"]]
        feeds = dict(zip(result.json["inputs"], (t.numpy() for t in inputs), strict=True))
        images = torch.from_numpy(session.run(None, feeds)[0])
    else:
        images = torch.export.load(name).module()(*inputs)
    assert torch.allclose(images, expected, atol=1e-4)
    shapes = {key: ["N", *x.shape[1:]] for key, x in zip(result.json["inputs"], inputs, strict=True)}
    assert result.json["shapes"] == shapes and result.json["output"] == m.program(to[1] if to else None).output


def test_export_says_what_goes_in_and_comes_out(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", translate_spec())
    result = shell("export", path, "--format", "torch", "--to", "b", "--out", "g.pt2")
    assert result.out.endswith("inputs images [N, 3, 16, 16]; output translated\n"), result.out


def shipped_domains() -> list[tuple[str, str]]:
    """(name, direction): of each shipped model whose network gets a domain beside the images, the first and the last
    direction that does."""
    specs = {name: hub.read_header(hub.SHIPPED / e["file"])["card"]["model"] for name, e in hub.index().items()}
    conditional = {name: [to for to, e in spec.get("to", {}).items() if "domain" in e] for name, spec in specs.items()}
    return [
        (name, to)
        for name, directions in conditional.items()
        if directions
        for to in {*directions[:1], *directions[-1:]}
    ]


@pytest.mark.parametrize("form, name", [("onnx", "g.onnx"), ("torch", "g.pt2")])
@pytest.mark.parametrize(
    "shipped, to",
    [
        *sorted(shipped_domains()),
        ("stylegan-fashion-mnist", None),  # a constant that is expanded to the batch
        ("stylegan2-fashion-mnist", None),
        ("xgan-emoji-small", "noto"),  # codes that are split into the domains'
        ("stackgan-emoji-small", None),  # truncated noise: the inverse error function
        ("srgan-cifar10-small", None),  # any height and width
    ],
)
def test_export_of_shipped_weights(shipped, to, form, name, shell):
    """The batch is free, whatever the network does with it, as are other sizes that the program says; the outputs are
    the model's."""
    result = shell("export", shipped, "--format", form, "--out", name, *(["--to", to] if to else []), "--json")
    assert result.status == 0, result.err
    program = package.load(shipped).program(to)
    assert result.json["difference"] < 1e-4 and result.json["inputs"] == program.names
    for n in (1, 5):
        inputs = program.inputs(n)
        if form == "onnx":
            import onnxruntime

            feeds = {key: x.numpy() for key, x in zip(program.names, inputs, strict=True)}
            images = torch.from_numpy(onnxruntime.InferenceSession(name).run(None, feeds)[0])
        else:
            images = torch.export.load(name).module()(*inputs)
        assert torch.allclose(images, program.network(*inputs), atol=1e-4)


def test_the_inverse_error_function_in_onnx(tmp_path):
    """From the center to the tails."""

    class Inverse(torch.nn.Module):
        def forward(self, x):
            return torch.erfinv(x)

    x = torch.cat([torch.linspace(-0.99999, 0.99999, 1001), torch.tensor([0.0, 1e-6, 0.999999])])[:, None]
    program = Program(Inverse().eval(), lambda n: (x[:n],), ["x"])
    y = exporting.write_onnx(program, tmp_path / "inverse.onnx")(x)
    assert torch.allclose(y, torch.erfinv(x.double()).float(), rtol=2e-6, atol=1e-7)


def test_export_that_differs_is_removed(shell, tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors", image_spec())
    write = exporting.write_torch

    def wrong(*args):
        run = write(*args)
        return lambda *inputs: run(*inputs) + 0.01

    monkeypatch.setattr(exporting, "write_torch", wrong)
    result = shell("export", path, "--format", "torch", "--out", "g.pt2")
    assert result.status == 1 and "gives other images (difference 0.01); removed" in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_publish(shell, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    result = shell("publish", path, "--to", "shelf")
    assert re.search(
        r"bytes in half precision \(99.9 % differ by at most [01]\.\d\d/255 in half precision\)", result.out
    )
    assert list(hub.index(tmp_path / "shelf")) == ["small-net-ring"]
