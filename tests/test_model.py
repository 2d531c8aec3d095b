"""Models: an image depends on its seed alone; classes, truncation, walks; translation of tensors and pictures."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from helpers.tiny import class_spec, coded_spec, codes_spec, image_spec, model, point_spec, translate_spec, weights
from PIL import Image

import zoo
from zoo.api import cuda_numbers
from zoo.metrics import features
from zoo.models import build_model
from zoo.registry import NETWORKS
from zoo.seeds import own_random_state

KINDS = {"images": image_spec, "classes": class_spec, "points": point_spec, "coded": coded_spec}


@NETWORKS.register("tiny-flat")
class Flat(torch.nn.Module):
    """z [N, 4] -> [N, 1, 28, 28]."""

    def __init__(self):
        super().__init__()
        self.latent = 4
        self.layer = torch.nn.Linear(4, 28 * 28)

    def forward(self, z):
        return self.layer(z).tanh().unflatten(1, (1, 28, 28))


@pytest.mark.parametrize("kind", KINDS)
def test_image_k_depends_on_its_seed_alone(kind):
    m = model(KINDS[kind]())
    many = m.sample(50, seed=7)
    assert torch.equal(m.sample(3, seed=7), many[:3])
    assert torch.equal(m.sample(1, seed=7 + 41), many[41:42])
    places = [49, 5, 17, 5]
    assert torch.equal(m.sample(seeds=[7 + k for k in places]), many[places])
    assert (many[0] - many[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunks_change_rounding_only(kind, chunk):
    m = model(KINDS[kind]())
    assert torch.allclose(m.sample(20, chunk=chunk), m.sample(20), atol=1e-4)


def test_image_depends_on_its_seed_in_channels_last():
    m = model(image_spec()).to(memory_format=torch.channels_last)
    assert torch.equal(m.sample(2), m.sample(40)[:2])


def test_shapes_and_values():
    x = model(image_spec()).sample(5)
    assert x.shape == (5, 3, 16, 16) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert x.std() > 0.01
    assert model(point_spec()).sample(5).shape == (5, 2)
    assert model(point_spec()).sample(500).min() < 0  # points are raw


def test_range():
    m = model(image_spec())
    spec = image_spec(range=[0, 1])
    other = build_model(spec, m.networks)
    assert torch.allclose(other.sample(4), (2 * m.sample(4) - 1).clamp(0, 1), atol=1e-6)


def test_iter_samples_is_lazy():
    m = model(image_spec())
    passes = []
    m.generator.register_forward_hook(lambda *_: passes.append(1))
    chunks = m.iter_samples(1000, chunk=8)
    assert len(next(chunks)) == 8 and len(passes) == 1
    assert [len(c) for c in m.iter_samples(20, chunk=8)] == [8, 8, 4]


def test_sampling_leaves_training_and_random_state_alone():
    m = model(image_spec()).train()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    state = torch.random.get_rng_state()
    x = m.sample(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    assert all(c.training for c in m.modules()) and not x.requires_grad
    build_model(image_spec())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_and_scores_leave_the_random_state_alone(recipe_file, tmp_path):
    """It is the caller's."""
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    run = tmp_path / "run"
    m = model(image_spec(resolution=28, channels=1, networks={"G": {"name": "tiny-flat", "kwargs": {}}}))
    for name, call in {
        "train": lambda: zoo.train(str(recipe_file), "ring", images=640, out=run, progress=None),
        "resume": lambda: zoo.resume(run, images=1280, progress=None),
        "evaluate": lambda: zoo.evaluate(m, "precision", dataset="fashion-mnist-10k", n=64),
        "a feature network": lambda: features.find("efficientnet-lite0"),
    }.items():
        call()
        assert torch.equal(torch.random.get_rng_state(), state), name
    with pytest.raises(ValueError), own_random_state():
        torch.rand(3)
        raise ValueError
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_training_on_cuda_leaves_its_random_state_alone(monkeypatch):
    """The numbers of the devices whose state is restored."""
    assert cuda_numbers("cpu") == cuda_numbers("gpu") == cuda_numbers("cuda:99") == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [cuda_numbers(name) for name in ("auto", "cuda", "cuda:1", "cuda:2", "cpu", "mps")] == [
        [0],
        [0],
        [1],
        [],
        [],
        [],
    ]


