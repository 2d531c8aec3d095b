"""CoGAN (arXiv 1606.07536) against its authors' code: what is shared, the losses, the training loop, the model."""

import math

import pytest
import torch
from helpers.tiny import coupled_spec, model, weights

import zoo
from zoo import publish, settings
from zoo.data.views import VIEWS, edges, inverse
from zoo.game import Batch
from zoo.metrics import images, paired
from zoo.models import build_model
from zoo.recipe import Data, Stream, encode
from zoo.registry import GAMES, NETWORKS, Spec

TINY_G, TINY_D = {"latent": 3, "widths": (6, 5, 4, 3)}, {"widths": (3, 4), "hidden": 5}


def build(name, **kwargs):
    return NETWORKS.build(Spec(f"cogan-{name}", channels=1, **kwargs))


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        G, D = build("generator"), build("discriminator")
        assert (count(G), count(G.shared), count(G.a)) == (7_842_694, 7_833_476, 128 * 36 + 1)
        assert (count(D), count(D.shared), count(D.a)) == (427_593, 426_553, 25 * 20 + 20)
        uncoupled = build("generator", apart=5), build("discriminator", apart=4)
        assert [count(n.shared) for n in uncoupled] == [0, 0]
        assert [count(n) for n in uncoupled] == [2 * (7_833_476 + 4_609), 2 * (426_553 + 520)]


def test_sizes_of_the_maps():
    G, D = build("generator", widths=(8, 6, 4, 2)), build("discriminator")
    h, sides = torch.randn(2, 100, 1, 1), []
    for layer in (*G.shared, *G.a):
        h = layer(h)
        sides.append(h.shape[-1])
    assert sides == [4, 7, 13, 25, 28]
    h, sides = torch.randn(2, 1, 28, 28), []
    for layer in (*D.a, *D.shared):
        h = layer(h)
        sides.append(tuple(h.shape[1:]))
    assert sides == [(20, 12, 12), (50, 4, 4), (500, 1, 1), (2, 1, 1)]
    a, b = build("generator", widths=(8, 6, 4, 2))(torch.randn(3, 100))
    assert a.shape == b.shape == (3, 1, 28, 28) and a.min() > 0 and b.max() < 1


def test_initial_weights():
    """Xavier-uniform with gain sqrt 2, biases 0.1, one PReLU slope per layer, norms without gain and bias."""
    torch.manual_seed(0)
    G = build("generator", widths=(64, 64, 32, 16))
    for layer in (G.shared[1][0], G.a[0][0], build("discriminator").shared[1][0]):
        fans = sum(layer.weight.shape[:2]) * layer.weight[0, 0].numel()
        bound = math.sqrt(2) * math.sqrt(6 / fans)
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert (layer.bias == 0.1).all()
    assert [m.weight.numel() for m in G.modules() if isinstance(m, torch.nn.PReLU)] == [1] * 4
    assert not any(m.affine for m in G.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_face_networks():
    with torch.device("meta"):
        G, D = (NETWORKS.build(Spec(f"cogan-face-{n}", channels=3)) for n in ("generator", "discriminator"))
        a, b = G(torch.empty(2, 100))
        assert a.shape == b.shape == (2, 3, 128, 128)
        assert D(a, b).shape == (4,)
        assert (len(G.shared), len(G.a), len(D.a), len(D.shared)) == (5, 2, 2, 6)
    assert [m.p for m in D.modules() if isinstance(m, torch.nn.Dropout)] == [0.1, 0.3, 0.3, 0.5, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("cogan-generator", {"resolution": 32}, "resolution=32: cogan-generator must have 28"),
        ("cogan-discriminator", {"resolution": 32}, "resolution=32: cogan-discriminator must have 28"),
        ("cogan-generator", {"apart": 6}, "apart=6: must be from 1 to 5"),
        ("cogan-discriminator", {"apart": 0}, "apart=0: must be from 1 to 4"),
        ("cogan-face-generator", {"resolution": 96}, "resolution=96: must be 128, which 6 widths of G give"),
        ("cogan-face-discriminator", {"resolution": 48}, "multiple of 64"),
    ],
)
def test_wrong_sizes(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS.build(Spec(name, channels=1, **kwargs))


# What is shared -----------------------------------------------------------------------------------------------------


def test_equal_heads_give_equal_images():
    """Both domains have the same z; with the same last layer they have the same images."""
    G, z = build("generator", **TINY_G), torch.randn(4, 3)
    a, b = G(z)
    assert (a != b).any()
    G.b.load_state_dict(G.a.state_dict())
    a, b = G(z)
    assert torch.equal(a, b)


def test_scores_depend_on_the_images_of_their_domain_only():
    D = build("discriminator", **TINY_D)
    a, b = torch.rand(3, 1, 28, 28, requires_grad=True), torch.rand(3, 1, 28, 28, requires_grad=True)
    of_a, of_b = D(a, b).split(3)
    assert torch.autograd.grad(of_a.sum(), (a, b), retain_graph=True)[1].count_nonzero() == 0
    assert torch.autograd.grad(of_b.sum(), (a, b))[0].count_nonzero() == 0


def test_shared_parameters():
    """The shared layers' gradients are the sums of both domains'; each parameter is listed once."""
    G, z = build("generator", **TINY_G), torch.randn(4, 3)
    p = G.shared[1][0].weight
    a, b = G(z)
    of_a, of_b, of_both = (torch.autograd.grad(v.sum(), p, retain_graph=True)[0] for v in (a, b, torch.stack([a, b])))
    torch.testing.assert_close(of_both, of_a + of_b)
    ids = [id(q) for q in G.parameters()]
    assert len(ids) == len(set(ids)) == len(list(G.named_parameters(remove_duplicate=False)))


def test_losses_at_chance():
    game = GAMES.build(Spec("cogan"), {"G": build("generator", **TINY_G), "D": build("discriminator", **TINY_D)})
    for p in game.D.parameters():
        p.data.zero_()
    batch = Batch(3, generator=torch.Generator())
    batch.update(a=torch.rand(3, 1, 28, 28), b=torch.rand(3, 1, 28, 28))
    assert game.loss_D(batch).item() == pytest.approx(2 * math.log(2))
    assert game.loss_G(batch).item() == pytest.approx(math.log(2))


def test_order_of_the_scores_and_no_gradient_in_G():
    game = GAMES.build(Spec("cogan"), {"G": build("generator", **TINY_G), "D": build("discriminator", **TINY_D)})
    batch = Batch(3, generator=torch.Generator().manual_seed(0))
    batch.update(a=torch.rand(3, 1, 28, 28), b=torch.rand(3, 1, 28, 28))
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in game.G.parameters())
    fakes = game.G(torch.randn(3, 3))
    real, fake = game.scores(batch, fakes)
    torch.testing.assert_close(real, game.D(batch["a"], batch["b"]))
    torch.testing.assert_close(fake, game.D(*fakes))


