"""SNGAN as published: networks, spectral normalization, play."""

import math

import pytest
import torch
from zoo.settings import find, names

from zoo.registry import LOSSES, NETWORKS, Spec

EPS = 1e-4  # of Adam, so that it does not blow up gradients that are rounding alone

BIG = {"widths": (64, 128, 256, 512, 1024, 1024), "downs": 5}


TINY = (8, 8, 8, 8)


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "spec, expected",
    [
        (Spec("resnet-generator"), 4_276_739),
        (Spec("resnet-generator", classes=10), 4_304_387),
        (Spec("resnet-discriminator", bias=False), 1_053_824),
        (Spec("resnet-discriminator", bias=False, classes=10), 1_055_104),
    ],
)
def test_parameter_counts(spec, expected):
    with torch.device("meta"):
        assert count(NETWORKS.build(spec)) == expected


def test_parameter_counts_of_the_standard_cnn():
    def conv(i, o, k):
        return i * o * k * k + o

    G = 128 * 8192 + 8192 + sum(conv(i, o, 4) + 2 * o for i, o in [(512, 256), (256, 128), (128, 64)]) + conv(64, 3, 3)
    D = sum(conv(i, o, k) for i, o, k in [(3, 64, 3), (64, 64, 4), (64, 128, 3), (128, 128, 4), (128, 256, 3),
                                          (256, 256, 4), (256, 512, 3)]) + 512 * 16 + 1  # fmt: skip
    with torch.device("meta"):
        assert count(build("sngan-cnn-generator")) == G
        assert count(build("sngan-cnn-discriminator")) == D


def test_shapes():
    with torch.device("meta"):
        z, x, y = torch.empty(2, 128), torch.empty(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
        assert build("resnet-generator")(z).shape == (2, 3, 32, 32)
        assert build("resnet-generator", classes=10)(z, y=y).shape == (2, 3, 32, 32)
        assert build("resnet-discriminator", classes=10)(x, y=y).shape == (2,)
        h, sides = x, []
        for block in build("resnet-discriminator").blocks:
            h = block(h)
            sides.append(h.shape[-1])
        assert sides == [16, 8, 8, 8]
        G = build("resnet-generator", resolution=128, widths=(1024, 1024, 512, 256, 128, 64), classes=1000)
        assert G(z, y=y).shape == (2, 3, 128, 128)
        D = build("resnet-discriminator", resolution=128, classes=1000, **BIG)
        assert D.features(torch.empty(2, 3, 128, 128)).shape == (2, 1024)
        assert [b.conv1.out_channels for b in D.blocks] == [64, 64, 128, 256, 512, 1024], "inner width = input width"
        assert build("sngan-cnn-generator", classes=10)(z, y=y).shape == (2, 3, 32, 32)
        D = build("sngan-cnn-discriminator", classes=10)
        assert D(x, y=y).shape == (2,) and D.features(x).shape == (2, 8192)


def test_every_weight_of_the_discriminator_is_normalized_and_none_of_the_generator():
    for D in (build("resnet-discriminator", classes=10), build("sngan-cnn-discriminator", classes=10)):
        layers = [n for n, p in D.named_parameters() if p.dim() > 1]
        assert {n.removesuffix("weight") + "u" for n in layers} == {n for n, _ in D.named_buffers()}
    assert not [n for n, _ in build("resnet-generator").named_buffers() if n.endswith("u")]


def test_first_singular_value_becomes_one():
    torch.manual_seed(0)
    D = build("resnet-discriminator", widths=(16,) * 4, classes=10)
    with torch.no_grad():
        for _ in range(300):
            for module in D.modules():
                if hasattr(module, "u"):
                    module.kernel()
    for module in D.modules():
        if hasattr(module, "u"):
            s = torch.linalg.matrix_norm(module.kernel().detach().flatten(1), 2)
            assert s.item() == pytest.approx(1, abs=1e-3)


def test_discriminator_does_not_see_the_scale_of_its_weights():
    torch.manual_seed(0)
    D = build("resnet-discriminator", widths=(8,) * 4, bias=False).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    score = D(x)
    score.sum().backward()
    for p in D.parameters():
        if p.dim() > 1:
            assert abs((p.grad * p).sum().item()) < 1e-10
    with torch.no_grad():
        for p in D.parameters():
            if p.dim() > 1:
                p *= 2.5
    torch.testing.assert_close(D(x), score)


def test_features_are_a_sum():
    D = build("resnet-discriminator", widths=(8, 8), downs=1)
    D.blocks = torch.nn.Identity()
    x = torch.ones(2, 8, 4, 4)
    torch.testing.assert_close(D.features(torch.cat([x, x], 2)), 2 * D.features(x))


def test_shortcut_order_makes_no_difference():
    """Pooling then 1x1 (the authors' first block) equals 1x1 then pooling (the others): one fold serves both."""
    D = build("resnet-discriminator", widths=(8, 8), downs=2).eval()
    shortcut, x = D.blocks[1].shortcut, torch.randn(2, 8, 8, 8)
    slow = torch.nn.functional.conv2d(x, shortcut.kernel(), shortcut.bias)
    torch.testing.assert_close(shortcut(x), torch.nn.functional.avg_pool2d(slow, 2))


@pytest.mark.parametrize("layer, gain", [("blocks.1.conv1", math.sqrt(2)), ("blocks.1.shortcut", 1.0)])
def test_initial_deviations(layer, gain):
    torch.manual_seed(0)
    module = build("resnet-discriminator").get_submodule(layer)
    area = module.weight[0, 0].numel()
    assert module.weight.std().item() == pytest.approx(gain * math.sqrt(2 / (256 * area)), rel=0.03)
    assert module.bias.abs().sum() == 0


def test_u_starts_normal():
    torch.manual_seed(0)
    D = build("resnet-discriminator")
    u = torch.cat([b for n, b in D.named_buffers() if n.endswith("u")])
    assert u.std().item() == pytest.approx(1, abs=0.1)


def play(b, rounds, lr, betas, d_steps, loss_D, loss_G, latent, generator_batch, classes=0, passes=2):
    """G first on a batch of its own, then D, with a pass on reals and one on fakes as in the authors' code (or one for
    both, as in the reduced settings). Each pass of D moves its vectors u, that of G's step too."""
    G, D = b.copy("G"), b.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=lr, betas=betas, eps=EPS) for net in (G, D))

    def noise(n):
        z = torch.randn(n, latent, generator=b.noise)
        return z, {"y": torch.randint(classes, (n,), generator=b.noise)} if classes else {}

    for r in b.rounds():
        for opt in (opt_G, opt_D):
            opt.param_groups[0]["lr"] = rounds(r)
        z, y = noise(generator_batch)
        opt_G.zero_grad()
        loss_G(D(G(z, **y), **y)).backward()
        opt_G.step()
        for _ in range(d_steps):
            real = b.real()
            z, y = noise(b.batch)
            fake = G(z, **y).detach()
            if passes == 2:
                on_real, on_fake = D(real["x"], **{k: real[k] for k in y}), D(fake, **y)
            else:
                both = {"y": torch.cat([real["y"], y["y"]])} if classes else {}
                on_real, on_fake = D(torch.cat([real["x"], fake]), **both).chunk(2)
            opt_D.zero_grad()
            loss_D(on_real, on_fake).backward()
            opt_D.step()
    return G, D