def test_classes_by_number_name_and_list():
    m = model(class_spec())
    assert torch.equal(m.sample(3, y=1), m.sample(3, y="dog"))
    assert torch.equal(m.sample(3, y=[0, 2, 1]), m.sample(3, y=["cat", "owl", "dog"]))
    assert torch.equal(m.sample(3, y=torch.tensor([0, 2, 1])), m.sample(3, y=np.array([0, 2, 1])))
    assert torch.equal(m.sample(3, y=[0, 2, 1])[1], m.sample(3, y=2)[1])
    assert not torch.equal(m.sample(3, y=0), m.sample(3, y=1))


def test_class_comes_from_the_seed():
    m = model(class_spec())
    z, y = m.latents(range(60))
    assert set(y.tolist()) == {0, 1, 2}
    assert torch.equal(m.sample(60), m.sample(60, y=y))
    assert torch.equal(z, m.latents(range(60), y=0)[0])  # and the noise does not depend on the class


@pytest.mark.parametrize("y", [3, -1, "fish", "7", 1.0, True, [0, 9]])
def test_invalid_class(y):
    value = y[1] if isinstance(y, list) else y
    with pytest.raises(ValueError, match=rf"y='?{value}'?: .*(0 to 2|cat, dog, owl)"):
        model(class_spec()).sample(2, y=y)


