"""LAPGAN (arXiv 1506.05751) against its paper and its authors' code: the pyramid, the levels, the training loop,
sampling."""

import math

import pytest
import torch
from helpers.play import CPU, Every, Killed, images, same, session, weights

import zoo
from zoo import settings
from zoo.data import Facts, ImageData
from zoo.engine import train
from zoo.engine.export import model_of
from zoo.engine.stage import shipped
from zoo.game import Batch
from zoo.networks.lapgan import downsample, pyramid, upsample
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec

TINY = {"sizes": (4, 9, 14), "widths": (3, 2)}
TINY_G, TINY_D = {**TINY, "latent": 5, "hidden": (6, 7)}, {**TINY, "hidden": (5, 4)}


def build(name, channels=3, **kwargs):
    return NETWORKS.build(Spec(f"laplacian-{name}", channels=channels, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


def tiny_game(level=0, classes=0, **arguments):
    torch.manual_seed(0)
    networks = {
        "G": build("generator", 1, **TINY_G, classes=classes),
        "D": build("discriminator", 1, **TINY_D, classes=classes),
    }
    return GAMES.build(Spec("lapgan", level=level, prior=Spec("uniform"), **arguments), networks)


# The pyramid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(8, 14, 28), (7, 14, 28), (8, 16, 32)])
def test_residuals_reconstruct_the_image(sizes):
    """u(d(I)) + h is I at every level, also if a step is not a factor of two."""
    x = torch.rand(2, 3, sizes[-1], sizes[-1])
    coarse, middle, fine = pyramid(x, sizes)
    assert [i.shape[-1] for i in (coarse, middle, fine)] == list(sizes) and fine is x
    x = coarse
    for image, side in ((middle, sizes[1]), (fine, sizes[2])):
        h = image - upsample(x, side)
        x = upsample(x, side) + h
        torch.testing.assert_close(x, image, atol=1e-6, rtol=0)


def test_resizing_of_a_constant_and_of_a_checkerboard():
    x = torch.full((1, 1, 28, 28), 0.3)
    torch.testing.assert_close(downsample(x, 14), torch.full((1, 1, 14, 14), 0.3))
    torch.testing.assert_close(upsample(x, 32), torch.full((1, 1, 32, 32), 0.3))
    checks = (torch.arange(28)[:, None] + torch.arange(28)) % 2
    inside = downsample(checks[None, None].float(), 14)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.5))  # no aliasing


def test_sampling_with_true_residuals():
    x, sizes = torch.rand(2, 1, 14, 14), TINY["sizes"]
    G = build("generator", 1, **TINY_G)
    truth = pyramid(x, sizes)

    class TrueLevel(torch.nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, z, l=None, y=None):
            return truth[0] if l is None else truth[self.k] - l

    G.levels = torch.nn.ModuleList(map(TrueLevel, range(3)))
    torch.testing.assert_close(G(torch.rand(2, G.latent)), x, atol=1e-6, rtol=0)


# Networks -----------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    with torch.device("meta"):
        for sizes, of_D in (((8, 16, 32), 116_545), ((8, 14, 28), 113_729)):
            G, D = (
                build("generator", sizes=sizes, widths=(64, 64)),
                build("discriminator", sizes=sizes, widths=(64, 64)),
            )
            assert count(G.levels[1]) == count(G.levels[2]) == 218_179
            assert count(D.levels[2]) == of_D
        G = build("generator", sizes=(8, 16, 32), widths=(64, 64), classes=10)
        D = build("discriminator", sizes=(8, 16, 32), widths=(64, 64), classes=10)
        assert (count(G.levels[2]), count(D.levels[2])) == (232_579, 129_409)
        G, D = build("generator"), build("discriminator")
        assert count(G.levels[0]) == 101 * 1200 + 1201 * 1200 + 1201 * 192
        assert count(D.levels[0]) == 193 * 600 + 601 * 600 + 601
        assert G.latent == 100 + 14**2 + 28**2 and G.noise == (100, 196, 784)


