"""Layers: folded resampling equals its two steps; spectral normalization in training, eval mode, copies and exports."""

import copy

import pytest
import torch
import torch.nn.functional as F

from zoo.networks.layers import BatchNorm2d, Conv2d, Embedding, Linear, ProjectionHead, SelfAttention, spectral


def unfolded(conv, x):
    """The two steps that a resampling convolution folds into one."""
    w = conv.kernel()
    if conv.resample == "up":
        return F.conv2d(F.interpolate(x, scale_factor=2.0), w, conv.bias, padding=conv.padding)
    return F.avg_pool2d(F.conv2d(x, w, conv.bias, padding=conv.padding), 2)


def results(f, conv, x):
    """Output, first gradients (input, weight, bias) and the gradients of a gradient penalty (input, weight)."""
    x = x.clone().requires_grad_()
    y = f(x)
    seed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    first = torch.autograd.grad((y * seed).sum(), (x, conv.weight, conv.bias), retain_graph=True)
    (gx,) = torch.autograd.grad((y.tanh() * seed).sum(), x, create_graph=True)
    return [y.detach(), *first, *torch.autograd.grad(gx.square().sum(), (x, conv.weight))]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["up", "down"])
def test_folded_equals_unfolded(resample, kernel, dtype, layout):
    torch.manual_seed(0)
    conv = Conv2d(5, 7, kernel, resample=resample).to(dtype).to(memory_format=layout)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(3, 5, 8, 6, dtype=dtype).contiguous(memory_format=layout)
    tolerance = 3e-6 if dtype == torch.float32 else 1e-13
    for folded, plain in zip(results(conv, conv, x), results(lambda v: unfolded(conv, v), conv, x), strict=True):
        assert folded.shape == plain.shape
        assert (folded - plain).norm() <= tolerance * plain.norm()


@pytest.mark.parametrize("resample", ["up", "down"])
def test_folded_equals_unfolded_under_spectral_norm(resample):
    torch.manual_seed(0)
    conv = Conv2d(4, 6, resample=resample, sn=True).double().eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    for folded, plain in zip(results(conv, conv, x), results(lambda v: unfolded(conv, v), conv, x), strict=True):
        assert (folded - plain).norm() <= 1e-12 * plain.norm()
    assert conv.weight.shape == (6, 4, 3, 3)


def sn_layers():
    return [
        (Conv2d(6, 10, sn=True), torch.randn(2, 6, 4, 4)),
        (Conv2d(6, 10, 1, sn=True), torch.randn(2, 6, 4, 4)),
        (Linear(6, 10, sn=True), torch.randn(2, 6)),
        (Embedding(6, 10, sn=True), torch.tensor([0, 5])),
    ]


@pytest.mark.parametrize("k", range(4))
def test_spectral_norm(k):
    torch.manual_seed(1)
    layer, x = sn_layers()[k]
    layer = layer.double()
    x = x.double() if x.is_floating_point() else x
    first = layer.u.clone()
    for _ in range(200):
        layer(x)
    assert not torch.equal(first, layer.u), "u changes in training"
    assert torch.linalg.matrix_norm(layer.kernel().flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    # One iteration in plain operations, from the layer's u.
    W, u = layer.weight.detach().flatten(1), layer.u.clone()
    v = W.T @ u / ((W.T @ u).norm() + 1e-12)
    u = W @ v / ((W @ v).norm() + 1e-12)
    torch.testing.assert_close(layer.kernel().detach().flatten(1), W / (u @ W @ v))
    torch.testing.assert_close(layer.u, u)
    # In eval mode u does not change.
    layer.eval()
    before = layer.u.clone()
    layer(x)
    assert torch.equal(before, layer.u)
    assert "u" in layer.state_dict()


def test_spectral_norm_is_invariant_to_the_scale():
    torch.manual_seed(2)
    layer = Conv2d(3, 5, sn=True, bias=False).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    layer.eval()
    out = layer(x)
    (g,) = torch.autograd.grad(out.sin().sum(), layer.weight)
    assert abs((g * layer.weight).sum().item()) < 1e-12
    with torch.no_grad():
        layer.weight *= 3.7
    torch.testing.assert_close(layer(x), out)


def test_gradient_through_the_spectral_norm():
    torch.manual_seed(3)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    _, _, Vh = torch.linalg.svd(w.detach())
    u = w.detach() @ Vh[0]  # at the fixed point one iteration changes nothing, so finite differences apply
    assert torch.autograd.gradcheck(lambda w: w / torch.linalg.matrix_norm(w, 2), (w,))
    (mine,) = torch.autograd.grad(spectral(w, u, False).sin().sum(), w)
    (true,) = torch.autograd.grad((w / torch.linalg.matrix_norm(w, 2)).sin().sum(), w)
    torch.testing.assert_close(mine, true)


def test_spectral_norm_in_copies_transforms_and_exports():
    """Deep copies have their own u; meta tensors, torch.func.grad in training and export in eval mode work."""
    net = torch.nn.Sequential(Conv2d(3, 8, sn=True), torch.nn.ReLU(), Conv2d(8, 8, resample="down", sn=True))
    x = torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(net)
    net(x)
    assert not torch.equal(twin[0].u, net[0].u)
    before = net[0].u.clone()
    g = torch.func.grad(lambda v: net(v).square().sum())(x)
    assert g.shape == x.shape and not torch.equal(before, net[0].u)
    g.square().sum().backward()
    assert net[0].weight.grad.abs().sum() > 0
    with torch.device("meta"):
        meta = torch.nn.Sequential(Conv2d(3, 8, sn=True), Conv2d(8, 8, resample="up", sn=True))
        assert meta(torch.empty(2, 3, 8, 8)).shape == (2, 8, 16, 16)
    net.eval()
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


def test_spectral_norm_stays_in_float32_under_autocast():
    layer = Conv2d(8, 16, sn=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.kernel().dtype == torch.float32
        assert layer(torch.randn(1, 8, 4, 4)).dtype == torch.bfloat16


def test_class_conditional_norm_starts_at_identity():
    x, y = torch.randn(6, 4, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    conditional, plain = BatchNorm2d(4, 3), torch.nn.BatchNorm2d(4)
    torch.testing.assert_close(conditional(x, y), plain(x))
    with torch.no_grad():
        conditional.gain.weight[1] = 2.0
        conditional.shift.weight[1] = -1.0
    changed = conditional(x, y)
    torch.testing.assert_close(changed[1], 2 * plain(x)[1] - 1)
    torch.testing.assert_close(changed[0], plain(x)[0])
    with pytest.raises(ValueError, match="y=None: must be"):
        conditional(x)


def test_batch_norm_without_gain_and_bias():
    x, norm = torch.randn(6, 4, 5, 5), BatchNorm2d(4, affine=False)
    assert not list(norm.parameters())
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm2d(4)(x))


def test_projection_head():
    head = ProjectionHead(6, 3)
    phi, y = torch.randn(4, 6), torch.tensor([2, 0, 1, 2])
    w, e = head.linear.weight[0], head.embedding.weight
    expected = torch.stack([(w + e[c]) @ p for c, p in zip(y, phi, strict=True)])
    torch.testing.assert_close(head(phi, y), expected)


def test_attention_needs_channels():
    with pytest.raises(ValueError, match="at least 8 channels, got 4"):
        SelfAttention(4)
