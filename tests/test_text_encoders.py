"""Text encoders: the same vectors on every machine; similar texts have similar vectors; several captions a row."""

import subprocess
import sys

import pytest
import torch
from helpers.pretrained import described, described_recipe
from torch.nn.functional import cosine_similarity

from zoo import hub
from zoo.data import Loader
from zoo.data.derived import DerivedData, derive
from zoo.engine.dry_run import dry_run
from zoo.engine.stage import resolve
from zoo.networks.hashed_text import HashedTextEncoder
from zoo.overrides import override
from zoo.recipe import Pretrained
from zoo.registry import NETWORKS, Spec

HASHED = Pretrained(Spec("hashed-text-encoder", width=16))


def test_hashed_vectors_are_the_same_on_every_machine():
    encoder = HashedTextEncoder(16)
    first = [-1.2964, -0.9438, -0.923, -1.6697]
    torch.testing.assert_close(encoder(["Red heart"])[0, :4], torch.tensor(first), atol=1e-4, rtol=0)
    code = "from zoo.networks.hashed_text import HashedTextEncoder as H; print(H(16)(['Red heart'])[0].tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(encoder(["Red heart"])[0].tolist())


def test_hashed_vectors_of_similar_texts_are_similar():
    encoder = HashedTextEncoder(256)
    texts = ["a red heart", "the red hearts", "A RED HEART!", "a bicycle on a street", "", "??"]
    x = encoder(texts)
    assert x.shape == (6, 256) and x.dtype == torch.float32
    assert torch.equal(x[0], x[2]) and not x[4:].any()
    torch.testing.assert_close(x[:4].norm(dim=1), torch.full((4,), 16.0))
    assert cosine_similarity(x[0], x[1], dim=0) > 0.4 > 2 * cosine_similarity(x[0], x[3], dim=0)
    words = HashedTextEncoder(256, longest=0)
    assert (
        cosine_similarity(*words(["hearts", "heart"]), dim=0)
        < 0.3
        < cosine_similarity(*encoder(["hearts", "heart"]), dim=0)
    )
    many = encoder([f"number {k} of {k * k}" for k in range(200)])
    assert 0.8 < many[:, many.std(0) > 0].std() < 1.2
    with pytest.raises(ValueError, match="width=0.*must be a width of at least 1"):
        HashedTextEncoder(0)


def test_a_pretrained_network_without_weights_needs_no_source(own_home):
    (encoder,) = hub.load_pretrained({"T": HASHED}).values()
    assert len(encoder.hash) == 64 and encoder.size == 0
    assert torch.equal(encoder(["a"]), NETWORKS.build(HASHED.network)(["a"]))
    with pytest.raises(ValueError, match=r"pretrained\.T: source must name the weights .* has 1 tensors"):
        hub.load_pretrained({"T": Pretrained(Spec("test-text-encoder"))})


@pytest.mark.parametrize("resident", [True, False])
def test_the_mean_of_several_captions(own_home, resident, monkeypatch):
    """Of the caption that the batch has and of others of the row, each once; of ranks the same."""
    if not resident:
        monkeypatch.setattr("zoo.data.loader.RESIDENT_BYTES", 0)
    encoder = HashedTextEncoder(16)
    data = described()
    column = derive(data, "text", "caption", encoder, "key")
    one = DerivedData(data, {"text": derive(data, "text", "caption", encoder, "key")})
    column.mean = 2
    data = DerivedData(data, {"text": column})
    whole, single = Loader(data, seed=0), Loader(one, seed=0)
    parts = [Loader(data, seed=0, rank=rank, world=2) for rank in (0, 1)]
    rows = {text: captions for captions in one.texts["caption"] for text in captions}
    pairs = set()
    for _ in range(6):
        batch, plain = whole.next(24), single.next(24)
        assert batch["caption"] == plain["caption"] and torch.equal(plain["text"], encoder(plain["caption"]))
        for text, vector in zip(batch["caption"], batch["text"], strict=True):
            others = [other for other in rows.get(text, ()) if other != text]
            means = [(encoder([text, other]).mean(0)) for other in others] or [encoder([text])[0]]
            matches = [torch.allclose(vector, mean, atol=1e-6) for mean in means]
            assert sum(matches) == 1
            if len(others) == 2:
                pairs.add((text.split()[-1], others[matches.index(True)].split()[-1]))
        halves = [part.next(12)["text"] for part in parts]
        torch.testing.assert_close(torch.cat(halves), batch["text"])
    assert len(pairs) == 6  # every caption with every other of its row


def test_a_recipe_names_the_mean(own_home):
    recipe = override(described_recipe(), "stages.0.data.streams.data.derived.embedding.mean", "2")
    data = described()
    assert dry_run(resolve(recipe, data.facts), data.facts)
    wrong = override(recipe, "stages.0.data.streams.data.derived.embedding.of", '"x"')
    with pytest.raises(ValueError, match="mean=2 must be of captions, but 'x' are none"):
        dry_run(resolve(wrong, data.facts), data.facts)
    with pytest.raises(ValueError, match=r"embedding\.mean=0: must be at least 1"):
        override(recipe, "stages.0.data.streams.data.derived.embedding.mean", "0")
