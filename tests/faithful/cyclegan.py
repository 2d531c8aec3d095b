"""CycleGAN as published: networks, image pool, play."""

import pytest
import torch

from zoo.networks.translation import Reflect
from zoo.registry import NETWORKS, Spec


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "spec, expected",
    [
        (Spec("cyclegan-generator"), 11_378_179),
        (Spec("cyclegan-generator", affine=True), 11_388_675),
        (Spec("cyclegan-generator", blocks=6), 7_837_699),
        (Spec("cyclegan-generator", blocks=6, affine=True), 7_845_123),
        (Spec("patch-discriminator"), 2_764_737),
        (Spec("patch-discriminator", affine=True), 2_766_529),
        (Spec("cyclegan-generator", width=16, blocks=3), 272_515),
        (Spec("patch-discriminator", width=16, halvings=2), 42_865),
    ],
)
def test_parameter_counts(spec, expected):
    with torch.device("meta"):
        assert count(NETWORKS.build(spec)) == expected


def test_shapes():
    with torch.device("meta"):
        G, D = build("cyclegan-generator"), build("patch-discriminator")
        for side, patches in ((256, 30), (128, 14)):
            x = torch.empty(1, 3, side, side)
            assert G(x).shape == x.shape
            assert D(x).shape == (1, 1, patches, patches)
        assert build("patch-discriminator", halvings=2)(torch.empty(1, 3, 32, 32)).shape == (1, 1, 6, 6)


@pytest.mark.parametrize("halvings, field", [(1, 16), (2, 34), (3, 70)])
def test_receptive_field(halvings, field):
    """How many pixels one score hears of, by its gradient. Instance norm hears of all: it is taken out."""
    D = build("patch-discriminator", width=2, halvings=halvings)
    for i, module in enumerate(D.layers):
        if isinstance(module, torch.nn.InstanceNorm2d):
            D.layers[i] = torch.nn.Identity()
    x = torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = D(x)
    middle = scores.shape[-1] // 2
    (g,) = torch.autograd.grad(scores[0, 0, middle, middle], x)
    rows = g.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == field


@pytest.mark.parametrize("affine", [False, True])
def test_initial_deviations(affine):
    torch.manual_seed(0)
    for network in (build("cyclegan-generator", width=32, affine=affine), build("patch-discriminator", affine=affine)):
        weights = torch.cat([p.flatten() for n, p in network.named_parameters() if p.dim() == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.01)
        gains = [p for n, p in network.named_parameters() if n.endswith("weight") and p.dim() == 1]
        assert bool(gains) == affine
        if affine:
            assert torch.cat(gains).mean().item() == pytest.approx(1, abs=0.01)
            assert torch.cat(gains).std().item() == pytest.approx(0.02, rel=0.15)
        assert all(p.abs().sum() == 0 for n, p in network.named_parameters() if n.endswith("bias"))


def test_generator_is_deterministic_and_bounded_and_keeps_the_size():
    G = build("cyclegan-generator", width=4, blocks=2)
    x = torch.randn(2, 3, 20, 28)
    assert torch.equal(G(x), G(x)) and G(x).abs().max() <= 1 and G(x).shape == x.shape
    torch.testing.assert_close(G.eval()(x)[:1], G(x[:1]))  # no statistics across the batch


def test_biases_before_a_norm_change_nothing():
    G = build("cyclegan-generator", width=4, blocks=1)
    x = torch.randn(1, 3, 16, 16)
    before = G(x)
    with torch.no_grad():
        for module in list(G.modules())[:-2]:
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and module.out_channels != 3:
                module.bias += 3.0
    torch.testing.assert_close(G(x), before, atol=1e-4, rtol=1e-4)


def test_reflection_by_indexing_is_reflection(monkeypatch):
    x = torch.randn(2, 3, 6, 5)
    plain = Reflect(3)(x)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    assert torch.equal(Reflect(3)(x), plain)


def test_impossible_resolutions():
    with pytest.raises(ValueError, match="3 halvings can't do resolution 16: take 24 or more"):
        build("patch-discriminator", resolution=16)
    with pytest.raises(ValueError, match=r"can't do resolution 30.*multiple of 4"):
        build("cyclegan-generator", resolution=30)
