"""InfoGAN (arXiv 1606.03657) against its paper and the authors' code: networks, codes, bound, training loop, model."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.data import Facts, ImageData
from zoo.discriminate import Discriminate
from zoo.game import Batch
from zoo.metrics import label_scores
from zoo.metrics.images import from_data
from zoo.models import build_model
from zoo.networks.discriminator import Discriminator
from zoo.priors import Codes
from zoo.registry import GAMES, NETWORKS, Spec

PRIOR = Spec("codes", noise=62, categorical=(10,), continuous=2)


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        G, D, Q = build("infogan-generator"), build("infogan-discriminator"), build("recognition-head")
    assert count(G) == 6_652_481
    assert count(D) - count(D.head) == 6_558_144 and count(D.head) == 1_025
    assert count(Q) == 133_262


def test_shapes_and_range():
    G, D, Q = (
        build("infogan-generator", width=4, hidden=16),
        build("infogan-discriminator", width=4, features=16),
        build("recognition-head", features=16, hidden=8),
    )
    x = G(torch.randn(3, 74))
    assert x.shape == (3, 1, 28, 28) and x.min() > 0 and x.max() < 1
    assert D(x).shape == (3,) and D.features(x).shape == (3, 16) and Q(D.features(x)).shape == (3, 14)
    assert D.conv2(D.conv1(x)).shape == (3, 8, 7, 7)
    with pytest.raises(ValueError, match=r"resolution=30: must be a multiple of 4 for infogan-generator"):
        build("infogan-generator", resolution=30)


def test_initial_deviations():
    torch.manual_seed(0)
    for network in (build("infogan-generator"), build("infogan-discriminator"), build("recognition-head")):
        for m in network.modules():
            if isinstance(m, nn.Conv2d):
                assert m.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.1) and m.weight.abs().max() <= 0.04
            elif isinstance(m, nn.ConvTranspose2d | nn.Linear):
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
            elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                assert m.weight.mean().item() == pytest.approx(1, abs=0.01) and m.eps == 1e-5 and m.momentum == 0.1
            if getattr(m, "bias", None) is not None:
                assert not m.bias.any()


# Codes and bound ----------------------------------------------------------------------------------------------------


def test_prior():
    prior = Codes(62, (10,), 2)
    z = prior(4096, torch.Generator().manual_seed(0), "cpu")
    assert z.shape == (4096, 74) and prior.outputs == 14 and prior.sizes == {"c1": 10, "c2": 0, "c3": 0}
    codes = prior.split(z)
    assert (codes["c1"].sum(1) == 1).all() and set(codes["c1"].unique().tolist()) == {0.0, 1.0}
    assert codes["c1"].mean(0).tolist() == pytest.approx([0.1] * 10, abs=0.02)
    rest = torch.cat([z[:, :62], z[:, 72:]], 1)
    assert rest.min() >= -1 and rest.max() <= 1 and rest.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.02)
    placed = prior.place(z, {"c1": torch.full((4096,), 3.0), "c3": torch.full((4096,), 2.0)})
    assert (placed[:, 62:72].argmax(1) == 3).all() and (placed[:, 73] == 2).all()
    assert torch.equal(placed[:, :62], z[:, :62]) and torch.equal(placed[:, 72], z[:, 72])
    with pytest.raises(ValueError, match=r"latent=64 dimensions, got 74"):
        Codes(62, (10,), 2, dim=64)


class Fixed(nn.Module):
    """A network that returns ``value`` for each sample."""

    def __init__(self, value, **attributes):
        super().__init__()
        self.value = value
        for k, v in attributes.items():
            setattr(self, k, v)

    def forward(self, x):
        return self.value.expand(len(x), *self.value.shape) if self.value.dim() < 2 else self.value


def infogan(information=1.0, prior=PRIOR, **kwargs):
    return Spec("adversarial", prior=prior, heads=(Spec("codes", information=information),), **kwargs)


def game_of(G, D, Q, **kwargs):
    return GAMES.build(infogan(**kwargs), {"G": G, "D": D, "Q": Q})


class IdentityFeatures(Discriminator):
    """D with logit 0 whose features are the image."""

    def features(self, x, given=None):
        return x

    def score(self, h, given=None):
        return torch.zeros(len(h))


def test_bound():
    """A constant Q: 0 for the categorical code; a perfect Q: log 10, and log 2 - .9189 (1/2 log 2 pi) per continuous
    code."""
    batch = Batch(8, generator=torch.Generator().manual_seed(0))
    batch["x"] = torch.zeros(8, 1, 4, 4)
    Q = Fixed(torch.zeros(14), outputs=14)
    game = game_of(Fixed(torch.zeros(8, 1, 4, 4), latent=74), IdentityFeatures(), Q, loss=Spec("non-saturating"))
    game.fakes(batch)
    (head,), fake = game.heads, Discriminate(game, batch)(batch["fake"], heads=["Q"])
    head.bound(fake, batch)
    assert batch.logs["information/categorical"].item() == pytest.approx(0, abs=1e-6)
    z = batch["z"]
    perfect = torch.cat([100 * z[:, 62:72], z[:, 72:], torch.randn(8, 2)], 1)
    bound = head.bound(fake._replace(heads={"Q": perfect}), batch)
    assert batch.logs["information/categorical"].item() == pytest.approx(math.log(10), abs=1e-5)
    assert batch.logs["information/continuous"].item() == pytest.approx(2 * (math.log(2) - 0.9189385), abs=1e-5)
    worse = {"Q": perfect + 0.5 * F.pad(torch.ones(8, 2), (10, 2))}  # half the square, summed over codes
    assert (bound - head.bound(fake._replace(heads=worse), batch)).item() == pytest.approx(2 * 0.5 * 0.25, abs=1e-5)


def test_losses_at_logit_zero():
    """L_D + bound = 2 log 2, L_G + bound = log 2."""
    batch = Batch(8, generator=torch.Generator().manual_seed(0))
    batch["x"] = torch.zeros(8, 1, 4, 4)
    G, Q = Fixed(torch.zeros(8, 1, 4, 4), latent=74), Fixed(torch.zeros(14), outputs=14)
    game = game_of(G, IdentityFeatures(), Q, information=3.0)
    for loss, rest in ((game.loss_D, 2 * math.log(2)), (game.loss_G, math.log(2))):
        value = loss(batch)
        bound = batch.logs["information/categorical"] + batch.logs["information/continuous"]
        assert (value + 3 * bound).item() == pytest.approx(rest, abs=1e-5)


def test_players_of_the_turns():
    game = game_of(Fixed(torch.zeros(8, 1, 4, 4), latent=74), IdentityFeatures(), Fixed(torch.zeros(14), outputs=14))
    assert [tuple(t.players) for t in game.turns()] == [("D", "Q"), ("G",)]
    lazy = game_of(
        Fixed(torch.zeros(8, 1, 4, 4), latent=74),
        IdentityFeatures(),
        Fixed(torch.zeros(14), outputs=14),
        penalties=(Spec("r1", every=4),),
    )
    assert [tuple(t.players) for t in lazy.turns()] == [("D", "Q"), ("D",), ("G",)], (
        "Q is no player of a penalty's own turn"
    )


def test_simultaneous_losses():
    """In a simultaneous turn each player's loss is that of its own turn on the same noise."""
    torch.manual_seed(0)
    networks = {
        "G": NETWORKS.build(Spec("infogan-generator", width=2, hidden=6)),
        "D": NETWORKS.build(Spec("infogan-discriminator", width=2, features=6)),
        "Q": NETWORKS.build(Spec("recognition-head", features=6, hidden=5)),
    }
    game = GAMES.build(infogan(order="simultaneous", information=3.0), networks)
    game.noise = "shared"  # so that loss_G repeats it
    assert [tuple(t.players) for t in game.turns()] == [("D", "Q", "G")]
    game.eval()
    batch = Batch(8, generator=torch.Generator().manual_seed(0))
    batch["x"] = torch.rand(8, 1, 28, 28)
    both = game.loss_both(batch)
    assert set(both) == {"D", "Q", "G"}
    torch.testing.assert_close(game.loss_G(batch), both["G"])
    batch.generator.manual_seed(0)
    D = game.loss_D(batch)
    torch.testing.assert_close(D, both["D"])
    torch.testing.assert_close(D, both["Q"])


