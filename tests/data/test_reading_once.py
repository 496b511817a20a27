"""Two processes of one machine: the first encodes, the other reads what it wrote. A bad row ends both, and so does a
file that one of them cannot open."""

from pathlib import Path

import processes
import pytest

PROGRAM = """
import sys, tempfile
from pathlib import Path
import torch, torch.distributed as dist
sys.path[:0] = {paths}
tempfile.tempdir = "{out}"
from test_reading_once import prepared, rows_with
from hf_unlearn.data.encoded import EncodedRows
from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks import get_task

dist.init_process_group("gloo")
rank, task_class, calls = dist.get_rank(), get_task("text_classification"), []
encode = task_class.encode

def counting(self, rows, positions):
    assert not list(Path("{out}").iterdir())  # nothing has a name that a killed process would leave
    calls.extend(positions)
    return encode(self, rows, positions)

task_class.encode = counting
splits, report = prepared(rows_with())
found = [row["input_ids"].tolist() for row in splits.retain.__getitems__(range(len(splits.retain)))]
told = [None, None]
dist.all_gather_object(told, (found, report.notes, len(calls)))
assert told[0][:2] == told[1][:2] and any("longer than 6 tokens" in note for note in told[1][1])
assert told[0][2] == 24 and told[1][2] == 0, [each[2] for each in told]
alone = [row["input_ids"].tolist() for row in encode(splits.retain.task, splits.retain.source[list(range(2, 12))],
         list(range(2, 12)))]
assert alone == found
try:
    prepared(rows_with(empty=5))
except RowError as error:
    assert "row 5" in str(error) and "training rows" not in str(error)
else:
    raise AssertionError("no error")
attached = EncodedRows.attached

def refused(shared):
    raise PermissionError(13, "Permission denied", shared.path)

for opening in (refused, lambda shared: attached(shared._replace(identity=(0, 0)))):
    EncodedRows.attached = opening
    try:
        prepared(rows_with())
    except UserError as error:
        assert "cannot read the rows that another has encoded" in str(error), error
    else:
        raise AssertionError("no error")
dist.barrier()
"""


def rows_with(empty: int | None = None):
    import datasets
    import toy

    from hf_unlearn.data.sources import Source

    def part(count: int, seed: int):
        return toy.text_rows(count, seed)

    train = part(12, 0)
    if empty is not None:
        texts = ["" if i == empty else text for i, text in enumerate(train["text"])]
        train = datasets.Dataset.from_dict({"text": texts, "label": train["label"]})
    return Source(name="x", train=train, validation=part(6, 1), test=part(6, 2))


def prepared(source):
    import numpy as np
    import toy

    from hf_unlearn.data.build import build_splits
    from hf_unlearn.tasks import get_task

    names = sorted({str(label) for label in source.train["label"]})
    columns = {"text": "text", "label": "label"}
    task = get_task("text_classification")(toy.tokenizer(), columns, label_names=names, max_length=6)
    return build_splits(source, task, np.array([0, 1]), request_kind="rows", seed=0, label_column="label")


@pytest.mark.slow
def test_the_first_process_encodes_for_all(tmp_path):
    here = Path(__file__).parent
    done = processes.run(PROGRAM.format(paths=[str(here), str(here.parent)], out=tmp_path), processes=2, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.iterdir())  # no file stays
