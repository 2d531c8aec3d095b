"""pix2pix (arXiv 1611.07004) against the paper and the authors' code: networks, losses, training loop, pairs."""

import math

import pytest
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss

import zoo
from zoo import settings
from zoo.data import open_data
from zoo.data import sets as image_sets
from zoo.game import Batch
from zoo.models import build_model
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-2  # of Adam; with a smaller one gradients that are only rounding errors would give full steps
PAIRS = {"pairs": True, "norm": "batch", "biases": False}


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Spec("unet", biases=True), 54_419_459),
        (Spec("unet"), 54_413_955),
        (Spec("unet", resolution=128, biases=True), 54_419_459 - 3 * (512 * 512 * 16 + 2 * 512)),
        (Spec("patch-discriminator", pairs=True, norm="batch"), 2_769_601),
        (Spec("patch-discriminator", **PAIRS), 2_768_705),
    ],
)
def test_parameter_counts(spec, expected):
    """128x128 drops one level: 512 -> 512 and 1,024 -> 512 maps, each with biases and batch norm."""
    with torch.device("meta"):
        assert count(NETWORKS.build(spec)) == expected


def test_layers_of_the_unet():
    """Batch norm on neither the first nor the last maps of the encoder; dropout after the first three of the
    decoder."""
    with torch.device("meta"):
        G = build("unet", biases=True)
        x = torch.empty(1, 3, 256, 256)
        sides, maps, normed = [], [], []
        for layer in G.down:
            x = layer(x)
            sides.append(x.shape[-1])
            maps.append(x.shape[1])
            normed.append(any(isinstance(m, torch.nn.BatchNorm2d) for m in layer))
        assert sides == [128, 64, 32, 16, 8, 4, 2, 1]
        assert maps == [64, 128, 256, 512, 512, 512, 512, 512]
        assert normed == [False, *[True] * 6, False]
        assert [up[1].in_channels for up in G.up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
        assert [up[1].out_channels for up in G.up] == [512, 512, 512, 512, 256, 128, 64, 3]
        assert [m.p for m in G.dropout] == [0.5] * 3
        assert [up[1].in_channels for up in build("unet", skips=False).up][1:5] == [512] * 4


def test_shapes():
    with torch.device("meta"):
        for side, patches in ((256, 30), (128, 14)):
            a = torch.empty(1, 3, side, side)
            assert build("unet", resolution=side)(a).shape == a.shape
            assert build("patch-discriminator", **PAIRS)(a, a=a).shape == (1, 1, patches, patches)
        D = build("patch-discriminator", halvings=0, **PAIRS)
        assert D(a, a=a).shape == (1, 1, 128, 128) and [p.shape[0] for p in D.parameters()][::2] == [64, 128, 128, 1]


@pytest.mark.parametrize(("halvings", "field"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_receptive_field(halvings, field):
    """The pixels of both images in which a score has a gradient, with fixed statistics."""
    D = build("patch-discriminator", resolution=384, width=1, halvings=halvings, **PAIRS).double().eval()
    torch.nn.init.ones_(D.head.weight)
    for m in D.modules():
        if isinstance(m, torch.nn.Conv2d):
            torch.nn.init.uniform_(m.weight, 0.01, 0.02)  # positive: no path is cut off
    x, a = torch.rand(2, 1, 3, 384, 384, dtype=torch.float64).requires_grad_(True).unbind()
    scores = D(x, a=a)
    middle = scores.shape[-1] // 2
    for g in torch.autograd.grad(scores[0, 0, middle, middle], (x, a)):
        rows = g.abs().sum((0, 1, 3)).nonzero()
        assert rows.max() - rows.min() + 1 == field


def test_initial_deviations():
    torch.manual_seed(0)
    for network in (build("unet", resolution=64, width=32), build("patch-discriminator", **PAIRS)):
        weights = torch.cat([p.flatten() for p in network.parameters() if p.dim() == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.01) and abs(weights.mean().item()) < 1e-3
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        gains = torch.cat([m.weight for m in norms])
        assert gains.mean().item() == pytest.approx(1, abs=0.01) and gains.std().item() == pytest.approx(0.02, rel=0.15)
        assert all((m.bias == 0).all() for m in norms)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="resolution=96: must be a multiple of 64 for unet"):
        build("unet", resolution=96)
    with pytest.raises(ValueError, match=r"dropout=6: must be a number of levels from 0 to 5"):
        build("unet", resolution=64, dropout=6)
    with pytest.raises(ValueError, match="levels=1: must be 2 or more"):
        build("unet", levels=1)
    with pytest.raises(ValueError, match="norm='layer': must be instance or batch"):
        build("patch-discriminator", norm="layer")
    with pytest.raises(ValueError, match=r"given\['a'\]: must be the images"):
        build("patch-discriminator", pairs=True)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"game\.domains=.*two"):
        GAMES.build(Spec("pix2pix", domains=("a", "a")), {"G": build("unet", resolution=16, width=2), "D": None})


# Losses ---------------------------------------------------------------------------------------------------------------


def tiny_game(**kwargs):
    """The game with tiny networks and a batch of one pair."""
    torch.manual_seed(0)
    G = build("unet", resolution=16, width=4)
    D = build("patch-discriminator", resolution=16, width=4, halvings=1, **PAIRS)
    batch = Batch(1, generator=torch.Generator().manual_seed(0))
    batch.update(a=torch.randn(1, 3, 16, 16), b=torch.rand(1, 3, 16, 16) - 0.5)
    return GAMES.build(Spec("pix2pix", **kwargs), {"G": G, "D": D}), batch


class Copy(torch.nn.Module):
    """A generator that returns one image."""

    def __init__(self, b):
        super().__init__()
        self.b = torch.nn.Parameter(b.clone())

    def forward(self, a, noise):
        return self.b


def test_losses_at_chance():
    """ln 2 for each term of D's loss, of which it minimizes half; G's is ln 2 if its output is the target."""
    game, batch = tiny_game()
    torch.nn.init.zeros_(game.D.head.weight)
    assert game.loss_D(batch).item() == pytest.approx(math.log(2))
    game.G = Copy(batch["b"])
    assert game.loss_G(batch).item() == pytest.approx(math.log(2))


def test_gradient_of_the_distance():
    """100 sign / numel: the mean over pixels and channels, not their sum."""
    game, batch = tiny_game()
    torch.nn.init.zeros_(game.D.head.weight)
    game.G = Copy(batch["b"] + 0.1 * torch.randn(1, 3, 16, 16).sign())
    game.loss_G(batch).backward()
    expected = 100 * (game.G.b - batch["b"]).sign() / batch["b"].numel()
    torch.testing.assert_close(game.G.b.grad, expected)


def test_gradients_of_the_turns():
    """D's loss has no gradient in G; both turns have the same fake; D's scores depend on a alone too."""
    game, batch = tiny_game()
    fakes = []
    game.G.register_forward_hook(lambda G, inputs, output: fakes.append(output.detach()))
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in game.G.parameters()) and all(p.grad is not None for p in game.D.parameters())
    game.loss_G(batch).backward()
    assert torch.equal(*fakes) and all(p.grad is not None for p in game.G.parameters())
    D = game.D.eval()
    assert not torch.equal(D(batch["b"], a=batch["a"]), D(batch["b"], a=-batch["a"]))


def test_dropout_is_the_noise():
    game, batch = tiny_game()
    outputs = [game.G(batch["a"], noise=batch.noise(name)) for name in ("first", "second")]
    assert not torch.equal(*outputs) and all(y.abs().max() < 1 for y in outputs)
    assert not torch.equal(game.G(batch["a"]), game.G(batch["a"])), "without given noise dropout draws"
    G = game.G.eval()
    assert torch.equal(G(batch["a"]), G(batch["a"]))
    masks = torch.cat([(n >= 0.5).flatten() for key, n in batch.items() if "/" in key]).double()
    assert 0.3 < masks.mean() < 0.7 and batch["first/0"].shape == (1, 16, 2, 2)


# Training -------------------------------------------------------------------------------------------------------------


def test_plain_loop(plain_loop):
    """The authors' loop: one pass of G, a step of D on the pair and the fake, a step of G on the same fake."""
    streams = {
        "a": Stream(keys={"x": "a"}, where={"y": 0}),
        "b": Stream(keys={"x": "b"}, where={"y": 1}, aligned="a"),
    }
    loop = plain_loop(
        "pix2pix-facades",
        {"G": {"width": 2}, "D": {"width": 2, "halvings": 1}},
        channels=3,
        size=18,
        classes=2,
        eps=EPS,
        data=Data(load=18, flip=True, streams=streams),
        resolution=16,
    )
    G, D = loop.copy("G"), loop.copy("D")
    assert loop.batch == 1 and len(G.dropout) == 3
    opt_G, opt_D = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS) for n in (G, D))
    loaders = loop.loaders

    class Masks:
        def rand(self, *shape):
            return loop.rand(*shape)

    for _ in loop.rounds():
        a, b = (loaders[key].next(1)[key].double() for key in "ab")
        fake = G(a, noise=Masks())
        opt_D.zero_grad()
        real, false = D(b, a=a), D(fake.detach(), a=a)
        ones, zeros = torch.ones_like(real), torch.zeros_like(real)
        loss = binary_cross_entropy_with_logits(real, ones) + binary_cross_entropy_with_logits(false, zeros)
        (loss / 2).backward()
        opt_D.step()
        opt_G.zero_grad()
        (binary_cross_entropy_with_logits(D(fake, a=a), ones) + 100 * l1_loss(fake, b)).backward()
        opt_G.step()
    loop.compare(G=G, D=D)