def hinge_D(real, fake):
    return torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()


@pytest.mark.parametrize("name, classes", [("sngan-cifar10", 0), ("sngan-cifar10-conditional", 10)])
def test_plain_loop_of_the_resnets(beside, name, classes):
    tiny = {"G": {"widths": TINY, "latent": 6}, "D": {"widths": TINY}}
    b = beside(name, tiny, channels=3, size=32, classes=classes, batch=6, eps=EPS, game={"generator_batch": 9})
    rate = lambda r: 2e-4 * (1 - r * 5 * 6 / (50_000 * 5 * 64))  # noqa: E731
    G, D = play(b, rate, 2e-4, (0.0, 0.9), 5, hinge_D, lambda s: -s.mean(), 6, 9, classes)
    b.compare(G=G, D=D)
    for key, u in D.named_buffers():
        assert (u - dict(b.session.game.D.named_buffers())[key]).abs().max() < 1e-5, key


def test_plain_loop_of_the_standard_cnn(beside):
    tiny = {"G": {"width": 2, "latent": 6}, "D": {"width": 2}}
    b = beside("sngan-cifar10-cnn", tiny, channels=3, size=32, batch=6, eps=EPS)
    plus = torch.nn.functional.softplus
    G, D = play(b, lambda r: 2e-4, 2e-4, (0.5, 0.999), 1, lambda r, f: plus(-r).mean() + plus(f).mean(),
                lambda s: plus(-s).mean(), 6, 6)  # fmt: skip
    b.compare(G=G, D=D)
    for key, u in D.named_buffers():
        assert (u - dict(b.session.game.D.named_buffers())[key]).abs().max() < 1e-5, key


@pytest.mark.parametrize("name, classes", [("sngan-cifar10-small", 0), ("sngan-cifar10-conditional-small", 10)])
def test_plain_loop_of_the_reduced_settings(beside, name, classes):
    """One pass of D on reals and fakes together."""
    tiny = {"G": {"width": 2, "latent": 6}, "D": {"width": 2}}
    b = beside(name, tiny, channels=3, size=32, classes=classes, batch=6, eps=EPS)
    G, D = play(b, lambda r: 2e-4, 2e-4, (0.5, 0.999), 1, hinge_D, lambda s: -s.mean(), 6, 6, classes, passes=1)
    b.compare(G=G, D=D)


def test_the_published_settings():
    """Two passes of D in all of them; G's step has 128 samples beside D's 64 (ImageNet: 32 and 16 on 4 GPUs each)."""
    published = [
        n for n in names() if n.startswith("sngan-") and not n.endswith("small") and n != "sngan-fashion-mnist"
    ]
    assert set(published) >= {"sngan-cifar10", "sngan-cifar10-cnn", "sngan-cifar10-conditional", "sngan-imagenet"}
    for name in published:
        (stage,) = find(name).stages
        assert stage.game.kwargs["joined"] == "never"
        assert stage.batch == 64 and stage.game.kwargs.get("generator_batch", 64) == (
            64 if name.endswith("cnn") else 128
        )


def test_hinge_at_zero():
    pair = LOSSES.build(Spec("hinge"))
    zero = torch.zeros(4)
    assert pair.d(zero, zero) == 2 and pair.g(None, zero) == 0