def test_wrong_networks_and_arguments():
    G, D = Fixed(torch.zeros(8, 1, 4, 4), latent=74), IdentityFeatures()
    with pytest.raises(ValueError, match=r"networks\.Q: the head codes needs this network, got G, D"):
        GAMES.build(infogan(), {"G": G, "D": D})
    with pytest.raises(ValueError, match=r"game\.prior='normal': .*codes"):
        GAMES.build(infogan(prior=Spec("normal")), {"G": G, "D": D, "Q": Fixed(torch.zeros(14), outputs=14)})
    with pytest.raises(ValueError, match=r"networks\.Q\.outputs=12: .*14"):
        game_of(G, D, Fixed(torch.zeros(12), outputs=12))
    with pytest.raises(ValueError, match=r"takes no argument 'informations'"):
        game_of(G, D, Fixed(torch.zeros(14), outputs=14), informations=1)


# Training loop ------------------------------------------------------------------------------------------------------


def test_plain_loop(plain_loop):
    """D's step with Q, then G's, each on fresh noise and codes. The codes have gradients in Q, D's features and G
    only."""
    tiny = {
        "G": {"latent": 8, "width": 2, "hidden": 6},
        "D": {"width": 2, "features": 6},
        "Q": {"features": 6, "hidden": 5, "outputs": 5},
    }
    game = {"prior": Spec("codes", noise=4, categorical=(3,), continuous=1)}
    eps = 1e-3  # biases before batch norm have gradients that are only rounding errors
    loop = plain_loop("infogan-mnist", tiny, batch=10, game=game, eps=eps)
    G, D, Q = loop.copy("G"), loop.copy("D"), loop.copy("Q")
    opt_G = torch.optim.Adam(G.parameters(), lr=1e-3, betas=(0.5, 0.999), eps=eps)
    opt_D = torch.optim.Adam([*D.parameters(), *Q.parameters()], lr=2e-4, betas=(0.5, 0.999), eps=eps)

    def draw():
        z = 2 * loop.rand(4) - 1
        c1 = torch.randint(3, (10,), generator=loop.noise)
        c2 = 2 * loop.rand(1) - 1
        return torch.cat([z, F.one_hot(c1, 3), c2], 1), c1, c2[:, 0]

    def information(out, c1, c2):
        discrete = -F.cross_entropy(out[:, :3], c1) + math.log(3)
        return discrete - 0.5 * ((c2 - out[:, 3]) ** 2).mean() - 0.5 * math.log(2 * math.pi) + math.log(2)

    for _ in loop.rounds():
        x = loop.real()["x"]
        z, c1, c2 = draw()
        fake = G(z).detach()
        opt_D.zero_grad()
        l_real, h = D(x), D.features(fake)
        loss = -l_real.sigmoid().log().mean() - (1 - D.head(h).sigmoid()).log().mean()
        (loss - information(Q(h), c1, c2)).backward()
        opt_D.step()
        z, c1, c2 = draw()
        opt_G.zero_grad()
        h = D.features(G(z))
        (-D.head(h).sigmoid().log().mean() - information(Q(h), c1, c2)).backward()
        opt_G.step()
    loop.compare(G=G, D=D, Q=Q)


