"""Mistakes: one line on stderr with the key, the value and what would be right; exit status 2 (1 if it is not a
mistake of the user's); no file is left."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import class_spec, image_spec, point_spec, process, translate_spec, weights
from PIL import Image

import zoo
import zoo.data
from zoo.data import Facts, ImageSet, Source, store
from zoo.registry import DATASETS


@pytest.fixture
def examples(tmp_path, recipe_file) -> Path:
    """The files that the mistakes below use."""
    weights(tmp_path / "image.safetensors", image_spec())
    weights(tmp_path / "class.safetensors", class_spec())
    weights(tmp_path / "points.safetensors", point_spec())
    weights(tmp_path / "translate.safetensors", translate_spec())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "image.safetensors").read_bytes()[:5000])
    (tmp_path / "noise.safetensors").write_bytes(os.urandom(5000))
    (tmp_path / "wrong.py").write_text("rate = 1\nrate = rate / 0\n")
    (tmp_path / "syntax.py").write_text("rate = (\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for folder, damage in (("whole", False), ("corrupt", True)):
        (tmp_path / folder).mkdir()
        for i in range(4):
            picture = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{i}.png")
        if damage:
            path = tmp_path / folder / "2.png"
            path.write_bytes(path.read_bytes()[:300])
    return tmp_path


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Everything under some folders, with size and time."""
    stats = {p: p.stat() for root in roots for p in root.rglob("*")}
    return {str(p): (s.st_size, s.st_mtime_ns) for p, s in stats.items() if p.is_file()} | {
        str(p): (0, 0) for p in stats if p.is_dir() and "__pycache__" not in str(p)
    }


TRAIN = ("train", "small_net.py", "--dataset", "ring", "--out", "new")
IMAGES = ("train", "small_net.py", "--variant", "small", "--out", "new", "--dataset")
SAMPLE = ("--out", "new.png")

