"""The discriminator call, heads on D's features, and penalties in any training loop."""

import copy
import itertools

import pytest
import torch
from helpers.play import Duel, play, recipe, session, weights
from torch import nn

from zoo.discriminate import Discriminate, DiscriminatorOutput, Inputs
from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.heads import Head
from zoo.networks.discriminator import Discriminator, condition
from zoo.penalties import R1, R2, Drift, FeatureMatching, Penalty, PullingAway
from zoo.recipe import SGD
from zoo.registry import GAMES, HEADS, NETWORKS, PENALTIES, Spec

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
FAKE = X.flip(0) + 1


@NETWORKS.register("test-two-scores")
class TwoScores(Discriminator):
    """Points and a condition -> two scores by name. ``passes``: how many rows each pass had."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.first, self.last, self.condition = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.passes = []

    def features(self, x, given=None):
        self.passes.append(len(x))
        return torch.tanh(self.norm(self.first(x)))

    def score(self, h, given=None):
        conditional = (h * self.condition(condition(given, "text"))).sum(1)
        return {"unconditional": self.last(h).squeeze(1), "conditional": conditional}


class OnlyD(Duel):
    """A game with only a D."""

    takes = ("D",)

    def __init__(self, D, joined="auto"):
        nn.Module.__init__(self)
        super(Duel, self).__init__({"D": D})
        self.joined = joined


def mlp(**more):
    torch.manual_seed(0)
    return NETWORKS.build(Spec("mlp-discriminator", channels=2, hidden=(8,), activation="tanh", **more))


def call(D, **more):
    return Discriminate(OnlyD(D, **more), Batch(6, generator=torch.Generator()))


# The call ---------------------------------------------------------------------------------------------------------


def test_named_scores():
    torch.manual_seed(0)
    D, given = TwoScores(), {"text": torch.randn(6, 3)}
    output = call(D)(X, given)
    assert set(output.scores) == {"unconditional", "conditional"} and output.heads == {}
    h = torch.tanh(D.first(X))
    torch.testing.assert_close(output.features, h)
    torch.testing.assert_close(output.scores["conditional"], (h * D.condition(given["text"])).sum(1))
    with pytest.raises(ValueError, match="must have one score for this loss, got unconditional, conditional"):
        output.score  # noqa: B018


@pytest.mark.parametrize("network, given", [(mlp(), None), (nn.Linear(2, 1), None), (TwoScores(), torch.randn(6, 3))])
def test_one_pass_or_two(network, given):
    """The same scores; a network without parts is called with the conditions by name."""
    conditions = None if given is None else {"text": given}
    real, fake = Inputs(X, conditions), Inputs(FAKE, conditions)
    outputs = {joined: call(network, joined=joined).both(real, fake) for joined in ("auto", "always", "never")}
    for of_real, of_fake in outputs.values():
        for inputs, x in ((of_real, X), (of_fake, FAKE)):
            alone = call(network)(x, conditions).scores
            assert alone.keys() == inputs.output.scores.keys()
            for name, score in alone.items():
                torch.testing.assert_close(inputs.output.scores[name], score)


def test_which_games_share_a_pass():
    """One pass, unless a layer mixes the samples of a batch; ``joined`` overrides it."""
    given = {"text": torch.randn(6, 3)}
    expected = {("auto", False): [12], ("auto", True): [6, 6], ("always", True): [12], ("never", False): [6, 6]}
    for (joined, norm), passes in expected.items():
        D = TwoScores(norm)
        call(D, joined=joined).both(Inputs(X, given), Inputs(FAKE, given))
        assert D.passes == passes


def test_a_call_changes_nothing():
    """It logs nothing and writes no buffer; it runs under torch.func.grad, also for a condition with a gradient."""
    D, text = TwoScores(), torch.randn(6, 3, requires_grad=True)
    discriminate = call(D)
    before = weights(discriminate.game)
    output = discriminate(X, {"text": text})
    assert not discriminate.batch and not discriminate.batch.logs
    assert all(torch.equal(v, before[k]) for k, v in discriminate.game.state_dict().items())
    (gradient,) = torch.autograd.grad(output.scores["conditional"].sum(), text)
    assert gradient.any()
    slope = torch.func.grad(lambda x: discriminate(x, {"text": text.detach()}).scores["conditional"].sum())(X)
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(discriminate(x, {"text": text.detach()}).scores["conditional"].sum(), x)
    torch.testing.assert_close(slope, expected)


def test_the_score_gets_the_images():
    """An autoencoder's does: its score is the distance between the image and what it makes of the features."""
    torch.manual_seed(0)
    D = NETWORKS.build(Spec("ebgan-mlp-discriminator", resolution=4, hidden=(3,)))
    x = torch.rand(5, 1, 4, 4)
    expected = -(D(x) - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(call(D)(x).score, expected)


def test_augmented_images():
    """All images of D's pass ``augment``, each with numbers of its own from the batch."""
    D = mlp()
    discriminate = call(D)
    discriminate.augment = lambda images, batch: [x + batch.rand(1) for x in images]
    state = discriminate.batch.generator.get_state()
    real, fake = discriminate.both(Inputs(X), Inputs(FAKE), gradients=("real", "fake"))
    discriminate.batch.generator.set_state(state)
    shifts = [discriminate.batch.rand(1), discriminate.batch.rand(1)]
    for inputs, x, shift in zip((real, fake), (X, FAKE), shifts, strict=True):
        torch.testing.assert_close(inputs.score, D(x + shift))


def test_image_conditions_are_augmented_with_the_same_draw():
    """Those of the size of x; vectors and classes are not."""
    shapes = []
    discriminate = call(nn.Identity())

    def augment(images, batch):
        shapes.append([tuple(x.shape) for x in images])
        shift = batch.rand(1, 1, 1)
        return [x + shift for x in images]

    class Pairs(nn.Module):
        def forward(self, x, a, y, small):
            return torch.cat([x, a], 1).mean((1, 2, 3)) + y + small.mean((1, 2, 3))

    discriminate.game.D, discriminate.augment = Pairs(), augment
    x, a, y, small = torch.rand(6, 3, 4, 4), torch.rand(6, 1, 4, 4), torch.rand(6), torch.rand(6, 1, 2, 2)
    state = discriminate.batch.generator.get_state()
    score = discriminate(x, {"a": a, "y": y, "small": small}).score
    discriminate.batch.generator.set_state(state)
    shift = discriminate.batch.rand(1, 1, 1)
    torch.testing.assert_close(score, Pairs()(x + shift, a + shift, y, small))
    assert shapes == [[(6, 3, 4, 4), (6, 1, 4, 4)]]


# Gradients with the pass that is made anyway ------------------------------------------------------------------------


def test_gradients_of_a_network_without_parts():
    D = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = call(D).both(Inputs(X), Inputs(FAKE), gradients=("real", "fake"))
    for inputs in (real, fake):
        x = inputs.x.clone().requires_grad_()
        torch.testing.assert_close(inputs.gradient, torch.autograd.grad(D(x).sum(), x)[0])


@pytest.mark.parametrize("gradients", [(), ("real",), ("fake",), ("real", "fake")])
@pytest.mark.parametrize("joined", ["auto", "never"])
def test_gradients_of_the_scores(gradients, joined):
    """Those of autograd, without a further pass; also through them the weights get theirs."""
    D, given = TwoScores(), {"text": torch.randn(6, 3)}
    real, fake = call(D, joined=joined).both(Inputs(X, given), Inputs(FAKE, given), gradients=gradients)
    assert sum(D.passes) == 12
    for name, inputs in (("real", real), ("fake", fake)):
        assert (inputs.gradient is not None) == (name in gradients)
        if inputs.gradient is None:
            continue
        x = inputs.x.clone().requires_grad_()
        total = sum(s.sum() for s in call(D)(x, given).scores.values())
        (expected,) = torch.autograd.grad(total, x, create_graph=True)
        torch.testing.assert_close(inputs.gradient, expected)
        second = [
            torch.autograd.grad(g.square().sum(), D.first.weight, retain_graph=True)[0]
            for g in (inputs.gradient, expected)
        ]
        torch.testing.assert_close(*second)


@pytest.mark.parametrize(
    "penalties, passes",
    [((), [16]), (("r1",), [8, 8]), (("r2",), [8, 8]), (("r1", "r2"), [16]), (("gradient-penalty",), [16, 8])],
)
def test_r1_and_r2_cost_no_further_pass(penalties, passes):
    """The rows of D's passes in its turn; and its gradients are those of penalties with passes of their own."""
    networks = {"G": Spec("test-mlp"), "D": Spec("test-counted")}
    specs = tuple(Spec(name, weight=2.0) for name in penalties)
    run = session(recipe(Spec("adversarial", loss=Spec("hinge"), penalties=specs), networks=networks))
    D, batch = run.game.D, run.new_batch()
    run.draw(batch)
    run.seed_round()
    D.passes.clear()
    loss = run.game.loss_D(batch)
    assert D.passes == passes
    run.game.requires_grad_(True)
    run.seed_round()
    gradients = torch.autograd.grad(run.game.loss_D(batch), list(D.parameters()))
    real, fake = D(batch["x"]), D(batch["fake"].detach())
    expected = run.game.pair.d(real, fake)
    for penalty in run.game.penalties:
        if "gradient-penalty" not in penalties:
            expected = expected + 2.0 * penalty(D, batch["x"], batch["fake"].detach())
    if "gradient-penalty" in penalties:
        run.seed_round()
        run.game.fakes(batch)
        expected = expected + 2.0 * run.game.penalties[0](D, batch["x"], batch["fake"], batch)
    assert loss.isfinite()
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, list(D.parameters())))