def test_shapes_and_initial_weights():
    torch.manual_seed(0)
    G, D = build("generator"), build("discriminator")
    assert G(torch.rand(2, G.latent)).shape == (2, 3, 28, 28)
    assert [G(torch.rand(2, n)).shape[-1] for n in (100, 100 + 196)] == [8, 14]
    for network, deviation in ((G, 0.05), (D, 0.005)):
        for layer in network.levels[0].modules():
            if isinstance(layer, torch.nn.Linear) and layer.weight.numel() > 1000:
                assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
                assert not layer.bias.any()
        for level in network.levels[1:]:
            for layer in level.modules():
                if isinstance(layer, torch.nn.Conv2d):  # Torch's: both within 1 / sqrt(fan in)
                    bound = 1 / math.sqrt(layer.weight[0].numel())
                    assert max(layer.weight.abs().max(), layer.bias.abs().max()) <= bound
                    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert [m.p for m in D.modules() if isinstance(m, torch.nn.Dropout)] == [0.5] * 4
    assert isinstance(G.levels[2].layers[-1], torch.nn.Conv2d), "residuals are unbounded"


def test_D_scores_the_sum():
    D = build("discriminator").eval()
    h, l, a = (torch.randn(2, 3, 28, 28) for _ in range(3))
    torch.testing.assert_close(D.levels[2](h + a, l - a), D.levels[2](h, l), atol=1e-5, rtol=1e-5)


def test_classes_matter_at_every_level():
    G, D = build("generator", 1, **TINY_G, classes=10), build("discriminator", 1, **TINY_D, classes=10).eval()
    z, y = torch.rand(4, G.latent), torch.arange(4)
    for k, noise in enumerate(G.noise):
        side = G.sizes[k]
        l = torch.rand(4, 1, side, side) if k else None
        some = torch.rand(4, noise)
        assert (G.levels[k](some, l, y) != G.levels[k](some, l, y + 1)).any()
        h = torch.rand(4, 1, side, side)
        assert (D.levels[k](h, l, y) != D.levels[k](h, l, y + 1)).any()
        with pytest.raises(ValueError, match="class-conditional"):
            G.levels[k](some, l)
    assert (G(z, y) != G(z, y + 1)).any()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"sizes": (8, 8, 28)}, "must ascend"),
        ({"widths": (64,)}, r"widths=\(64,\): must be 2 numbers"),
        ({"sizes": (4, 8, 28)}, "must be 9 or more"),
    ],
)
def test_wrong_sizes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("generator", **kwargs)


def test_wrong_number_of_noise_dimensions():
    with pytest.raises(ValueError, match=r"z.shape\[1\]=101: must be a sum of the first of the levels' 100, 196, 784"):
        build("generator")(torch.rand(1, 101))


def test_wrong_arguments_of_the_game():
    with pytest.raises(ValueError, match=r"game.level=3: must be from 0 to 2"):
        tiny_game(3)
    networks = {"G": build("generator", **TINY_G), "D": build("discriminator")}
    with pytest.raises(ValueError, match=r"networks.D.sizes=\(8, 14, 28\): must be "):
        GAMES.build(Spec("lapgan", level=0), networks)
    with pytest.raises(ValueError, match="networks.G: .*G and D"):
        GAMES.build(Spec("lapgan", level=0), {"D": networks["D"]})


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2])
def test_losses_at_chance(level):
    """With a D of zeros its loss is log 2, the mean over its whole batch, and so is G's."""
    game = tiny_game(level, loss=Spec("non-saturating", scale=0.5))
    for p in game.D.parameters():
        p.data.zero_()
    batch = Batch(3, generator=torch.Generator())
    batch.update(x=torch.rand(3, 1, 14, 14), c=torch.rand(3, 1, 14, 14))
    assert game.loss_D(batch).item() == pytest.approx(math.log(2))
    assert game.loss_G(batch).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_losses_have_gradients_in_their_level_only(level):
    game, batch = tiny_game(level), Batch(3, generator=torch.Generator())
    batch.update(x=torch.rand(3, 1, 14, 14), c=torch.rand(3, 1, 14, 14))
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in game.G.parameters()), "D's loss has no gradient in G"
    game.loss_G(batch).backward()
    for name, p in game.named_parameters():
        assert (p.grad is not None) == (name.split(".")[1:3] == ["levels", str(level)]), name