def test_mistakes():
    m, c = model(image_spec()), model(class_spec())
    for call, message in [
        (lambda: m.sample(2, y=1), "y=1: this model is not class-conditional"),
        (lambda: c.sample(3, y=[0, 1]), "y: must be one class, or one for each of 3 images, got 2 classes"),
        (lambda: c.sample(1, y="dgo"), "did you mean dog"),
        (lambda: m.sample(0), "n=0: must be at least 1"),
        (lambda: m.sample(2, seed=-1), "seed=-1: must be a whole number from 0"),
        (lambda: m.sample(seeds=[2**32]), "seed=4294967296"),
        (lambda: m.sample(3, seeds=[1]), "n=3: must be the number of seeds, got 1 seeds"),
        (lambda: m.sample(1, chunk=0), "chunk=0: must be at least 1"),
        (lambda: m.sample(1, truncation=0), "truncation=0: must be above 0"),
        (lambda: list(m.interpolate([1], 4)), "must be at least two seeds"),
        (lambda: build_model(image_spec(kind="imgae")), "'imgae'; did you mean image"),
        (lambda: build_model({"kind": "image"}), "'networks' is missing"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_truncation():
    m = model(image_spec())
    z, _ = m.latents(range(40), truncation=0.5)
    free, _ = m.latents(range(40))
    assert z.abs().max() <= 0.5 and z.std() > 0.2
    small = free.abs() <= 0.5
    assert torch.equal(z[small], free[small]) and not small.all()  # only the far ones are drawn again
    assert torch.equal(m.sample(4, truncation=100.0), m.sample(4))
    uniform = model(image_spec(prior={"name": "uniform", "kwargs": {}}))
    with pytest.raises(ValueError, match=r"truncation=0\.5: the prior 'uniform'"):
        uniform.sample(1, truncation=0.5)


def test_walk_passes_through_its_seeds():
    m = model(image_spec())
    frames = torch.cat(list(m.interpolate([3, 4, 5], 4)))
    assert len(frames) == 12
    assert torch.allclose(frames[::4], m.sample(3, seed=3), atol=1e-5)
    steps = (frames.roll(-1, 0) - frames).abs().mean((1, 2, 3))
    assert steps.max() < 0.5 * (frames[0] - frames[4]).abs().mean() + 0.1
    c = model(class_spec())
    assert torch.allclose(torch.cat(list(c.interpolate([3, 4], 4, y="owl")))[4], c.sample(1, seed=4, y=2)[0], atol=1e-5)
    straight = model(image_spec(prior={"name": "uniform", "kwargs": {}}))
    assert torch.allclose(torch.cat(list(straight.interpolate([3, 4], 2)))[::2], straight.sample(2, seed=3), atol=1e-5)


def test_out_of_memory_names_the_chunk_that_fits():
    m = model(image_spec())

    def full(module, args):
        if len(args[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    m.generator.register_forward_pre_hook(full)
    with pytest.raises(RuntimeError, match="chunk=16: out of memory; chunk=4 fits"):
        m.sample(20)


def test_previews():
    images, columns = model(image_spec()).preview({})
    assert images.shape == (64, 3, 16, 16) and columns == 8
    images, columns = model(class_spec()).preview({})
    assert images.shape == (24, 1, 8, 8) and columns == 8
    assert model(point_spec()).preview({})[0].shape == (4096, 2)
    reals = torch.rand(9, 1, 8, 8)
    coded = model(coded_spec())
    images, columns = coded.preview({"x": reals})
    assert images.shape == (80, 1, 8, 8) and columns == 8
    assert torch.equal(images[64:72], reals[:8]) and torch.equal(images[72:], coded.reconstruct(reals[:8]))
    assert len(coded.preview({})[0]) == 64
    a = torch.rand(4, 3, 16, 16) * 2 - 1
    images, columns = model(translate_spec()).preview({"a": a, "b": -a})
    assert images.shape == (16, 3, 16, 16) and columns == 4
    assert torch.allclose(images[:4], (a + 1) / 2, atol=1e-6)


# A model shows itself ------------------------------------------------------------------------------------------------


def test_grid():
    m = model(image_spec())
    grid = m.grid(9, seed=2)
    assert grid.size == (3 * 18 + 2, 3 * 18 + 2) and m.grid(4, columns=4).size == (4 * 18 + 2, 18 + 2)
    expected = (m.sample(1, seed=6)[0] * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(grid)[20:36, 20:36].astype(int) - expected).max() <= 1
    assert m._repr_png_()[:4] == b"\x89PNG"
    assert model(point_spec()).grid(100).size == (256, 256)
    translator, x = model(translate_spec()), torch.rand(5, 3, 16, 16)
    assert translator.grid(3, inputs={"a": x, "b": x}).size == (3 * 18 + 2, 4 * 18 + 2)
    with pytest.raises(ValueError, match="verb translate needs images"):
        translator.grid(3)


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout, self.scale = torch.nn.Dropout(0.5), torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.dropout(x)


class Noisy(Dropping):
    def __init__(self):
        super().__init__()
        self.noise_shapes = {"shift": (1, 16, 16)}

    def forward(self, x, noise):
        return self.scale * x + noise["shift"]


@pytest.mark.parametrize(
    ("network", "sampling", "draws"),
    [(Dropping, "dropout", True), (Noisy, "running", True), (Dropping, "running", False)],
)
def test_grids_of_a_translator_with_a_seed(network, sampling, draws):
    spec = translate_spec(networks={"G": {}}, to={"b": "G"}, domains={}, sampling={"mode": sampling})
    translator, x = build_model(spec, {"G": network()}), torch.rand(3, 3, 16, 16)
    assert translator.draws == draws
    grid = np.asarray(translator.grid(3, inputs={"a": x}))
    assert (grid == np.asarray(translator.grid(3, inputs={"a": x}, seed=0))).all()
    if not draws:
        with pytest.raises(ValueError, match="seed=5: the images of this model depend on no seed; leave it out"):
            translator.grid(3, inputs={"a": x}, seed=5)
        return
    other = np.asarray(translator.grid(3, inputs={"a": x}, seed=5))
    assert (other[:18] == grid[:18]).all() and (other[18:] != grid[18:]).any()  # a row of inputs, one of translations
    expected = (translator.translate(x, seed=5)[0] * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    assert np.abs(other[20:36, 2:18].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("spec", [image_spec, class_spec, coded_spec])
def test_a_grid_of_seeds_takes_no_inputs(spec):
    m = model(spec())
    with pytest.raises(ValueError, match="inputs: the grid of this model shows images of seeds; leave it out"):
        m.grid(4, inputs={"x": torch.rand(4, m.channels, m.resolution, m.resolution)})


def test_a_model_is_a_function():
    m, c = model(image_spec()), model(class_spec())
    z, _ = m.latents(range(3))
    assert torch.equal(m(z), m.sample(3))
    z, y = c.latents(range(3))
    assert torch.equal(c(z, y), c.sample(3))
    translator, x = model(translate_spec()), torch.rand(2, 3, 16, 16)
    assert torch.equal(translator(x, "b"), translator.translate(x, "b"))


def test_save_samples(tmp_path):
    m = model(class_spec())
    assert m.save_samples(tmp_path / "a", 5, seed=3, y="dog", scale=2) == tmp_path / "a"
    assert sorted(p.name for p in tmp_path.glob("a/*.png")) == [f"{s:06d}.png" for s in range(3, 8)]
    image = np.asarray(Image.open(tmp_path / "a/000004.png"))
    expected = (m.sample(1, seed=4, y=1)[0, 0] * 255 + 0.5).byte().numpy()
    assert image.shape == (16, 16) and np.array_equal(image[::2, ::2], expected)
    (tmp_path / "a/000004.png").unlink()
    m.save_samples(tmp_path / "a", 5, seed=3, y="dog", scale=2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a/000004.png")), image)
    with pytest.raises(ValueError, match="has samples of other weights or settings"):
        m.save_samples(tmp_path / "a", 5, seed=3, y="cat", scale=2)
    with pytest.raises(ValueError, match="has samples of other weights or settings"):
        model(class_spec(), seed=1).save_samples(tmp_path / "a", 6, seed=3, y="dog", scale=2)
    with pytest.raises(ValueError, match="must be a model of images"):
        model(point_spec()).save_samples(tmp_path / "b", 5)
    with pytest.raises(ValueError, match="scale=0: must be at least 1"):
        m.save_samples(tmp_path / "c", 2, scale=0)
    assert not (tmp_path / "c").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file' is a file, must be a folder"):
        m.save_samples(tmp_path / "file", 2)


def noisy_spec() -> dict:
    kwargs = {"channels": 3, "resolution": 16, "latent": 8, "w": 6, "widths": [4, 4, 4], "layers": 1}
    return image_spec(networks={"G": {"name": "stylegan-generator", "kwargs": kwargs}})


PER_IMAGE = {  # of four images, in several types
    "y": (class_spec, [{"y": [0, 1, 2, 0]}, {"y": np.array([0, 1, 2, 0])}, {"y": ("cat", "1", "owl", 0)}]),
    "codes": (
        codes_spec,
        [
            {"codes": {"c1": [0, 1, 2, 0], "c2": 0.5}},
            {"codes": {"c1": torch.tensor([0, 1, 2, 0]), "c2": np.float32(0.5)}},
        ],
    ),
    "noise": (noisy_spec, [{"noise": [3, 5, 4, 3]}, {"noise": np.array([3, 5, 4, 3])}]),
    "one noise": (noisy_spec, [{"noise": 3}, {"noise": np.int64(3)}, {"noise": torch.tensor(3)}]),
    "mix": (noisy_spec, [{"mix": ([3, 5, 4, 3], 3)}, {"mix": (torch.tensor([3, 5, 4, 3]), np.int64(3))}]),
    "one mix": (noisy_spec, [{"mix": (5, 3)}, {"mix": (np.int64(5), 3)}]),
}


def cut(value, n: int):
    """The values of the first n images."""
    if isinstance(value, dict):
        return {key: cut(part, n) for key, part in value.items()}
    if isinstance(value, tuple) and len(value) == 2:
        return tuple(cut(part, n) for part in value)
    return value[:n] if np.ndim(value) else value


@pytest.mark.parametrize("name", PER_IMAGE)
def test_files_of_values_of_each_image(name, tmp_path):
    """A file that is gone is made again with its own values; a set grows; options of another type are the same."""
    spec, forms = PER_IMAGE[name]
    m = model(spec())
    for form in forms:
        m.save_samples(tmp_path / "a", 3, seed=7, **cut(form, 3))
        m.save_samples(tmp_path / "a", 4, seed=7, chunk=3, **form)
        x = (m.sample(4, seed=7, **form) * 255 + 0.5).byte()
        for k in range(4):
            image = np.asarray(Image.open(tmp_path / f"a/{7 + k:06d}.png"))
            assert np.abs(image.reshape(*x.shape[2:], -1).astype(int) - x[k].permute(1, 2, 0).numpy()).max() <= 1
        (tmp_path / "a/000008.png").unlink()
    (key,) = forms[0]
    for other in ({}, {key: None}):
        with pytest.raises(ValueError, match="has samples of other weights or settings"):
            m.save_samples(tmp_path / "a", 4, seed=7, **other)


@pytest.mark.parametrize(
    "options", [{"y": [0, 1]}, {"y": [0, 1, 3]}, {"y": [[0, 1, 2]]}, {"y": 3}, {"codes": {"c1": 1}}, {"noise": 3}]
)
def test_files_of_wrong_values(options, tmp_path):
    with pytest.raises(ValueError, match=rf"^{next(iter(options))}"):
        model(class_spec()).save_samples(tmp_path / "a", 3, **options)
    assert not (tmp_path / "a").exists()


def test_a_seed_has_its_class_in_a_folder_of_files(tmp_path, shell):
    """However the images are requested: -n 3 from seed 0 and from seed 1 share two images."""
    file = weights(tmp_path / "class.safetensors", class_spec())
    several = ("sample", file, "-n", 3, "--out", "a/", "--y")
    assert shell(*several, "0,1,2").status == 0
    result = shell(*several, "0,1,2", "--seed", 1)
    assert result.status == 2 and "has samples of other weights or settings" in result.err
    assert shell(*several, "1,owl,0", "--seed", 1).status == 0
    zoo.load(file).save_samples("a", 4, y=[0, 1, 2, 0])
    assert len([*(tmp_path / "a").glob("*.png")]) == 4
    expected = (zoo.load(file).sample(4, y=[0, 1, 2, 0]) * 255 + 0.5).byte()
    for k in range(4):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"a/{k:06d}.png")), expected[k, 0].numpy())
    assert shell(*several, "1").status == 2, "one class for all is another setting"


def test_more_images_than_seeds(tmp_path, shell):
    weights(tmp_path / "image.safetensors", image_spec())
    for count, seed in ((2**32 + 1, 0), (10**30, 0), (3, 2**32 - 2)):
        result = shell("sample", "image.safetensors", "-n", count, "--seed", seed, "--out", "a/")
        assert result.status == 2 and f"n={count}: the last seed must be at most 4294967295" in result.err
    assert not (tmp_path / "a").exists()


def test_python_and_the_command_line_continue_each_others_samples(tmp_path, shell):
    file = weights(tmp_path / "class.safetensors", class_spec())
    assert shell("sample", file, "-n", 3, "--y", "dog", "--truncation", "0.5", "--out", "a/").status == 0
    zoo.load(file).save_samples("a", 5, y="dog", truncation=0.5)
    assert shell("sample", file, "-n", 6, "--y", "dog", "--truncation", "0.5", "--out", "a/").status == 0
    assert len([*(tmp_path / "a").glob("*.png")]) == 6
    assert shell("sample", file, "-n", 7, "--y", "dog", "--out", "a/").status == 2


def test_a_set_of_files_with_batch_statistics_is_continued(tmp_path):
    m = model(image_spec(sampling={"mode": "batch", "chunk": 8}))
    m.save_samples(tmp_path / "a", 12)
    (tmp_path / "a/000009.png").rename(tmp_path / "9.png")
    m.save_samples(tmp_path / "a", 12)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a/000009.png")), np.asarray(Image.open(tmp_path / "9.png")))
    with pytest.raises(ValueError, match="other weights or settings"):
        m.save_samples(tmp_path / "a", 12, seed=1)
    networks = {"G": {"name": "dcgan-digit-generator", "kwargs": {"classes": 3, "width": 4, "hidden": 8}}}
    spec = {"networks": networks, "channels": 1, "resolution": 28, "classes": ["a", "b", "c"], "range": [0, 1]}
    c = model(image_spec(sampling={"mode": "batch", "chunk": 8}, **spec))
    c.save_samples(tmp_path / "b", 3, y=np.array([0, 1, 2]))
    (tmp_path / "b/000001.png").unlink()
    c.save_samples(tmp_path / "b", 3, y=[0, 1, 2])
    with pytest.raises(ValueError, match="other weights or settings"):
        c.save_samples(tmp_path / "b", 4, y=[0, 1, 2, 0])


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_walks(ending, tmp_path, monkeypatch):
    m, path = model(image_spec()), tmp_path / f"walk.{ending}"
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        m.save_walk(tmp_path / "walk.avi")
    if ending == "gif":
        assert m.save_walk(path, [1, 2], 3, scale=2) == path
        gif = Image.open(path)
        assert gif.n_frames == 6 and gif.size == (32, 32)
        return
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imageio_ffmpeg", None)
        with pytest.raises(ValueError, match=r"needs the package imageio-ffmpeg \(pip install \"\.\[video\]\""):
            m.save_walk(path, [1, 2], 3)
    assert not path.exists()
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    m.save_walk(path, [1, 2], 3, scale=3)
    facts, *frames = imageio_ffmpeg.read_frames(str(path))
    assert facts["size"] == (48, 48) and facts["fps"] == 20 and len(frames) == 6
    frame = np.frombuffer(frames[0], np.uint8).reshape(48, 48, 3)[1::3, 1::3] / 255
    assert np.abs(frame - m.sample(1, seed=1)[0].permute(1, 2, 0).numpy()).mean() < 0.15  # color at half resolution


# Models with an encoder -----------------------------------------------------------------------------------------------


def test_codes_and_reconstructions():
    m = model(coded_spec())
    x = torch.rand(5, 1, 8, 8)
    z = m.encode(x)
    assert z.shape == (5, 3) and torch.allclose(z, m.E(x), atol=1e-5)
    assert torch.allclose(m.encode(x, chunk=2), z, atol=1e-5)
    assert torch.allclose(m.encode(x[3])[0], z[3], atol=1e-5)
    again = m.reconstruct(x)
    assert again.shape == x.shape and torch.allclose(again, m.G(m.E(x)), atol=1e-5)
    pictures = [Image.fromarray((i[0] * 255).round().byte().numpy()) for i in x]
    assert torch.allclose(m.encode(pictures), z, atol=0.1)
    assert m.training is False and not z.requires_grad


def test_attributes():
    m = model(coded_spec())
    having, lacking = torch.rand(4, 1, 8, 8), torch.rand(6, 1, 8, 8)
    v = m.attribute(having, lacking)
    assert torch.allclose(v, m.E(having).mean(0) - m.E(lacking).mean(0), atol=1e-5)
    assert torch.allclose(m.reconstruct(lacking, shift=v), m.G(m.E(lacking) + v), atol=1e-5)


def test_the_code_of_a_distribution_is_its_mean():
    sizes = {"channels": 1, "resolution": 8, "latent": 3}
    specs = {"G": ("vaegan-decoder", {"widths": (4, 4, 4)}), "E": ("vaegan-encoder", {"widths": (4, 4), "hidden": 8})}
    m = model(coded_spec(networks={n: {"name": k, "kwargs": {**sizes, **kwargs}} for n, (k, kwargs) in specs.items()}))
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(m.encode(x), m.E(x)[0], atol=1e-5)


def test_encoding_mistakes():
    m = model(coded_spec())
    for call, message in [
        (lambda: m.encode(torch.rand(1, 1, 8, 9)), "images of 9x8: this model takes 8x8"),
        (lambda: m.encode(torch.rand(1, 3, 8, 8)), r"must be \[N, 1, H, W\]"),
        (lambda: m.reconstruct(torch.rand(1, 1, 8, 8), chunk=0), "chunk=0: must be at least 1"),
        (lambda: m.reconstruct(torch.rand(1, 1, 8, 8), shift="smile"), "shift='smile': must be 3 numbers"),
        (lambda: m.reconstruct(torch.rand(1, 1, 8, 8), shift=torch.ones(2)), r"shift: must be 3 .*, got .*32 \[2\]"),
        (lambda: m.reconstruct(torch.rand(1, 1, 8, 8), shift=[0.0, 1.0, float("nan")]), "shift: must be 3 finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


# Translators ----------------------------------------------------------------------------------------------------------


def test_translate_tensors():
    m = model(translate_spec())
    x = torch.rand(5, 3, 16, 16)
    y = m.translate(x, to="b")
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.equal(y, m.translate(x, to="google"))
    assert torch.allclose(y, (m.G(x * 2 - 1) + 1) / 2, atol=1e-5)
    assert torch.allclose(m.translate(x, to="twitter"), (m.F(x * 2 - 1) + 1) / 2, atol=1e-5)
    assert torch.allclose(m.translate(x[2], to="b")[0], y[2], atol=1e-5)
    assert torch.allclose(m.translate(x, to="b", chunk=2), y, atol=1e-5)
    assert m.translate(torch.rand(1, 3, 24, 20), to="a").shape == (1, 3, 24, 20)


def test_translate_pictures():
    m = model(translate_spec())
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (16, 20, 3), dtype=np.uint8))
    x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(m.translate(picture, to="b"), m.translate(x, to="b"))
    assert m.translate([picture, picture], to="b").shape == (2, 3, 16, 20)
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    assert torch.equal(m.translate(clear, to="b"), m.translate(torch.ones_like(x), to="b"))
    gray = picture.convert("L")
    assert torch.equal(m.translate(gray, to="b"), m.translate(gray.convert("RGB"), to="b"))


def test_translate_mistakes():
    m = model(translate_spec())
    x = torch.rand(1, 3, 16, 16)
    for call, message in [
        (lambda: m.translate(x, to="c"), "to='c': no such domain.*b, a, google, twitter"),
        (lambda: m.translate(x, to="gogle"), "did you mean google"),
        (lambda: m.translate(torch.rand(1, 3, 18, 16), to="b"), "16x18: .*multiples of 4; resize to 16x16"),
        (lambda: m.translate(torch.rand(1, 1, 16, 16), to="b"), r"must be \[N, 3, H, W\]"),
        (lambda: m.translate(x * 255, to="b"), "from 0 .* to 1"),
        (lambda: m.translate((x * 255).byte(), to="b"), "must be float"),
        (lambda: m.translate("photo.png", to="b"), "must be a tensor, a PIL image"),
        (lambda: m.translate([], to="b"), "the list is empty"),
        (lambda: m.translate([Image.new("RGB", (16, 16)), Image.new("RGB", (20, 16))], to="b"), "16x16, 20x16"),
        (lambda: m.translate(torch.rand(1, 3, 4, 4), to="b"), "4x4: too small"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


# Arguments of a wrong type --------------------------------------------------------------------------------------------

WRONG = {
    "n": ({"n": 2.5}, {"n": "3"}, {"n": True}, {"n": None, "seeds": 5}, {"n": None, "seeds": "ab"}),
    "seed": ({"seed": "a"}, {"seed": None}, {"n": None, "seeds": [None]}, {"seed": 0.5}),
    "chunk": ({"chunk": "a"}, {"chunk": 2.5}, {"chunk": 0}),
    "truncation": ({"truncation": "a"}, {"truncation": float("nan")}),
    "codes": ({"codes": 3},),
    "mix": ({"mix": 3},),
}


@pytest.mark.parametrize("key, arguments", [(key, case) for key, cases in WRONG.items() for case in cases])
def test_an_argument_of_another_type(key, arguments):
    """The message begins with its name and value."""
    with pytest.raises(ValueError, match=f"^{'seeds' if isinstance(arguments.get('seeds'), (int, str)) else key}="):
        model(image_spec()).sample(**{"n": 1, **arguments})


@pytest.mark.parametrize("value", ["a", 2.5, 0, -1])
def test_a_number_of_another_type(value):
    """As before, of the verbs other than ``sample``."""
    plain, infogan, triplegan = model(image_spec()), zoo.create("infogan"), zoo.create("triplegan")
    matcher, upscaler = zoo.load("char-cnn-rnn-emoji-hashed"), zoo.load("srgan-cifar10-small")
    gray, small = torch.rand(1, 1, 28, 28), torch.rand(1, 3, 32, 32)
    for key, call in (
        ("columns", lambda: plain.grid(4, columns=value)),
        ("tile", lambda: upscaler.upscale(small, tile=value)),
        ("chunk", lambda: infogan.recognize(gray, chunk=value)),
        ("chunk", lambda: triplegan.classify(gray, chunk=value)),
        ("chunk", lambda: matcher.embed_images(small, chunk=value)),
        ("chunk", lambda: matcher.embed_texts(["a dog"], chunk=value)),
    ):
        with pytest.raises(ValueError, match=f"^{key}="):
            call()


@pytest.mark.parametrize(
    "key, arguments",
    [
        ("images", {"images": "16"}),
        ("images", {"images": 2.5}),
        ("minutes", {"minutes": "1"}),
        ("seed", {"seed": "a"}),
        ("settings", {"settings": ["batch=8"]}),
        ("micro_batch", {"micro_batch": "a"}),
        ("eval_every", {"eval_every": 1.5}),
        ("device", {"device": "gpu"}),
        ("model", {"model": None}),
    ],
)
def test_an_argument_of_training_of_another_type(key, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{key}="):
        zoo.train(**{"model": "dcgan", "dataset": "fashion-mnist-10k", "progress": None, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_device_that_there_is_not(tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    for name in ("gpu", "auto", "cuda:x"):
        with pytest.raises(ValueError, match=f"^device='{name}': must be cpu, cuda, cuda:N or mps$"):
            zoo.load(path, device=name)


@pytest.mark.parametrize("prior", [{"name": "normal", "kwargs": {}}, {"name": "uniform", "kwargs": {"low": 0.0}}])
def test_a_model_can_be_pickled(prior):
    m = model(image_spec(prior=prior))
    assert torch.equal(pickle.loads(pickle.dumps(m)).sample(2), m.sample(2))
    assert torch.equal(copy.deepcopy(m).sample(2), m.sample(2))
