"""Weights files that somebody else made: each loads or is refused with one ValueError, quickly and in little memory."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import coded_spec, coupled_spec, image_spec, point_spec, process, translate_spec, weights
from safetensors.torch import save

import zoo
from zoo import recipe, settings
from zoo.tensor_file import CHECKSUM, ZEROS

UNITS, MEGABYTES = 15, 300  # a unit: the time in which this machine writes and reads a million numbers as JSON
CHILD = """
import json, sys, time
from pathlib import Path

import zoo

def memory(key):  # in MB
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

def unit():
    start = time.process_time()
    json.loads(json.dumps(list(range(1_000_000))))
    return time.process_time() - start

first, *paths = sorted(Path(sys.argv[1]).iterdir())
zoo.load(first).sample(1)
before = unit()
for path in paths:
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    idle, start = memory("VmRSS:"), time.process_time()  # other tests may keep this one waiting
    try:
        zoo.load(path)
        result = "loads"
    except ValueError as error:
        result = "refused" if "\\n" not in str(error) and len(str(error)) < 600 else f"long: {error}"
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"[:200]
    print(json.dumps([path.name, result, time.process_time() - start, memory("VmHWM:") - idle]), flush=True)
print(json.dumps(max(before, unit())))
"""
VALUES = [
    10**400, 10**9, 1 << 62, 65_536, 3072, -1, 0, 1, 2.5, 1e308, True, None, "relu", "x" * 100_000, [], [1] * 50,
    [10**9] * 3, {}, [[[[]]]], {"@": "Adam"}, {"@": "Spec", "name": "a", "kwargs": {}},
]  # fmt: skip


def content(header: Any, tensors: bytes) -> bytes:
    """A file with this header and, if it has zeros for one, a right checksum. ``header``: JSON, or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + tensors
    return whole.replace(ZEROS.encode(), hashlib.sha256(whole).hexdigest().encode(), 1)


def parts(whole: bytes) -> tuple[dict, bytes]:
    """The header, with zeros for the checksum, and the tensors of a file."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"][CHECKSUM] = ZEROS
    return header, whole[8 + length :]


def headers(header: dict, tensors: bytes) -> Iterator[bytes]:
    """Wrong entries, types, shapes, offsets, lengths and metadata."""
    name = next(k for k in header if k != "__metadata__")

    def changed(change: Callable[[dict], object]) -> bytes:
        other = copy.deepcopy(header)
        change(other)
        return content(other, tensors)

    for key in ("dtype", "shape", "data_offsets"):
        for value in [
            *VALUES,
            "F16",
            "F64",
            "Q7",
            [0, 0],
            [0, 8],
            [-8, 8],
            [8, 0],
            [1, 2, 3],
            [2**40, 2**40],
            [0, 10**18],
        ]:
            yield changed(lambda h, key=key, value=value: h[name].update({key: value}))
        yield changed(lambda h, key=key: h[name].pop(key))
    for value in VALUES:
        yield changed(lambda h, value=value: h.update({name: value}))
        yield changed(lambda h, value=value: h.update(__metadata__=value))
        yield changed(lambda h, value=value: h["__metadata__"].update(card=value))
        yield changed(lambda h, value=value: h["__metadata__"].update(card=json.dumps(value)))
    yield changed(lambda h: h.pop(name))
    yield changed(lambda h: h.update({name + "2": h.pop(name)}))
    for depth in (10, 900, 100_000):
        for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth):
            yield content(nested.encode(), tensors)
            yield changed(lambda h, nested=nested: h["__metadata__"].update(card=nested))
            yield changed(lambda h, nested=nested: h["__metadata__"].update(card='{"model":' + nested + "}"))
    for text in (
        b"",
        b"null",
        b"1e999",
        b"NaN",
        b"[" + b"0," * 3_000_000 + b"0]",
        b"9" * 5000,
        b"\xff\xfe",
        b'{"a":1}',
    ):
        yield content(text, tensors)
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield length.to_bytes(8, "little") + content(header, tensors)[8:]


def fields(header: dict, tensors: bytes) -> Iterator[bytes]:
    """Wrong values in each field of the model spec, at any depth."""
    card = json.loads(header["__metadata__"]["card"])

    def paths(node: Any, path: tuple = ()) -> Iterator[tuple]:
        for key, value in node.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from paths(value, (*path, key))

    for path in paths(card["model"]):
        for value in VALUES:
            other = copy.deepcopy(card)
            node = other["model"]
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            yield card_of(header, other, tensors)
    for count in (2, 300, 20_000):
        other = copy.deepcopy(card)
        first = next(iter(card["model"]["networks"].values()))
        other["model"]["networks"].update({f"N{i}": first for i in range(count)})
        yield card_of(header, other, tensors)


def card_of(header: dict, card: dict, tensors: bytes) -> bytes:
    return content({**header, "__metadata__": {**header["__metadata__"], "card": json.dumps(card)}}, tensors)


def constructors() -> Iterator[bytes]:
    """Each network of the recipes with wrong arguments, beside a few small tensors."""
    tensors = {"G.a": torch.zeros(3), "G.b": torch.zeros(2, 2)}
    specs = {}
    for name in settings.names():
        for spec in settings.RECIPES[name]["build"]().networks.values():
            specs[spec.name] = {"channels": 1, "resolution": 32, **recipe.encode(spec.kwargs)}
    for number, (name, kwargs) in enumerate(specs.items()):
        for position, key in enumerate(kwargs):
            for value in VALUES[(number + position) % 3 :: 3]:
                networks = {"G": {"name": name, "kwargs": {**kwargs, key: value}}}
                spec = image_spec(networks=networks, resolution=32, channels=1)
                yield content(*parts(save(tensors, {"card": json.dumps({"model": spec})})))


def crowds() -> Iterator[bytes]:
    """As many tensors as a header can have, all empty, and networks of as many layers."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    tensors = {f"G.{i}": entry for i in range(50_000)}
    small = {"channels": 1, "resolution": 8, "width": 1}
    networks = [
        {"name": "cyclegan-generator", "kwargs": {**small, "blocks": 60_000}},
        {"name": "mlp-generator", "kwargs": {"channels": 1, "latent": 1, "hidden": [1] * 90_000}},
        {"name": "mlp-generator", "kwargs": {"channels": 1, "latent": 1, "hidden": [1] * 90_000, "norm": True}},
    ]
    for network in networks:
        card = json.dumps({"model": image_spec(networks={"G": network}, resolution=0, channels=1)})
        yield content({"__metadata__": {"card": card, CHECKSUM: ZEROS}, **tensors}, b"")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak memory")
