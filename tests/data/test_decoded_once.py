"""However often images are read before the first step, each is decoded once."""

from collections import Counter

import datasets
import numpy as np
from PIL import Image
from toy import image_task

from hf_unlearn.data.content import row_digests
from hf_unlearn.data.rows import Rows


def image_files(folder, count: int = 6):
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8)).astype(np.uint8)).save(path)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    rows = {"image": [str(path) for path in paths], "label": [i % 4 for i in range(count)]}
    return datasets.Dataset.from_dict(rows, features)


def test_encoding_and_digests_share_one_decoding(tmp_path, monkeypatch):
    source, decoded = image_files(tmp_path), Counter()
    decode = datasets.Image.decode_example

    def counting(self, value, *args, **kwargs):
        decoded[value["path"]] += 1
        return decode(self, value, *args, **kwargs)

    fresh = row_digests(image_files(tmp_path), ["image", "label"])
    monkeypatch.setattr(datasets.Image, "decode_example", counting)
    rows = Rows(source, image_task())
    rows.__getitems__(range(6))
    assert row_digests(source, ["image", "label"]) == fresh and len(set(fresh)) == 6
    row_digests(source, ["image"])
    rows.__getitems__(range(6))
    assert decoded == dict.fromkeys(map(str, sorted(tmp_path.iterdir())), 1)