def test_settings():
    """The authors' numbers."""
    recipe = settings.find("pix2pix-facades")
    (stage,) = recipe.stages
    assert stage.images == 200 * 400 and stage.batch == 1 and stage.resolution == 256 and stage.data.load == 286
    assert all(adam.lr == 2e-4 and adam.betas == (0.5, 0.999) for adam in stage.optimizers.values())
    assert not stage.schedules and stage.data.flip and not recipe.ema
    assert recipe.sampling.mode == "dropout" and recipe.sampling.together == 1
    names = zoo.data.facts("emoji").fields["domain"].names
    for variant, target, images in (("small", "twemoji", 52 * 3_358), ("fluent3d-small", "fluent3d", 80 * 3_003)):
        (stage,) = settings.find(f"pix2pix-emoji-{variant}").stages
        styles = [names[stage.data.streams[k].where["domain"]] for k in ("a", "b")]
        assert tuple(styles) == stage.game.kwargs["domains"] == ("noto", target)
        assert stage.images == images


def test_preview_shows_the_target():
    model = zoo.create("pix2pix-emoji-small")
    a, b = torch.rand(2, 2, 3, 64, 64).mul(2).sub(1).unbind()
    images, columns = model.preview({"a": a, "b": b})
    assert len(images) == 6 and columns == 2
    torch.testing.assert_close(images[:2], a / 2 + 0.5)
    torch.testing.assert_close(images[4:], b / 2 + 0.5)
    unpaired = build_model({**model.spec, "paired": False}, model.networks)
    assert len(unpaired.preview({"a": a, "b": b})[0]) == 4


