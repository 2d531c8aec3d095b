"""Fields that a pretrained network computes from a data set's rows."""

import contextlib
import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.play import CPU, Killed, same, session
from helpers.pretrained import ENCODER, FEATURES, STREAMS, described, described_recipe, put_weights
from safetensors.torch import load_file
from torch import nn

from zoo.data import Loader, loader, open_data
from zoo.data.derived import DerivedData, Vectors, derive
from zoo.data.fields import Vector
from zoo.engine import train
from zoo.engine.dry_run import dry_run, meta_batch
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.stage import build_networks, resolve
from zoo.recipe import Data
from zoo.registry import NETWORKS


def encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS.build(ENCODER.network)


def with_embedding(data=None, **options) -> DerivedData:
    data = data or described()
    return DerivedData(data, {"embedding": derive(data, "embedding", "caption", encoder(), "key", **options)})


def test_a_batch_has_the_vector_of_its_caption(own_home):
    """Of each row one of its captions, and the vector of the same one; in memory, through the host, and for ranks."""
    data = with_embedding()
    assert data.facts.fields["embedding"] == Vector(4, of="caption")
    network = encoder()
    several = set()
    for _ in range(2):
        whole = Loader(data, seed=0)
        parts = [Loader(data, seed=0, rank=rank, world=2) for rank in (0, 1)]
        for _ in range(8):
            batch = whole.next(8)
            assert torch.equal(batch["embedding"], network(batch["caption"]))
            assert batch["embedding"].shape == (8, 4) and batch["embedding"].dtype == torch.float32
            halves = [part.next(4) for part in parts]
            assert torch.equal(torch.cat([half["embedding"] for half in halves]), batch["embedding"])
            assert halves[0]["caption"] + halves[1]["caption"] == batch["caption"]
            several.update(batch["caption"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loader, "RESIDENT_BYTES", 0)
            host = Loader(data, seed=0, workers=2)
            again = Loader(data, seed=0)
            assert type(host._feed).__name__ == "HostFeed"
        for _ in range(3):
            a, b = host.next(8), again.next(8)
            assert torch.equal(a["embedding"], b["embedding"]) and a["caption"] == b["caption"]
    assert "" in several and {"picture 3 one", "picture 3 two", "picture 3 three"} & several


def test_captions_of_a_users_dataset(own_home):
    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return {
                "x": torch.full((3, 4, 4), i, dtype=torch.uint8),
                "caption": [f"photo {i}", f"image {i}"][: 1 + i % 2] * 2,
            }

    data = with_embedding(open_data(Photos()))
    network, batches = encoder(), Loader(data, seed=0)
    for _ in range(4):
        batch = batches.next(6)
        assert torch.equal(batch["embedding"], network(batch["caption"]))
    assert not (own_home / "derived").exists()  # its hash is that of some items only


@pytest.mark.parametrize("of", ["x", "y"])
def test_one_vector_a_row(own_home, of):
    """Of images in the networks' range, without crop and flip; of labels."""
    torch.manual_seed(0)
    network = NETWORKS.build(FEATURES.network).eval() if of == "x" else nn.Sequential(nn.Embedding(2, 3))
    data, plain = described(), described()
    data = DerivedData(data, {"features": derive(data, "features", of, network, "key", range=(0.0, 1.0))})
    assert data.facts.fields["features"].of == "" and len(data) == 24
    batch = Loader(data, seed=0, range=(0.0, 1.0), flip=True, crop=4).next(24)
    same_rows = Loader(plain, seed=0, range=(0.0, 1.0)).next(24)
    assert torch.allclose(batch["features"], network(same_rows[of]), atol=1e-6)
    filtered = Loader(data, seed=0, where={"y": 1}, keys={"features": "f"}).next(12)["f"]
    assert sorted(filtered[:, 0].tolist()) == sorted(batch["features"][batch["y"] == 1, 0].tolist())


class Counting(nn.Module):
    """Counts the texts that it gets, and can be killed in the middle."""

    def __init__(self, limit: int = 10**9):
        super().__init__()
        self.network, self.count, self.limit = encoder(), 0, limit

    def forward(self, texts):
        self.count += len(texts)
        if self.count > self.limit:
            raise Killed
        return self.network(texts)


def test_computed_once_for_both_hashes(own_home, tmp_path):
    network, data = Counting(), described(150, path=tmp_path / "train.safetensors")
    columns = [derive(data, "embedding", "caption", network, "one") for _ in range(2)]
    captions = sum(max(1, len(row)) for row in data.texts["caption"])
    assert network.count == captions == len(columns[0].values)
    assert torch.equal(columns[0].values, columns[1].values) and torch.equal(columns[0].starts, columns[1].starts)
    in_memory = derive(described(150), "embedding", "caption", encoder(), "one")
    assert torch.equal(columns[0].values, in_memory.values) and torch.equal(columns[0].starts, in_memory.starts)
    (file,) = (own_home / "derived").iterdir()
    before = file.read_bytes()
    derive(data, "embedding", "caption", network, "another network")
    other = described(150, path=tmp_path / "train.safetensors")
    other.hash = "other rows"
    derive(other, "embedding", "caption", network, "one")
    derive(data, "features", "y", nn.Embedding(2, 3), "one")
    assert network.count == 3 * captions and len(list((own_home / "derived").iterdir())) == 4
    assert file.read_bytes() == before
    if Path("/proc/self/maps").exists():
        assert str(file) in Path("/proc/self/maps").read_text()  # memory-mapped


def test_a_killed_computation_leaves_nothing(own_home, tmp_path):
    data = described(150, path=tmp_path / "train.safetensors")
    with pytest.raises(Killed):
        derive(data, "embedding", "caption", Counting(limit=150), "key")
    assert not list((own_home / "derived").glob("*.safetensors"))
    network = Counting()
    assert isinstance(derive(data, "embedding", "caption", network, "key"), Vectors) and network.count > 150
    next((own_home / "derived").iterdir()).write_bytes(b"damaged")
    with pytest.raises(OSError, match="is damaged: .*delete it, and it is computed again"):
        derive(data, "embedding", "caption", network, "key")


def test_a_killed_process_leaves_nothing(own_home, tmp_path):
    """kill -9 in the middle of the computation: no file, and the next process is not stopped by what is left."""
    data, folder = described(150, path=tmp_path / "train.safetensors"), own_home / "derived"

    def network(texts):
        if list(folder.glob(".*.partial/*")):  # the second block
            os.kill(os.getpid(), signal.SIGKILL)
        return encoder()(texts)

    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            derive(data, "embedding", "caption", network, "key")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert list(folder.glob(".*.partial/*")) and not list(folder.glob("*.safetensors"))
    derive(data, "embedding", "caption", Counting(), "key")
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_wrong_networks_and_data(own_home):

    data = described()
    for network, message in (
        (
            lambda texts: torch.rand(len(texts)),
            r"derived 'e': the network must give \[\d+, K\] for \d+ values, got \[\d+\]",
        ),
        (lambda texts: texts, r"got list"),
        (lambda texts: torch.full((len(texts), 2), torch.nan), r"derived 'e': the network must give finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            derive(data, "e", "caption", network, "key")
    with pytest.raises(ValueError, match="derived 'e': ring is read as it streams"):
        derive(open_data("ring"), "e", "x", nn.Identity(), "key")


def test_the_dry_run_knows_a_derived_fields_type(own_home):
    """Without weights."""

    facts = described().facts
    recipe = resolve(described_recipe(), facts)
    dry_run(recipe, facts)
    networks = build_networks(recipe, device="meta")
    batch = meta_batch(recipe.stages[0], facts, 8, networks=networks)
    assert batch["embedding"].shape == (8, 4) and batch["embedding"].device.type == "meta"
    without = dataclasses.replace(recipe.stages[0], data=Data())
    with pytest.raises(ValueError, match="needs 'embedding', but 'described' has caption, x, y"):
        dry_run(recipe.replace(stages=(without,)), facts)


def test_streams_choose_their_keys(pretrained_weights):
    """A derived field keeps its name, whatever the stream calls the others."""
    streams = {"data": dataclasses.replace(STREAMS["data"], keys={"x": "x", "caption": "text"})}
    run = session(described_recipe(data=Data(streams=streams)), described())
    batch = run.new_batch()
    run.draw(batch)
    assert set(batch) == {"x", "text", "embedding"}
    assert torch.equal(batch["embedding"], run.game.T(batch["text"]))


def test_a_run_takes_it_from_the_store(pretrained_weights, tmp_path, monkeypatch):
    """And computes it anew when the text encoder is another one."""
    data = described(path=tmp_path / "train.safetensors")
    train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=data)
    (file,) = (pretrained_weights / "derived").iterdir()
    time = file.stat().st_mtime_ns
    train.train(described_recipe(), tmp_path / "again", runtime=CPU, dataset=data)
    assert file.stat().st_mtime_ns == time
    assert same(*(load_file(tmp_path / run / CHECKPOINT) for run in ("run", "again")))
    put_weights(pretrained_weights, ENCODER, seed=1)
    train.train(described_recipe(), tmp_path / "other", runtime=CPU, dataset=data)
    assert len(list((pretrained_weights / "derived").iterdir())) == 2
    with pytest.raises(ValueError, match=r"pretrained\.T: the weights .* with the hash"):
        train.resume(tmp_path / "run", runtime=CPU, dataset=data)