# command line -> the key, the value, the remedy
MISTAKES = {
    # names
    "model": (("train", "wgan-pg", "--dataset", "cifar10"), "model", "'wgan-pg'", "did you mean wgan-gp"),
    "data set": ((*IMAGES, "fasion-mnist"), "data set", "'fasion-mnist'", "did you mean fashion-mnist"),
    "variant": (
        ("train", "dcgan", "--dataset", "cifar10", "--variant", "smal"),
        "variant", "'smal'", "it has: small",
    ),
    "recipe file": (("train", "gone.py", "--dataset", "ring"), "recipe file", "'gone.py'", "no such file"),
    "error in a recipe file": (("train", "wrong.py"), "recipe file", "'wrong.py', line 2", "ZeroDivisionError"),
    "syntax of a recipe file": (("show", "syntax.py"), "recipe file", "'syntax.py', line 1", "SyntaxError"),
    "recipe with a variant": (
        ("train", "dcgan-mnist", "--variant", "small"), "model", "'dcgan-mnist'", "zoo train dcgan --dataset mnist --v",
    ),
    "weights": (("sample", "dcgan-fashion-minst", *SAMPLE), "weights", "'dcgan-fashion-minst'", "did you mean dcgan-f"),
    "unpublished weights": (
        ("sample", "dcgan-cifar10-small", *SAMPLE),
        "weights", "'dcgan-cifar10-small'", "zoo train dcgan --dataset cifar10 --variant small",
    ),
    "verb": (("trian",), "command", "'trian'", "did you mean train"),
    "option": ((*TRAIN, "--image", "5"), "option", "--image", "--images"),
    "kind": (("list", "modles", "x"), "list", "'modles'", "must be one of models, recipes"),
    "pattern": (("list", "models", "dcgn"), "models", "'dcgn'", "did you mean dcgan"),
    "show": (("show", "wgan-pg"), "name", "'wgan-pg'", "did you mean wgan-gp"),
    "init": ((*TRAIN, "--init", "dcgan-fashion-minst"), "weights", "'dcgan-fashion-minst'", "did you mean"),
    # keys and values of a recipe
    "key": ((*TRAIN, "--set", "optimizer.D.lr=1"), "--set", "optimizer.D.lr=1", "did you mean optimizers"),
    "player": ((*TRAIN, "--set", "optimizers.E.lr=1"), "--set", "optimizers.E.lr=1", "G, D"),
    "network's argument": ((*TRAIN, "--set", "networks.G.hiden=[8]"), "--set", "hiden", "did you mean hidden"),
    "type": ((*TRAIN, "--set", "batch=many"), "batch", "'many'", "must be int"),
    "two budgets": ((*TRAIN, "--images", "100", "--set", "images=5000"), "images=5000", "no effect with --images"),
    "value that a schedule sets": (
        ("train", "cyclegan-emoji-small", "--set", "optimizers.G.lr=1e-4", "--dry-run"),
        "optimizers.G.lr=0.0001", "has no effect, since schedules.0 sets it; change schedules.0.points",
    ),
    "type of a fraction": ((*TRAIN, "--set", "optimizers.D.lr=fast"), "lr", "'fast'", "must be float"),
    "beta": ((*TRAIN, "--set", "optimizers.D.betas=[0.5,2]"), "optimizers.D.betas.1", "2", "below 1"),
    "eps": ((*TRAIN, "--set", "optimizers.D.eps=-1e-8"), "optimizers.D.eps", "-1e-08", "must be 0 or more"),
    "seed of a run": ((*TRAIN, "--seed", str(10**20)), "--seed", str(10**20), "0<=x<=9223372036854775807"),
    "no number": ((*TRAIN, "--set", "optimizers.G.lr=NaN"), "optimizers.G.lr", "nan", "must be a finite number"),
    "no value": ((*TRAIN, "--set", "batch"), "--set", "batch", "must be KEY=VALUE"),
    "batch of none": ((*TRAIN, "--set", "batch=0"), "batch", "0", "at least 1"),
    "loss": ((*TRAIN, "--set", "game.loss=hing"), "loss", "'hing'", "did you mean hinge"),
    "resolution": (
        ("train", "dcgan", "--dataset", "cifar10", "--variant", "small", "--out", "new", "--set", "resolution=30"),
        "resolution", "30", "power of two",
    ),
    "chosen elsewhere": ((*TRAIN, "--set", "dataset=grid"), "--set", "dataset=grid", "on the command line"),
    # values of the command line
    "minutes": ((*TRAIN, "--minutes", "0"), "--minutes", "0", "x>0"),
    "images": ((*TRAIN, "--images", "-5"), "--images", "-5", "x>=1"),
    "a word for a number": ((*TRAIN, "--images", "many"), "--images", "'many'", "integer"),
    "precision": ((*TRAIN, "--precision", "fp8"), "--precision", "'fp8'", "'fp32', 'tf32', 'bf16'"),
    "device": ((*TRAIN, "--device", "abacus", "--dry-run"), "device", "'abacus'", "cpu"),
    "micro-batch": (
        ("train", "dcgan", "--dataset", "fashion-mnist", "--out", "new", "--micro-batch", "4"),
        "--micro-batch", "4", "batch norm in G needs the whole batch",
    ),
    "size of micro-batches": ((*TRAIN, "--micro-batch", "24"), "--micro-batch", "24", "must divide the batch"),
    "processes": ((*TRAIN, "--nproc", "3"), "--nproc", "3", "batch=64 must be a multiple"),
    "processes of a stream": (
        ("train", "triplegan", "--dataset", "mnist", "--variant", "small", "--out", "new", "--nproc", "2"),
        "--nproc", "2", "batch=1 of stream 'labeled_D' must be a multiple",
    ),
    "class number": (("sample", "class.safetensors", "--y", "3", *SAMPLE), "y=", "3", "0 to 2"),
    "class name": (("sample", "class.safetensors", "--y", "dgo", *SAMPLE), "y=", "'dgo'", "did you mean dog"),
    "classes for none": (("sample", "image.safetensors", "--y", "3", *SAMPLE), "y=", "3", "not class-conditional"),
    "class grid of none": (
        ("sample", "image.safetensors", "--classes", *SAMPLE), "--classes", "", "leave --classes out",
    ),
    "as many classes": (("sample", "class.safetensors", "--y", "0,1", *SAMPLE), "y", "2 classes", "must be one"),
    "truncation": (("sample", "image.safetensors", "--truncation", "-1", *SAMPLE), "truncation", "-1", "above 0"),
    "seed": (("sample", "image.safetensors", "--seed", str(2**32), *SAMPLE), "seed", str(2**32), str(2**32 - 1)),
    "grid's name": (("sample", "image.safetensors", "--out", "new.jpg"), "--out", "new.jpg", "written as .png"),
    "walk's name": (
        ("sample", "image.safetensors", "--interpolate", "3", *SAMPLE), "--out", "new.png", "written as .gif",
    ),
    "points in files": (("sample", "points.safetensors", "--out", "new/"), "--out", "new/", "give a .png"),
    # translators
    "no input": (("sample", "translate.safetensors", *SAMPLE), "--input", "'translate.safetensors'", "give an image"),
    "input for none": (
        ("sample", "points.safetensors", "--input", "whole", *SAMPLE), "--input", "whole", "leave --input out",
    ),
    "direction": (
        ("sample", "translate.safetensors", "--input", "whole/1.png", "--to", "gogle", *SAMPLE),
        "to=", "'gogle'", "did you mean google",
    ),
    "no direction": (
        ("sample", "translate.safetensors", "--input", "whole/1.png", *SAMPLE), "--to", "google", "must be a domain",
    ),
    "no such input": (
        ("sample", "translate.safetensors", "--input", "gone.png", "--to", "b", *SAMPLE),
        "--input", "gone.png", "no such file",
    ),
    "corrupt input": (
        ("sample", "translate.safetensors", "--input", "corrupt", "--to", "b", "--out", "new/"),
        "--input", "corrupt/2.png", "repair or remove",
    ),
    "a folder into a file": (
        ("sample", "translate.safetensors", "--input", "whole", "--to", "b", *SAMPLE), "--out", "new.png", "DIR/",
    ),
    # files and folders
    "truncated weights": (("sample", "cut.safetensors", *SAMPLE), "weights", "'cut.safetensors'", "fetch or export"),
    "unreadable weights": (("sample", "noise.safetensors", *SAMPLE), "weights", "'noise.safetensors'", "weights file"),
    "missing weights": (("sample", "gone.safetensors", *SAMPLE), "weights", "'gone.safetensors'", "no such file"),
    "truncated init": ((*TRAIN, "--init", "cut.safetensors"), "weights", "'cut.safetensors'", "fetch or export"),
    "init of another": ((*TRAIN, "--init", "image.safetensors"), "init", "image.safetensors", "tensors differ"),
    "export of truncated weights": (
        ("export", "cut.safetensors", "--format", "torch", "--out", "new.pt2"),
        "weights", "'cut.safetensors'", "fetch or export",
    ),
    "export's name": (
        ("export", "image.safetensors", "--format", "torch", "--out", "new.onnx"), "--out", "new.onnx", "end in .pt2",
    ),
    "publish to": (("publish", "image.safetensors", "--to", "hf:me"), "", "'hf:me'", "hf:OWNER/NAME"),
    "a folder that is no run": (("resume", "full"), "run", "'full'", "recipe.json"),
    "a folder without weights": (("sample", "full", *SAMPLE), "folder", "'full'", "zoo list weights"),
    "samples among other files": (
        ("sample", "image.safetensors", "--out", "full/"), "--out", "full", "choose another folder",
    ),
    "output folder": ((*TRAIN[:-1], "full"), "out=", "'full'", "another folder with --out"),
    "output file": ((*TRAIN[:-1], "image.safetensors"), "out=", "'image.safetensors'", "another folder with --out"),
    "a file instead of a folder": (
        ("sample", "image.safetensors", "--out", "full/notes.txt/new.png"),
        "--out", "'full/notes.txt' is a file", "name another place",
    ),
    "a file instead of the samples' folder": (
        ("sample", "image.safetensors", "--out", "full/notes.txt/"), "--out", "'full/notes.txt' is a file", "folder",
    ),
    "a file instead of the inputs' folder": (
        ("sample", "translate.safetensors", "--input", "whole", "--to", "b", "--out", "full/notes.txt/new/"),
        "--out", "'full/notes.txt' is a file", "folder",
    ),
    "a file instead of the run's folder": (
        (*TRAIN[:-1], "full/notes.txt/run"), "--out", "'full/notes.txt' is a file", "folder",
    ),
    "a file instead of the export's folder": (
        ("export", "image.safetensors", "--format", "torch", "--out", "full/notes.txt/new.pt2"),
        "--out", "'full/notes.txt' is a file", "folder",
    ),
    "publish to a file": (
        ("publish", "image.safetensors", "--to", "full/notes.txt"), "--to", "'full/notes.txt' is a file", "folder",
    ),
    "no output": (("sample", "image.safetensors", "--out", ""), "--out", "empty", "must be a path"),
    "an empty input": (
        ("sample", "translate.safetensors", "--input", "", "--to", "b", *SAMPLE),
        "--input", "empty", "must be an image",
    ),
    # sizes of pictures
    "scale": (
        ("sample", "image.safetensors", "--scale", "20000", *SAMPLE),
        "--scale", "20000", "at most 100,000,000 pixels",
    ),
    "scale of files": (
        ("sample", "image.safetensors", "--scale", "20000", "--out", "new/"), "--scale", "20000", "at most",
    ),
    "scale of a walk": (
        ("sample", "image.safetensors", "--interpolate", "2", "--scale", "20000", "--out", "new.gif"),
        "--scale", "20000", "at most",
    ),
    "scale of points": (("sample", "points.safetensors", "--scale", "20000", *SAMPLE), "--scale", "20000", "at most"),
    "scale of classes": (
        ("sample", "class.safetensors", "--classes", "--scale", "20000", *SAMPLE), "--scale", "20000", "at most",
    ),
    "scale of inputs": (
        ("sample", "translate.safetensors", "--input", "whole", "--to", "b", "--scale", "20000", "--out", "new/"),
        "--scale", "20000", "at most",
    ),
    "images of a grid": (
        ("sample", "image.safetensors", "-n", "100000000", *SAMPLE), "-n", "100000000", "--out DIR/",
    ),
    "seeds of a walk": (
        ("sample", "image.safetensors", "--interpolate", "3", "-n", "1", "--out", "new.gif"), "-n", "1", "at least 2",
    ),
    "weights of a model": (("sample", "dcgan", *SAMPLE), "'dcgan'", "is a model", "dcgan-fashion-mnist"),
    "weights of a model without": (("sample", "gan", *SAMPLE), "'gan'", "is a model", "zoo train gan"),
    # data
    "no path": ((*IMAGES, "folder:"), "folder:", "", "must be followed by a path"),
    "an option twice": ((*IMAGES, "folder:whole?fit=pad&fit=crop"), "'fit'", "fit=pad&fit=crop", "given once"),
    "no shard": ((*IMAGES, "shards:gone-{0..2}.tar"), "shards:", "'gone-0.tar'", "no such file"),
    "labels that are not there": (
        ("train", "cgan", "--dataset", "folder:whole", "--out", "new"), "classes", "folder-whole", "with labels",
    ),
    "domains that are not there": (
        ("train", "cyclegan", "--dataset", "fashion-mnist-10k", "--out", "new"), "domain", "fashion-mnist-10k", "x, y",
    ),
    "corrupt images": ((*IMAGES, "folder:corrupt"), "folder:", "2.png", "skip"),
    "no folder": ((*IMAGES, "folder:gone"), "folder:", "gone", "no such folder"),
    "no images": ((*IMAGES, "folder:empty"), "folder:", "empty", "no images"),
    "data to get": (("data", "get", "fasion-mnist"), "data set", "'fasion-mnist'", "did you mean fashion-mnist"),
    "data that is made": (("data", "get", "ring"), "ring", "ring", "needs no preparing"),
    "split": (("data", "get", "mnist", "--split", "dev"), "split", "'dev'", "train, test"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake, examples, shell, home):
    args, *expected = MISTAKES[mistake]
    before = tree(examples, home)
    result = shell(*args)
    (line,) = result.err.splitlines()
    assert line.startswith("zoo: ") and result.status == 2, (result.status, line)
    for text in expected:
        assert text in line, f"{text!r} is not in: {line}"
    assert tree(examples, home) == before


# Failures that are not a user's mistake -------------------------------------------------------------------------------


def check_failure(result, home, before, *expected: str) -> None:
    (line,) = result.err.splitlines()
    assert line.startswith("zoo: ") and result.status == 1, (result.status, line)
    for text in expected:
        assert text in line, f"{text!r} is not in: {line}"
    assert tree(*before[0]) == before[1]


@pytest.fixture
def far_away(monkeypatch):
    """A data set whose two sources do not answer."""

    def refuse(text):
        def fetch(folder):
            raise ConnectionError(text)

        return fetch

    facts = Facts("far-away", "Far away", 1, 8, (), ("x",), {"train": 100})
    sources = (Source("official", refuse("timed out"), None), Source("mirror", refuse("404 not found"), None))
    DATASETS.names()
    monkeypatch.setitem(DATASETS._entries, "far-away", lambda: ImageSet(facts, sources))


def test_a_source_that_does_not_answer(examples, shell, home, far_away):
    before = ((examples, home), tree(examples, home))
    text = ("far-away", "no source answered", "official: timed out", "mirror: 404 not found")
    check_failure(shell("data", "get", "far-away"), home, before, *text)
    check_failure(shell(*IMAGES, "far-away"), home, before, *text)


def test_no_space_for_data(examples, shell, home, monkeypatch):
    usage = shutil.disk_usage(examples)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=0))
    before = ((examples, home), tree(examples, home))
    check_failure(shell(*IMAGES, "folder:whole"), home, before, "no space", "ZOO_HOME")


