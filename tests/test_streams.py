"""What a game draws: typed fields, aligned streams, streams of other data sets, streams by turn, and the clock."""

import dataclasses

import pytest
import torch
from helpers.play import CPU, Duel, Every, Killed, game, kill_at, play, recipe, same, session, weights
from safetensors.torch import load_file
from torch import nn

from zoo import hub, overrides
from zoo.data import Facts, ImageData, Loader, open_data
from zoo.data.fields import Attributes, Captions, Image, Label, Text, Vector, pack_text
from zoo.engine import train
from zoo.engine.dry_run import dry_run
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS
from zoo.game import Batch, Turn
from zoo.recipe import Data, Stream
from zoo.registry import DATASETS

# Typed fields ---------------------------------------------------------------------------------------------------------


def faces(n: int = 12, side: int = 4) -> ImageData:
    """Images with every kind of field."""
    facts = Facts("faces", "Faces", splits={"train": n}, license="generated", fields={
        "x": Image(3, side), "y": Label(("a", "b")), "attributes": Attributes(tuple(f"a{i}" for i in range(40))),
        "caption": Text(2), "embedding": Vector(5),
    })  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    arrays = {
        "x": torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8),
        "y": torch.arange(n) % 2,
        "attributes": torch.randint(2, (n, 40), generator=generator, dtype=torch.uint8),
        "embedding": torch.rand(n, 5, generator=generator),
    }
    texts = pack_text("caption", [(f"face {i}", f"picture {i}") for i in range(n)])
    return ImageData(facts, arrays, "faces", texts={"caption": Captions(*map(torch.from_numpy, texts.values()))})


@game
class Described(Duel):
    """Its losses read a caption's length, 40 attributes, and an embedding."""

    needs = ("x", "caption", "attributes", "embedding")

    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None)]

    def loss_D(self, batch):
        assert batch["attributes"].shape == (batch.size, 40) and batch["attributes"].dtype == torch.int64
        assert batch["embedding"].shape == (batch.size, 5) and batch["embedding"].dtype == torch.float32
        assert len(batch["caption"]) == batch.size and all(isinstance(text, str) for text in batch["caption"])
        lengths = torch.tensor([float(len(text)) for text in batch["caption"]], device=batch.device)
        codes = torch.stack([lengths, batch["attributes"].float().mean(1) + batch["embedding"].mean(1)], 1)  # [N, 2]
        return self.D(codes).mean() + self.D(batch["x"].flatten(1)[:, :2]).mean() + super().loss_G(batch)


def test_a_game_of_texts_attributes_and_vectors():
    """It passes the dry run and plays: batches on ``meta`` have the types of real ones."""
    data = faces()
    described = recipe(Described.spec, resolution=4, batch=4)
    assert dry_run(described, data.facts)[0]["images_a_round"] == 4
    play(session(described, data), 3)


def test_a_game_that_reads_what_no_stream_yields():
    without = Data(streams={"data": Stream(keys={"x": "x", "caption": "caption"})})
    with pytest.raises(ValueError, match=r"needs 'attributes', but 'faces' has caption, x"):
        dry_run(recipe(Described.spec, resolution=4, data=without), faces().facts)
    with pytest.raises(ValueError, match=r"the recipe reads 'captions', but 'faces' has .*did you mean caption\?"):
        dry_run(recipe(resolution=4, data=Data(streams={"data": Stream(keys={"captions": "x"})})), faces().facts)


# Aligned streams ------------------------------------------------------------------------------------------------------


