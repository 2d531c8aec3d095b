"""Options that would do nothing are refused: every pair of an option that decides what is made and another one, at its
default value too."""

import pytest
from helpers.tiny import (
    class_spec,
    coded_spec,
    codes_spec,
    coupled_spec,
    image_spec,
    point_spec,
    translate_spec,
    weights,
)
from PIL import Image

from zoo.models.image_files import MODES
from zoo.models.request import option_of

SPECS = {
    "image": image_spec(), "class": class_spec(), "coded": coded_spec(), "coupled": coupled_spec(),
    "points": point_spec(), "translate": translate_spec(), "codes": codes_spec(),
}  # fmt: skip
VALUES = {
    "count": ["2"], "seed": ["0"], "y": ["1"], "classes": [], "interpolate": ["2"], "codes": ["c1=1"],
    "traverse": ["c1"], "truncation": ["0.5"], "source": ["picture.png"], "to": ["b"], "chunk": ["16"], "scale": ["1"],
}  # fmt: skip
INPUTS = {"coded": ("scale",), "translate": ("to", "scale")}  # what --input can be combined with


def pairs() -> list[tuple[str, str, str]]:
    """(model, option that decides what is made, another option that does nothing with it)."""
    result = []
    for model in ("image", "class", "coded", "coupled", "points"):
        for mode, options in MODES.items():
            more = ("to",) if model == "coupled" and mode != "traverse" else ()
            result += [(model, mode, other) for other in VALUES if mode and other not in (mode, *options, *more)]
    for model, options in INPUTS.items():
        result += [(model, "source", other) for other in VALUES if other not in ("source", *options)]
    return result


@pytest.fixture
def files(tmp_path):
    for name, spec in SPECS.items():
        weights(tmp_path / f"{name}.safetensors", spec)
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    return sorted(p.name for p in tmp_path.iterdir())


def test_options_that_do_nothing_are_refused(shell, tmp_path, files):
    assert len(pairs()) > 100
    for model, mode, other in pairs():
        out = "new.gif" if mode == "interpolate" else "new.png"
        words = [word for key in (mode, other) for word in (option_of(key), *VALUES[key])]
        result = shell("sample", f"{model}.safetensors", "--out", out, *words)
        (line,) = result.err.splitlines()
        named = [option_of(key) in line for key in (mode, other)]
        assert result.status == 2 and any(named) and ("leave" in line or "must be" in line), (words, line)
    assert sorted(p.name for p in tmp_path.iterdir()) == files


LACKS = {"class": ("codes",), "codes": ("y", "truncation"), "coded": ()}  # options that a model does not have
MODELS = [*(("class", m) for m in MODES if m != "traverse"), ("codes", ""), ("codes", "traverse"), ("coded", "source")]


@pytest.mark.parametrize(("model", "mode"), MODELS)
def test_options_that_do_something_are_taken(model, mode, shell, tmp_path, files):
    """Each with each mode of a model that has it."""
    allowed = INPUTS["coded"] if mode == "source" else [o for o in MODES[mode] if o not in LACKS[model]]
    for number, other in enumerate(allowed):
        out = f"new{number}.gif" if mode == "interpolate" else f"new{number}.png"
        words = [word for key in filter(None, (mode, other)) for word in (option_of(key), *VALUES[key])]
        result = shell("sample", f"{model}.safetensors", "--out", out, *words)
        assert result.status == 0 and (tmp_path / out).exists(), (words, result.err)


def test_a_walk_has_one_class(shell, files):
    result = shell("sample", "class.safetensors", "--interpolate", 2, "-n", 2, "--y", "0,1", "--out", "new.gif")
    assert result.status == 2 and "--y 0,1: must be one class for a walk" in result.err


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        ("coupled", "--to", "to='': no such domain"),
        ("translate", "--to", "to='': no such domain"),
        ("codes", "--traverse", "code '': no such code"),
        ("codes", "--codes", "--codes : '' must be NAME=NUMBER"),
        ("class", "--y", "y='': no such class"),
    ],
)
def test_an_empty_text_is_a_value(model, option, message, shell, tmp_path, files):
    more = ["--input", "picture.png"] if model == "translate" else []
    result = shell("sample", f"{model}.safetensors", option, "", *more, "--out", "new.png")
    (line,) = result.err.splitlines()
    assert result.status == 2 and message in line and not (tmp_path / "new.png").exists()


OTHERS = {
    "eval's seed of a folder": (("eval", "folder", "--dataset", "fashion-mnist-10k", "--seed", "1"), "seed=1"),
    "eval's code of a folder": (("eval", "folder", "--dataset", "fashion-mnist-10k", "--code", "x.py"), "code=x.py"),
    "eval's direction of a folder": (("eval", "folder", "--dataset", "fashion-mnist-10k", "--to", "b"), "to=b"),
    "Inception's file": (
        ("eval", "folder", "--dataset", "fashion-mnist-10k", "--inception", "x.pth"), "inception='x.pth'"
    ),
    "a name on the hub": (("publish", "image.safetensors", "--to", "hf:me/it", "--name", "x"), "--name x"),
    "a direction of an image model": (
        ("export", "image.safetensors", "--format", "torch", "--out", "new.pt2", "--to", "b"), "to"
    ),
    "a size of photographs": (("data", "get", "folder:folder?size=native", "--resolution", "8"), "--resolution 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_verbs(name, shell, tmp_path, files, home, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(home))
    (tmp_path / "folder").mkdir()
    for i in range(4):
        Image.new("L", (28, 28), i).save(tmp_path / f"folder/{i}.png")
    args, option = OTHERS[name]
    result = shell(*args)
    (line,) = result.err.splitlines()
    assert result.status == 2 and option in line and "Error" not in line, line
