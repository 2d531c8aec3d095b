"""SRGAN (arXiv 1609.04802) against the paper: networks, losses, training loops of both stages, the way of scoring."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from zoo import pretrained, settings
from zoo.data import facts, open_data
from zoo.data.views import enlarge, shrink
from zoo.engine.stage import build_networks, resolve
from zoo.game import Batch
from zoo.metrics import paired
from zoo.networks.srgan import ResidualBlock
from zoo.networks.vgg import VGG19Features
from zoo.pretrained import Frozen
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-5  # of Adam; with a smaller one gradients that are only rounding errors would give full steps
BEFORE_BATCH_NORM = 33 * 64  # biases of the generator's convolutions before batch norm


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts():
    """Biases in all convolutions, one slope for each PReLU."""
    with torch.device("meta"):
        G, D, phi = build("srresnet"), build("srgan-discriminator"), build("vgg19-features")
        assert count(G) == 1_549_462 and count(D) == 23_565_505
        norms = [m for m in G.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert len(norms) == 33 and count(G) - sum(m.num_features for m in norms) == 1_547_350
        assert count(G) - 1_547_350 == BEFORE_BATCH_NORM
        assert [p.numel() for p in D.parameters() if p.dim() == 2] == [18_432 * 1024, 1024]
        assert count(phi) == 20_024_384 and count(build("vgg19-features", i=2, j=2)) == 260_160


def test_layers():
    G, D = build("srresnet", width=4, blocks=2), build("srgan-discriminator", resolution=32, width=4)
    assert [m.num_parameters for m in G.modules() if isinstance(m, torch.nn.PReLU)] == [1] * 5
    convolutions = [m for m in D.layers if isinstance(m, torch.nn.Conv2d)]
    assert [m.stride[0] for m in convolutions] == [1, 2] * 4
    assert [m.out_channels // 4 for m in convolutions] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in D.layers) == 7
    assert [m.negative_slope for m in D.layers if isinstance(m, torch.nn.LeakyReLU)] == [0.2] * 9


def test_any_size_is_upscaled():
    G = build("srresnet", width=4, blocks=1)
    assert G(torch.rand(2, 3, 5, 7)).shape == (2, 3, 20, 28)
    assert build("srresnet", width=4, blocks=1, factor=2)(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)
    D = build("srgan-discriminator", resolution=32, width=4)
    assert D(torch.rand(2, 3, 32, 32)).shape == (2,)
    with pytest.raises(RuntimeError):
        D(torch.rand(2, 3, 48, 48))


def test_evaluation_mode_is_deterministic():
    """An image does not depend on the others in the batch."""
    G, x = build("srresnet", width=4, blocks=2), torch.rand(3, 3, 8, 8)
    G(x)
    G.eval()
    assert torch.equal(G(x), G(x))
    torch.testing.assert_close(G(x[:1]), G(x)[:1])


def test_a_block_without_its_last_gains_is_the_identity():
    block = ResidualBlock(4)
    torch.nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_initial_deviations():
    torch.manual_seed(0)
    for network in (build("srresnet"), build("srgan-discriminator", resolution=32)):
        weights = torch.cat([p.flatten() for p in network.parameters() if p.dim() > 1])
        assert weights.abs().max() <= 0.04
        assert weights.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01), "of a normal cut at two deviations"
        gains = torch.cat([m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
        assert gains.mean().item() == pytest.approx(1, abs=0.01) and gains.std().item() == pytest.approx(0.02, rel=0.1)


def test_vgg_is_torchvisions():
    """With the same weights the same maps, of the same normalized images."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    theirs, x = vgg19(weights=None).features.eval(), torch.rand(1, 3, 32, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (x - mean[:, None, None]) / deviation[:, None, None]
    for (i, j), layers in {(5, 4): 36, (2, 2): 9}.items():
        phi = VGG19Features(i, j)
        phi.load_state_dict(theirs[:layers].state_dict())
        torch.testing.assert_close(phi(2 * x - 1), theirs[:layers](normalized))
    assert phi(x).min() == 0, "after the ReLU"