def test_hostile_files_load_or_are_refused(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    weights(folder / "0", image_spec())
    bases = [image_spec(), coded_spec(), translate_spec(), coupled_spec(), point_spec()]
    files = [*constructors(), *crowds()]
    for number, spec in enumerate(bases):
        header, tensors = parts(weights(tmp_path / "w.safetensors", spec).read_bytes())
        files += fields(header, tensors)
        files += headers(header, tensors) if number == 0 else []
    for number, file in enumerate(files):
        (folder / f"{number + 1:05}").write_bytes(file)
    result = process("-c", CHILD, folder, cwd=tmp_path)
    *rows, unit = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == len(files) >= 300, result.stderr[-500:]
    for name, outcome, seconds, megabytes in rows:
        assert outcome in ("loads", "refused"), (name, outcome)
        assert seconds < UNITS * unit and megabytes < MEGABYTES, (name, outcome, seconds, unit, megabytes)
    counts = [sum(row[1] == outcome for row in rows) for outcome in ("loads", "refused")]
    assert min(counts) >= 10, counts


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("dataset",), "cifar10"),
        (("dataset",), None),
        (("dataset",), {"name": [1]}),
        (("dataset",), {"name": "x", "license": 5}),
        (("datasets_of_streams",), 5),
        (("datasets_of_streams",), None),
        (("datasets_of_streams",), [5]),
        (("datasets_of_streams",), {"name": "x"}),
        (("datasets_of_streams",), [{"name": ["x"]}]),
        (("datasets_of_streams",), [{"name": "x", "license": {}}]),
        (("recipe",), [1]),
        (("model", "classifier"), "Z"),
        (("model", "classifier"), ["G"]),
        (("model", "truncation"), "w"),
    ],
)
def test_cards_that_later_commands_could_not_use(tmp_path, place, value):
    """They are refused when the file is loaded, for ``zoo eval`` and ``zoo sample`` rely on them."""
    header, tensors = parts(weights(tmp_path / "w.safetensors", image_spec()).read_bytes())
    card = json.loads(header["__metadata__"]["card"])
    node = card["model"] if len(place) > 1 else card
    node[place[-1]] = value
    (tmp_path / "w.safetensors").write_bytes(card_of(header, card, tensors))
    with pytest.raises(ValueError, match=place[-1]):
        zoo.load(tmp_path / "w.safetensors")
