"""How models draw: truncation in z and in w, noise inside G, batch statistics, dropout; one G for several domains."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers.tiny import CLASSES, class_spec, image_spec, model, translate_spec, weights
from PIL import Image
from torch import nn

import zoo
from zoo import overrides, settings
from zoo.models import build_model
from zoo.models.latents import truncated_normal
from zoo.recipe import Sampling
from zoo.registry import NETWORKS
from zoo.seeds import seed_for


@NETWORKS.register("tiny-noisy")
class Noisy(nn.Module):
    """z [N, 4] and two noise planes -> [N, 1, 8, 8]; truncates in w."""

    def __init__(self):
        super().__init__()
        self.noise_shapes = {"low": (1, 4, 4), "high": (1, 8, 8)}
        self.latent = 4
        self.map = nn.Linear(4, 6)
        self.layer = nn.Linear(6, 64)
        self.register_buffer("w_mean", torch.full((6,), 0.5))

    def mapping(self, z):
        return self.map(z)

    def synthesis(self, w, noise):
        x = self.layer(w).unflatten(1, (1, 8, 8)) + noise["high"]
        return (x + nn.functional.interpolate(noise["low"], scale_factor=2)).tanh()

    def forward(self, z, noise, truncation=None):
        w = self.mapping(z)
        return self.synthesis(w if truncation is None else torch.lerp(self.w_mean, w, truncation), noise)


@NETWORKS.register("tiny-dropout")
class Dropout(nn.Module):
    """z [N, 4] -> [N, 1, 8, 8] with dropout after batch norm."""

    def __init__(self):
        super().__init__()
        self.latent = 4
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 64), nn.Tanh())

    def forward(self, z):
        return self.layers(z).unflatten(1, (1, 8, 8))


@NETWORKS.register("tiny-domains")
class Domains(nn.Module):
    """x [N, 3, H, W] and a domain int64 [N] -> the image plus a number for the domain."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Embedding(3, 3)
        nn.init.uniform_(self.shift.weight, -0.3, 0.3)

    def forward(self, x, domain):
        return (x + self.shift(domain)[:, :, None, None]).clamp(-1, 1)


