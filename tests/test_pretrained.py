"""Pretrained networks: found by name and hash, frozen, never saved; and the fields that they compute from a data set's
rows."""

import copy
import dataclasses
import hashlib
import json
import pickle
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from helpers.play import CPU, Every, Killed, image_recipe, kill_at, play, same, session, weights
from helpers.pretrained import (
    ENCODER,
    FEATURES,
    SIDE,
    described,
    described_recipe,
    put_weights,
)
from safetensors.torch import load_file, save_file

import zoo
from zoo import hub, overrides, pretrained
from zoo.engine import train
from zoo.engine.dry_run import describe, dry_run
from zoo.engine.run_folder import CHECKPOINT, RECIPE, WEIGHTS
from zoo.engine.runtime import Runtime
from zoo.engine.stage import resolve
from zoo.recipe import Adam, Data, Derived, Ema, Pretrained, Stream, from_json, to_json
from zoo.registry import NETWORKS, Spec

# Frozen and never saved -----------------------------------------------------------------------------------------------


def test_it_is_frozen_and_no_part_of_the_games_state(pretrained_weights):
    run = session(described_recipe(ema={"G": Ema(halflife=50)}), described())
    before = {name: weights(run.game.get_submodule(name).network) for name in ("VGG", "T")}
    start = weights(run.game)
    play(run, 3)
    for name, tensors in before.items():
        frozen = run.game.get_submodule(name)
        assert same(tensors, weights(frozen.network)) and not frozen.network.training
        assert not any(p.requires_grad or p.grad is not None for p in frozen.network.parameters())
    after = run.game.state_dict()
    assert {key.split(".")[0] for key in after} == {"G", "D"}
    assert all(not torch.equal(start[key], after[key]) for key in start if key.endswith("weight"))
    run.game.train()
    assert not run.game.get_submodule("VGG").network.training  # whatever is done with the modules around it


