"""COCO as its authors publish it: folders of photographs, and captions in JSON."""

import json

import pytest
import torch
from PIL import Image
from test_captions import with_splits

from zoo.data import Loader, open_data


def test_coco_in_the_original_layout(tmp_path, own_home, monkeypatch):
    """Photographs of many sizes in the order of their numbers, each with all its captions; captions alone are read
    without photographs."""
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    with_splits(monkeypatch, "coco", {"train": 2})
    with pytest.raises(OSError, match=r"unpack train2014\.zip, .* put or link its files at .*coco"):
        open_data("coco", 16)
    root = tmp_path / "coco"
    for name in ("annotations", "train2014"):
        (root / name).mkdir(parents=True)
    with pytest.raises(OSError, match=r"captions_train2014\.json is missing"):
        open_data("coco", 16)
    entries = [{"id": number, "file_name": f"{number:012d}.png"} for number in (7, 3)]
    for entry in entries:
        size = (40, 10 * entry["id"])
        Image.new("RGB", size, (10 * entry["id"], 0, 0)).save(root / "train2014" / entry["file_name"])
    captions = [{"id": k, "image_id": (3, 7)[k % 2], "caption": f"picture  {k}\n "} for k in (4, 1, 0, 3, 2)]
    table = {"images": entries, "annotations": captions}
    (root / "annotations" / "captions_train2014.json").write_text(json.dumps(table))
    data = open_data("coco", 16)
    texts = [tuple(f"picture {k}" for k in numbers) for numbers in ((0, 2, 4), (1, 3))]
    assert [data.texts["caption"][i] for i in range(len(data))] == texts
    rows = data.rows(torch.arange(2))
    assert [x[0].float().mean().round().item() for x in rows["x"]] == [30, 70]
    batch = Loader(data, seed=0, keys={"caption": "other"}).next(4)
    assert batch.keys() == {"other"} and {*batch["other"]} <= {text for row in texts for text in row}
