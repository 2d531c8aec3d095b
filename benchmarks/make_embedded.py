"""Make zoo/data/fashion-mnist-10k.safetensors: the data set that ships in the wheel.

The first 1,000 images of each class of Fashion-MNIST's train split and the first 100 of each class of its
test split, in the order of the originals. safetensors does not compress, so the pixels lie in it as LZMA
bytes, a uint8 tensor a split (LZMA: 3.8 MB; zlib and PNG: 4.4 MB), and the labels as uint8.

    python benchmarks/make_embedded.py
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import zoo.data

TARGET = Path(zoo.data.__file__).parent / "fashion-mnist-10k.safetensors"


def main() -> None:
    arrays = {}
    for split, each in (("train", 1000), ("test", 100)):
        data = zoo.data.open_data("fashion-mnist", split=split)
        y = data.arrays["y"].numpy()
        rows = np.sort(np.concatenate([np.flatnonzero(y == k)[:each] for k in range(10)]))
        images = data.arrays["x"].numpy()[rows, 0]  # [n, 28, 28]
        arrays[f"{split}.x.xz"] = np.frombuffer(lzma.compress(images.tobytes(), preset=9), np.uint8)
        arrays[f"{split}.y"] = y[rows].astype(np.uint8)
    save_file(arrays, TARGET, metadata={"license": "MIT", "from": "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)"})
    TARGET.chmod(0o644)  # safetensors writes for the owner only
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
