"""Upscaling: any size, large images in tiles without seams, transparency; every command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from zoo import hub
from zoo.data import Facts, ImageData
from zoo.data.views import enlarge, shrink
from zoo.metrics import paired
from zoo.models.base import build_model
from zoo.models.request import Request
from zoo.registry import NETWORKS, Spec

FACTOR = 3


@NETWORKS.register("test-upscaler")
class Upscaler(nn.Module):
    """Two convolutions and a residual; ``average`` adds the mean of the whole image, so that tiles would not fit."""

    def __init__(self, channels: int = 3, average: bool = False):
        super().__init__()
        self.average = average
        self.first = nn.Sequential(nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.PReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.LeakyReLU(0.2))
        self.last = nn.Sequential(nn.Conv2d(8, channels * FACTOR**2, 3, padding=1), nn.PixelShuffle(FACTOR), nn.Tanh())
        if average:
            self.whole = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        h = self.first(x)
        h = h + self.body(h)
        return self.last(h + self.whole(h) if self.average else h)


def spec_of(channels=3, **more):
    kwargs = {"channels": channels, "average": more.pop("average", False)}
    networks = {"G": {"name": "test-upscaler", "kwargs": kwargs}}
    plain = {"kind": "upscale", "networks": networks, "range": [-1, 1], "resolution": 24, "channels": channels}
    return {**plain, "factor": FACTOR, "input_range": [0, 1], **more}


@pytest.fixture
def model():
    return build_model(spec_of()).eval()


@pytest.fixture
def file(tmp_path, model):
    card = {"name": "larger", "model": model.spec, "dataset": {"name": "cifar10", "license": "not stated"}}
    hub.save_weights(tmp_path / "larger.safetensors", model.networks, card)
    return tmp_path / "larger.safetensors"


def photo(width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    x = torch.randint(256, (height, width, channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(x[..., 0].numpy() if channels == 1 else x.numpy(), mode)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (24, 24), (50, 31)])
def test_any_size(model, size):
    height, width = size
    x = torch.rand(2, 3, height, width)
    larger = model.upscale(x)
    assert larger.shape == (2, 3, 3 * height, 3 * width) and larger.min() >= 0 and larger.max() <= 1
    torch.testing.assert_close(larger, model.G(x) / 2 + 0.5)  # G takes [0, 1] and gives [-1, 1]
    assert torch.equal(model(x[0]), model.upscale(x[:1]))


@pytest.mark.parametrize("size", [(50, 31), (64, 64), (17, 90), (33, 16)])
def test_tiles_have_no_seams(model, size):
    """The margin follows from the layers: 2 + 2 + 1 pixels; with one fewer the tiles do not fit."""
    x = torch.rand(1, 3, *size)
    assert model.margin == 5
    whole = model.upscale(x)
    torch.testing.assert_close(model.upscale(x, tile=16), whole, rtol=0, atol=1e-6)
    model.G.margin = 4
    assert (model.upscale(x, tile=16) - whole).abs().max() > 1e-4


def test_what_sees_the_whole_image_is_never_cut():
    x = torch.rand(1, 3, 40, 40)
    model = build_model(spec_of(average=True)).eval()
    assert model.margin is None and torch.equal(model.upscale(x, tile=16), model.upscale(x))
    model = build_model(spec_of(sampling={"mode": "batch", "chunk": 2})).eval()
    assert model.margin is None and torch.equal(model.upscale(x, tile=16), model.upscale(x))


def test_tiles_bound_the_size_of_a_pass(model):
    sides = []
    model.G.register_forward_pre_hook(lambda G, inputs: sides.append(max(inputs[0].shape[-2:])))
    model.upscale(torch.rand(1, 3, 100, 60), tile=20)
    assert len(sides) == 15 and max(sides) == 20 + 2 * 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_stays(model, mode):
    """Colors are upscaled as they are; the opacity is enlarged bicubically."""
    image = photo(9, 6, "RGBA" if mode == "P" else mode)
    if mode == "P":
        image = photo(9, 6, "L").convert("P")
        image.info["transparency"] = image.getpixel((0, 0))
    larger = model.upscale(image)
    assert larger.shape == (1, 4, 18, 27)
    rgba = torch.tensor(list(image.convert("RGBA").get_flattened_data())).view(6, 9, 4).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(larger[:, :3], model.upscale(rgba[:, :3]))
    torch.testing.assert_close(larger[:, 3:], enlarge(rgba[:, 3:], FACTOR))
    torch.testing.assert_close(model.upscale(rgba), larger)
    assert model.upscale(image.convert("RGBA").convert("RGB")).shape == (1, 3, 18, 27)


def test_an_opacity_of_opaque_images_is_left_out(model, tmp_path):
    """Many programs write it. Of 16 bits a transparent gray value is not read, and the others are."""
    opaque = photo(9, 6)
    opaque.putalpha(255)
    torch.testing.assert_close(model.upscale(opaque), model.upscale(opaque.convert("RGB")))
    gradient = Image.fromarray((np.arange(54, dtype=np.uint16) * 1200).reshape(6, 9))
    gradient.save(tmp_path / "gradient.png", transparency=0)
    with Image.open(tmp_path / "gradient.png") as image:
        assert image.mode == "I;16" and "transparency" in image.info
        gray = (
            torch.tensor([round(1200 * k * 255 / 65_535) for k in range(54)]).view(1, 1, 6, 9).expand(1, 3, 6, 9) / 255
        )
        torch.testing.assert_close(model.upscale(image), model.upscale(gray))
    request = Request("model", str(tmp_path / "out.png"), source=str(tmp_path / "gradient.png"), tell=str)
    model.write(request)
    written = torch.from_numpy(np.array(Image.open(tmp_path / "out.png")))
    torch.testing.assert_close(written.permute(2, 0, 1)[None] / 255, model.upscale(gray), atol=0.51 / 255, rtol=0)


def test_a_gray_model_and_a_list(model):
    gray = build_model(spec_of(channels=1)).eval()
    assert gray.upscale(photo(9, 6)).shape == (1, 1, 18, 27)
    assert gray.upscale(photo(9, 6, "LA")).shape == (1, 2, 18, 27)
    assert model.upscale([photo(9, 6), photo(9, 6, "RGBA")]).shape == (2, 4, 18, 27)


def test_mistakes(model):
    for images, message in (
        (torch.rand(1, 2, 8, 8), r"must be \[N, 3, H, W\]"),
        (torch.rand(1, 3, 8, 8) + 1, "must be float, from 0"),
        ([photo(4, 4), photo(5, 4)], "must have one size"),
        ([photo(4, 4, "RGBA"), "x"], "one of them is transparent, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            model.upscale(images)
    with pytest.raises(ValueError, match="tile=0: must be at least 1"):
        model.upscale(torch.rand(1, 3, 8, 8), tile=0)
    with pytest.raises(ValueError, match="chunk=0: must be at least 1"):
        model.upscale(torch.rand(1, 3, 8, 8), chunk=0)
    for factor in (1, 17, 2.0, True, "x", [2]):
        with pytest.raises(ValueError, match="factor="):
            build_model(spec_of(factor=factor))
    for values in ([0], [1, 0], "ab", [0, float("nan")], [0, 1e30], None, 3):
        with pytest.raises(ValueError, match="input_range="):
            build_model(spec_of(input_range=values))


def test_every_command(file, shell, tmp_path):
    """Of an image an image, of a folder a folder; transparent ones stay so, in files that can be."""
    source = tmp_path / "in"
    source.mkdir()
    photo(9, 6).save(source / "a.png")
    photo(10, 7, "RGBA").save(source / "b.png")
    assert shell("sample", file, "--input", source, "--out", "out/").status == 0
    assert Image.open("out/a.png").size == (27, 18) and Image.open("out/a.png").mode == "RGB"
    assert Image.open("out/b.png").size == (30, 21) and Image.open("out/b.png").mode == "RGBA"
    assert shell("sample", file, "--input", source / "a.png", "--out", "a.jpg").status == 0
    for arguments, message in (
        (("--input", source / "b.png", "--out", "b.jpg"), "--out b.jpg: the image is transparent, which .jpg files"),
        (("--input", source / "b.png", "--out", "b.bmp"), "--out b.bmp: the image is transparent, which .bmp files"),
        (("--out", "b.png"), "enlarges images; give an image or a folder of images"),
        (("--input", source / "a.png", "--out", "c.png", "-n", "3"), "leave -n out"),
        (("--input", source / "a.png", "--out", "c.png", "--to", "b"), "leave --to out"),
    ):
        result = shell("sample", file, *arguments)
        assert result.status == 2 and message in result.err and len(result.err.splitlines()) == 1
    result = shell("export", file, "--format", "torch", "--out", "larger.pt2", "--json").json
    assert result["inputs"] == ["images"] and result["difference"] < 1e-5
    assert result["shapes"] == {"images": ["N", 3, "height", "width"]} and result["output"] == "larger"
    images = torch.rand(2, 3, 31, 12)
    larger = torch.export.load("larger.pt2").module()(images)
    torch.testing.assert_close(larger, zoo.load(file).upscale(images), atol=1e-4, rtol=0)
    assert shell("publish", file, "--to", "weights").status == 0
    entry = json.loads((tmp_path / "weights/index.json").read_text())["larger"]
    assert entry["kind"] == "upscale" and entry["half"]
    model = zoo.load(file)
    assert model.describe() == "images 3 times as large"
    assert model.commands(model.spec, "larger") == ["zoo sample larger --input image.png --out larger.png"]


def test_scores_beside_bicubic(model):
    """Held-out images, reduced and upscaled again, on their luma without the border."""
    x = torch.randint(256, (6, 3, 26, 26), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = (255 * shrink(x / 255, 2)).byte()  # [6, 3, 13, 13]
    x = x.repeat(1, 1, 2, 2)[..., :26, :26]
    data = ImageData(Facts("noise", "Random images", 3, 26), {"x": x}, "noise")
    model = build_model(spec_of(), card={"name": "larger"}, networks={"G": NETWORKS.build(Spec("test-upscaler"))})
    scores = zoo.evaluate(model, model.bench.metrics[:-1], dataset=data)["scores"]
    target = x[..., :24, :24]
    output = (model.upscale(shrink(target / 255, FACTOR)) * 255 + 0.5).byte()
    assert scores["psnr-y"] == pytest.approx(paired.psnr_y(output, target).mean().item(), abs=1e-3)
    for name, baseline in model.baselines(lambda to: None):
        own = zoo.evaluate(baseline, ["psnr-y"], dataset=data)["scores"]["psnr-y"]
        assert own > scores["psnr-y"], name  # the network has learned nothing
        small = target[:, :, :9, :9] / 255
        torch.testing.assert_close(baseline.upscale(small, tile=4), baseline.upscale(small))
    images, columns = model.preview({"x": target / 127.5 - 1})
    assert images.shape == (18, 3, 24, 24) and columns == 6
    torch.testing.assert_close(images[12:], target / 255, atol=1e-6, rtol=0)
    assert model.grid(4, inputs={"x": target / 255}).size == (4 * 26 + 2, 3 * 26 + 2)


def test_scores_of_a_folder_are_those_of_whole_images(model, tmp_path):
    """As papers on super-resolution score Set14: nothing but the rest of a division by the factor is cut."""
    for k, (width, height) in enumerate([(40, 31), (27, 50)]):
        photo(width, height).save(tmp_path / f"{k}.png")
    bicubic = dict(model.baselines(lambda to: None))["bicubic"]
    scores = zoo.evaluate(bicubic, ["psnr-y", "ssim-y"], dataset=f"folder:{tmp_path}")["scores"]
    values = []
    for width, height in [(40, 31), (27, 50)]:
        x = torch.tensor(list(photo(width, height).get_flattened_data()), dtype=torch.uint8)
        x = x.view(height, width, 3).permute(2, 0, 1)[None][..., : height // 3 * 3, : width // 3 * 3]
        y = (enlarge(shrink(x / 255, FACTOR), FACTOR) * 255 + 0.5).byte()
        values.append([paired.psnr_y(y, x).item(), paired.ssim_y(y, x).item()])
    expected = torch.tensor(values).mean(0).tolist()
    assert [scores["psnr-y"], scores["ssim-y"]] == pytest.approx(expected, abs=1e-3)


def test_the_reference_is_whole_images(model, tmp_path, monkeypatch):
    """An upscaler that makes the photographs themselves is at distance 0 from them."""
    for k, (width, height) in enumerate([(40, 31), (27, 50), (90, 36)]):
        photo(width, height).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(type(model), "_small", lambda self, x: x[..., : x.shape[2] // 3 * 3, : x.shape[3] // 3 * 3])
    monkeypatch.setattr(type(model), "upscale", lambda self, x: x)
    scores = zoo.evaluate(model, ["psnr", "fd"], dataset=f"folder:{tmp_path}", features="cifar10")["scores"]
    assert scores["psnr"] == 100 and scores["fd-cifar10"] == pytest.approx(0, abs=1e-3)


def test_psnr_of_the_luma():
    """By hand: one gray level of green everywhere is 128.553 / 255 of a level of luma; the border does not count."""
    x = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    y = x.clone()
    y[:, 1] += 1
    expected = 20 * torch.tensor(255 * 255 / 128.553).log10()
    assert paired.psnr_y(x, y).item() == pytest.approx(expected.item())
    y = x.clone()
    y[..., :4, :], y[..., -4:, :], y[..., :4], y[..., -4:] = 0, 0, 0, 0
    assert paired.psnr_y(x, y).item() == 100
    gray = x[:, :1]
    assert paired.psnr_y(gray, gray + 1).item() == pytest.approx(20 * torch.tensor(255.0).log10().item())
    with pytest.raises(ValueError, match="must be larger than 8x8, got 8x16"):
        paired.psnr_y(x[..., :8], x[..., :8])