@NETWORKS.register("tiny-dropout-translator")
class DropoutTranslator(nn.Module):
    """x [N, 3, H, W] -> images of that shape, with dropout of channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout2d(0.5), nn.Conv2d(8, 3, 1)
        )

    def forward(self, x):
        return self.layers(x).tanh()


def small_spec(name: str, **changes) -> dict:
    networks = {"G": {"name": name, "kwargs": {}}}
    return image_spec(**{"networks": networks, "resolution": 8, "channels": 1, **changes})


def batch_spec(**changes) -> dict:
    return image_spec(sampling={"mode": "batch", "chunk": 8}, **changes)


# Truncation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.03, 0.05, 0.7, 2.0])
def test_truncated_noise_has_the_truncated_distribution(limit):
    """Kolmogorov-Smirnov distance to Phi between -limit and limit, below 1.63 / sqrt(n), the bound of p = 0.01."""
    generator, n = torch.Generator().manual_seed(0), 20_000
    draw = partial(torch.randn, 1, n, generator=generator)
    z = truncated_normal(draw(), draw, limit, generator)[0]
    assert z.dtype == torch.float32 and z.abs().max() <= limit
    edge = math.erf(limit / math.sqrt(2))
    expected = (torch.erf(z.double().sort().values / math.sqrt(2)) / edge + 1) / 2
    observed = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert (expected - observed).abs().max() < 1.63 / math.sqrt(n)


def test_a_small_truncation_ends():
    m = model(image_spec())
    for limit in (1e-6, 1e-3):
        z, _ = m.latents(range(50), truncation=limit)
        assert z.abs().max() <= limit and z.std() > 0.5 * limit
    assert torch.equal(m.sample(3, truncation=1e-6), m.sample(3, truncation=1e-6))


def test_truncation_keeps_the_class_of_a_seed():
    m = model(class_spec())
    classes = m.latents(range(20))[1]
    for limit in (1e-3, 0.3, 1.0):
        assert torch.equal(m.latents(range(20), truncation=limit)[1], classes)


def test_a_seed_may_be_a_whole_float():
    m = model(class_spec())
    assert torch.equal(m.sample(2, seed=1.0), m.sample(2, seed=1))
    with pytest.raises(ValueError, match="seed=1.5: must be a whole number"):
        m.sample(2, seed=1.5)


FORMS = {
    "array": np.array,
    "floats": lambda seeds: np.array(seeds, np.float32),
    "unsigned": lambda seeds: np.array(seeds, np.uint32),
    "tensor": torch.tensor,
    "real tensor": lambda seeds: torch.tensor(seeds).double(),
    "numbers of NumPy": lambda seeds: [np.int64(seed) for seed in seeds],
    "tensors": lambda seeds: [torch.tensor(seed) for seed in seeds],
    "whole floats": lambda seeds: (*map(float, seeds),),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name, sampling", [("tiny-noisy", {}), ("tiny-dropout", {"mode": "dropout"})])
def test_seeds_of_any_type_are_the_same_seeds(name, sampling, form):
    """z, noise inputs and dropout come from the number, not from its type."""
    m, seeds = model(small_spec(name, sampling=sampling)), FORMS[form]([5, 6, 9])
    expected = m.sample(seeds=[5, 6, 9])
    assert torch.equal(m.sample(seeds=seeds), expected) and torch.equal(m.sample(1, seed=seeds[2]), expected[2:])
    z, _ = m.latents(seeds)
    assert torch.equal(torch.cat([*m.decode(z, seeds=seeds)]), expected)
    assert all(torch.equal(v, m.noise([5, 6, 9])[k]) for k, v in m.noise(seeds).items())
    walk = [torch.cat([*m.interpolate(each, 2)]) for each in (seeds, [5, 6, 9])]
    assert torch.equal(*walk)
    if m.noise([0]):
        assert torch.equal(m.sample(3, noise=seeds), m.sample(3, noise=[5, 6, 9]))
        assert torch.equal(m.sample(3, noise=seeds[0]), m.sample(3, noise=5))


@pytest.mark.parametrize(
    "seeds", [np.array([1.5]), torch.tensor([-1]), [2**32], ["a"], [True], [[1]], np.array([True])]
)
def test_what_is_no_seed(seeds):
    m = model(small_spec("tiny-noisy"))
    z, _ = m.latents([0])
    for call in (
        m.sample,
        lambda seeds: next(m.decode(z, seeds=seeds)),
        lambda seeds: m.project(m.sample(1), seed=seeds[0]),
    ):
        with pytest.raises(ValueError, match="^seed=.*: must be a whole number from 0 to 4294967295"):
            call(seeds=seeds)
    translator, x = model(translate_spec()), torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="^seed=.*: must be a whole number from 0 to 4294967295"):
        translator.translate(x, "b", seed=seeds[0])


def test_the_hash_of_a_seed():
    assert seed_for(np.int64(3), "noise") == seed_for(torch.tensor(3), "noise") == seed_for(3, "noise")
    with pytest.raises(TypeError):
        seed_for(3.0, "noise")


def test_a_walk_has_one_class():
    m = model(class_spec())
    with pytest.raises(ValueError, match=r"y=\[1, 2\]: must be one for all images of a walk"):
        next(m.interpolate([0, 1], 2, y=[1, 2]))
    walk = next(m.interpolate([0, 1], 2, y=2))
    for y in (np.int64(2), torch.tensor(2)):  # as ``sample`` takes them
        assert torch.equal(next(m.interpolate([0, 1], 2, y=y)), walk)


def test_truncation_in_w():
    m = model(small_spec("tiny-noisy", truncation="w"))
    m.G.w_mean.fill_(0.25)
    z, noise = m.latents(range(3), truncation=0.5)[0], m.noise(range(3))
    assert torch.equal(z, m.latents(range(3))[0]), "z stays as it is"
    w = m.G.w_mean + 0.5 * (m.G.mapping(z) - m.G.w_mean)
    assert torch.allclose(m.sample(3, truncation=0.5), (m.G.synthesis(w, noise) + 1) / 2, atol=1e-6)
    assert torch.allclose(m.sample(3, truncation=1.0), m.sample(3), atol=1e-6)
    center = m.G.synthesis(m.G.w_mean.expand(3, -1), noise)
    assert torch.allclose(m.sample(3, truncation=0.0), (center + 1) / 2, atol=1e-6)
    walk = torch.cat(list(m.interpolate([0, 1], 2, truncation=0.5)))
    assert torch.allclose(walk[0], m.sample(1, truncation=0.5)[0], atol=1e-6)
    with pytest.raises(ValueError, match="truncation=nan: must be a finite number"):
        m.sample(1, truncation=math.nan)


# Noise inside G -------------------------------------------------------------------------------------------------------


def test_noise_inside_the_generator_comes_from_the_seed():
    m = model(small_spec("tiny-noisy"))
    state = torch.random.get_rng_state()
    x = m.sample(20, seed=3)
    assert torch.equal(x, m.sample(20, seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(m.sample(1, seed=10)[0], x[7])
    assert torch.equal(m.sample(seeds=[3 + k for k in (19, 2)]), x[[19, 2]])
    noise = m.noise([5, 6])
    assert {k: v.shape[1:] for k, v in noise.items()} == {"low": (1, 4, 4), "high": (1, 8, 8)}
    assert not torch.equal(noise["low"][0], noise["low"][1])
    z, _ = m.latents([5, 6])
    assert torch.allclose(m.sample(seeds=[5, 6]), (m.G(z, noise) + 1) / 2, atol=1e-6)
    fixed = torch.cat(list(m.decode(z)))  # without seeds one noise for all
    assert torch.allclose(fixed, (m.G(z, {k: v.expand(2, -1, -1, -1) for k, v in m.noise([0]).items()}) + 1) / 2)
    frames = torch.cat(list(m.interpolate([5, 6], 3)))
    assert torch.allclose(frames[0], m.sample(1, seed=5)[0], atol=1e-6)


# Batch statistics and dropout -----------------------------------------------------------------------------------------


def test_batch_statistics():
    """A set depends on its first seed; it has the statistics of chunks of eight; the averages stay as they are."""
    m = model(batch_spec())
    before = {k: v.clone() for k, v in m.state_dict().items()}
    x = m.sample(20, seed=4)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    assert torch.equal(m.sample(3, seed=4), x[:3]) and torch.equal(m.sample(17, seed=4), x[:17])
    assert torch.equal(m.sample(8, seed=12), x[8:16])
    z, _ = m.latents(range(4, 12))
    running = m.eval().G(z)
    with torch.no_grad():
        expected = m.to_unit(m.train().G(z))
    m.eval().load_state_dict(before)
    assert torch.allclose(x[:8], expected, atol=1e-5)
    assert (x[:8] - m.to_unit(running)).abs().max() > 0.01
    few = torch.cat(list(m.decode(z[:4])))  # a batch that is filled up has its own images twice
    assert torch.allclose(few, torch.cat(list(m.decode(z[:4].repeat(2, 1))))[:4], atol=1e-6)
    with pytest.raises(ValueError, match="chunk=4: this model draws 8 images together"):
        m.sample(3, chunk=4)
    assert m.preview({})[0].shape[0] == 64 and len(torch.cat(list(m.interpolate([1, 2], 5)))) == 10


def test_batch_statistics_with_classes():
    networks = {"G": {"name": "dcgan-digit-generator", "kwargs": {"classes": 3, "width": 4, "hidden": 8}}}
    spec = batch_spec(networks=networks, channels=1, resolution=28, classes=CLASSES, range=[0, 1])
    m = model(spec)
    x = m.sample(20, seed=4, y=1)
    assert torch.equal(m.sample(3, seed=4, y="dog"), x[:3])
    assert torch.equal(m.sample(3, seed=4), m.sample(12, seed=4)[:3])
    assert len(m.sample(5, y=[0, 1, 2, 0, 1])) == 5


def test_dropout_has_a_mask_for_each_seed():
    m = model(small_spec("tiny-dropout", sampling={"mode": "dropout"}))
    state = torch.random.get_rng_state()
    x = m.sample(20, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state) and not m.training
    assert torch.equal(m.sample(20, seed=4), x) and torch.equal(m.sample(1, seed=11)[0], x[7])
    plain = build_model({**m.spec, "sampling": {}}, m.networks)
    assert (plain.sample(20, seed=4) - x).abs().max() > 0.01
    z, _ = m.latents(range(2))
    same = z[:1].expand(200, -1)
    mean = torch.cat(list(m.decode(same, seeds=range(200))))
    assert mean.std(0).max() > 0.01, "each seed has its mask"
    with m.inference(range(4000)):
        ones = m.G.layers[2](torch.ones(4000, 10))
    assert set(ones.unique().tolist()) == {0.0, 2.0} and abs(ones.mean().item() - 1) < 0.03
    with pytest.raises(ValueError, match="samples with dropout"):
        m.program(None)


def test_dropout_of_a_translator_by_the_chunk():
    """As pix2pix samples: dropout, and the statistics of one image."""
    networks = {"G": {"name": "tiny-dropout-translator", "kwargs": {}}}
    spec = translate_spec(networks=networks, to={"b": "G"}, sampling={"mode": "dropout", "chunk": 1})
    m, x = model(spec), torch.rand(3, 3, 16, 16)
    y = m.translate(x)
    assert torch.equal(m.translate(x), y) and not torch.equal(m.translate(x, seed=1), y)
    assert torch.equal(m.translate(x[1], seed=1)[0], y[1]), "an image depends on itself and its seed alone"
    assert torch.equal(m.translate(x, "google"), y)


@pytest.mark.parametrize("name, sampling", [("tiny-dropout-translator", {"mode": "dropout"}), ("tiny-grain", {})])
def test_inputs_have_a_seed_each(name, sampling, shell, tmp_path):
    """Image k of a folder has the seed SEED + k, with a network that draws; of one that does not the option is
    refused."""
    spec = translate_spec(networks={"G": {"name": name, "kwargs": {}}}, to={"b": "G"}, sampling=sampling)
    m = model(spec)
    weights(tmp_path / "w.safetensors", spec)
    (tmp_path / "in").mkdir()
    given = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for k in range(3):
        given.save(tmp_path / f"in/{k}.png")
    assert shell("sample", "w.safetensors", "--input", "in", "--seed", 3, "--out", "out/").status == 0
    expected = (m.translate([given] * 3, seed=3) * 255 + 0.5).byte()
    for k in range(3):
        image = np.asarray(Image.open(tmp_path / f"out/{k}.png")).astype(int)
        assert np.abs(image - expected[k].permute(1, 2, 0).numpy()).max() <= 1
    assert not torch.equal(expected[0], expected[1])
    result = shell("sample", "w.safetensors", "--input", "in", "--seed", 2**32 - 2, "--out", "new/")
    assert result.status == 2 and "the last seed must be at most" in result.err and not (tmp_path / "new").exists()
    result = shell("sample", "w.safetensors", "--input", "in", "--chunk", 3, "--out", "new/")
    assert result.status == 2 and "--chunk: 'w.safetensors' does not use it; leave --chunk out" in result.err


def test_what_is_sampled_with_running_averages_says_nothing():
    assert "sampling" not in image_spec() and model(image_spec()).sampling == Sampling()
    assert Sampling().together is None and Sampling("running", 8).together is None
    assert Sampling("batch").together == 64 and Sampling("dropout").together is None


def test_sampling_in_recipe_and_card():
    """Settings by dotted path, and the model spec of the Card."""
    recipe = settings.find("wgan-gp-cifar10-dcgan")
    assert recipe.sampling == Sampling("batch", 64) and zoo.create("wgan-gp-cifar10-dcgan").sampling == recipe.sampling
    assert recipe.sampling.words == "the batch statistics of 64 images" and Sampling().words == ""
    assert Sampling("dropout", 4).words == "dropout and the batch statistics of 4 images"
    running = overrides.override(recipe, "sampling.mode", '"running"')
    assert running.sampling.together is None
    small = overrides.override(settings.find("wgan-gp-cifar10-small"), "sampling.mode", '"batch"')
    assert small.sampling.together == 64
    assert overrides.override(small, "sampling.chunk", "128").sampling == Sampling("batch", 128)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"mode": "batches", "chunk": 3}, "sampling.mode=batches: must be running, batch, standing or dropout"),
        ({"mode": "batch", "chunk": 0}, "sampling.chunk=0: must be a whole number of at least 1"),
        ({"mode": "batch", "chunk": 1.5}, "sampling.chunk=1.5: must be a whole number"),
        ({"kind": "batch"}, "must have the keys mode and chunk"),
    ],
)
def test_invalid_sampling(sampling, message):
    with pytest.raises(ValueError, match=message):
        build_model(image_spec(sampling=sampling))


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_export_of_noise_inputs(form, tmp_path):
    """Each is an input of the file, after z or the images."""
    pytest.importorskip("onnxruntime" if form == "onnx" else "torch")
    from zoo.cli.export import write_onnx, write_torch

    m = model(small_spec("tiny-noisy"))
    program = m.program(None)
    assert program.names == ["z", "low", "high"]
    run = {"onnx": write_onnx, "torch": write_torch}[form](program, tmp_path / f"g.{form}")
    torch.testing.assert_close(run(*program.inputs(3)), m.sample(seeds=range(3, 6)), atol=1e-5, rtol=0)


@NETWORKS.register("tiny-grain")
class Grain(nn.Module):
    """x [N, 3, 16, 16] and noise of that shape -> the image with noise."""

    def __init__(self):
        super().__init__()
        self.noise_shapes = {"grain": (3, 16, 16)}
        self.strength = nn.Parameter(torch.tensor(0.1))

    def forward(self, x, noise):
        return x * 0.5 + self.strength * noise["grain"]


def test_a_translator_with_noise_inputs(tmp_path):
    """Its noise comes from the image's seed, whatever the chunk; it is an input of the exported file."""
    from zoo.cli.export import write_torch

    networks = {"G": {"name": "tiny-grain", "kwargs": {}}}
    m = model(translate_spec(networks=networks, to={"b": "G"}))
    x = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1)
    images = m.translate(x, seed=4)
    assert torch.equal(images, m.translate(x, seed=4, chunk=2)) and torch.equal(images[1:], m.translate(x[1:], seed=5))
    assert not torch.equal(images[0], images[1])
    program = m.program(None)
    assert program.names == ["images", "grain"]
    inputs = program.inputs(3)
    run = write_torch(program, tmp_path / "g.pt2")
    torch.testing.assert_close(run(*inputs), m.translate(inputs[0], seed=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_export_with_batch_statistics(form, tmp_path):
    """The file uses the statistics of the batch that it gets."""
    from zoo.cli.export import write_onnx, write_torch

    m = model(batch_spec())
    program = m.program(None)
    run = {"onnx": write_onnx, "torch": write_torch}[form](program, tmp_path / f"g.{form}")
    z, _ = m.latents(range(8))
    assert torch.allclose(run(z), m.sample(8), atol=1e-3)


# Several domains ------------------------------------------------------------------------------------------------------


def domains_spec(**changes) -> dict:
    to = {name: {"network": "G", "domain": k} for k, name in enumerate(("black", "blond", "brown"))}
    networks = {"G": {"name": "tiny-domains", "kwargs": {}}}
    return translate_spec(**{"networks": networks, "to": to, "domains": {}, **changes})


def test_one_generator_for_several_domains():
    m, x = model(domains_spec()), torch.rand(4, 3, 16, 16)
    assert m.directions == ("black", "blond", "brown")
    for k, to in enumerate(m.directions):
        expected = (m.G(x * 2 - 1, torch.full((4,), k)) + 1) / 2
        assert torch.allclose(m.translate(x, to=to), expected, atol=1e-5)
        exported = m.program(to)
        assert torch.allclose(exported.network(x), expected, atol=1e-5)
    images, columns = m.preview({"x": x * 2 - 1})
    assert len(images) == (1 + 3) * 4 and columns == 4, "the images once, then a row of each domain"
    assert len(list(m.probe())) == 3
    assert m.commands(m.spec, "hair")[1] == "zoo sample hair --input image.png --to blond --out translated.png"
    with pytest.raises(ValueError, match="'blonde': no such domain; did you mean blond"):
        m.translate(x, to="blonde")
    with pytest.raises(ValueError, match="black or blond or brown"):
        m.translate(x)
    with pytest.raises(ValueError, match="to.black: must name a network, got 'H'"):
        build_model(domains_spec(to={"black": {"network": "H", "domain": 0}}))


def test_a_domain_of_several_numbers():
    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, domain):
            return x + self.scale * domain[:, :, None, None]

    spec = translate_spec(networks={"G": {}}, to={"red": {"network": "G", "domain": [0.5, 0.0, 0.0]}}, domains={})
    y = build_model(spec, {"G": Add()}).translate(torch.full((2, 3, 8, 8), 0.25))
    assert torch.allclose(y[:, 0], torch.tensor(0.5)) and torch.allclose(y[:, 1:], torch.tensor(0.25))