def test_domains_are_not_paired():
    """In every recipe an image and its counterpart are in different halves, and the streams have different orders."""
    for name in settings.names("cogan-*"):
        streams = settings.find(name).stages[0].data.streams
        a, b = streams["a"], streams["b"]
        assert (a.part, b.part) == ((0, 2), (1, 2)) and (a.where, a.view) != (b.where, b.view)


def test_the_authors_setting():
    stage = settings.find("cogan-mnist").stages[0]
    adam = stage.optimizers["G"]
    assert (adam.lr, adam.betas, adam.weight_decay) == (2e-4, (0.5, 0.999), 5e-4) and adam == stage.optimizers["D"]
    assert (stage.batch, stage.images, stage.data.range) == (64, 5_000 * 64, (0.0, 1.0))


@pytest.mark.parametrize("apart", [1, 2])
def test_plain_loop(plain_loop, apart):
    """D's step, then G's on fresh noise; a softmax over D's two outputs, for the images of both domains."""
    halves = {"data": Stream(keys={"x": "a"}, part=(0, 2)), "b": Stream(keys={"x": "b"}, part=(1, 2), view="edges")}
    tiny = {"G": {**TINY_G, "apart": apart}, "D": {**TINY_D, "apart": apart}}
    loop = plain_loop("cogan-mnist", tiny, batch=4, data=Data(range=(0.0, 1.0), streams=halves), eps=1e-2)
    others = loop.run.loader("b")
    G, D = loop.copy("G"), loop.copy("D")
    adam = dict(lr=2e-4, betas=(0.5, 0.999), weight_decay=5e-4, eps=1e-2)
    opt_G, opt_D = torch.optim.Adam(G.parameters(), **adam), torch.optim.Adam(D.parameters(), **adam)
    cross_entropy = torch.nn.functional.cross_entropy

    def outputs(x_a, x_b):
        """D's two outputs, [2 N, 2]; the second means real."""
        return D.shared(torch.cat([D.a(x_a), D.b(x_b)])).flatten(1)

    def images_of(z):
        h = G.shared(z[:, :, None, None])
        return G.a(h), G.b(h)

    ones, zeros = torch.ones(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
    for _ in loop.rounds():
        x_a, x_b = loop.real()["a"], others.next(4, loop.noise)["b"].double()
        fakes = [x.detach() for x in images_of(loop.randn(3))]
        opt_D.zero_grad()
        (cross_entropy(outputs(x_a, x_b), ones) + cross_entropy(outputs(*fakes), zeros)).backward()
        opt_D.step()
        opt_G.zero_grad()
        cross_entropy(outputs(*images_of(loop.randn(3))), ones).backward()
        opt_G.step()
    loop.compare(G=G, D=D)


# The second domain --------------------------------------------------------------------------------------------------


def test_views():
    x = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    x[0, 0, 2, 2] = 200
    ring = edges(x)
    assert ring.dtype == torch.uint8 and ring.sum() == 8 * 200 and ring[0, 0, 2, 2] == 0
    assert torch.equal(inverse(inverse(x)), x) and inverse(x).min() == 55
    assert set(VIEWS) == {"edges", "inverse"}


def test_the_model_samples_both_domains_of_one_z():
    coupled = model(coupled_spec())
    pairs = coupled.pairs(5, seed=2)
    assert pairs.shape == (5, 2, 1, 28, 28)
    assert torch.equal(coupled.sample(5, seed=2), pairs[:, 0])
    assert torch.equal(coupled.sample(5, seed=2, to="edges"), pairs[:, 1])
    assert torch.equal(coupled.sample(5, seed=2, to="b"), pairs[:, 1])
    assert torch.equal(coupled.sample(5, seed=2, to="both"), torch.cat([pairs[:, 0], pairs[:, 1]], -1))
    assert torch.equal(coupled.pairs(seeds=[4])[0], pairs[2]), "pair k depends only on its seed"
    with pytest.raises(ValueError, match="to='edgs': .*edges.*a, b, plain, edges"):
        coupled.sample(1, to="edgs")
    walk = torch.cat(list(coupled.interpolate([0, 1], 2, to="b")))
    torch.testing.assert_close(walk[0], coupled.sample(1, to="b")[0])
    images, columns = coupled.preview({})
    assert (len(images), columns) == (64, 8)
    assert torch.equal(images[8:16], coupled.pairs(8)[:, 1])


def test_weights_have_both_domains(tmp_path):
    path = weights(tmp_path / "w.safetensors", coupled_spec())
    assert torch.equal(zoo.load(path).pairs(3), model(coupled_spec()).pairs(3))
    assert publish.difference(zoo.load(path), path) == 0


def test_agreement():
    x = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8).view(1, 1, 2, 2)
    assert paired.agreement(x, x).item() == 1
    assert paired.agreement(x, 255 - x).item() == 0
    assert paired.agreement(x, torch.zeros_like(x)).item() == 0.5


