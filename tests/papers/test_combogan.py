"""ComboGAN (arXiv 1712.06909) against the authors' code: networks, losses, training loop, translations."""

from itertools import permutations

import pytest
import torch
from helpers.play import count, play, session, state
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import smooth_l1_loss

import zoo
from zoo import settings
from zoo.game import Batch
from zoo.games.combogan import gan
from zoo.networks.combogan import Autoencoder
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec
from zoo.seeds import seed_for

EPS = 1e-2


# Networks -------------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    with torch.device("meta"):
        autoencoder = Autoencoder(3, 64, 9)
    assert sum(p.numel() for p in autoencoder.encoder.parameters()) == 5_099_143
    assert sum(p.numel() for p in autoencoder.decoder.parameters()) == 6_565_770
    for n in (2, 3, 14):
        assert count(Spec("combogan-generator", domains=n)) == n * (5_099_143 + 6_565_770)
        assert count(Spec("combogan-discriminator", domains=n)) == n * 13_931_410


def test_shapes():
    with torch.device("meta"):
        G = NETWORKS.build(Spec("combogan-generator", domains=3))
        D = NETWORKS.build(Spec("combogan-discriminator", domains=3))
        x = torch.empty(2, 3, 256, 256)
        assert G.encode(x, 0).shape == (2, 256, 64, 64) and G(x, 0, 2).shape == x.shape
        assert [m.shape[1:] for m in D[0](x).values()] == [(2, s, s) for s in (65, 33, 17, 19)]
    with pytest.raises(ValueError, match="channels=1: must be 3"):
        NETWORKS.build(Spec("combogan-discriminator", domains=2, channels=1))
    with pytest.raises(ValueError, match="resolution=8: must be 16 or more for layers=4"):
        NETWORKS.build(Spec("combogan-discriminator", domains=2, resolution=8))


def tiny(domains=3):
    torch.manual_seed(0)
    G = NETWORKS.build(Spec("combogan-generator", domains=domains, width=2, blocks=1))
    return G, NETWORKS.build(Spec("combogan-discriminator", domains=domains, width=2, layers=2))