@NETWORKS.register("test-counted")
class Counted(Discriminator):
    """Points -> scores; ``passes``: the rows of each pass."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.passes = nn.Linear(2, 8), nn.Linear(8, 1), []

    def features(self, x, given=None):
        self.passes.append(len(x))
        return torch.tanh(self.first(x))


def test_a_discriminator_with_running_averages():
    """Its penalties have passes of their own, which do not update the averages."""
    networks = {"G": Spec("test-mlp"), "D": Spec("test-mlp", outputs=1, norm=True)}
    run = session(recipe(Spec("adversarial", penalties=(Spec("r1"),)), networks=networks))
    play(run)
    assert run.game.D.norm.num_batches_tracked == 3  # reals and fakes in D's turn, fakes in G's


# Penalties in any loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in PENALTIES.names() if PENALTIES[n].__module__ == "zoo.penalties" and n != "path-length"]
)
def test_penalties_of_a_plain_network(name):
    """With a plain D and tensors, and with a game's call: the same value."""
    D = mlp()
    penalty = PENALTIES.build(Spec(name), defaults={"networks": {"D": D}})
    more = dict.fromkeys(penalty.needs, D)
    values = []
    for first in (D, call(D)):
        torch.manual_seed(3)
        again = copy.deepcopy(penalty)
        values.append(again(first, X, FAKE, **more))
        assert values[-1].shape == ()
    torch.testing.assert_close(*values)


