"""CycleGAN (arXiv 1703.10593) against the authors' code: networks, image pool, training loop."""

import pytest
import torch

from zoo.game import Batch
from zoo.games.cyclegan import ImagePool
from zoo.networks.cyclegan import Reflect
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-2  # of Adam; with a smaller one gradients that are only rounding errors would give full steps


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
    """The pixels in which a score has a gradient, without instance norm, which depends on all pixels."""
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


def test_generator_is_deterministic_and_bounded():
    G = build("cyclegan-generator", width=4, blocks=2)
    x = torch.randn(2, 3, 20, 28)
    assert torch.equal(G(x), G(x)) and G(x).abs().max() <= 1 and G(x).shape == x.shape
    torch.testing.assert_close(G.eval()(x)[:1], G(x[:1]))  # no statistics across the batch


def test_instance_norm_cancels_biases():
    G = build("cyclegan-generator", width=4, blocks=1)
    x = torch.randn(1, 3, 16, 16)
    before = G(x)
    with torch.no_grad():
        for module in list(G.modules())[:-2]:
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and module.out_channels != 3:
                module.bias += 3.0
    torch.testing.assert_close(G(x), before, atol=1e-4, rtol=1e-4)


def test_reflection_by_indexing(monkeypatch):
    x = torch.randn(2, 3, 6, 5)
    plain = Reflect(3)(x)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    assert torch.equal(Reflect(3)(x), plain)


def test_impossible_resolutions():
    with pytest.raises(ValueError, match="resolution=16: must be 24 or more for halvings=3"):
        build("patch-discriminator", resolution=16)
    with pytest.raises(ValueError, match=r"resolution=30: must be a multiple of 4"):
        build("cyclegan-generator", resolution=30)


def pool(size, batch=1):
    return ImagePool(size, 1, 1), Batch(batch, generator=torch.Generator().manual_seed(0))


def test_pool_returns_its_input_until_it_is_full():
    image_pool, batch = pool(5, 2)
    images = torch.arange(6.0).view(3, 2, 1, 1, 1)
    assert all(torch.equal(image_pool(x, batch), x) for x in images[:2])
    assert image_pool.filled == 4
    assert image_pool(images[2], batch)[0] == 4, "the fifth fills it"
    assert image_pool.filled == 5


def test_pool_of_size_0_is_the_identity():
    image_pool, batch = pool(0)
    x = torch.randn(1, 1, 1, 1)
    assert image_pool(x, batch) is x


def test_pool_is_the_authors_pool(size=4, batch=3, queries=40):
    """The authors' loop over single images, here numbers, with the same random draws."""
    image_pool, b = pool(size, batch)
    draws = torch.Generator().manual_seed(0)
    pool_images, number, old = [], 0, 0
    for _ in range(queries):
        x = torch.arange(number, number + batch, dtype=torch.float32)
        number += batch
        coins = torch.rand(batch, generator=draws) < 0.5
        slots = torch.randint(size, (batch,), generator=draws)
        outputs = []
        for image, coin, slot in zip(x.tolist(), coins.tolist(), slots.tolist(), strict=True):
            if len(pool_images) < size:
                pool_images.append(image)
                outputs.append(image)
            elif coin:
                outputs.append(pool_images[slot])
                pool_images[slot] = image
                old += 1
            else:
                outputs.append(image)
        assert image_pool(x.view(batch, 1, 1, 1), b).flatten().tolist() == outputs
        assert image_pool.images.flatten().tolist()[: len(pool_images)] == pool_images
    assert 0.35 < old / (queries * batch) < 0.65


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


class Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value + 0 * x.mean(1, keepdim=True)


def game_of(G, F, D, **arguments):
    networks = {"G": G, "F": F, "D_a": D, "D_b": D}
    return GAMES.build(Spec("cyclegan", channels=3, resolution=8, **arguments), networks)


def test_losses_of_constant_networks():
    game, batch = game_of(Identity(), Identity(), Constant(0.5), identity=0.5), Batch(2, generator=torch.Generator())
    batch.update(a=torch.randn(2, 3, 8, 8), b=torch.randn(2, 3, 8, 8))
    assert game.loss_generators(batch).item() == pytest.approx(0.25 + 0.25), "cycle and identity are 0"
    game.sample_pools(batch)
    assert game.loss_discriminators(batch).item() == pytest.approx(0.25 + 0.25)
    game = game_of(Identity(), Identity(), Constant(1.0))
    assert game.loss_generators(batch).item() == 0
    game = game_of(Constant(0.0), Constant(0.0), Constant(1.0), identity=0.5)
    a, b = batch["a"].abs().mean(), batch["b"].abs().mean()
    torch.testing.assert_close(game.loss_generators(batch), 10 * (a + b) + 5 * (a + b))