def test_wrong_arguments():
    with pytest.raises(ValueError, match="factor=3: must be a power of 2"):
        build("srresnet", factor=3)
    with pytest.raises(ValueError, match="i=2, j=3: must be a convolution of VGG-19"):
        build("vgg19-features", i=2, j=3)
    with pytest.raises(ValueError, match=r"networks\.G: must upscale images by a factor, got Identity"):
        GAMES.build(Spec("srresnet"), {"G": torch.nn.Identity()})
    networks = {"G": build("srresnet", width=4, blocks=1), "D": torch.nn.Identity()}
    with pytest.raises(ValueError, match=r"networks\.phi: .* needs a network phi .*got G, D"):
        GAMES.build(Spec("srgan"), networks)
    with pytest.raises(ValueError, match="game.content='mse': must be features or pixels"):
        GAMES.build(Spec("srgan", content="mse"), networks)


# Losses ---------------------------------------------------------------------------------------------------------------


def tiny_game(content="features", **kwargs):
    """The game with tiny networks and a batch of two images."""
    torch.manual_seed(0)
    networks = {
        "G": build("srresnet", width=4, blocks=1),
        "D": build("srgan-discriminator", resolution=16, width=4),
        "phi": Frozen(build("vgg19-features", i=2, j=2, width=4)),
    }
    batch = Batch(2, generator=torch.Generator().manual_seed(0))
    batch["x"] = torch.rand(2, 3, 16, 16) * 2 - 1
    return GAMES.build(Spec("srgan", content=content, **kwargs), networks), batch


class Fixed(torch.nn.Module):
    """A generator that returns one batch of images."""

    factor = 4

    def __init__(self, images):
        super().__init__()
        self.images = torch.nn.Parameter(images)

    def forward(self, low):
        self.low = low
        return self.images


def test_losses_at_chance():
    """2 ln 2 for D; 0.001 ln 2 for a perfect G."""
    for content in ("features", "pixels"):
        game, batch = tiny_game(content)
        torch.nn.init.zeros_(game.D.head.weight)
        game.G = Fixed(batch["x"].clone())
        assert game.loss_D(batch).item() == pytest.approx(2 * math.log(2))
        assert game.loss_G(batch).item() == pytest.approx(1e-3 * math.log(2))


def test_low_resolution_images():
    """A quarter of the size, in [0, 1], MATLAB's bicubic kernel: a plane stays a plane."""
    game, batch = tiny_game()
    rows = torch.linspace(-1, 1, 16)
    batch["x"] = rows[:, None].expand(2, 3, 16, 16).contiguous()
    game.G = Fixed(batch["x"].clone())
    game.upscale(batch)
    low = game.G.low
    assert low.shape == (2, 3, 4, 4) and low.min() >= 0 and low.max() <= 1
    torch.testing.assert_close(low[0, 0, 1:3, 0], (rows / 2 + 0.5).view(4, 4).mean(1)[1:3], atol=0.01, rtol=0)
    pixel = torch.zeros(1, 1, 9, 9)
    pixel[0, 0, 4, 4] = 1
    middle = enlarge(pixel, 2)[0, 0]
    at = torch.tensor([0.25, 0.75, 1.25, 1.75], dtype=torch.float64)
    a = -0.5
    weights = torch.where(
        at < 1,
        (a + 2) * at**3 - (a + 3) * at**2 + 1,
        a * at**3 - 5 * a * at**2 + 8 * a * at - 4 * a,
    )
    torch.testing.assert_close(middle[9, 9:11].double(), (weights[0] * weights[:2]), atol=1e-5, rtol=0)