def test_a_penalty_of_conditional_images():
    D, given = TwoScores(), {"text": torch.randn(6, 3)}
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sum(s.sum() for s in call(D)(x, given).scores.values()), x)
    for penalty, images in ((R1(), (Inputs(X, given), None)), (R2(), (None, Inputs(X, given)))):
        torch.testing.assert_close(penalty(D, *images), 0.5 * gradient.square().sum(1).mean())


@PENALTIES.register("test-weights")
class WeightsOfG(Penalty):
    """Half the sum of the squares of G's weights."""

    player, needs = "G", ("G",)

    def __init__(self, weight=1.0, every=1):
        super().__init__(weight, every)

    def forward(self, discriminate, real, fake, batch=None, *, G):
        return 0.5 * torch.stack([p.square().sum() for p in G.parameters()]).sum()


@pytest.mark.parametrize("every", [1, 4])
def test_a_penalty_of_a_networks_weights(every):
    """It gets the network, which is no part of it; with SGD of rate 1 its step subtracts the weights themselves."""
    spec = Spec("adversarial", adversarial_weight=0.0 if every == 1 else 1.0, penalties=(Spec("test-weights"),))
    game = spec.replace(penalties=(Spec("test-weights", weight=0.25, every=every),))
    run = session(recipe(game, optimizer=SGD(lr=1.0)))
    assert not list(run.game.penalties[0].parameters())
    turns = [t for t in run.learner.turns if t.players == ("G",)]
    assert [(t.every, t.draw) for t in turns] == ([(1, None)] if every == 1 else [(1, None), (4, None)])
    batch = run.new_batch()
    run.draw(batch)
    before = weights(run.game.G)
    run.learner.play(turns[-1], batch, 0)
    share = 0.25 * every
    for name, p in run.game.G.state_dict().items():
        torch.testing.assert_close(p, (1 - share) * before[name])


# Heads ----------------------------------------------------------------------------------------------------------------


