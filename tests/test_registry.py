"""A registry imports its modules once, whole, whichever thread asks first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package of modules; returns the registry that reads it. The package's name is a new one each time."""
    name = f"parts_{tmp_path.name}".replace("-", "_")

    def write(**modules):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        return registry

    registry = Registry("part", name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(f"{__name__}.REGISTRY", registry, raising=False)
    return write


def module(entry, *, first="", last=""):
    return f"import {__name__} as t\n{first}\n@t.REGISTRY.register('{entry}')\ndef build(): ...\n{last}\n"


def test_threads_wait_for_the_first_import(package, monkeypatch):
    """A second thread that looks up a name while the first imports gets the entry, not *unknown part*."""
    begin, go = threading.Event(), threading.Event()
    monkeypatch.setattr(f"{__name__}.BEGIN", begin, raising=False)
    monkeypatch.setattr(f"{__name__}.GO", go, raising=False)
    registry = package(a=module("early", last="t.BEGIN.set(); t.GO.wait(20)"), b=module("late"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(registry.__getitem__, "early")
        assert begin.wait(20)
        second = pool.submit(registry.__getitem__, "late")
        with pytest.raises(TimeoutError):
            second.result(0.2)
        go.set()
        assert first.result(20).__module__.endswith(".a") and second.result(20).__module__.endswith(".b")


def test_a_module_may_look_up_what_is_there(package):
    registry = package(a=module("early"), b=module("late", first="assert 'early' in t.REGISTRY"))
    assert registry.names() == ["early", "late"]


def test_a_failed_import_is_tried_again(package):
    registry = package(a=module("early"), b="raise ImportError('b needs c')")
    for _ in range(2):
        with pytest.raises(ImportError, match="b needs c"):
            registry.names()
    package(b=module("late", first="# now a longer file, which no cache stands for"))
    assert registry.names() == ["early", "late"]