def test_initial_deviations():
    G = NETWORKS.build(Spec("combogan-generator", domains=1, width=32, blocks=2))
    weights = torch.cat([p.flatten() for p in G.parameters() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert {p.item() for p in G.parameters() if p.numel() == 1} == {0.25}, "the slopes of PReLU"


def test_a_code_serves_all_decoders():
    G, _ = tiny()
    x = torch.randn(2, 3, 16, 16)
    code = G.encode(x, 0)
    for b in range(3):
        assert torch.equal(G.decode(code, b), G(x, 0, b)) and G(x, 0, b).abs().max() < 1
    assert not torch.equal(G(x, 0, 1), G(x, 1, 1))


def test_inputs_of_the_towers():
    """The gray tower is blind to hue at constant luminance, the color tower gets blurred colors."""
    _, D = tiny()
    x, hue = torch.rand(1, 3, 16, 16), torch.tensor([0.587, -0.299, 0.0])[:, None, None]
    one, two = D[0](x), D[0](x + 0.3 * hue)
    for name, maps in one.items():
        torch.testing.assert_close(maps[:, 0], two[name][:, 0], atol=1e-4, rtol=1e-3)
        assert not torch.allclose(maps[:, 1], two[name][:, 1], atol=1e-4, rtol=1e-3)
    blur = D[0].blur
    assert blur.shape == (3, 1, 5, 5) and torch.allclose(blur.sum((1, 2, 3)), torch.ones(3))
    ratio = blur[0, 0, 2, 2] / blur[0, 0, 2, 1]
    assert ratio.item() == pytest.approx(torch.tensor(1 / 18).exp().item(), rel=1e-5)


# The game -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_the_least_squares_of_several_maps(target):
    even = {str(j): torch.full((1, 2, 5, 5), 0.5) for j in range(4)}
    assert gan(even, target).item() == pytest.approx(0.0625)
    maps = {str(j): torch.full((1, 2, 3, 3), float(v)) for j, v in enumerate((2, 3, 5))}
    squares = [(v - target) ** 2 for v in (2, 3, 5)]
    assert gan(maps, target).item() == pytest.approx((squares[0] + 2 * squares[1] + 4 * squares[2]) / (7 * 3))


def game_of(count=3, **options):
    G, D = tiny(count)
    names = options.pop("domains", "abcdefgh"[:count])
    return GAMES.build(Spec("combogan", channels=3, resolution=16, domains=tuple(names), **options), {"G": G, "D": D})


def test_losses():
    """Gradients reach encoder and decoder of both domains in G's loss, and none of them in D's."""
    game = game_of()
    batch = Batch(1, generator=torch.Generator().manual_seed(0))
    batch.update(x0=torch.randn(1, 3, 16, 16), x2=torch.randn(1, 3, 16, 16), pair=(2, 0))
    game.loss_G(batch).backward()
    with_gradient = {n.split(".")[1] for n, p in game.G.named_parameters(prefix="G") if p.grad is not None}
    assert with_gradient == {"0", "2"}
    game.zero_grad()
    game.sample_pools(batch)
    assert torch.equal(batch["old0"], batch["fake0"]) and game.pools[1].filled == 0
    loss = game.loss_D(batch)
    loss.backward()
    assert all(p.grad is None for p in game.G.parameters())
    expected = 0
    for k in (0, 2):
        expected += 0.5 * (gan(game.D[k](batch[f"x{k}"]), 1.0) + gan(game.D[k](batch[f"fake{k}"]), 0.0))
    torch.testing.assert_close(loss, expected)


def test_wrong_arguments():
    for names in (("a",), ("a", "a", "b")):
        with pytest.raises(ValueError, match=r"game\.domains=.*two or more different names"):
            game_of(len(names), domains=names)
    with pytest.raises(ValueError, match=r"networks\.G\.domains=3: must be the number of domains, 2"):
        game_of(3, domains=("a", "b"))
    with pytest.raises(ValueError, match=r"game\.pool=-1: must be 0 or more"):
        game_of(pool=-1)


def test_a_round_leaves_other_domains_alone():
    """Weights, Adam states, pools and the order of the data change of two domains only."""
    recipe = small("combogan-emoji-small")
    run = session(recipe, stand_in(recipe))
    pairs = set()
    for _ in range(8):
        before, positions = state(run), {k: run.loaders[f"x{k}"].position for k in range(3)}
        play(run)
        two = {str(k) for k, position in positions.items() if run.loaders[f"x{k}"].position != position}
        after = {k: v for k, v in state(run).items() if not k.startswith("ema")}
        changes = {k.split(".")[2] for k, v in after.items() if k not in before or not torch.equal(v, before[k])}
        assert changes == two and len(two) == 2
        pairs.add(frozenset(two))
    assert len(pairs) == 3


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [0.0, 2.0])
def test_plain_loop(plain_loop, forward):
    """The authors' loop: two domains at random, their encoders and decoders, then their discriminators; without and
    with their code's term of the images before and after."""
    loop = plain_loop(
        "combogan-emoji",
        {"G": {"width": 2, "blocks": 1}, "D": {"width": 2, "layers": 2}},
        channels=3,
        size=18,
        classes=3,
        batch=2,
        eps=EPS,
        data=Data(load=18, flip=True, streams={f"x{k}": Stream(keys={"x": f"x{k}"}, where={"y": k}) for k in range(3)}),
        game={"pool": 3, "forward": forward},
        resolution=16,
    )
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (
        [torch.optim.Adam(one.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS) for one in several]
        for several in (G, D)
    )
    pools = {k: [] for k in range(3)}

    def query(k, fakes):
        outputs = []
        coins = torch.rand(2, generator=loop.noise) < 0.5
        slots = torch.randint(3, (2,), generator=loop.noise)
        for image, coin, slot in zip(fakes.detach(), coins, slots, strict=True):
            if len(pools[k]) < 3:
                pools[k].append(image)
                outputs.append(image)
            elif coin:
                outputs.append(pools[k][slot])
                pools[k][slot] = image
            else:
                outputs.append(image)
        return torch.stack(outputs)

    def adversarial(predictions, target):
        losses = [(p - target).square().mean() for p in predictions.values()]
        factors = [1, 3]  # of two predictions
        return sum(f * loss for f, loss in zip(factors, losses, strict=True)) / (sum(factors) * len(losses))

    played = set()
    for r in loop.rounds(6):
        a, b = list(permutations(range(3), 2))[seed_for(0, "choose", 0, r, 0) % 6]
        played |= {a, b}
        x, y = (loop.real(f"x{k}")[f"x{k}"] for k in (a, b))
        for k in (a, b):
            opt_G[k].zero_grad()
        fake_b, fake_a = G[b].decoder(G[a].encoder(x)), G[a].decoder(G[b].encoder(y))
        back_a, back_b = G[a].decoder(G[b].encoder(fake_b)), G[b].decoder(G[a].encoder(fake_a))
        loss = adversarial(D[b](fake_b), 1) + adversarial(D[a](fake_a), 1)
        loss = loss + 10 * (smooth_l1_loss(back_a, x) + smooth_l1_loss(back_b, y))
        half = nn.AvgPool2d(3, stride=2)
        loss = loss + forward * (smooth_l1_loss(half(fake_b), half(x)) + smooth_l1_loss(half(fake_a), half(y)))
        loss.backward()
        for k in (a, b):
            opt_G[k].step()
        for k, real, fake in ((a, x, fake_a), (b, y, fake_b)):
            opt_D[k].zero_grad()
            (0.5 * (adversarial(D[k](real), 1) + adversarial(D[k](query(k, fake)), 0))).backward()
            opt_D[k].step()
    assert played == {0, 1, 2}
    loop.compare(6, G=G, D=D)


def test_settings():
    """The authors' numbers."""
    recipe = settings.find("combogan-emoji")
    (stage,) = recipe.stages
    assert (stage.images, stage.batch, stage.resolution, stage.data.load) == (300 * 3_358, 1, 256, 286)
    assert all(adam.lr == 2e-4 and adam.betas == (0.5, 0.999) for adam in stage.optimizers.values())
    assert stage.schedules[0].points == ((150 * 3_358, 2e-4), (300 * 3_358, 0.0))
    names = zoo.data.facts("emoji").fields["domain"].names
    assert stage.game.kwargs["domains"] == names


def test_translations():
    """A direction for each ordered pair; the preview has the images of each domain once."""
    model = zoo.create("combogan-emoji-small")
    assert model.direction_names[:3] == ("twemoji-noto", "twemoji-fluent3d", "noto-twemoji")
    x = torch.rand(2, 3, 32, 32)
    y = model.translate(x, to="fluent3d-noto")
    torch.testing.assert_close(y, model.G(2 * x - 1, 2, 1) / 2 + 0.5, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.program("fluent3d-noto").network(x), y, atol=1e-5, rtol=0)
    assert (model.entries["2-1"]["source"], model.entries["2-1"]["target"]) == ("x2", "x1")
    reals = {f"x{k}": torch.full((4, 3, 32, 32), k / 2.0) for k in range(3)}
    images, columns = model.preview(reals)
    assert columns == 4 and len(images) == 4 * (3 + 6)
    torch.testing.assert_close(images[:4], reals["x0"] / 2 + 0.5)
    torch.testing.assert_close(images[12:16], reals["x1"] / 2 + 0.5)
    assert isinstance(model.G, nn.ModuleList)