def test_content_losses():
    """The squared distance is summed over channels and averaged over pixels; that of features is over 12.75^2."""
    game, batch = tiny_game("pixels", adversarial=0.0)
    game.G = Fixed(batch["x"] + 0.1)
    assert game.loss_G(batch).item() == pytest.approx(3 * 0.01, rel=1e-4)
    game, batch = tiny_game(adversarial=0.0)
    game.G = Fixed(-batch["x"])
    maps = [game.phi(x) for x in (-batch["x"], batch["x"])]
    expected = ((maps[0] - maps[1]) ** 2).sum() / (2 * 8 * 8) / 12.75**2
    assert maps[0].shape == (2, 8, 8, 8)
    torch.testing.assert_close(game.loss_G(batch), expected)


def test_gradients():
    """G's loss has a gradient through phi, whose weights have none and do not move; D's has none in G."""
    game, batch = tiny_game(adversarial=0.0)
    before = {k: v.clone() for k, v in game.phi.network.state_dict().items()}
    game.loss_G(batch).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in game.G.parameters())
    assert any((p.grad != 0).any() for p in game.G.parameters())
    assert all(p.grad is None for p in game.phi.network.parameters()) and not game.phi.network.training
    assert all(torch.equal(v, before[k]) for k, v in game.phi.network.state_dict().items())
    game.G.zero_grad(set_to_none=True)
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in game.G.parameters())


# Training -------------------------------------------------------------------------------------------------------------


def tiny_loop(plain_loop, stage, **more):
    tiny = {"G": {"width": 4, "blocks": 1}, "D": {"width": 2}}
    return plain_loop(
        "srgan-sunhays80-small", tiny, channels=3, size=16, resolution=16, batch=4, eps=EPS, stage=stage, **more
    )


def low_resolution(x):
    """As the paper's inputs: bicubic, a quarter of the size, in [0, 1]."""
    return interpolate(x / 2 + 0.5, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)


def test_plain_loop_of_srresnet(plain_loop):
    loop = tiny_loop(plain_loop, 0)
    G = loop.copy("G")
    optimizer = torch.optim.Adam(G.parameters(), lr=5e-4, betas=(0.9, 0.999), eps=EPS)
    for _ in loop.rounds():
        x = loop.real()["x"]
        optimizer.zero_grad()
        ((G(low_resolution(x)) - x) ** 2).sum(1).mean().backward()
        optimizer.step()
    loop.compare(G=G)


@pytest.mark.parametrize("content", ["pixels", "features"])
def test_plain_loop_of_srgan(plain_loop, content, monkeypatch):
    """D, then G on the same images; at 1e-4."""
    torch.manual_seed(3)
    phi = Frozen(VGG19Features(2, 2, width=4).double())
    monkeypatch.setattr("zoo.engine.stage.load_pretrained", lambda recipe: (recipe, {"phi": phi}))
    loop = tiny_loop(plain_loop, 1, game={"content": content})
    G, D = loop.copy("G"), loop.copy("D")
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=EPS) for n in (G, D)]
    bce = binary_cross_entropy_with_logits
    for _ in loop.rounds():
        x = loop.real()["x"]
        optimizers[1].zero_grad()
        real, fake = D(x), D(G(low_resolution(x)).detach())
        (bce(real, torch.ones(4)) + bce(fake, torch.zeros(4))).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        y = G(low_resolution(x))
        if content == "features":
            loss = ((phi.network(y) / 12.75 - phi.network(x) / 12.75) ** 2).sum(1).mean()
        else:
            loss = ((y - x) ** 2).sum(1).mean()
        (loss + 1e-3 * bce(D(y), torch.ones(4))).backward()
        optimizers[0].step()
    loop.compare(G=G, D=D)


def test_settings():
    """The paper's numbers."""
    recipe = settings.find("srgan-imagenet")
    first, second = recipe.stages
    assert (first.images, second.images) == (16 * 10**6, 16 * 2 * 10**5)
    assert all(s.batch == 16 and s.resolution == 96 and s.data.range == (-1, 1) for s in recipe.stages)
    assert all(a.lr == 1e-4 and a.betas[0] == 0.9 for s in recipe.stages for a in s.optimizers.values())
    assert set(first.optimizers) == {"G"} and set(second.optimizers) == {"G", "D"} and not first.schedules
    (schedule,) = second.schedules
    assert [schedule.at(16 * n) for n in (0, 10**5 - 1, 10**5, 2 * 10**5)] == [1e-4, 1e-4, 1e-5, 1e-5]
    assert second.game.kwargs["content"] == "features"
    networks = build_networks(resolve(recipe, facts(recipe.dataset)), device="meta")
    assert count(networks["G"]) == 1_549_462 and count(networks["D"]) == 23_565_505
    assert networks["phi"].size == 20_024_384


