"""Weights files: the same images after loading, atomic writes, and one clear line for other files."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny import class_spec, image_spec, model, point_spec, process, translate_spec, weights
from safetensors.torch import save_file
from torch import nn

import zoo
from zoo import hub, publish
from zoo.files import sha256, tensor_hash
from zoo.registry import NETWORKS

SPECS = {"images": image_spec, "classes": class_spec, "points": point_spec}


@pytest.mark.parametrize("kind", SPECS)
def test_save_and_load(kind, tmp_path):
    path = weights(tmp_path / "w.safetensors", SPECS[kind]())
    loaded = zoo.load(path)
    assert torch.equal(loaded.sample(5), model(SPECS[kind]()).sample(5))
    assert loaded.card["images"] == 1000 and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_save_and_load_a_translator(tmp_path):
    path = weights(tmp_path / "w.safetensors", translate_spec())
    x = torch.rand(2, 3, 16, 16)
    for to in ("twitter", "b"):
        assert torch.equal(zoo.load(path).translate(x, to), model(translate_spec()).translate(x, to))


def test_run_folder(tmp_path):
    weights(tmp_path / "weights.safetensors", image_spec())
    assert zoo.load(tmp_path).sample(1).shape == (1, 3, 16, 16)


def test_channels_last_and_shared_weights_are_saved(tmp_path):
    m = model(translate_spec())
    m.F = m.G  # as in models whose directions share
    m.to(memory_format=torch.channels_last)
    hub.save_weights(tmp_path / "w.safetensors", m.networks, {"model": translate_spec()})
    x = torch.rand(1, 3, 16, 16)
    loaded = zoo.load(tmp_path / "w.safetensors")
    assert torch.allclose(loaded.translate(x, "b"), m.translate(x, "b"), atol=1e-5)
    assert torch.equal(loaded.translate(x, "b"), loaded.translate(x, "a"))


def test_half_precision(tmp_path):
    m = model(image_spec())
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    card = {"model": image_spec()}
    hub.save_weights(whole, m.networks, card)
    hub.save_weights(half, m.networks, card, half=True)
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    loaded = zoo.load(half)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert (loaded.sample(16) - m.sample(16)).abs().max() < publish.MAX_DIFFERENCE


@NETWORKS.register("tiny-tied")
class Tied(nn.Module):
    """z [N, 4] -> [N, 4]: one weight with two names, a buffer that is not saved, and a tensor that is neither."""

    def __init__(self):
        super().__init__()
        self.latent = 4
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.register_buffer("shift", torch.arange(4.0), persistent=False)
        self.scale = torch.full((4,), 0.5)

    def forward(self, z):
        return self.b(self.a(z)) * self.scale + self.shift


def test_what_a_constructor_computes_is_there_after_loading(tmp_path):
    spec = image_spec(networks={"G": {"name": "tiny-tied", "kwargs": {}}}, resolution=0, channels=4)
    loaded = zoo.load(weights(tmp_path / "w.safetensors", spec))
    assert torch.equal(loaded.sample(3), model(spec).sample(3))
    assert loaded.G.a.weight is loaded.G.b.weight


def test_no_network_of_a_recipe_computes_values_when_it_is_compared_with_a_file():
    """The first value on ``meta`` imports parts of torch that take most of a second."""
    code = """
import sys, torch
from zoo import build_check, settings
from zoo.data import facts
from zoo.engine.stage import resolve
from zoo.registry import NETWORKS

recipes = [settings.RECIPES[name]["build"]() for name in settings.names("small") or settings.names()]
recipes = [resolve(r, facts(r.dataset)) for r in recipes]
modules = set(sys.modules)
for recipe in recipes:
    with torch.device("meta"), build_check._NoValues():
        networks = [NETWORKS.build(spec) for spec in recipe.networks.values()]