# The model ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    def spec(name, **kwargs):
        return {"name": name, "kwargs": kwargs}

    networks = {
        "G": spec("infogan-generator", width=2, hidden=8),
        "D": spec("infogan-discriminator", width=2, features=8),
        "Q": spec("recognition-head", features=8, hidden=4),
    }
    prior = spec("codes", noise=62, categorical=[10], continuous=2)
    return build_model(
        dict(
            kind="image",
            networks=networks,
            prior=prior,
            recognition=["D", "Q"],
            range=[0, 1],
            resolution=28,
            channels=1,
        )
    ).eval()


def test_sampling_with_codes(model):
    assert model.codes == {"c1": 10, "c2": 0, "c3": 0}
    plain = model.sample(4, seed=5)
    for k in range(4):  # setting a sample's codes to their own values changes nothing
        z, _ = model.latents([5 + k])
        own = {n: (v.argmax(1) if model.codes[n] else v).item() for n, v in model.prior.split(z).items()}
        assert torch.equal(model.sample(seed=5 + k, codes=own)[0], plain[k])
    images = model.sample(20, codes={"c1": 3, "c2": [i / 10 for i in range(20)]}, chunk=16)
    assert torch.equal(model.sample(seed=17, codes={"c1": 3, "c2": 1.7})[0], images[17])
    values = torch.stack([model.sample(seed=5, codes={"c1": k})[0] for k in range(10)])
    assert len(values.flatten(1).unique(dim=0)) == 10, "each value of c1 gives a different image"
    images, columns = model.traverse("c2", [0, 1])
    assert columns == 10 and len(images) == 20
    assert torch.equal(images[10], model.sample(seed=1, codes={"c2": -2.0})[0])
    assert model.traverse("c1", [0])[1] == 10
    images, columns = model.preview({})
    assert len(images) == 3 * 2 * columns


