"""StarGAN (arXiv 1711.09020) against the authors' code: networks, losses, training loop, translations."""

import math

import pytest
import torch
from helpers.play import count
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

import zoo
from zoo import settings
from zoo.game import Batch
from zoo.models import build_model
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-2
FIVE = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domains", "g", "d"), [(5, 8_430_528, 44_762_048), (8, 8_439_936, 44_786_624)])
def test_parameter_counts(domains, g, d):
    assert count(Spec("stargan-generator", domains=domains)) == g
    assert count(Spec("stargan-discriminator", domains=domains)) == d
    assert domains != 8 or g + d == 53_226_560, "the paper's 53.2 million"


def test_shapes():
    with torch.device("meta"):
        G = NETWORKS.build(Spec("stargan-generator", domains=5))
        D = NETWORKS.build(Spec("stargan-discriminator", domains=5))
        x, c = torch.empty(2, 3, 128, 128), torch.empty(2, 5)
        assert G(x, c).shape == x.shape and G(x[..., :44, :20], c).shape == (2, 3, 44, 20)
        assert D(x).shape == (2, 1, 2, 2) and D.logits(x).shape == (2, 5)
        assert D.domain[0].kernel_size == (2, 2)
    with pytest.raises(ValueError, match="resolution=48: must be a multiple of 64"):
        NETWORKS.build(Spec("stargan-discriminator", domains=5, resolution=48))


def tiny():
    torch.manual_seed(0)
    G = NETWORKS.build(Spec("stargan-generator", domains=3, width=4, blocks=1))
    return G, NETWORKS.build(Spec("stargan-discriminator", domains=3, resolution=16, width=4, layers=2))


def test_generator():
    """Bounded, without statistics of the batch or of earlier images; the domain changes the image."""
    G, _ = tiny()
    x, c = torch.randn(3, 3, 16, 16), torch.eye(3)
    y = G(x, c)
    assert y.abs().max() < 1
    torch.testing.assert_close(G.eval()(x[:1], c[:1]), y[:1])
    assert (G(x, c.roll(1, 0)) - y).abs().mean() > 1e-3
    assert not [name for name, _ in G.named_parameters() if name.endswith("bias") and "norm" in name]
    assert all(m.bias is None for m in G.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))


# The game -------------------------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """A critic with one score for all patches, and even logits."""

    def __init__(self, value, domains):
        super().__init__()
        self.value, self.domains = value, domains
        self.domain = nn.Linear(1, domains)
        nn.init.zeros_(self.domain.weight)
        nn.init.zeros_(self.domain.bias)

    def features(self, x, given=None):
        return 0 * x.mean((1, 2, 3))[:, None]

    def score(self, features, given=None):
        return self.value + features[:, :, None, None].expand(-1, -1, 2, 2)


def game_of(G, D, **options):
    labels = {"domain": ("a", "b", "c"), "attributes": FIVE, "style": ()}
    return GAMES.build(Spec("stargan", label_names=labels, **options), {"G": G, "D": D})


def batch_of(game, n=4):
    batch = Batch(n, generator=torch.Generator().manual_seed(0))
    batch.update(x=torch.randn(n, 3, 16, 16), domain=torch.arange(n) % 3, attributes=torch.arange(5 * n).view(n, 5) % 2)
    game.choose(batch)
    return batch


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_losses_of_a_constant_critic(value):
    """Adversarial part 0, penalty 10, even logits: ln 3. G's loss sees the constant, D's does not."""
    G, _ = tiny()
    game = game_of(G, Constant(value, 3))
    batch = batch_of(game)
    assert game.loss_D(batch).item() == pytest.approx(10 + math.log(3), abs=1e-5)
    cycle = (G(G(batch["x"], batch["domain_fake"]), batch["domain_real"]) - batch["x"]).abs().mean().item()
    assert game.loss_G(batch).item() == pytest.approx(-value + math.log(3) + 10 * cycle, abs=1e-4)


def test_even_logits_of_attributes():
    G = NETWORKS.build(Spec("stargan-generator", domains=5, width=4, blocks=1))
    game = game_of(G, Constant(0.0, 5), key="attributes", attributes=FIVE)
    batch = batch_of(game)
    assert game.loss_D(batch).item() == pytest.approx(10 + 5 * math.log(2), abs=1e-5)