assert "torch._refs" not in set(sys.modules) - modules
"""
    result = process("-c", code, cwd=Path(__file__).parent)
    assert result.returncode == 0, result.stderr


def test_loading_leaves_the_random_state_alone(tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    state = torch.random.get_rng_state()
    zoo.load(path)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors", image_spec())
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{name}", fail)
            with pytest.raises(OSError, match="No space"):
                weights(path, class_spec())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_written(value, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    before, m = path.read_bytes(), model(image_spec())
    next(b for b in m.buffers() if b.is_floating_point()).view(-1)[0] = value
    with pytest.raises(RuntimeError, match=r"weights '.*w\.safetensors': G\..*running_mean has values that are NaN or"):
        hub.save_weights(path, m.networks, {"model": image_spec()})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_values_too_large_for_16_bits_are_published_in_32(tmp_path):
    """Also when the images do not show it: here the variance of a layer whose outputs are 0 then."""
    m = model(image_spec())
    with torch.no_grad():
        next(b for n, b in m.named_buffers() if "running_var" in n)[0] = 1e6
    path = tmp_path / "w.safetensors"
    hub.save_weights(path, m.networks, {"model": image_spec()})
    entry = publish.publish(path, tmp_path / "shelf")
    assert not entry["half"] and torch.equal(zoo.load(entry["path"]).sample(4), m.sample(4))


# What is not a weights file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, 0.5])
def test_truncated(keep, tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"w\.safetensors': truncated"):
        zoo.load(path)


def test_files_that_are_not_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    for content in (b"\x89PNG" + bytes(1000), b"\xff" * 1000, (20).to_bytes(8, "little") + b"{} " * 7):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.safetensors': truncated or not a weights file"):
            zoo.load(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no Card in its header"):
        zoo.load(path)
    save_file({"a": torch.zeros(3)}, path, metadata={"card": "[1]"})
    with pytest.raises(ValueError, match="its header is not a JSON object"):
        zoo.load(path)
    save_file({"a": torch.zeros(3)}, path, metadata={"card": "{}"})
    with pytest.raises(ValueError, match="its Card has no model"):
        zoo.load(path)
    with pytest.raises(ValueError, match=r"weights '.*gone\.safetensors': no such file"):
        zoo.load(tmp_path / "gone.safetensors")


def test_card_and_tensors_that_disagree(tmp_path):
    path = tmp_path / "w.safetensors"
    m = model(image_spec())
    hub.save_weights(path, m.networks, {"model": class_spec()})
    with pytest.raises(ValueError, match="the tensors do not fit the networks of its Card"):
        zoo.load(path)
    unknown = image_spec(networks={"G": {"name": "dcgan-generatr", "kwargs": {}}})
    hub.save_weights(path, m.networks, {"model": unknown})
    with pytest.raises(ValueError, match=r"w\.safetensors'.*'dcgan-generatr'; did you mean dcgan-generator"):
        zoo.load(path)


def test_a_changed_bit_is_noticed_wherever_it_is(tmp_path):
    """In the tensors, the Card, the structure of the header and the checksum itself, of a file given by its path."""
    path = weights(tmp_path / "w.safetensors", image_spec())
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    card, digest = content.index(b"small-net-ring"), content.index(b'"checksum":"') + 12
    for place in (0, 8, 9, 40, card, digest, digest + 63, length - 1, length, length + 1001, len(content) - 1):
        for bit in (0, 6):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"weights '.*w\.safetensors': "):
                zoo.load(path)
    path.write_bytes(content)
    assert zoo.load(path).card["format"] == hub.FORMAT


def test_files_of_the_earlier_format_are_refused(tmp_path):
    m = model(image_spec())
    tensors = {f"G.{k}": v for k, v in m.G.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"card": json.dumps({"model": image_spec()})})
    with pytest.raises(ValueError, match="it has no checksum: an earlier version of the zoo wrote it"):
        zoo.load(tmp_path / "w.safetensors")


def test_folders_and_devices(tmp_path):
    with pytest.raises(ValueError, match=r"has no weights\.safetensors; must be a run's folder"):
        zoo.load(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="zoo resume"):
        zoo.load(tmp_path)
    path = weights(tmp_path / "w.safetensors", image_spec())
    with pytest.raises(ValueError, match=r"device='abacus': must be cpu, cuda"):
        zoo.load(path, device="abacus")


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """A weights folder of the test instead of the shipped one."""
    folder = tmp_path / "shelf"
    monkeypatch.setattr(hub, "SHIPPED", folder)
    publish.publish(weights(tmp_path / "w.safetensors", image_spec()), folder, "dcgan-test")
    return folder


def test_shipped_weights_by_name(weights_folder):
    assert zoo.list_weights() == zoo.list_weights("dcgan") == zoo.list_weights("*test") == ["dcgan-test"]
    assert zoo.list_weights("wgan") == []
    entry = hub.index()["dcgan-test"]
    content = (weights_folder / entry["file"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest() and entry["bytes"] == len(content)
    assert (zoo.load("dcgan-test").sample(4) - model(image_spec()).sample(4)).abs().max() < publish.MAX_DIFFERENCE
    with pytest.raises(ValueError, match="unknown weights 'dcgan-tset'; did you mean dcgan-test"):
        zoo.load("dcgan-tset")


def test_shipped_weights_that_changed(weights_folder):
    path = weights_folder / "dcgan-test.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'dcgan-test': .* \(sha256\); install the package again"):
        zoo.load("dcgan-test")
    path.unlink()
    with pytest.raises(ValueError, match=r"'dcgan-test': .* is missing; install the package again"):
        zoo.load("dcgan-test")


def test_a_shipped_file_by_its_path_is_compared_with_its_checksum(weights_folder):
    path = weights_folder / "dcgan-test.safetensors"
    assert zoo.load(path).card["name"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="dcgan-test.safetensors"):
        zoo.load(path)


def test_weights_that_are_not_published(weights_folder):
    with pytest.raises(ValueError, match="'dcgan-cifar10-small' are not published") as error:
        zoo.load("dcgan-cifar10-small")
    assert str(error.value).endswith("zoo train dcgan --dataset cifar10 --variant small")


def test_the_reduced_setting_stands_in_for_one_that_is_not_published(weights_folder, tmp_path, caplog, monkeypatch):
    hub._warn_of_reduced.cache_clear()
    publish.publish(weights(tmp_path / "w.safetensors", image_spec()), weights_folder, "dcgan-mnist-small")
    assert hub.find("dcgan-mnist-small").name == "dcgan-mnist-small.safetensors" and not caplog.messages
    assert hub.find("dcgan-mnist") == hub.find("dcgan-mnist-small")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dcgan-mnist").mkdir()  # a run
    shutil.copy(tmp_path / "w.safetensors", tmp_path / "dcgan-mnist" / hub.WEIGHTS)
    assert str(hub.find("dcgan-mnist")) == f"dcgan-mnist/{hub.WEIGHTS}"
    shutil.rmtree(tmp_path / "dcgan-mnist")
    assert caplog.messages == [
        "zoo: weights 'dcgan-mnist' are not published; "
        "these are 'dcgan-mnist-small': 32x32, width 32, 5,000 batches of 64"
    ]
    publish.publish(weights(tmp_path / "w.safetensors", image_spec()), weights_folder, "dcgan-mnist")
    assert hub.find("dcgan-mnist").name == "dcgan-mnist.safetensors" and len(caplog.messages) == 1


@pytest.mark.parametrize("how", ["python", "shell"])
def test_a_reduced_setting_is_one_line_on_stderr(how, tmp_path):
    load = "import zoo; zoo.load('wgan-gp-cifar10')"
    arguments = (
        ["-c", load] if how == "python" else ["-m", "zoo", "sample", "wgan-gp-cifar10", "-n", "1", "--out", "x.png"]
    )
    result = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    (line,) = result.stderr.splitlines()
    assert line.startswith("zoo: weights 'wgan-gp-cifar10' are not published; these are 'wgan-gp-cifar10-small': ")


def test_index_of_shipped_files():
    assert {hub.SHIPPED / e["file"] for e in hub.index().values()} == set(hub.SHIPPED.glob("*.safetensors"))
    assert sum(e["bytes"] for e in hub.index().values()) < 60e6
    for name, e in hub.index().items():
        assert e["bytes"] <= (
            6e6 if e["kind"] in ("translate", "upscale", "text-to-image", "joint-embedding") else 2e6
        ), name
    for name in hub.index():
        assert hub.read_header(hub.find(name))["card"]["name"] == name
        assert tensor_hash(hub.find(name)) == hub.index()[name]["tensors"]


def test_the_hash_of_tensors_ignores_the_card(tmp_path):
    m = model(image_spec())
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        hub.save_weights(path, m.networks, {"model": image_spec(), "images": i})
    assert tensor_hash(paths[0]) == tensor_hash(paths[1]) and sha256(paths[0]) != sha256(paths[1])
    with torch.no_grad():
        next(m.parameters()).view(-1)[0] += 1
    hub.save_weights(paths[1], m.networks, {"model": image_spec(), "images": 0})
    assert tensor_hash(paths[0]) != tensor_hash(paths[1])


# Publishing -----------------------------------------------------------------------------------------------------------


def test_difference_of_a_share_of_the_values(monkeypatch):
    """One value in a thousand may differ by more; the largest difference is that of all values."""

    class Output:
        device = "cpu"

        def __init__(self, others: int):
            self.others = others

        def probe(self):
            yield torch.zeros(5_000)
            values = torch.zeros(50, 100)
            values.view(-1)[: self.others] = 0.25
            yield values

    for others, expected in ((0, 0.0), (1, 0.0), (10, 0.0), (11, 0.25)):
        monkeypatch.setattr(hub, "read_model", lambda path, device, others=others: Output(others))
        assert publish.difference(Output(0), "other.safetensors", publish.SHARE) == expected
        assert publish.difference(Output(0), "other.safetensors") == (0.25 if others else 0.0)


def test_publish_in_half_precision(tmp_path):
    run = tmp_path / "run"
    weights(run / "weights.safetensors", image_spec())
    entry = publish.publish(run, tmp_path / "shelf")
    assert entry["half"] and entry["difference"] < publish.MAX_DIFFERENCE
    assert entry["path"].endswith("small-net-ring.safetensors")  # named after its recipe
    publish.publish(weights(tmp_path / "t.safetensors", translate_spec()), tmp_path / "shelf", "second")
    assert set(json.loads((tmp_path / "shelf/index.json").read_text())) == {"small-net-ring", "second"}
    assert sorted(p.name for p in (tmp_path / "shelf").iterdir()) == [
        "index.json", "second.safetensors", "small-net-ring.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("step", ["data_license", "save_weights"])
def test_what_fails_leaves_the_weights_of_the_index(step, tmp_path, monkeypatch):
    """Whatever fails, before the index is written or at it."""
    entry = publish.publish(weights(tmp_path / "w.safetensors", image_spec()), tmp_path / "shelf", "one")
    hub.save_weights(tmp_path / "w.safetensors", model(image_spec(), seed=1).networks, {"model": image_spec()})
    before = (tmp_path / "shelf/index.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(hub, step, lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish.publish(tmp_path / "w.safetensors", tmp_path / "shelf", "one")
    assert (tmp_path / "shelf/index.json").read_text() == before and sha256(entry["path"]) == entry["sha256"]
    assert sorted(p.name for p in (tmp_path / "shelf").iterdir()) == ["index.json", "one.safetensors"]
    again = publish.publish(tmp_path / "w.safetensors", tmp_path / "shelf", "one")
    assert sha256(entry["path"]) == again["sha256"] != entry["sha256"]


def test_license_and_bar_of_what_is_published(tmp_path):
    sets = {"dataset": {"name": "faces", "license": "CC0"}, "datasets_of_streams": [{"name": "grid", "license": "MIT"}]}
    path = weights(tmp_path / "w.safetensors", image_spec(), **sets)
    entry = publish.publish(path, tmp_path / "shelf", below_bar="a paper before 2015")
    card = hub.read_header(entry["path"])["card"]
    assert entry["license"] == "faces: CC0; grid: MIT" == hub.data_license(card)
    assert entry["below_bar"] == card["below_bar"] == "a paper before 2015"
    again = publish.publish(entry["path"], tmp_path / "other")  # what is marked stays marked
    assert again["below_bar"] == "a paper before 2015"
    plain = publish.publish(weights(tmp_path / "w.safetensors", image_spec()), tmp_path / "shelf", "plain")
    assert plain["license"] == "not stated" and plain["below_bar"] is None
    assert hub.read_header(plain["path"])["card"]["below_bar"] is None


def test_what_is_published_is_not_written_over(tmp_path):
    """Neither a file in the folder itself nor an entry of its index."""
    source = weights(tmp_path / "mine.safetensors", image_spec())
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"mine.safetensors is what is to be published, and would be written over"):
        publish.publish(source, tmp_path, "mine")
    assert source.read_bytes() == before and not (tmp_path / "index.json").exists()
    publish.publish(source, tmp_path, "other")
    assert source.read_bytes() == before and [*hub.index(tmp_path)] == ["other"]


def test_publish_in_float32(tmp_path):
    m = model(image_spec())
    with torch.no_grad():
        next(m.parameters()).mul_(1e6)  # beyond what a half holds
        next(m.parameters()).view(-1)[0] = 1e6
    path = tmp_path / "w.safetensors"
    hub.save_weights(path, m.networks, {"model": image_spec()})
    entry = publish.publish(path, tmp_path / "shelf")
    assert not entry["half"]
    assert torch.equal(zoo.load(entry["path"]).sample(4), m.sample(4))


def test_points_are_published_in_float32(tmp_path):
    entry = publish.publish(weights(tmp_path / "w.safetensors", point_spec()), tmp_path / "shelf")
    assert not entry["half"] and entry["difference"] is None


def test_hub(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    store = tmp_path / "store"
    store.mkdir()

    def upload(path_or_fileobj, path_in_repo, repo_id):
        assert repo_id == "owner/name"
        shutil.copy(path_or_fileobj, store / path_in_repo)

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, exist_ok: None)
    monkeypatch.setattr(huggingface_hub, "upload_file", upload)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file, **_: str(store / file))
    entry = publish.publish(weights(tmp_path / "w.safetensors", image_spec()), "hf:owner/name")
    assert entry["path"] == "hf:owner/name"
    assert (zoo.load("hf:owner/name").sample(2) - model(image_spec()).sample(2)).abs().max() < publish.MAX_DIFFERENCE

    def fail(kind):
        def call(*args, **kwargs):
            raise kind

        return call

    for kind, expected, message in [
        (errors.LocalEntryNotFoundError("no connection"), OSError, "'hf:owner/name': the hub does not answer"),
        (ConnectionError("refused"), OSError, "'hf:owner/name': the hub does not answer"),
        (errors.EntryNotFoundError("404"), ValueError, "'hf:owner/name': has no weights"),
    ]:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail(kind))
        with pytest.raises(expected, match=message):
            zoo.load("hf:owner/name")
    with pytest.raises(ValueError, match="'hf:name': must be hf:OWNER/NAME"):
        zoo.load("hf:name")
    monkeypatch.setattr(huggingface_hub, "upload_file", fail(ConnectionError("refused")))
    with pytest.raises(OSError, match="'hf:owner/name': not published"):
        publish.publish(tmp_path / "w.safetensors", "hf:owner/name")


def test_loading_needs_no_games_and_no_engine(tmp_path):
    weights(tmp_path / "w.safetensors", image_spec())
    code = (
        "import sys, zoo; zoo.load('w.safetensors').sample(2);"
        "bad = [m for m in sys.modules if m.startswith(('zoo.games', 'zoo.engine', 'zoo.cli', 'zoo.recipes.'))];"
        "assert not bad, bad"
    )
    result = process("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_hash_of_tensors_is_theirs_alone(tmp_path):
    """Another Card leaves it as it is; another value, type, name or shape does not."""
    saved = model(class_spec())
    path = tmp_path / "weights.safetensors"
    hub.save_weights(path, saved.networks, saved.card)
    first, file = tensor_hash(path), hub.sha256(path)
    hub.save_weights(path, saved.networks, {**saved.card, "seconds": 1})
    assert tensor_hash(path) == first and hub.sha256(path) != file
    tensors = {f"{n}.{k}": v for n, network in saved.networks.items() for k, v in network.state_dict().items()}
    name, value = next((k, v) for k, v in tensors.items() if v.dim() > 1)
    changed = value.clone()
    changed[0, 0] += 1e-6
    others = [{name: changed}, {name: value.half()}, {name: value.flatten()}]
    hashes = {first, *(hash_of({**tensors, **other}, path) for other in others)}
    hashes.add(hash_of({k.replace(name, "other"): v for k, v in tensors.items()}, path))
    assert hash_of(tensors, path) == first and len(hashes) == 5
    for content in (b"", path.read_bytes()[:-1], b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or no safetensors file"):
            tensor_hash(path)


def hash_of(tensors, path) -> str:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return tensor_hash(path)