# Facades --------------------------------------------------------------------------------------------------------------


def put_facades(folder, counts):
    """Pictures of the authors' layout: photograph k is filled with k, its labels with 255 - k."""
    for split, n in counts.items():
        (folder / split).mkdir(parents=True)
        for k in range(1, n + 1):
            picture = Image.new("RGB", (512, 256), (k % 256,) * 3)
            picture.paste((255 - k % 256,) * 3, (256, 0, 512, 256))
            picture.save(folder / split / f"{k}.jpg", quality=100)


def test_facades_are_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_RAW", str(tmp_path / "raw"))
    with pytest.raises(OSError, match=r"unpack http://efros.*/facades\.tar\.gz and put or link its files at .*raw"):
        open_data("facades", 8, "test")
    put_facades(tmp_path / "raw/facades", {"train": 400, "val": 100, "test": 106})
    data = open_data("facades", 8, "test")
    assert len(data) == 212 and data.labels("domain").tolist() == [0, 1] * 106
    values = data.arrays["x"].float().mean((1, 2, 3)).round().view(106, 2)
    assert torch.equal(values.sum(1), torch.full((106,), 255.0)), "labels and photograph of one facade"
    assert values[:, 1].tolist() == [*range(1, 107)], "by number: 2 comes before 10"


def test_facades_of_another_shape(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(OSError, match=r"train has no pictures"):
        image_sets._facades_rows(tmp_path, "train")
    Image.new("RGB", (300, 256)).save(tmp_path / "train/1.jpg")
    with pytest.raises(OSError, match=r"1\.jpg must be twice as wide as high, got 300x256"):
        list(image_sets._facades_rows(tmp_path, "train").rows)
