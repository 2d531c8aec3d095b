"""SAGAN (arXiv 1805.08318) against the authors' code: networks, attention, training loop."""

import math

import pytest
import torch

from zoo.networks.layers import BatchNorm2d, SelfAttention
from zoo.registry import NETWORKS, Spec
from zoo.settings import find

EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps

G128 = Spec("resnet-generator", resolution=128, classes=1000, widths=(1024, 1024, 512, 256, 128, 64), sn=True,
            attention_at=32, gain=1.0, momentum=0.001, output_momentum=0.0001)  # fmt: skip
D128 = Spec("resnet-discriminator", resolution=128, classes=1000, widths=(64, 128, 256, 512, 1024, 1024), downs=5,
            hidden="output", attention_at=32, gain=1.0)  # fmt: skip


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        assert count(SelfAttention(256)) == 81_921
        assert count(SelfAttention(128)) == 20_481
        assert count(NETWORKS.build(G128)) == 42_078_852
        assert count(NETWORKS.build(D128)) == 39_463_618


def sides(blocks, h, *y):
    """(module, side, channels) after each block."""
    out = []
    for block in blocks:
        h = block(h) if isinstance(block, SelfAttention) else block(h, *y)
        out.append((type(block).__name__, h.shape[-1], h.shape[1]))
    return out


def test_shapes():
    with torch.device("meta"):
        y = torch.zeros(2, dtype=torch.long)
        G, D = NETWORKS.build(G128), NETWORKS.build(D128)
        assert sides(G.blocks, torch.empty(2, 1024, 4, 4), y) == [
            ("UpBlock", 8, 1024), ("UpBlock", 16, 512), ("UpBlock", 32, 256), ("SelfAttention", 32, 256),
            ("UpBlock", 64, 128), ("UpBlock", 128, 64)]  # fmt: skip
        assert sides(D.blocks, torch.empty(2, 3, 128, 128)) == [
            ("DownBlock", 64, 64), ("DownBlock", 32, 128), ("SelfAttention", 32, 128), ("DownBlock", 16, 256),
            ("DownBlock", 8, 512), ("DownBlock", 4, 1024), ("DownBlock", 4, 1024)]  # fmt: skip
        assert [b.conv1.out_channels for b in D.blocks if hasattr(b, "conv1")] == [64, 128, 256, 512, 1024, 1024]
        assert G(torch.empty(2, 128), y=y).shape == (2, 3, 128, 128)
        assert D(torch.empty(2, 3, 128, 128), y=y).shape == (2,)
        norms = [m for m in G.modules() if isinstance(m, BatchNorm2d)]
        assert [m.classes for m in norms] == [1000] * 10 + [0]
        assert [m.momentum for m in norms] == [0.001] * 10 + [0.0001]


def test_spectral_normalization_of_all_but_the_conditional_norms():
    with torch.device("meta"):
        for spec in (G128, D128):
            network = NETWORKS.build(spec)
            normalized = {
                n for n, p in network.named_parameters() if p.dim() > 1 and ".gain." not in n and ".shift." not in n
            }
            assert {n.removesuffix("weight") + "u" for n in normalized} == {
                n for n, _ in network.named_buffers() if n.endswith("u")
            }


def test_attention_starts_as_the_identity():
    torch.manual_seed(0)
    block = SelfAttention(16)
    x = torch.randn(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert block.gamma.grad.abs() > 0
    for conv in (block.query, block.key, block.value, block.output):
        assert conv.weight.grad.abs().sum() == 0


def test_attention_rows_sum_to_one():
    block = SelfAttention(16)
    a = block.attention(torch.randn(2, 16, 8, 8))
    assert a.shape == (2, 64, 16)
    torch.testing.assert_close(a.sum(-1), torch.ones(2, 64))


def test_attention_in_plain_operations():
    torch.manual_seed(1)
    block = SelfAttention(8).eval()
    with torch.no_grad():
        block.gamma.fill_(0.7)
    x = torch.randn(1, 8, 4, 4)
    q, k, v = (c.kernel()[:, :, 0, 0] @ x[0].flatten(1) for c in (block.query, block.key, block.value))  # [c, 16]
    k, v = (torch.nn.functional.max_pool2d(t.view(1, -1, 4, 4), 2)[0].flatten(1) for t in (k, v))  # [c, 4]
    weights = torch.exp(q.T @ k)
    weights = weights / weights.sum(1, keepdim=True)
    expected = x + 0.7 * (block.output.kernel()[:, :, 0, 0] @ (v @ weights.T)).view(1, 8, 4, 4)
    torch.testing.assert_close(block(x), expected)


def test_attention_is_equivariant_to_shifts_of_whole_pooling_windows():
    block = SelfAttention(8).eval()
    with torch.no_grad():
        block.gamma.fill_(1.0)
    x = torch.randn(1, 8, 8, 8)
    torch.testing.assert_close(block(x.roll((2, 4), (2, 3))), block(x).roll((2, 4), (2, 3)))


def test_initial_deviations():
    torch.manual_seed(0)
    D = NETWORKS.build(Spec("resnet-discriminator", widths=(64,) * 4, hidden="output", gain=1.0, attention_at=16))
    w = D.blocks[2].conv1.weight
    assert w.std().item() == pytest.approx(math.sqrt(2 / (2 * 64 * 9)), rel=0.03)


def test_attention_at_a_missing_size():
    with pytest.raises(ValueError, match=r"attention_at=24.*\[8, 16, 32\]"):
        NETWORKS.build(Spec("resnet-generator", attention_at=24, sn=True))


def test_plain_loop(plain_loop):
    """G's step, then D's on reals and fakes in one pass; hinge loss; four times the learning rate for D."""
    tiny = {"G": {"widths": (8, 8, 8, 8), "latent": 6}, "D": {"widths": (8, 8, 8, 8)}}
    loop = plain_loop("sagan-cifar10-small", tiny, channels=3, size=32, classes=5, batch=6, eps=EPS)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G = torch.optim.Adam(G.parameters(), lr=1e-4, betas=(0.0, 0.9), eps=EPS)
    opt_D = torch.optim.Adam(D.parameters(), lr=4e-4, betas=(0.0, 0.9), eps=EPS)
    for _ in loop.rounds():
        z, y = loop.randn(6), torch.randint(5, (6,), generator=loop.noise)
        opt_G.zero_grad()
        (-D(G(z, y), y).mean()).backward()
        opt_G.step()
        real = loop.real()
        z, y = loop.randn(6), torch.randint(5, (6,), generator=loop.noise)
        fake = G(z, y).detach()
        scores = D(torch.cat([real["x"], fake]), torch.cat([real["y"], y]))
        opt_D.zero_grad()
        (torch.relu(1 - scores[:6]).mean() + torch.relu(1 + scores[6:]).mean()).backward()
        opt_D.step()
    loop.compare(G=G, D=D)
    assert loop.run.game.G.blocks[2].gamma.abs() > 0, "gamma has changed from 0"
    paper, reduced = find("sagan-imagenet").stages[0], find("sagan-cifar10-small").stages[0]
    assert paper.game == reduced.game and paper.optimizers == reduced.optimizers, (
        "the paper's setting has the same game and optimizers"
    )