def test_gradients_pass_through_it(pretrained_weights):
    run = session(described_recipe(), described())
    x = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
    run.game.get_submodule("VGG")(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_it_moves_with_the_game_and_is_shared_by_copies(pretrained_weights):
    game = session(described_recipe(), described()).game
    twin = copy.deepcopy(game)
    assert twin.VGG.network is game.VGG.network and twin.G is not game.G
    game.double()
    assert all(p.dtype == torch.float64 for p in game.VGG.network.parameters())


def test_compiled_and_micro_batches(pretrained_weights, monkeypatch):
    """Traced ahead of time, and in slices (its batch norm is in eval mode), the weights after two rounds are equal."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, **options: compile(loss, backend="aot_eager"))
    runs = [
        session(described_recipe(), described(), runtime=Runtime(device="cpu", layout="contiguous", **options))
        for options in ({}, {"compile": True}, {"micro_batch": 2})
    ]
    for run in runs:
        play(run, 2)
    whole, *others = (weights(run.game) for run in runs)
    for other in others:
        assert all(torch.allclose(whole[key], other[key], rtol=1e-4, atol=1e-6) for key in whole)


def test_no_file_contains_it(pretrained_weights, tmp_path):
    recipe = described_recipe(ema={"G": Ema(halflife=50)}, optimizer=Adam(lr=0.01))
    run = train.train(recipe, tmp_path / "run", runtime=CPU, dataset=described())
    tensors = [*load_file(run / CHECKPOINT), *load_file(run / WEIGHTS)]
    assert any(key.startswith("ema.G.") for key in tensors) and any(key.startswith("optimizers.D.") for key in tensors)
    assert not [key for key in tensors if {"VGG", "T"} & set(key.split("."))]
    digests = {
        name: pretrained.hash_of(hub.load_pretrained({name: p})[name].network) for name, p in recipe.pretrained.items()
    }
    of_run = json.loads((run / RECIPE).read_text())["recipe"]["pretrained"]
    of_card = hub.read_header(run / WEIGHTS)["card"]["recipe"]["pretrained"]
    assert (
        {name: p["hash"] for name, p in of_run.items()} == {name: p["hash"] for name, p in of_card.items()} == digests
    )


def test_a_shipped_model_finds_what_it_needs_by_its_hash(pretrained_weights, tmp_path):
    run = train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=described())
    own = hub.load_pretrained({"T": ENCODER})["T"](["a bird"])
    (pretrained_weights / "pretrained" / "tiny-features.safetensors").unlink()  # the loss network is not needed
    model = zoo.load(run)
    assert torch.equal(model.T(["a bird"]), own) and set(model.networks) == {"G"}
    assert set(model.card["model"]["pretrained"]) == {"T"} and not any(
        p.requires_grad for p in model.T.network.parameters()
    )
    file = pretrained_weights / "pretrained" / "tiny-text-encoder.safetensors"
    file.rename(file.with_name("another-name.safetensors"))
    put_weights(pretrained_weights, ENCODER, seed=1)  # other weights under the old name
    assert torch.equal(zoo.load(run).T(["a bird"]), own)
    file.with_name("another-name.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"pretrained\.T: the weights 'tiny-text-encoder' with the hash .* not at hand"
    ):
        zoo.load(run)


def test_a_card_without_a_hash_is_refused(pretrained_weights, tmp_path):
    run = train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=described())
    card = hub.read_header(run / WEIGHTS)["card"]
    card["model"]["pretrained"]["T"]["hash"] = ""
    hub.save_weights(tmp_path / "file.safetensors", zoo.load(run).networks, card)
    with pytest.raises(ValueError, match=r"pretrained\.T: must have the hash of its weights"):
        zoo.load(tmp_path / "file.safetensors")
    card["model"]["pretrained"]["T"] |= {"hash": "0" * 64, "source": "../secret"}
    hub.save_weights(tmp_path / "file.safetensors", zoo.load(run).networks, card)
    with pytest.raises(ValueError, match=r"pretrained\.T\.source='\.\./secret': must be NAME, hf:"):
        zoo.load(tmp_path / "file.safetensors")


@NETWORKS.register("test-crowd")
class Crowd(torch.nn.Module):
    """``layers`` layers without weights, and tables of ``tables`` numbers that no file has."""

    def __init__(self, layers: int = 1, tables: Sequence[int] = ()):
        super().__init__()

        self.layers = torch.nn.Sequential(*(torch.nn.ReLU() for _ in range(layers)))
        for k, n in enumerate(tables):
            self.register_buffer(f"table{k}", torch.zeros(n, n), persistent=False)


HUGE = {
    "layers": ({"layers": 60_000}, r"pretrained\.T: must have at most 10,000 modules and tensors"),
    "tables": ({"tables": [60_000] * 4}, r"pretrained\.T: .* of 16,777,216 numbers"),
    "another type": ({"tables": [[1]]}, r"can't be built \(TypeError"),
    "a larger number": ({"layers": 10**400}, r"has the number 1000000"),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_network_that_a_card_asks_for_is_bounded(name, pretrained_weights, tmp_path):
    """It is refused before it has its memory."""
    run = train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=described())
    card, networks = hub.read_header(run / WEIGHTS)["card"], zoo.load(run).networks
    kwargs, message = HUGE[name]
    network = {"@": "Spec", "name": "test-crowd", "kwargs": kwargs}
    card["model"]["pretrained"]["T"] |= {"network": network, "source": "", "hash": "0" * 64}
    hub.save_weights(tmp_path / "file.safetensors", networks, card)
    with pytest.raises(ValueError, match=message) as error:
        zoo.load(tmp_path / "file.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_card_with_other_values_is_refused(pretrained_weights, tmp_path):
    """In each field of a pretrained network, and instead of one or all of them: one ValueError."""
    run = train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=described())
    card, networks, file = hub.read_header(run / WEIGHTS)["card"], zoo.load(run).networks, tmp_path / "file.safetensors"
    values = [10**9, -1, 2.5, True, None, "x", "hf:../../x", "x" * 10_000, [], [1], {}, {"@": "Adam"}, {"@": "Spec"}]
    keys = [(), ("T",), *(("T", key) for key in card["model"]["pretrained"]["T"] if key != "prefix")]
    for path in [*keys, ("T", "network", "name"), ("T", "network", "kwargs")]:
        for value in values:
            changed = copy.deepcopy(card)
            node, *rest = changed["model"], *("pretrained", *path)
            for key in rest[:-1]:
                node = node[key]
            if node[rest[-1]] == value or (value == {} and path in ((), ("T", "network", "kwargs"))):
                continue  # a model without, or the network's defaults
            if path == ("T", "source") and value == "x":
                continue  # another name, but the same hash
            node[rest[-1]] = value
            hub.save_weights(file, networks, changed)
            with pytest.raises(ValueError, match=r"^weights '.*file\.safetensors'") as error:
                zoo.load(file)
            assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    for name in ("a.b", "", "spec", "G"):
        changed = copy.deepcopy(card)
        changed["model"]["pretrained"] = {name: card["model"]["pretrained"]["T"]}
        hub.save_weights(file, networks, changed)
        with pytest.raises(ValueError, match=r"^weights '"):
            zoo.load(file)


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("stage", [0, 1])
def test_resume_equals_unbroken_run(pretrained_weights, tmp_path, monkeypatch, stage, renamed):
    monkeypatch.setattr(train, "Clock", Every)
    recipe = described_recipe()
    recipe = recipe.replace(stages=recipe.stages * 2)
    whole = train.train(recipe, tmp_path / "whole", runtime=CPU, dataset=described())
    with pytest.raises(Killed):
        train.train(recipe, tmp_path / "run", runtime=CPU, dataset=described(), progress=kill_at(5, stage))
    files = [pretrained_weights / "pretrained" / f"{p.source}.safetensors" for p in (FEATURES, ENCODER)]
    if renamed:
        for file in files:
            file.rename(file.with_name(f"x-{file.name}"))
    train.resume(tmp_path / "run", runtime=CPU, dataset=described())
    assert same(*(load_file(path / CHECKPOINT) for path in (whole, tmp_path / "run")))


def test_resume_with_other_weights_fails(pretrained_weights, tmp_path):
    run = train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=described())
    put_weights(pretrained_weights, FEATURES, seed=1)
    with pytest.raises(ValueError, match=r"pretrained\.VGG: the weights 'tiny-features' with the hash .*not at hand"):
        train.resume(run, runtime=CPU, dataset=described())


# At hand or not -------------------------------------------------------------------------------------------------------

USER_RECIPE = '''
"""A recipe with a loss network."""
from helpers.pretrained import ENCODER, FEATURES
from zoo.recipe import SGD, Pretrained, Recipe, Spec, Stage
from zoo.settings import setting


@setting("fashion-mnist-10k")
def small():
    "Small."
    game = Spec("adversarial", loss=Spec("non-saturating"))
    networks = {"G": Spec("dcgan-generator", width=8), "D": Spec("dcgan-discriminator", width=8)}
    stage = Stage(game=game, optimizers=dict.fromkeys("GD", SGD(lr=0.1)), images=64, batch=8, resolution=32)
    return Recipe(networks, (stage,), pretrained={"VGG": FEATURES})
'''


def test_the_command_line_says_what_is_missing(recipe_file, own_home, shell):
    recipe_file.write_text(USER_RECIPE)
    output = shell("show", recipe_file)
    assert "VGG: test-features() from tiny-features, 150 parameters" in output.out
    output = shell("show", recipe_file, "--json").json
    assert output["pretrained"]["VGG"]["parameters"] == 150 and "VGG" not in output["parameters"]
    assert shell("train", recipe_file, "--dry-run").status == 0  # no weights are needed on meta
    result = shell("train", recipe_file, "--device", "cpu", "--out", "run")
    path = own_home / "pretrained" / "tiny-features.safetensors"
    assert result.status == 2 and len(result.err.splitlines()) == 1
    assert f"pretrained.VGG: the weights 'tiny-features' are not at hand; put them in {path}" in result.err
    assert not (recipe_file.parent / "run").exists()
    put_weights(own_home, FEATURES)
    assert shell("train", recipe_file, "--device", "cpu", "--out", "run").status == 0


def test_parameters_are_counted_apart(own_home):
    """Without weights."""
    facts = describe(image_recipe().replace(dataset="fashion-mnist-10k", pretrained={"VGG": FEATURES}))
    assert facts["pretrained"]["VGG"] == {
        "name": "test-features",
        "kwargs": {},
        "source": "tiny-features",
        "parameters": 150,
    }
    assert set(facts["parameters"]) == {"G", "D"} and "pretrained" not in describe(
        image_recipe().replace(dataset="fashion-mnist-10k")
    )


def test_an_untrained_model_needs_only_what_it_runs_with(own_home, recipe_file, monkeypatch):
    """create() does not load a loss network."""
    monkeypatch.setenv("ZOO_HOME", str(own_home))
    recipe_file.write_text(USER_RECIPE)
    assert zoo.create(str(recipe_file)).sample(1).shape == (1, 1, 32, 32)


def test_weights_of_another_form_are_refused(own_home):
    path = put_weights(own_home, FEATURES)
    good = load_file(path)
    narrow = {**good, "layers.0.weight": torch.rand(4, 3, 3, 3)}
    missing = {k: v for k, v in good.items() if k != "layers.0.bias"}
    infinite = {**good, "layers.1.running_var": torch.full((5,), float("inf"))}
    for tensors, message in (
        (narrow, r"the tensor 'layers\.0\.weight' must be \[5, 3, 3, 3\], got \[4, 3, 3, 3\]"),
        (missing, r"must have the tensor 'layers\.0\.bias' of the network; is the prefix right\?"),
        (infinite, r"the tensor 'layers\.1\.running_var' must be finite"),
    ):
        save_file(tensors, path)
        with pytest.raises(ValueError, match=rf"^pretrained\.VGG: {path}: {message}"):
            hub.load_pretrained({"VGG": FEATURES})
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"no safetensors file"):
        hub.load_pretrained({"VGG": FEATURES})


def test_a_prefix_and_other_tensors(own_home):
    """A part of a larger file; its other tensors do not change the hash."""
    put_weights(own_home, FEATURES)
    plain = hub.load_pretrained({"VGG": FEATURES})["VGG"]
    put_weights(own_home, FEATURES, name="larger", prefix="features.")
    path = own_home / "pretrained" / "larger.safetensors"
    save_file({**load_file(path), "classifier.weight": torch.rand(3)}, path)
    part = Pretrained(FEATURES.network, source="larger", prefix="features.")
    assert hub.load_pretrained({"VGG": part})["VGG"].hash == plain.hash
    pinned = dataclasses.replace(part, hash=plain.hash)
    assert hub.load_pretrained({"VGG": pinned})["VGG"].hash == plain.hash
    with pytest.raises(ValueError, match="with the hash 000000000000... are not at hand"):
        hub.load_pretrained({"VGG": dataclasses.replace(part, hash="0" * 64)})


def test_shipped_weights(own_home, monkeypatch, tmp_path):
    """A network of a shipped file of the zoo."""
    networks, card = {"C": NETWORKS.build(FEATURES.network)}, {"model": {}}
    hub.save_weights(tmp_path / "shipped" / "teacher.safetensors", networks, card)
    digest = hashlib.sha256((tmp_path / "shipped" / "teacher.safetensors").read_bytes()).hexdigest()
    (tmp_path / "shipped" / "index.json").write_text(
        json.dumps({"teacher": {"file": "teacher.safetensors", "sha256": digest}})
    )
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "shipped")
    teacher = hub.load_pretrained({"C": Pretrained(FEATURES.network, source="teacher", prefix="C.")})["C"]
    assert same(weights(networks["C"]), weights(teacher.network))


def test_the_hub_and_timm(own_home, monkeypatch, tmp_path):
    """Which file is asked for; no answer is a line with the command that fetches it."""
    import huggingface_hub

    requests, path = [], put_weights(own_home, FEATURES, name="elsewhere")
    path = path.rename(tmp_path / "model.safetensors")

    def download(repository, name, **options):
        requests.append((repository, name, options.get("local_files_only", False)))
        if options.get("local_files_only"):
            raise OSError("not cached")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source, expected in (
        ("hf:someone/vgg", ("someone/vgg", "weights.safetensors")),
        ("hf:someone/vgg/deep/vgg.safetensors", ("someone/vgg", "deep/vgg.safetensors")),
        ("timm:resnet18.a1_in1k", ("timm/resnet18.a1_in1k", "model.safetensors")),
    ):
        requests.clear()
        assert hub.load_pretrained({"V": Pretrained(FEATURES.network, source=source)})["V"].hash
        assert requests == [(*expected, True), (*expected, False)]

    def silent(*args, **options):
        raise OSError("no answer\nfrom the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", silent)
    with pytest.raises(
        ValueError, match=r"not at hand \(no answer from the hub\); fetch them with: hf download a/b c.saf"
    ):
        hub.load_pretrained({"V": Pretrained(FEATURES.network, source="hf:a/b/c.safetensors")})
    with pytest.raises(ValueError, match="timm has no pretrained 'no-such-model'"):
        hub.load_pretrained({"V": Pretrained(FEATURES.network, source="timm:no-such-model")})


def test_torchvision(own_home, monkeypatch, tmp_path):
    """Its own .pth file, from the folder; the name has the start of its SHA-256."""
    import torchvision.models

    network = NETWORKS.build(FEATURES.network)
    folder = own_home / "pretrained"
    folder.mkdir(parents=True)
    torch.save({f"features.{k}": v for k, v in network.state_dict().items()}, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    url = f"https://models.example/tiny-{digest}.pth"
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: SimpleNamespace(url=url))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))

    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    vgg = Pretrained(FEATURES.network, source="torchvision:Tiny_Weights.V1", prefix="features.")
    message = rf"not at hand \(no route to host\); download {url} and put it in {folder}"
    with pytest.raises(ValueError, match=message):
        hub.load_pretrained({"VGG": vgg})
    (folder / "new.pth").rename(folder / f"tiny-{digest}.pth")
    assert same(weights(network), weights(hub.load_pretrained({"VGG": vgg})["VGG"].network))
    (folder / f"tiny-{digest}.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match=f"is not the published file: its SHA-256 must begin with {digest}"):
        hub.load_pretrained({"VGG": vgg})


def test_unknown_weights_of_torchvision(own_home):
    with pytest.raises(ValueError, match=r"torchvision has no weights 'VGG19'; must be a name such as VGG19_Weights"):
        hub.load_pretrained({"VGG": Pretrained(FEATURES.network, source="torchvision:VGG19")})


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pth_file_is_never_executed(tmp_path, capsys):
    from zoo.importers import pth

    for name, content in (("code", Malicious()), ("list", [torch.rand(2)]), ("number", {"a": 1.0})):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match="no file of tensors|no state dict"):
            pth.read(tmp_path / f"{name}.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious()))
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("raw", "empty"):
        with pytest.raises(ValueError, match="no file of tensors"):
            pth.read(tmp_path / f"{name}.pth")
    assert "executed" not in capsys.readouterr().out


def test_mistakes_in_a_recipe(own_home):
    recipe, facts = described_recipe(), described().facts

    def with_derived(**fields):
        return recipe.replace(
            stages=(dataclasses.replace(recipe.stages[0], data=Data(streams={"data": Stream(**fields)})),)
        )

    for wrong, message in (
        (recipe.replace(pretrained={"G": FEATURES}), r"pretrained\.G: must have another name than the networks G, D"),
        (
            recipe.replace(pretrained={"VGG": Pretrained(Spec("test-features"), "a b")}),
            r"pretrained\.VGG\.source='a b': must be",
        ),
        (described_recipe(players="G D VGG"), r"optimizers\.VGG: a pretrained network does not learn; leave it out"),
        (described_recipe(ema={"VGG": Ema(1)}), r"ema\.VGG: must name a network"),
        (
            with_derived(derived={"e": Derived("TT", of="caption")}),
            r"streams\.data\.derived\.e\.network='TT': must name a pretrained network; did you mean T\?",
        ),
        (with_derived(keys={"x": "e"}, derived={"e": Derived("T", of="caption")}), "must have another name than"),
    ):
        with pytest.raises(ValueError, match=message):
            overrides.check(wrong)
    for wrong, message in (
        (
            with_derived(derived={"e": Derived("T", of="captions")}),
            r"derived 'e' reads 'captions', but .*did you mean caption",
        ),
        (with_derived(derived={"y": Derived("T", of="caption")}), r"derived 'y': 'described' has a field of this name"),
        (
            with_derived(derived={"embedding": Derived("VGG", of="caption")}),
            r"'embedding': pretrained.VGG takes no 'caption'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dry_run(resolve(wrong, facts), facts)


def test_a_recipe_with_a_pretrained_network_as_json():
    recipe = described_recipe()
    assert from_json(to_json(recipe)) == recipe
    changed = overrides.override(recipe, "pretrained.VGG.source", '"other"')
    assert changed.pretrained["VGG"].source == "other"
    assert overrides.override(recipe, "pretrained.VGG.network.width", "7").pretrained["VGG"].network.kwargs == {
        "width": 7
    }
    with pytest.raises(ValueError, match=r"takes no argument 'widht'; did you mean width\?"):
        overrides.override(recipe, "pretrained.VGG.network.widht", "7")