def pairs(n: int = 24, side: int = 6, paired: bool = True) -> ImageData:
    """Rows 2k and 2k + 1: image k, and its negative."""
    x = torch.randint(256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    arrays = {"x": torch.stack([x, 255 - x], 1).flatten(0, 1), "domain": torch.arange(2 * n) % 2}
    facts = Facts("pairs", "Pairs", 3, side, keys=("x", "domain"), splits={"train": 2 * n}, paired=paired)
    return ImageData(facts, arrays, "pairs")


def domains(**of_b) -> dict[str, Stream]:
    return {
        "a": Stream(keys={"x": "a"}, where={"domain": 0}),
        "b": Stream(keys={"x": "b"}, where={"domain": 1}, **of_b),
    }


@game
class TwoDomains(Duel):
    """Draws both domains in D's turn."""

    needs = ("a", "b")

    def loss_D(self, batch):
        return self.D(batch["a"].flatten(1)[:, :2]).mean() - self.D(batch["b"].flatten(1)[:, :2]).mean()

    def loss_G(self, batch):
        return self.G(batch.latent(self.prior)).square().mean()


def draws(run, rounds=8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = []
    for _ in range(rounds):
        batch = run.new_batch()
        run.seed_round()
        run.draw(batch)
        batches.append((batch["a"], batch["b"]))
        run.round += 1
    return batches


def test_aligned_streams_yield_pairs():
    """The same rows, the same crop, the same flip; without ``aligned`` they are shuffled apart."""
    for aligned in (None, "a"):
        data = Data(load=6, flip=True, streams=domains(aligned=aligned))
        run = session(recipe(TwoDomains.spec, resolution=4, batch=4, data=data), pairs())
        equal = [torch.allclose(a, -b, atol=1e-6) for a, b in draws(run)]
        assert all(equal) if aligned else not any(equal)


def test_aligned_streams_by_a_label():
    """Rows with the same label are pairs, in any order, and those without a pair are not read."""
    data = pairs()
    pair = torch.arange(24).repeat_interleave(2)
    keep = torch.randperm(48, generator=torch.Generator().manual_seed(1))[:40]
    arrays = {"x": data.arrays["x"][keep], "domain": data.arrays["domain"][keep], "pair": pair[keep]}
    facts = Facts("pairs", "", 3, 6, keys=("x", "domain", "pair"), splits={"train": 40}, paired=True, pair_key="pair")
    common = {*arrays["pair"][arrays["domain"] == 0].tolist()} & {*arrays["pair"][arrays["domain"] == 1].tolist()}
    for part in ((0, 1), (1, 2)):
        streams = {name: dataclasses.replace(s, part=part) for name, s in domains(aligned="a").items()}
        data = Data(load=6, flip=True, streams=streams)
        run = session(recipe(TwoDomains.spec, resolution=4, batch=4, data=data), ImageData(facts, arrays, "pairs"))
        assert run.loaders["a"].count == run.loaders["b"].count == len([*common][part[0] :: part[1]])
        assert all(torch.allclose(a, -b, atol=1e-6) for a, b in draws(run))


def test_aligned_streams_of_any_number_of_processes():
    data = pairs()
    for seed in range(3):
        options = {"seed": seed, "order_seed": 7, "where": {"domain": 0}, "flip": True, "crop": 4}
        whole = Loader(data, **options).next(8)["x"]
        halves = [Loader(data, **options, rank=r, world=2).next(4)["x"] for r in (0, 1)]
        assert torch.equal(torch.cat(halves), whole)


def test_mistakes_in_aligned_streams():
    for of_b, message in (
        ({"aligned": "c"}, r"streams\.b\.aligned='c': must name another stream that is not aligned itself"),
        ({"aligned": "b"}, r"streams\.b\.aligned='b': must name another stream"),
        ({"aligned": "a", "batch": 3}, r"streams\.b\.batch=3: must be that of 'a', None"),
        ({"aligned": "a", "part": (0, 2)}, r"streams\.b\.part=\(0, 2\): must be that of 'a', \(0, 1\)"),
        ({"aligned": "a", "balanced": 8}, r"streams\.b\.balanced=8: must be that of 'a', None"),
    ):
        with pytest.raises(ValueError, match=message):
            overrides.check(recipe(TwoDomains.spec, resolution=4, data=Data(streams=domains(**of_b))))
    more = Data(streams={**domains(), "b": Stream(keys={"x": "b"}, aligned="a")})
    with pytest.raises(ValueError, match=r"streams\.b\.aligned='a': must have as many rows as that stream, 24, got 48"):
        session(recipe(TwoDomains.spec, resolution=6, batch=4, data=more), pairs())
    with pytest.raises(ValueError, match="the recipe needs pairs, but 'pairs' has none; pairs are two folders a and b"):
        session(
            recipe(TwoDomains.spec, resolution=6, batch=4, data=Data(streams=domains(aligned="a"))), pairs(paired=False)
        )
    session(recipe(TwoDomains.spec, resolution=6, batch=4, data=Data(streams=domains())), pairs(paired=False))
    with pytest.raises(ValueError, match=r"ring is read as it streams: its rows can't be aligned"):
        Loader(open_data("ring"), seed=0, order_seed=1)


# Streams of other data sets -------------------------------------------------------------------------------------------


@game
class TwoSets(TwoDomains):
    """Points of two sets."""


SETS = {"a": Stream(keys={"x": "a"}), "b": Stream(keys={"x": "b"}, dataset="grid", split="test")}


def test_a_stream_reads_its_own_data_set():
    two = recipe(TwoSets.spec, data=Data(streams=SETS))
    run = session(two)
    assert {name: data.facts.name for name, data in run.data.items()} == {"train": "ring", "grid test": "grid"}
    (a, b), *_ = draws(run)
    assert (a.norm(dim=1) - 2).abs().max() < 0.2 and (b - 2 * (b / 2).round()).abs().max() < 0.3 and b.norm() > 6
    unknown = {**SETS, "b": dataclasses.replace(SETS["b"], dataset="gird")}
    with pytest.raises(ValueError, match=r"unknown data set 'gird'; did you mean grid"):
        session(recipe(TwoSets.spec, data=Data(streams=unknown)))


@game
class OneChannel(Duel):
    """A gray image of another set beside color images."""

    needs = ("a", "b")

    def loss_D(self, batch):
        assert batch["a"].shape[1:] == (3, 4, 4) and batch["b"].shape[1:] == (1, 4, 4)
        return self.D(batch["b"].flatten(1)[:, :2]).mean()


def test_the_dry_run_knows_the_shapes_of_other_data_sets():
    streams = {"a": Stream(keys={"x": "a"}), "b": Stream(keys={"x": "b"}, dataset="fashion-mnist-10k")}
    dry_run(recipe(OneChannel.spec, resolution=4, data=Data(streams=streams)), faces().facts)


def test_a_run_with_other_data_sets_is_resumed_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Clock", Every)
    two = recipe(TwoSets.spec, data=Data(streams=SETS))
    whole = train.train(two, tmp_path / "whole", runtime=CPU)
    with pytest.raises(Killed):
        train.train(two, tmp_path / "run", runtime=CPU, progress=kill_at(5))
    original = DATASETS.build
    other = dataclasses.replace(original("grid"), std=0.06)
    with monkeypatch.context() as patch:
        patch.setattr(DATASETS, "build", lambda name, *a, **k: other if name == "grid" else original(name, *a, **k))
        with pytest.raises(ValueError, match=r"images of 'grid' \(grid test\) are not those that it began"):
            train.resume(tmp_path / "run", runtime=CPU)
    train.resume(tmp_path / "run", runtime=CPU)
    assert same(*(load_file(path / CHECKPOINT) for path in (whole, tmp_path / "run")))
    card = hub.read_header(whole / WEIGHTS)["card"]
    assert card["datasets_of_streams"] == [{"name": "grid", "license": "generated"}]


# Streams by turn ------------------------------------------------------------------------------------------------------

FOURTEEN = {f"d{i}": Stream(keys={"x": f"x{i}"}, part=(i, 14)) for i in range(14)}


@game
class Fourteen(Duel):
    """ComboGAN's play: a round draws two of fourteen domains, and one network of each learns."""

    needs = tuple(f"x{i}" for i in range(14))

    def __init__(self, networks):
        super().__init__(networks)
        self.scores = nn.ModuleList([nn.Linear(2, 1) for _ in range(14)])

    def turns(self):
        return [
            Turn(tuple(f"scores.{i}" for i in range(14)), self.loss_scores, repeat=2, streams=self.pair),
            Turn(("G", "D"), self.loss_both, draw="last", streams=self.same_pair),
        ]

    def pair(self, batch):
        i, k = batch.choose(14), batch.choose(13)
        batch["pair"] = (i, (i + 1 + k) % 14)
        return self.same_pair(batch)

    def same_pair(self, batch):
        return [f"d{i}" for i in batch["pair"]]

    def loss_scores(self, batch):
        assert set(batch) == {"pair", *(f"x{i}" for i in batch["pair"])}
        return sum(self.scores[i](batch[f"x{i}"]).square().mean() for i in batch["pair"])

    def loss_both(self, batch):
        fake = self.G(batch.latent(self.prior))
        return self.D(fake).square().mean() + sum(self.D(batch[f"x{i}"]).square().mean() for i in batch["pair"])


def fourteen(**stage):
    players = " ".join(["G", "D", *(f"scores.{i}" for i in range(14))])
    return recipe(Fourteen.spec, players, data=Data(streams=FOURTEEN), **stage)


def test_a_round_draws_the_streams_that_it_names():
    run = session(fourteen(images=400))
    positions, pair_counts = dict.fromkeys(FOURTEEN, 0), set()
    for _ in range(12):
        before = weights(run.game)
        batch = run.new_batch()
        chosen = run.game.pair(batch)
        assert run.play_round() == 16  # two steps of eight rows of the first stream; the turn after draws nothing
        for name in chosen:
            positions[name] += 16
        assert {name: loader.position for name, loader in run.loaders.items()} == positions
        after = weights(run.game)
        moved = {k.split(".")[1] for k in before if k.startswith("scores.") and not torch.equal(before[k], after[k])}
        assert moved == {name[1:] for name in chosen}
        pair_counts.add(tuple(chosen))
    assert len(pair_counts) > 6 and run.images == 12 * 16


def test_the_dry_run_of_streams_by_turn():
    facts = dry_run(fourteen(), open_data("ring").facts)[0]
    assert facts["images_a_round"] == 16 and [t["draw"] for t in facts["turns"]] == ["fresh", "last"]


def test_streams_at_different_rates_are_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Clock", Every)
    whole = train.train(fourteen(images=160), tmp_path / "whole", runtime=CPU)
    with pytest.raises(Killed):
        train.train(fourteen(images=160), tmp_path / "run", runtime=CPU, progress=kill_at(5))
    train.resume(tmp_path / "run", runtime=CPU)
    assert same(*(load_file(path / CHECKPOINT) for path in (whole, tmp_path / "run")))


@game
class Uneven(Duel):
    """D draws b then, in another turn, a and b; the clock follows b, the first stream of the first drawing turn."""

    needs = ("a", "b")
    streams = (("b",), ("a", "b"))

    def turns(self):
        return [
            Turn(("G",), lambda batch: self.G(batch.latent(self.prior)).square().mean(), draw=None),
            Turn(("D",), lambda batch: self.D(batch["b"]).square().mean(), streams=self.streams[0], repeat=3),
            Turn(("D",), lambda batch: self.D(batch["a"]).square().mean(), streams=self.streams[1], batch=4),
            Turn(("D",), lambda batch: self.D(batch["a"]).mean(), draw="last"),
        ]


UNEVEN = {"a": Stream(keys={"x": "a"}), "b": Stream(keys={"x": "b"}, part=(0, 2), batch=6)}


def test_the_clock_of_streams_by_turn():
    uneven = recipe(Uneven.spec, data=Data(streams=UNEVEN))
    run = session(uneven)
    assert run.play_round() == 4 * 6 and run.images == 24
    assert {name: loader.position for name, loader in run.loaders.items()} == {"a": 4, "b": 24}
    assert dry_run(uneven, open_data("ring").facts)[0]["images_a_round"] == 24


def test_mistakes_in_streams_by_turn(monkeypatch):
    facts = open_data("ring").facts
    for streams, of_b, message in (
        (("c",), {}, r"the turn of D draws 'c', but they are a, b"),
        ((), {}, r"the turn of D names no streams; draw=None draws nothing"),
        (("b",), {"aligned": "a"}, r"'b' and 'a' are aligned and drawn together"),
        (("a",), {"aligned": "a"}, r"'a' and 'b' are aligned and drawn together"),
        (("a",), {}, r"the turn of D reads 'b', but the batch has a"),
    ):
        monkeypatch.setattr(Uneven, "streams", (streams, ("a", "b")))
        data = Data(streams={"a": UNEVEN["a"], "b": Stream(keys={"x": "b"}, **of_b)})
        with pytest.raises(ValueError, match=message):
            dry_run(recipe(Uneven.spec, data=data), facts)


# What the host knows of a round ---------------------------------------------------------------------------------------


def test_choices():
    """The same in every process and after a resume; another one for each call, round, stage and seed."""
    numbers = [Batch(2, rank=rank, world=2, round=3, seed=1).choose(1000) for rank in (0, 1)]
    assert numbers[0] == numbers[1] and type(numbers[0]) is int
    batch = Batch(2, round=3, seed=1)
    assert batch.choose(1000) == numbers[0] and batch.choose(1000) != numbers[0]
    others = [Batch(2, **{"round": 3, "seed": 1, "stage": 0, **k}) for k in ({"round": 4}, {"stage": 1}, {"seed": 2})]
    assert len({numbers[0], *(other.choose(1000) for other in others)}) == 4
    counts = torch.bincount(torch.tensor([Batch(1, round=r).choose(5) for r in range(1000)]))
    assert len(counts) == 5 and counts.min() > 150


@game
class Curious(Duel):
    """Records what its batches say of themselves."""

    def turns(self):
        self.records = []
        return [Turn(("D",), self.loss_D, streams=self.streams), Turn(("G",), self.loss_G, draw=None)]

    def streams(self, batch):
        self.records.append((batch.round, batch.images))
        return ("data",)


def test_a_batch_knows_its_round_and_images():
    run = session(recipe(Curious.spec))
    play(run, 3)
    assert run.game.records == [(0, 0), (1, 8), (2, 16)]