def test_patches_are_summed_in_the_gradient():
    class Sum(Constant):
        def score(self, features, given=None):
            return features[:, :, None, None].expand(-1, -1, 2, 2)

        def features(self, x, given=None):
            return x.sum((1, 2, 3))[:, None] / 768**0.5  # a gradient of length 1 for each of four patches

    G, _ = tiny()
    game = game_of(G, Sum(0.0, 3), classify=0.0)
    batch = batch_of(game)
    game.loss_D(batch)
    assert batch.logs["D/penalty"].item() == pytest.approx((4 - 1) ** 2, rel=1e-4)


def test_targets_are_the_labels_in_another_order():
    game = game_of(*tiny())
    batch = batch_of(game, 9)
    assert torch.equal(batch["domain_real"], one_hot(batch["domain"], 3).float())
    assert torch.equal(batch["domain_fake"].sum(0), batch["domain_real"].sum(0))
    assert not torch.equal(batch["domain_fake"], batch["domain_real"])


def test_attributes_by_name():
    G = NETWORKS.build(Spec("stargan-generator", domains=2, width=4, blocks=1))
    D = NETWORKS.build(Spec("stargan-discriminator", domains=2, resolution=16, width=4, layers=2))
    game = game_of(G, D, key="attributes", attributes=("Male", "Blond_Hair"))
    batch = batch_of(game)
    assert torch.equal(batch["domain_real"], batch["attributes"][:, [3, 1]].float())
    with pytest.raises(ValueError, match=r"game\.attributes: must be names of 'attributes', which has no Beard"):
        game_of(G, D, key="attributes", attributes=("Male", "Beard"))
    with pytest.raises(ValueError, match=r"game\.exclusive: must be some of game\.attributes, got Young"):
        game_of(G, D, key="attributes", attributes=("Male", "Blond_Hair"), exclusive=("Young",))
    with pytest.raises(ValueError, match=r"networks\.G\.domains=2: must be the number of domains, 3"):
        game_of(G, D)
    with pytest.raises(ValueError, match="'style' of the data must have a name for each domain, got none"):
        game_of(G, D, key="style")


def test_gradients():
    """D's loss gives G none; fakes count in G's classification only, reals in D's only."""
    G, D = tiny()
    game = game_of(G, D, penalty=0.0)
    batch = batch_of(game)
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in G.parameters()) and all(p.grad is not None for p in D.parameters())
    logits = D.logits(batch["x"])
    assert batch.logs["D/domain"].item() == pytest.approx(cross_entropy(logits, batch["domain"]).item(), rel=1e-5)
    game.loss_G(batch)
    fake = G(batch["x"], batch["domain_fake"])
    expected = cross_entropy(D.logits(fake), batch["domain_fake"].argmax(1)).item()
    assert batch.logs["G/domain"].item() == pytest.approx(expected, rel=1e-5)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "identity"), [("stargan-emoji-small", 0.5), ("stargan-celeba", 0.0)])
def test_plain_loop(plain_loop, name, identity):
    """The authors' loop: every step one of D, every n-th also one of G on the same batch. Their loss has no identity
    term."""
    binary = name == "stargan-celeba"
    key, attributes = ("attributes", FIVE) if binary else ("y", ())
    loop = plain_loop(
        name,
        {"G": {"width": 2, "blocks": 1}, "D": {"width": 2, "layers": 2}},
        channels=3,
        size=16,
        classes=0 if binary else 3,
        attributes=attributes,
        batch=4,
        eps=EPS,
        data=Data(flip=True, streams={"data": Stream(keys={"x": "x", key: key})}),
        game={"key": key, "identity": identity, "n_critic": 5 if binary else 2, "augment": None},
        resolution=16,
    )
    n_critic, lr = loop.run.game.n_critic, 1e-4 if binary else 4e-4
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(n.parameters(), lr=lr, betas=(0.5, 0.999), eps=EPS) for n in (G, D))

    def classification(logits, c):
        if binary:
            return binary_cross_entropy_with_logits(logits, c, reduction="sum") / len(c)
        return cross_entropy(logits, c.argmax(1))

    for _ in loop.rounds():
        for i in range(n_critic):
            batch = loop.real()
            x = batch["x"]
            c = batch[key].double() if binary else one_hot(batch[key], 3).double()
            target = c[torch.randperm(4, generator=loop.noise)]
            y = G(x, target).detach()
            alpha = loop.rand(1, 1, 1)
            u = (x + alpha * (y - x)).requires_grad_()
            (slope,) = torch.autograd.grad(D(u).sum(), u, create_graph=True)
            opt_D.zero_grad()
            loss = D(y).mean() - D(x).mean() + classification(D.logits(x), c)
            (loss + 10 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()).backward()
            opt_D.step()
            if i == n_critic - 1:
                opt_G.zero_grad()
                y = G(x, target)
                distance = (G(y, c) - x).abs().mean() + identity * (G(x, c) - x).abs().mean()
                (classification(D.logits(y), target) - D(y).mean() + 10 * distance).backward()
                opt_G.step()
    loop.compare(G=G, D=D)


