"""Write the embedded CIFAR-10 sample from the official binary files.

    QVIZ_DATA=... python data/make_cifar10_sample.py

Reads ``$QVIZ_DATA/cifar-10-batches-bin/*.bin`` (default of QVIZ_DATA: ~/.cache/qviz), which is the
*binary version* archive from https://www.cs.toronto.edu/~kriz/cifar.html, unpacked. A record is 1 label byte
and 3072 pixel bytes: the planes R, G, B, each 32 x 32, row by row.

Writes two lossless WebP mosaics, 40 tiles wide and 50 high, and cifar10_sample.json with labels and source
indices. Image i is the tile in row i // 40, column i % 40. Labels run 0, 1, ..., 9, 0, 1, ...: so every
prefix of 10 n images is balanced, and every column of a mosaic shows one class.

Needs numpy and Pillow with WebP.
"""

from __future__ import annotations

import json

import numpy as np
from card import HERE, record, sha256, source_dir
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
SPLITS = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
PER_CLASS, COLUMNS, SEED = 200, 40, 20090408


def read_records(files: list[str]) -> np.ndarray:
    """Return the records of the files one after the other: uint8, shape (10000 * files, 3073)."""
    parts = []
    for name in files:
        path = source_dir() / "cifar-10-batches-bin" / name
        if not path.exists():
            raise SystemExit(
                f"{name} not found: unpack cifar-10-binary.tar.gz in QVIZ_DATA, see data/README.md"
            )
        if (found := sha256(path)) != SHA256[name]:
            raise SystemExit(f"{name}: sha256 is {found}, not the official {SHA256[name]}; nothing written")
        parts.append(np.fromfile(path, np.uint8).reshape(-1, 3073))
    return np.concatenate(parts)


def choose(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw 200 source indices of each class without replacement, classes taking turns: shape (2000,)."""
    rng = np.random.RandomState(seed)  # the legacy generator: NumPy promises never to change its stream
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:PER_CLASS] for c in range(len(CLASSES))]
    return np.stack(drawn, axis=1).reshape(-1)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Lay images (N, 3, 32, 32) out in rows of 40: uint8, shape (32 * N / 40, 1280, 3)."""
    tiles = images.reshape(-1, COLUMNS, 3, 32, 32).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(-1, COLUMNS * 32, 3)


def main() -> None:
    """Write the mosaics and the index, and record all three in manifest.json."""
    made_by = "make_cifar10_sample.py"
    index: dict[str, object] = {"classes": CLASSES, "per_class": PER_CLASS, "columns": COLUMNS, "seed": SEED}
    for offset, (split, files) in enumerate(SPLITS.items()):
        records = read_records(files)
        chosen = choose(records[:, 0], SEED + offset)
        name = f"cifar10_sample_{split}.webp"
        picture = Image.fromarray(mosaic(records[chosen, 1:].reshape(-1, 3, 32, 32)))
        picture.save(HERE / name, lossless=True, quality=100, method=6, exact=True)
        record(name, kind="images", made_by=made_by, made_from=", ".join(files))
        index[split] = {
            "mosaic": name,
            "source_files": files,
            "labels": records[chosen, 0].tolist(),
            "source_index": chosen.tolist(),
        }
    text = json.dumps(index, separators=(",", ":")) + "\n"
    (HERE / "cifar10_sample.json").write_text(text, encoding="utf-8", newline="\n")
    record("cifar10_sample.json", kind="index", made_by=made_by, made_from=", ".join(SHA256))


if __name__ == "__main__":
    main()