class Guess(nn.Module):
    """D's features -> logits of the classes."""

    def __init__(self, classes=3):
        super().__init__()
        self.classes, self.outputs = classes, 5
        self.linear, self.passes = nn.Linear(8, classes), []

    def forward(self, h):
        self.passes.append(len(h))
        return self.linear(h)


class ClassPoints(nn.Module):
    """z, y -> points."""

    latent, classes = 5, 3

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 2)

    def forward(self, z, y):
        return self.linear(torch.cat([z, nn.functional.one_hot(y, 3).to(z.dtype)], 1))


@HEADS.register("test-missing")
class Missing(Head):
    """S3GAN's: the class of an image without a label (-1) is predicted, and D's score takes it."""

    changes_given = True

    def given(self, output, given):
        return {"y": torch.where(given["y"] < 0, output.argmax(1), given["y"])}

    def loss_D(self, real, fake, batch, discriminate):
        return nn.functional.cross_entropy(real.heads[self.network], batch["y"], ignore_index=-1)


class Projection(Discriminator):
    classes = 3

    def __init__(self):
        super().__init__()
        self.first, self.embedding = nn.Linear(2, 8), nn.Embedding(3, 8)

    def features(self, x, given=None):
        return torch.tanh(self.first(x))

    def score(self, h, given=None):
        return (h * self.embedding(given["y"])).sum(1)


def test_a_head_that_changes_the_conditions():
    torch.manual_seed(0)
    networks = {"G": ClassPoints(), "D": Projection(), "P": Guess()}
    game = Adversarial(networks, heads=(Spec("test-missing", network="P"),))
    batch = Batch(6, generator=torch.Generator())
    batch.update(x=X, y=torch.tensor([0, 1, 2, -1, -1, 1]))
    predicted = game.P(game.D.features(X)).argmax(1)
    y = torch.where(batch["y"] < 0, predicted, batch["y"])
    for joined in ("auto", "never"):
        game.joined = joined
        real, fake = Discriminate(game, batch).both(Inputs(X, {"y": batch["y"]}), Inputs(FAKE, {"y": y}))
        torch.testing.assert_close(real.score, game.D.score(game.D.features(X), {"y": y}))
        assert set(real.output.heads) == set(fake.output.heads) == {"P"}
    alone = Discriminate(game, batch)(X, score=False)  # without a score there is nothing to predict a class for
    assert alone.heads == alone.scores == {}
    assert game.learn_with_D == ("D", "P") and game.needs == ("x", "y")
    assert game.loss_D(batch).isfinite()


@HEADS.register("test-mean")
class Mean(Head):
    """Of fakes alone: the mean of the head's output, which D lowers and G raises."""

    reads_real = False

    def loss_D(self, real, fake, batch, discriminate):
        return fake.heads[self.network].mean()

    def loss_G(self, fake, batch, discriminate):
        return -fake.heads[self.network].mean()


HEAD_SPECS = {"class": Spec("class", network="C"), "codes": Spec("codes"), "mean": Spec("test-mean", network="M")}


@pytest.mark.parametrize("names", [c for n in (1, 2, 3) for c in itertools.combinations(HEAD_SPECS, n)])
@pytest.mark.parametrize("joined", ["auto", "never"])
def test_heads_add_up(names, joined):
    """Each with its own network, which reads what it says it reads; the losses are the sums of all."""
    torch.manual_seed(0)
    prior = Spec("codes", noise=0, categorical=(3,), continuous=2)
    networks = {"G": ClassPoints(), "D": mlp(), "C": Guess(), "Q": nn.Sequential(nn.Linear(8, 7)), "M": Guess(1)}
    networks["Q"].outputs = 7

    def losses(names):
        used = {"G", "D"} | {HEAD_SPECS[n].kwargs.get("network", "Q") for n in names}
        own = {k: v for k, v in networks.items() if k in used}
        game = Adversarial(own, prior=prior, heads=[HEAD_SPECS[n] for n in names], joined=joined)
        values = []
        for loss in (game.loss_D, game.loss_G):
            batch = Batch(6, generator=torch.Generator().manual_seed(0))
            batch.update(x=X, y=torch.arange(6) % 3)
            values.append(loss(batch))
        return torch.stack(values)

    plain = losses(())
    torch.testing.assert_close(losses(names) - plain, sum(losses((n,)) - plain for n in names))
    networks["C"].passes.clear(), networks["M"].passes.clear()
    losses(names)
    assert networks["C"].passes == ([6, 6, 6] if "class" in names else [])
    assert networks["M"].passes == ([6, 6] if "mean" in names else [])