def test_recognition(model):
    codes = model.recognize(model.sample(5))
    assert codes["c1"].shape == (5, 10) and codes["c2"].shape == (5,)
    torch.testing.assert_close(codes["c1"].sum(1), torch.ones(5))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"c9": 1}, r"'c9'.*c1, c2, c3"),
        ({"c1": 10}, r"codes\.c1=10: must be .* 0 to 9"),
        ({"c1": 0.5}, r"codes\.c1=0\.5: must be "),
        ({"c2": [1.0, 2.0]}, r"codes\.c2.*2.*3|codes\.c2.*3.*2"),
        ({"c2": float("nan")}, r"codes\.c2=nan: must be finite"),
    ],
)
def test_wrong_codes(model, codes, message):
    with pytest.raises(ValueError, match=message):
        model.sample(3, codes=codes)


def test_wrong_traversal(model):
    with pytest.raises(ValueError, match=r"'c4'.*c1, c2, c3"):
        model.traverse("c4", [0])


# Scores -------------------------------------------------------------------------------------------------------------


def test_matching():
    """Each value gets a class of its own; purity lets two share one."""
    scores = label_scores.match(torch.tensor([[5, 4, 0], [6, 1, 0], [0, 0, 4]]))
    assert scores == {"accuracy": pytest.approx((4 + 6 + 4) / 20), "purity": pytest.approx((5 + 6 + 4) / 20)}


def test_scores_of_a_model(model):
    facts = Facts("noise", "Random images", 1, 28, classes=("0", "1"), keys=("x", "y"))
    x = torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageData(facts, {"x": x, "y": torch.arange(20) % 2}, "noise")
    labeled = from_data(data), data.labels("y")
    scores = label_scores.code_accuracy(model, *labeled)
    assert 0 <= scores["accuracy"] <= scores["purity"] <= 1
    bound = label_scores.information(model, range(20))["categorical"]
    assert len(bound) == 20 and (bound <= math.log(10) + 1e-6).all()
    with pytest.raises(ValueError, match=r"'c2'.*c1"):
        label_scores.code_accuracy(model, *labeled, "c2")
    result = zoo.evaluate(model, ["information", "code-accuracy"], dataset=data)
    assert result["scores"]["code-accuracy"] == scores["accuracy"] and result["errors"].keys() == {"information"}
    assert result["protocol"]["codes"]["images"] == 5000