def test_roles_of_the_networks():
    """G translates a to b, which D_b scores; F translates b to a."""
    game = game_of(Constant(1.0), Constant(2.0), Constant(0.0))
    batch = Batch(1, generator=torch.Generator())
    batch.update(a=torch.zeros(1, 3, 8, 8), b=torch.zeros(1, 3, 8, 8))
    game.loss_generators(batch)
    assert (batch["fake_b"] == 1).all() and (batch["fake_a"] == 2).all()
    assert game.ships()["to"] == {"b": "G", "a": "F"}


@pytest.mark.parametrize("identity", [0.0, 0.5])
def test_plain_loop(plain_loop, identity):
    """The authors' order: both generators on a joint loss, then both discriminators with fakes from their pools."""
    tiny = {n: {"width": 2, "blocks": 1} for n in "GF"} | {n: {"width": 2, "halvings": 1} for n in ("D_a", "D_b")}
    streams = {
        "data": Stream(keys={"x": "a"}, where={"y": 0}),
        "b": Stream(keys={"x": "b"}, where={"y": 1}),
    }
    loop = plain_loop(
        "cyclegan-emoji",
        tiny,
        channels=3,
        size=16,
        classes=2,
        batch=2,
        eps=EPS,
        data=Data(load=16, flip=True, streams=streams),
        game={"pool": 3, "identity": identity},
        resolution=16,
    )
    reals_b = loop.run.loader("b")
    G, F, D_a, D_b = (loop.copy(n) for n in ("G", "F", "D_a", "D_b"))
    opt_GF = torch.optim.Adam([*G.parameters(), *F.parameters()], lr=2e-4, betas=(0.5, 0.999), eps=EPS)
    opt_D = torch.optim.Adam([*D_a.parameters(), *D_b.parameters()], lr=2e-4, betas=(0.5, 0.999), eps=EPS)
    pools = {"a": [], "b": []}

    def query(name, fakes):
        pool_images, outputs = pools[name], []
        coins = torch.rand(2, generator=loop.noise) < 0.5
        slots = torch.randint(3, (2,), generator=loop.noise)
        for image, coin, slot in zip(fakes.detach(), coins, slots, strict=True):
            if len(pool_images) < 3:
                pool_images.append(image)
                outputs.append(image)
            elif coin:
                outputs.append(pool_images[slot])
                pool_images[slot] = image
            else:
                outputs.append(image)
        return torch.stack(outputs)

    l1 = torch.nn.functional.l1_loss
    for _ in loop.rounds(6):
        x, y = loop.real()["a"], reals_b.next(2, loop.noise)["b"].double()
        fake_b, fake_a = G(x), F(y)
        opt_GF.zero_grad()
        loss = ((D_b(fake_b) - 1) ** 2).mean() + ((D_a(fake_a) - 1) ** 2).mean()
        loss = loss + 10 * (l1(F(fake_b), x) + l1(G(fake_a), y))
        if identity:
            loss = loss + 10 * identity * (l1(G(y), y) + l1(F(x), x))
        loss.backward()
        opt_GF.step()
        opt_D.zero_grad()
        for D, real, fake in ((D_b, y, query("b", fake_b)), (D_a, x, query("a", fake_a))):
            (0.5 * (((D(real) - 1) ** 2).mean() + (D(fake) ** 2).mean())).backward()
        opt_D.step()
    loop.compare(6, G=G, F=F, D_a=D_a, D_b=D_b)
    image_pool = loop.run.game.pool_a
    assert image_pool.filled == 3
    torch.testing.assert_close(image_pool.images, torch.stack(pools["a"]), atol=1e-5, rtol=0)


def test_wrong_arguments_of_the_game():
    with pytest.raises(ValueError, match=r"networks\.F: .*G, F, D_a and D_b"):
        GAMES.build(Spec("cyclegan", channels=3, resolution=8), {"G": Identity()})
    with pytest.raises(ValueError, match=r"game\.pool=-1: must be 0 or more"):
        game_of(Identity(), Identity(), Identity(), pool=-1)
    with pytest.raises(ValueError, match=r"game\.domains=.*two"):
        game_of(Identity(), Identity(), Identity(), domains=("a", "a"))
