"""Fixtures that several tests share."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.pretrained import ENCODER, FEATURES, put_weights
from helpers.tiny import RECIPE

from zoo import settings
from zoo.allocator import reuse_memory
from zoo.cli import main

# The workers, and the processes that tests start, share the cores: one thread each is much faster than all threads.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
reuse_memory()


def pytest_addoption(parser):
    parser.addoption("--all-recipes", action="store_true", help="Test every recipe on a CUDA device, not one a game.")


def pytest_configure(config):
    config.addinivalue_line("markers", "all_recipes: runs with --all-recipes only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all-recipes"):
        more = [item for item in items if item.get_closest_marker("all_recipes")]
        config.hook.pytest_deselected(items=more)
        items[:] = [item for item in items if item not in set(more)]


class Result:
    def __init__(self, status: int, out: str, err: str):
        self.status, self.out, self.err = status, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines() if line.startswith('{"event"')]


@pytest.fixture
def shell(capsys, tmp_path, monkeypatch):
    """The command line in this process, in an empty folder: ``shell("list", "models")`` -> status, out, err."""
    monkeypatch.chdir(tmp_path)

    def run(*args) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in args])
        output = capsys.readouterr()
        return Result(stop.value.code, output.out, output.err)

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    return home


@pytest.fixture
def recipe_file(tmp_path, monkeypatch, home) -> Iterator[Path]:
    """A user's recipe file; its recipes are removed afterwards. Data sets are prepared in a folder of the tests."""
    monkeypatch.setenv("ZOO_HOME", str(home))
    path = tmp_path / "small_net.py"
    path.write_text(RECIPE)
    before = settings.names()  # imports all of the zoo's own
    yield path
    for name in [n for n in settings.RECIPES if n not in before]:
        del settings.RECIPES[name]


@pytest.fixture
def own_home(tmp_path, monkeypatch) -> Path:
    """An empty $ZOO_HOME."""
    home = tmp_path / "home"
    monkeypatch.setenv("ZOO_HOME", str(home))
    return home


@pytest.fixture
def pretrained_weights(own_home) -> Path:
    """The same, with the weights of the tests' pretrained networks."""
    put_weights(own_home, FEATURES)
    put_weights(own_home, ENCODER)
    return own_home


@pytest.fixture
def benchmark(monkeypatch):
    """``benchmark(name)``: the module of benchmarks/."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load
