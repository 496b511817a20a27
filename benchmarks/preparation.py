"""What preparing short texts costs, embedding them and dividing steps, beside doing it plainly: processor time of one
thread.

    python benchmarks/preparation.py

- `encode`: tensors cut from one per call of the tokenizer, beside a tensor for every text and key;
- `repeats`: exact duplicates and held-out rows among the training rows, where texts that cannot repeat are not
  digested, beside a digest of every row;
- `embeddings`: rows of like length together, beside rows in their order;
- `near`: the search for near duplicates among 384 numbers a row, where at most 4,096 unseen rows set the threshold,
  beside as many unseen rows as kept ones;
- `steps`: forwards and backwards of steps of 64 rows to keep and 32 to forget in four micro-batches, divided by
  length, beside divided as they were drawn. `padding` is their tokens with padding over those without.

Texts of 4 to 11 words, of 4 to 59 for the last two, and a small BERT. Rounds in turn, medians. Written to
`benchmarks/results/preparation.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

RESULTS = Path(__file__).parent / "results" / "preparation.json"
STEPS, MICRO_BATCHES = 8, 4


def source(rows: int, longest: int, seed: int = 0):
    import datasets
    import numpy as np

    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(2000)])
    texts = [" ".join(rng.choice(words, rng.integers(4, longest))) for _ in range(rows)]
    return datasets.Dataset.from_dict({"text": texts, "label": [0] * rows})


def micro_batches(long, lengths: bool) -> list[list[int]]:
    """Rows of each micro-batch of the steps; the first fifth of the rows is to be forgotten."""
    from hf_unlearn.trainers.sampler import JointSampler, StreamSize
    from hf_unlearn.trainers.schedule import FORGET, Phase, Schedule

    forget = len(long) // 5
    streams = {"forget": StreamSize(forget, 32), "retain": StreamSize(len(long) - forget, 64)}
    parts = {"forget": long.select(range(forget)), "retain": long.select(range(forget, len(long)))}
    known = (lambda stream, rows: parts[stream].lengths(rows.tolist())) if lengths else None
    sampler = JointSampler(Schedule([Phase("unlearn", STEPS)]), streams, 0, MICRO_BATCHES, lengths=known)
    return [[row if stream == FORGET else forget + row for stream, row in batch] for batch in sampler]


def padding(long, task, batches: list[list[int]]) -> float:
    masks = [task.collate(long.__getitems__(batch))["attention_mask"] for batch in batches]
    return sum(mask.numel() for mask in masks) / sum(int(mask.sum()) for mask in masks)


def jobs(rows: int) -> tuple[dict[str, tuple[Callable, Callable]], dict[str, float]]:
    """What is timed by name, plainly and as it is done, and the padding of both ways to divide steps."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from hf_unlearn.data import duplicates, overlap
    from hf_unlearn.data.builtin.vocabulary import train_tokenizer
    from hf_unlearn.data.rows import Rows
    from hf_unlearn.data.sources import Source
    from hf_unlearn.evaluation.embeddings import embeddings
    from hf_unlearn.tasks import get_task, text_classification

    vocabulary = [" ".join(f"w{i}" for i in range(2000))] * 2
    tokenizer = train_tokenizer(vocabulary, vocab_size=2500, max_length=128, decoder_only=False)
    task = get_task("text_classification")(tokenizer, {"text": "text", "label": "label"}, label_names=["a", "b"])
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                   intermediate_size=128, max_position_embeddings=128)
    )  # fmt: skip
    task.prepare_model(model)
    short, long = source(rows, 12), Rows(source(2000, 60), task)
    held_out = Source("texts", short, source(rows // 10, 12, seed=1), source(rows // 10, 12, seed=2))
    long.__getitems__(range(len(long)))
    divided = {"drawn": micro_batches(long, False), "by_length": micro_batches(long, True)}

    def encode() -> None:
        rows_of = Rows(short, task)
        for start in range(0, len(rows_of), 256):
            rows_of.__getitems__(range(start, min(start + 256, len(rows_of))))

    def one_by_one(encoded):
        return {key: [torch.tensor(each) for each in values] for key, values in encoded.items()}

    def encode_plainly() -> None:
        with mock.patch.object(text_classification, "row_tensors", one_by_one):
            encode()

    def repeats() -> None:
        duplicates.exact_duplicates(short, ["text"], np.arange(100))
        overlap.check_unseen(held_out, ["text", "label"])

    def every(rows_of, columns, others):
        return np.arange(len(rows_of))

    def repeats_plainly() -> None:
        with mock.patch.object(duplicates, "may_repeat", every), mock.patch.object(overlap, "may_repeat", every):
            repeats()

    def embed() -> None:
        embeddings(model, task, long)

    def embed_plainly() -> None:
        with mock.patch.object(Rows, "lengths", lambda rows_of, which: None):
            embed()

    rng = np.random.default_rng(0)
    kept, unseen, gone = (rng.standard_normal((n, 384), dtype=np.float32) for n in (rows, rows, 100))

    def near() -> None:
        duplicates.near_duplicates(gone, kept, unseen)

    def near_plainly() -> None:
        with mock.patch.object(duplicates, "MOST_UNRELATED", rows):
            near()

    def steps(way: str) -> None:
        for batch in divided[way]:
            task.predict(model, task.collate(long.__getitems__(batch))).loss.sum().backward()

    timed = {
        "encode": (encode_plainly, encode),
        "repeats": (repeats_plainly, repeats),
        "embeddings": (embed_plainly, embed),
        "near": (near_plainly, near),
        "steps": (lambda: steps("drawn"), lambda: steps("by_length")),
    }
    return timed, {way: round(padding(long, task, batches), 3) for way, batches in divided.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch
    import transformers

    from hf_unlearn.report.evidence import environment

    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    timed, padded = jobs(options.rows)
    print(f"padding of the steps {padded}\n| what | plainly (s) | now (s) | ratio |\n| --- | ---: | ---: | ---: |")
    found = {}
    for name, ways in timed.items():
        spent: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.rounds):
            for seconds, job in zip(spent, ways, strict=True):
                start = time.process_time()
                job()
                seconds.append(time.process_time() - start)
        plain, now = (round(statistics.median(seconds), 3) for seconds in spent)
        ratio = round(statistics.median(a / b for a, b in zip(*spent, strict=True)), 2)
        found[name] = {"plain_seconds": plain, "seconds": now, "ratio": ratio}
        print(f"| {name} | {plain:.2f} | {now:.2f} | {ratio:.2f}× |", flush=True)
    results = {
        "rows": options.rows, "rounds": options.rounds, "padding": padded, "jobs": found,
        "environment": environment(seed=0, device="cpu", threads=1),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