def test_mistakes_in_heads():
    networks = {"G": ClassPoints(), "D": nn.Linear(2, 1), "C": Guess()}
    with pytest.raises(ValueError, match=r"networks\.P: the head class needs this network, got G, D, C"):
        Adversarial(networks, heads=(Spec("class", network="P"),))
    game = Adversarial(networks, heads=(Spec("class"),))
    batch = Batch(6, generator=torch.Generator())
    batch.update(x=X, y=torch.arange(6) % 3)
    with pytest.raises(ValueError, match=r"networks\.D: must have features for the head C"):
        game.loss_D(batch)
    with pytest.raises(ValueError, match=r"unknown head 'clas'.*did you mean class"):
        GAMES.build(Spec("adversarial", heads=(Spec("clas"),)), networks)


# Noise inside a network ---------------------------------------------------------------------------------------------


def test_noise_that_a_later_turn_repeats():
    """Drawn for the whole batch and sliced by rank; ``again`` gives the same numbers, in the order of the layers."""
    whole = Batch(4, generator=torch.Generator().manual_seed(0))
    first = whole.noise("masks")
    masks = [first.rand(3, 2), first.randn(5)]
    again = whole.noise("masks", again=True)
    assert torch.equal(again.rand(3, 2), masks[0]) and torch.equal(again.randn(5), masks[1])
    half = Batch(2, generator=torch.Generator().manual_seed(0), rank=1, world=2)
    assert torch.equal(half.noise("masks").rand(3, 2), masks[0][2:])
    assert not torch.equal(whole.noise("masks").rand(3, 2), masks[0])
    with pytest.raises(KeyError, match="others/0"):
        whole.noise("others", again=True).rand(1)


def test_outputs_are_split_by_rows():
    output = DiscriminatorOutput({"a": torch.arange(5)}, torch.arange(10).view(5, 2), {"C": torch.arange(5) * 2})
    first, second = output.split([2, 3])
    assert first.scores["a"].tolist() == [0, 1] and second.heads["C"].tolist() == [4, 6, 8]
    assert second.features.tolist() == [[4, 5], [6, 7], [8, 9]]


def test_the_network_of_a_head_is_a_player():
    """It has an optimizer of its own; without one the error names it."""
    networks = {"G": Spec("test-mlp"), "D": Spec("mlp-discriminator", hidden=(8,)), "M": Spec("test-mlp", inputs=8)}
    spec = Spec("adversarial", heads=(Spec("test-mean", network="M"),))
    run = session(recipe(spec, players="G D M", networks=networks))
    before = weights(run.game)
    play(run)
    changed = {k.split(".")[0] for k, v in run.game.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"G", "D", "M"}
    with pytest.raises(ValueError, match=r"optimizers: player 'M' must have one"):
        session(recipe(spec, networks=networks))


def test_features_are_of_augmented_images():
    """Also those of the new reals of feature matching."""
    D = TwoScores()
    discriminate = call(D)
    discriminate.augment = lambda images, batch: [x + 1 for x in images]
    torch.testing.assert_close(discriminate.features(X, {"text": torch.randn(6, 3)}), D.features(X + 1))


@pytest.mark.parametrize("joined", ["auto", "always", "never"])
def test_conditions_of_both(joined):
    """Real and fake images have their own in every kind of pass."""
    D, given = TwoScores(), torch.randn(6, 3)
    real, fake = Inputs(X, {"text": given}), Inputs(FAKE, {"text": given.flip(0)})
    for inputs in call(D, joined=joined).both(real, fake):
        for name, score in call(D)(inputs.x, inputs.given).scores.items():
            torch.testing.assert_close(inputs.output.scores[name], score)


@pytest.mark.parametrize("penalty", [Drift(), PullingAway(), FeatureMatching()])
def test_penalties_sum_in_float32(penalty):
    """Under autocast scores and features are bfloat16."""
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    output = DiscriminatorOutput({"score": x[:, 0]}, x, {})
    real, fake = Inputs(x, output=output), Inputs(x, output=output._replace(features=x.flip(1) + 1))
    wide = [
        i._replace(output=DiscriminatorOutput({"score": i.score.float()}, i.output.features.float(), {}))
        for i in (real, fake)
    ]
    value = penalty(nn.Identity(), real, fake)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, penalty(nn.Identity(), *wide))