def test_missing_weights_of_vgg(own_home, monkeypatch):
    """A message with the address and the place, without a network."""
    declared = settings.find("srgan-imagenet").pretrained["phi"]
    monkeypatch.setenv("TORCH_HOME", str(own_home / "torch"))

    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        ValueError, match=r"pretrained\.phi: .*VGG19.* not at hand .*download https://.*vgg19.*put it in"
    ):
        pretrained.load("phi", declared)


def test_pictures_of_the_photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_RAW", str(tmp_path / "raw"))
    with pytest.raises(OSError, match=r"sunhays80.*unpack Sun-Hays 80.*put or link its files at"):
        open_data("sunhays80", 16)
    (tmp_path / "raw/sunhays80").mkdir(parents=True)
    for k in range(80):
        Image.new("RGB", (40, 30), (k, 0, 0)).save(tmp_path / f"raw/sunhays80/{k:02}.png")
    data = open_data("sunhays80", 16)
    assert len(data) == 80 and data.rows(torch.arange(3))["x"][:, 0, 0, 0].tolist() == [0, 1, 2]


# Scores ---------------------------------------------------------------------------------------------------------------


def set5() -> Path | None:
    """A folder of the five images: ``$ZOO_SET5``, or ``set5`` in the folder of raw data sets."""
    folders = [os.environ.get("ZOO_SET5"), os.environ.get("ZOO_RAW", Path(os.environ.get("ZOO_HOME", "")) / "raw")]
    places = [Path(folders[0] or "."), Path(folders[1] or ".") / "set5"]
    return next((p for p in places if len(list(p.glob("*.png"))) == 5), None)


def to_uint8(x):
    return (x * 255).round().byte()


@pytest.mark.skipif(set5() is None, reason="Set5 is not at hand: put its five PNGs in a folder and name it in ZOO_SET5")
def test_published_scores_of_bicubic_interpolation():
    """Set5, four times: 28.43 dB and a similarity of 0.8211 (the paper, table 2), of the luma without 4 pixels at each
    side. The implementation of the paper's similarity is not known."""
    values = []
    for path in sorted(set5().glob("*.png")):
        x = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        x = x[..., : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4]
        low = to_uint8(shrink(x.float() / 255, 4)).float() / 255
        pair = to_uint8(enlarge(low, 4)), x
        values.append((paired.psnr_y(*pair).item(), paired.ssim_y(*pair).item()))
    psnr, ssim = np.mean(values, axis=0)
    assert abs(psnr - 28.43) < 0.2 and abs(ssim - 0.8211) < 0.02, (psnr, ssim)


def test_luma():
    """MATLAB's rgb2ycbcr: 16 for black, 235 for white, 81 for red; gray images are their own."""
    colors = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]], dtype=torch.uint8)
    x = colors[:, :, None, None].expand(3, 3, 12, 10).contiguous()
    y = paired.luma(x, border=2)
    assert y.shape == (3, 1, 8, 6) and y[:, 0, 0, 0].round().tolist() == [16, 235, 81]
    assert paired.luma(x[:, :1])[1].unique().tolist() == [255]
    with pytest.raises(ValueError, match="images must be larger than 10x10, got 10x12"):
        paired.luma(x, border=5)


def test_the_border_does_not_count():
    x = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    y = x.clone()
    y[..., :4, :], y[..., -4:] = 0, 255
    assert paired.psnr_y(x, y).item() == paired.MAX_PSNR
    y[..., 4, 4] ^= 64
    assert paired.psnr_y(x, y).item() < 60