def test_no_space_for_the_output(examples, shell, home, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "new.png")

    monkeypatch.setattr("os.replace", full)
    before = ((examples, home), tree(examples, home))
    check_failure(shell("publish", "image.safetensors", "--to", "full"), home, before, "No space left")
    check_failure(
        shell("sample", "image.safetensors", "--interpolate", 2, "-n", 2, "--out", "new.gif"), home, before, "No space"
    )


IN_PYTHON = {
    "a negative width": (lambda: zoo.create("dcgan-fashion-mnist", width=-1), "networks.G: .*negative dimension"),
    "a seed of letters": (lambda: zoo.create("gan-fashion-mnist", seed="x"), "seed='x': must be a whole number"),
    "progress in words": (lambda: zoo.train("gan-fashion-mnist", progress="yes"), "progress='yes': must be True"),
    "a number as folder": (lambda: zoo.train("gan-fashion-mnist", out=3), "out=3: must be the path of a new folder"),
    "a number as device": (lambda: zoo.train("gan-fashion-mnist", device=3), "device='3': must be auto, cpu, cuda"),
    "a number as network": (
        lambda: zoo.evaluate("dcgan-fashion-mnist", features=3),
        "features=3: must be the name of a feature network",
    ),
    "an array as inputs": (
        lambda: zoo.load("pix2pix-emoji-fluent3d-small").grid(inputs=np.zeros((2, 32, 32, 3))),
        "inputs: must be tensors by the keys of the batch, .* got ndarray",
    ),
    "a list in inputs": (
        lambda: zoo.load("pix2pix-emoji-fluent3d-small").grid(inputs={"x": [1.0]}),
        "inputs: must be tensors by the keys of the batch",
    ),
    "images from 0 to 255": (
        lambda: zoo.load("pix2pix-emoji-fluent3d-small").grid(inputs={"a": torch.full((2, 3, 32, 32), 255.0)}),
        "inputs: a: must be float, from 0",
    ),
    "no inputs": (lambda: zoo.load("pix2pix-emoji-fluent3d-small").grid(inputs={}), "needs images: pass inputs="),
}


