"""Runs and settings with wrong values in any field: each command works, or ends in one line and exit status 2."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo.recipe import encode
from zoo.settings import find

VALUES = [
    -1, 0, 1, 2.5, True, None, "relu", [], [1], {}, {"@": "Adam"}, {"@": "Spec"}, {"@": []}, {"@": "Nothing"}, [[]],
    "x" * 100, 1e308, 10**30, {"@": "Spec", "name": "dcgan-generator", "kwargs": {}}, [1, "a"], {"a": {"@": "SGD"}},
]  # fmt: skip


def paths(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside JSON."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


def at(node: Any, path: tuple) -> Any:
    for key in path:
        node = node[key]
    return node


def check(result, what: object) -> None:
    """Exit status 0, or 2 with one line that says what is wrong."""
    lines = result.err.splitlines()
    assert result.status in (0, 2), (what, result.status, result.err)
    if result.status == 2:
        assert len(lines) == 1 and lines[0].startswith("zoo: ") and len(lines[0]) < 1000, (what, result.err)
        assert "object has no attribute" not in lines[0] and "positional argument" not in lines[0], (what, result.err)


@pytest.fixture
def run(tmp_path, recipe_file, shell) -> Path:
    """A run of two rounds without a checkpoint, so that resuming begins anew."""
    assert shell("train", recipe_file, "--dataset", "ring", "--images", 128, "--out", "run").status == 0
    (tmp_path / "run/checkpoint.safetensors").unlink()
    return tmp_path / "run"


def wrong_recipes(content: dict) -> Iterator[tuple[object, Any]]:
    """recipe.json with one thing changed: each value in turn at each place, a key less, a key more."""
    for value in VALUES:
        yield ("whole", value), value
    for number, path in enumerate(paths(content)):
        if path[0] == "machines":
            continue
        for value in VALUES[number % 5 :: 5]:
            other = copy.deepcopy(content)
            at(other, path[:-1])[path[-1]] = value
            yield (path, value), other
        other = copy.deepcopy(content)
        del at(other, path[:-1])[path[-1]]
        yield (path, "deleted"), other
        if isinstance(at(content, path), dict):
            other = copy.deepcopy(content)
            at(other, path)["surplus"] = 1
            yield (path, "surplus"), other


def test_wrong_recipes_of_runs(run, shell):
    content = json.loads((run / "recipe.json").read_text())
    for number, (what, other) in enumerate([*wrong_recipes(content)][::12]):
        (run / "recipe.json").write_text(json.dumps(other))
        check(shell("resume", "run", "--minutes", 1e-6), what)
        if number % 4 == 0:
            (run / "recipe.json").write_text(json.dumps(other))
            check(shell("report", "run"), what)
        (run / "checkpoint.safetensors").unlink(missing_ok=True)


def test_torn_recipes_of_runs(run, shell):
    content = (run / "recipe.json").read_bytes()
    for other in (b"", b"[]", content[:100], content[:-1], b"\xff" + content, b"[" * 100_000, b"9" * 5000, b"NaN"):
        (run / "recipe.json").write_bytes(other)
        for verb in ("resume", "report"):
            result = shell(verb, "run")
            check(result, other[:20])
            assert result.status == 2


def test_odd_lines_of_a_log(run, shell):
    odd = [b"[]", b"5", b'"x"', b"null", b'{"images": "x"}', b'{"images": null}', b'{"images": [1]}', b"\xff\xfe",
           b'{"images": 1e999}', b'{"images": true}', b"{" * 5000, b'{"images": 5, "loss/D": {}}', b'{"stage": 1}',
           b'{"images": 6, "stage": "x", "scores": {"fd": "x"}}', b'{"images": NaN}', b"9" * 5000]  # fmt: skip
    log = (run / "log.jsonl").read_bytes()
    for line in (*odd[::8], b"\n".join(odd)):
        (run / "log.jsonl").write_bytes(line + b"\n" + log)
        check(shell("report", "run"), line)
        check(shell("resume", "run", "--minutes", 1e-6), line)
        (run / "checkpoint.safetensors").unlink(missing_ok=True)


def test_wrong_settings(tmp_path, recipe_file, shell):
    settings = encode(find(str(recipe_file), "ring"))
    keys = [".".join(str(k) for k in path if k != "kwargs") for path in paths(settings) if "@" not in path]
    for number, key in enumerate(keys):
        for value in VALUES[number % 21 :: 21]:
            args = ("--dataset", "ring", "--set", f"{key}={json.dumps(value)}", "--dry-run")
            check(shell("train", recipe_file, *args), (key, value))
    for text in ('optimizers.D={"@":"Adam"}', "=", "a=", "optimizers.D=", "batch=" + "9" * 5000, "batch=" + "[" * 9999):
        result = shell("train", recipe_file, "--dataset", "ring", "--set", text, "--dry-run")
        check(result, text)
        assert result.status == 2


NUMBERS = ["nan", "inf", "-1", "0", "9" * 400]
OPTIONS = {
    "train": ("--minutes", "--images", "--seed", "--eval-every", "--nproc", "--micro-batch"),
    "resume": ("--minutes", "--nproc", "--micro-batch"),
    "sample": ("-n", "--seed", "--truncation", "--chunk", "--scale", "--interpolate", "--y", "--codes"),
    "eval": ("-n", "--seed"),
}


def test_wrong_numbers(run, recipe_file, shell):
    first = {"train": (recipe_file, "--dataset", "ring", "--dry-run"), "resume": ("run",), "eval": ("run",),
             "sample": ("run", "--out", "new.gif")}  # fmt: skip
    for verb, options in OPTIONS.items():
        for option in options:
            for text in NUMBERS:
                result = shell(verb, *first[verb], option, text)
                check(result, (verb, option, text))
                if option == "--minutes" and not math.isfinite(float(text)):
                    assert result.status == 2 and "--minutes" in result.err