class Perfect(torch.nn.Module):
    """A G whose second domain is the view of its first."""

    latent = 4

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, z):
        a = (z[:, :1, None, None] + torch.linspace(-2, 2, 28)).sigmoid().expand(-1, 1, 28, 28) * self.scale
        return a, 1 - a


def test_scores_of_pairs_and_of_either_domain():
    """Pairs are compared by the view that the Card's streams name; each domain with images of its own kind."""
    from zoo.metrics.evaluate import choose
    from zoo.metrics.image_source import find
    from zoo.metrics.inputs import ScoreInputs

    recipe = settings.find("cogan-fashion-mnist").replace(dataset="fashion-mnist-10k")
    card = {"recipe": encode(recipe), "dataset": {"name": "fashion-mnist-10k"}}
    perfect = build_model(coupled_spec() | {"networks": {"G": {}}}, {"G": Perfect()}, card)
    result = zoo.evaluate(perfect, ["agreement", "psnr"], n=20)
    assert result["scores"]["agreement"] > 0.99 and result["scores"]["psnr"] > 40
    assert result["protocol"]["pairs"] == 20
    one, other = (ScoreInputs(find(perfect), n=20, to=to) for to in ("plain", "edges"))
    assert "agreement" in choose(one, None)[0]
    real, negative = (next(inputs.real_images("test").chunks(50)) for inputs in (one, other))
    assert torch.equal(negative, 255 - real)
    fakes = torch.cat(list(other.images.chunks()))
    assert torch.equal(fakes, images.quantize(perfect.sample(20, to="b")))
    with pytest.raises(ValueError, match="has one domain; leave it out"):
        zoo.evaluate(torch.rand(4, 1, 28, 28), dataset="fashion-mnist-10k", to="b")
    with pytest.raises(ValueError, match="coupled model"):
        zoo.evaluate(torch.rand(4, 1, 28, 28), ["agreement"], dataset="fashion-mnist-10k")