def test_settings():
    """The authors' numbers."""
    recipe = settings.find("stargan-celeba")
    (stage,) = recipe.stages
    assert (stage.images, stage.batch, stage.resolution) == (200_000 * 16, 16, 128)
    assert all(adam.lr == 1e-4 and adam.betas == (0.5, 0.999) for adam in stage.optimizers.values())
    assert stage.schedules[0].points == ((100_000 * 16, 1e-4), (200_000 * 16, 0.0))
    assert stage.game.kwargs["n_critic"] == 5 and stage.game.kwargs["attributes"] == FIVE
    names = zoo.data.facts("emoji").fields["domain"].names
    model = zoo.create("stargan-emoji-small")
    assert model.directions == names and list(model.networks) == ["G"]
    assert model.spec["to"]["noto"]["domain"] == [0.0, 1.0, 0.0]


# Translations ---------------------------------------------------------------------------------------------------------


def test_translations_change_one_attribute():
    """Hair has one color; the others stay as D recognizes them."""
    model = zoo.create("stargan-celeba-small")
    hair = ("black_hair", "blond_hair", "brown_hair")
    assert model.directions == (*hair, "male", "not_male", "young", "not_young")
    x = torch.rand(6, 3, 64, 64) * 2 - 1
    present = (model.D.logits(x) > 0).float()
    assert torch.equal(model.condition(x, "blond_hair")[:, :3], torch.tensor([[0.0, 1.0, 0.0]]).expand(6, -1))
    assert torch.equal(model.condition(x, "blond_hair")[:, 3:], present[:, 3:])
    for to, value in (("male", 1.0), ("not_male", 0.0)):
        condition = model.condition(x, to)
        assert (condition[:, 3] == value).all() and torch.equal(condition[:, [0, 1, 2, 4]], present[:, [0, 1, 2, 4]])
    unit = x / 2 + 0.5
    y = model.translate(unit, to="blond_hair")
    torch.testing.assert_close(y, model.G(x, model.condition(x, "blond_hair")) / 2 + 0.5, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.program("blond_hair").network(unit), y, atol=1e-5, rtol=0)
    assert model.spec["to"]["not_young"]["where"] == {"attributes.Young": 0}
    without = {k: v for k, v in model.spec["to"]["male"].items() if k != "recognizer"}
    with pytest.raises(ValueError, match=r"to\.male\.recognizer: must name a network"):
        build_model({**model.spec, "to": {"male": without}}, model.networks)


def test_preview_has_all_domains():
    """The images once, then a row of each domain."""
    model = zoo.create("stargan-celeba-small")
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    images, columns = model.preview({"x": x})
    assert columns == 4 and len(images) == 4 * (1 + 7)
    torch.testing.assert_close(images[:4], x / 2 + 0.5)
    torch.testing.assert_close(images[4:8], model.translate(x / 2 + 0.5, "black_hair"))


def test_photographs_of_any_size(shell, tmp_path):
    """D takes one size only, so photographs are cut and resized as for a network of one size."""
    model = zoo.load("stargan-celeba-small")
    with pytest.raises(ValueError, match="images of 80x96: this model takes 64x64"):
        model.translate(torch.rand(1, 3, 96, 80), "male")
    Image.new("RGB", (178, 218), "gray").save(tmp_path / "face.png")
    result = shell("sample", "stargan-celeba-small", "--input", "face.png", "--to", "male", "--out", "male.png")
    assert result.status == 0, result.err
    assert "178x218 cut to its center square and resized to 64x64" in result.err
    with Image.open(tmp_path / "male.png") as image:
        assert image.size == (64, 64)