def test_training_conditions_on_real_images():
    """G's coarser image comes from the real images of the other stream, not from the coarser level."""
    game, batch = tiny_game(1), Batch(3, generator=torch.Generator())
    batch.update(x=torch.rand(3, 1, 14, 14), c=torch.rand(3, 1, 14, 14))
    _, l, _ = game.fakes(batch)
    middle = downsample(batch["c"], 9)
    torch.testing.assert_close(l, upsample(downsample(middle, 4), 9))
    h, l = game.split(batch["x"])
    torch.testing.assert_close(h + l, downsample(batch["x"], 9))


def test_paper_setting():
    recipe = settings.find("lapgan-cifar10")
    assert [s.game.kwargs["level"] for s in recipe.stages] == [0, 1, 2]
    assert [set(s.optimizers) for s in recipe.stages] == [{f"G.levels.{k}", f"D.levels.{k}"} for k in range(3)]
    for stage in recipe.stages:
        momentum, dampening, lr = stage.schedules
        assert dampening.points == momentum.points
        epoch = stage.images / 375
        assert (momentum.at(0), momentum.at(stage.images)) == (0.5, pytest.approx(0.8))
        assert momentum.at(epoch) - 0.5 == pytest.approx(0.0008)
        assert lr.at(0) / lr.at(epoch) == pytest.approx(1 + 4e-5, abs=1e-8)
        assert (stage.resolution, stage.data.load) == (28, 32)
    assert [s.batch for s in recipe.stages] == [50, 64, 64]
    assert [s.game.kwargs["generator_batch"] for s in recipe.stages] == [100, 128, 128]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name, classes", [("lapgan-cifar10", 0), ("lapgan-cifar10-conditional", 10)])
def test_plain_loop(plain_loop, name, classes, level):
    """K_D = 1: D on as many fakes as reals, the mean over both; G on fresh noise and, above level 0, fresh images."""
    streams = {"data": Stream(), "coarse": Stream(keys={"x": "c", **({"y": "y_c"} if classes else {})})}
    data = Data(range=(-1.88, 2.09), load=28, streams=streams if level else {"data": Stream()})
    sizes = {"G": {**TINY_G, "sizes": (4, 9, 14)}, "D": {**TINY_D, "drop": 0.5}}
    loop = plain_loop(name, sizes, batch=4, size=28, classes=classes, resolution=14, data=data, stage=level,
               game={"generator_batch": 6})  # fmt: skip
    others = loop.run.loader("coarse") if level else None
    if not level:  # with standard deviations of 0.005 so small a D would hardly change G
        for p in loop.run.game.D.levels[0].parameters():
            p.data.mul_(100)
    G, D = loop.copy("G").levels[level], loop.copy("D").levels[level]
    noise = (5, 81, 196)[level]
    velocity = {}
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    momentum, _, lr = settings.find(name).stages[level].schedules
    images = 0

    def draws(n):
        """One draw of every stream."""
        real = {k: loop.run.to_layout(v) for k, v in next(iter(loop.loaders.values())).next(n, loop.noise).items()}
        other = {k: loop.run.to_layout(v) for k, v in others.next(n, loop.noise).items()} if level else {}
        return {**real, **other}

    def down(x, side):
        return torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)

    def parts(x):
        """h and l of the level."""
        levels = [down(down(x, 9), 4), down(x, 9), x]
        if not level:
            return levels[0], None
        side = (9, 14)[level - 1]
        l = torch.nn.functional.interpolate(levels[level - 1], size=(side, side), mode="bilinear")
        return levels[level] - l, l

    def fakes(batch, n):
        z = torch.rand(n, noise, generator=loop.noise) * 2 - 1
        l = parts(batch["c"])[1] if level else None
        y = None
        if classes:
            y = batch["y_c"] if level else torch.randint(classes, (n,), generator=loop.noise)
        return G(z, l, y), l, y

    def sgd_step(network, loss):
        """Torch7's SGD: no dampening of the first gradient, each further one dampened by the momentum."""
        m, grads = momentum.at(images), torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for p, g in zip(network.parameters(), grads, strict=True):
                velocity[p] = m * velocity[p] + (1 - m) * g if p in velocity else g
                p -= lr.at(images) * velocity[p]

    for _ in loop.rounds():
        batch = draws(4)
        h, l = parts(batch["x"])
        fake, other, y = fakes(batch, 4)
        out = D(
            torch.cat([h, fake.detach()]),
            torch.cat([l, other]) if level else None,
            torch.cat([batch["y"], y]) if classes else None,
        )
        sgd_step(D, bce(out, torch.tensor([1.0] * 4 + [0.0] * 4)))
        if level:
            batch = draws(6)
        sgd_step(G, bce(D(*fakes(batch, 6)), torch.ones(6)))
        images += 4 + (6 if level else 0)
    loop.compare(**{f"G.levels.{level}": G, f"D.levels.{level}": D})