@pytest.mark.parametrize("mistake", IN_PYTHON)
def test_mistake_in_python(mistake, tmp_path, monkeypatch):
    """A ValueError that names the argument, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    call, message = IN_PYTHON[mistake]
    with pytest.raises(ValueError, match=message):
        call()
    assert not any(tmp_path.iterdir())


def test_a_bug_of_the_zoo(shell, monkeypatch):
    def damage(*args):
        raise KeyError("x")

    monkeypatch.setattr("zoo.cli.list.models", damage)
    result = shell("list")
    assert result.status == 1 and len(result.err.splitlines()) == 1 and "--debug" in result.err
    monkeypatch.setattr("zoo.cli.list.models", lambda pattern: (_ for _ in ()).throw(KeyboardInterrupt))
    assert shell("list").status == 130


# As real processes ----------------------------------------------------------------------------------------------------


def test_as_a_process(examples, home):
    before = tree(examples, home)
    for args, status in [(MISTAKES["class number"][0], 2), (("train",), 2), (("list",), 0)]:
        result = process("-m", "zoo", *args, cwd=examples)
        assert result.returncode == status and "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == (status != 0)
    debug = process("-m", "zoo", "show", "wgan-pg", "--debug", cwd=examples)
    assert debug.returncode == 1 and "Traceback" in debug.stderr and "did you mean wgan-gp" in debug.stderr
    assert tree(examples, home) == before
    assert zoo.data.home() == home


def test_a_closed_pipe(examples):
    import subprocess
    import sys

    from helpers.tiny import ROOT

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        f"{sys.executable} -m zoo list recipes --json | head -1", shell=True, cwd=examples, env=env, capture_output=True
    )
    assert result.stdout == b"[\n" and not result.stderr