# All levels together ------------------------------------------------------------------------------------------------


def short(name="lapgan-fashion-mnist"):
    """The reduced setting with tiny networks and three rounds per stage."""
    recipe = settings.find(name)
    tiny_networks = {"G": Spec("laplacian-generator", **TINY_G), "D": Spec("laplacian-discriminator", **TINY_D)}
    stages = tuple(
        stage.__class__(
            game=stage.game.replace(generator_batch=4),
            optimizers=stage.optimizers,
            images=3 * (4 + (4 if k else 0)),
            batch=4,
            resolution=14,
            data=Data(
                streams={n: Stream(keys={"x": "c"}) if n == "coarse" else s for n, s in stage.data.streams.items()}
            ),
        )
        for k, stage in enumerate(recipe.stages)
    )
    return recipe.replace(networks=tiny_networks, stages=stages)


def garments():
    x = images(40, 1, 14).arrays["x"]
    return ImageData(Facts("noise", "Random images", 1, 14), {"x": x}, "noise")


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_stage_trains_its_level_only_and_ships_the_levels_so_far(stage):
    run = session(short(), garments(), stage=stage)
    before = weights(run.game)
    for _ in range(2):
        run.play_round()
    changed = {".".join(k.split(".")[:3]) for k, v in run.game.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"G.levels.{stage}", f"D.levels.{stage}"}
    others = [level for k, level in enumerate(run.game.G.levels) if k != stage]
    assert not any(level.training or any(p.requires_grad for p in level.parameters()) for level in others)
    model = model_of(run.game, {}, shipped(run.game, run.recipe, run.stage, run.facts))
    side = TINY["sizes"][stage]
    assert model.resolution == side and model.sample(2).shape == (2, 1, side, side)


def test_run_of_all_levels_and_resume(tmp_path, monkeypatch):
    """Levels persist across stages; a run that is interrupted in a later stage resumes exactly."""
    monkeypatch.setattr(train, "Clock", Every)
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    train.train(short(), whole, runtime=CPU, dataset=garments())
    model = zoo.load(whole)
    assert model.resolution == 14 and model.sample(3).shape == (3, 1, 14, 14)
    ticks = iter(range(100))

    def progress(event, **facts):
        if event == "tick" and next(ticks) == 4:  # in the second stage
            raise Killed

    with pytest.raises(Killed):
        train.train(short(), interrupted, runtime=CPU, dataset=garments(), progress=progress)
    train.resume(interrupted, dataset=garments())
    other = zoo.load(interrupted)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_ema_weights_of_a_level_are_final(tmp_path, monkeypatch):
    """A level is sampled with its EMA weights at the end of its own stage; later stages do not change them."""
    ends, save = [], train.save

    def save_and_record(run, *args):
        save(run, *args)
        if run.images >= run.stage.images:
            ends.append([weights(level) for level in run.ema_networks["G"].network.levels])

    monkeypatch.setattr(train, "save", save_and_record)
    train.train(short(), tmp_path / "run", runtime=CPU, dataset=garments())
    for stage, level in (0, 0), (1, 0), (1, 1):
        assert same(ends[stage][level], ends[stage + 1][level]), f"level {level} in stage {stage + 1}"
    assert not any(same(a, b) for a, b in zip(ends[0][1:], ends[2][1:], strict=True))
    levels = zoo.load(tmp_path / "run").generator.levels
    assert all(same(weights(level), ema_weights) for level, ema_weights in zip(levels, ends[2], strict=True))
