"""What preparing short texts costs, and embedding them, beside doing it row by row: processor time of one thread.

    python benchmarks/preparation.py --rows 20000

`encode`: tensors cut from one per call of the tokenizer, beside a tensor for every text and key. `embeddings`: rows of
like length together, beside rows in their order (a small BERT, texts of 4 to 60 words). Rounds in turn, medians. It
prints; nothing is stored.
"""

import argparse
import statistics
import time


def source(rows: int, longest: int):
    import datasets
    import numpy as np

    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(2000)])
    texts = [" ".join(rng.choice(words, rng.integers(4, longest))) for _ in range(rows)]
    return datasets.Dataset.from_dict({"text": texts, "label": [0] * rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch
    import transformers
    from transformers import BertConfig, BertForSequenceClassification

    from hf_unlearn.data.builtin.vocabulary import train_tokenizer
    from hf_unlearn.data.rows import Rows
    from hf_unlearn.evaluation.embeddings import embeddings
    from hf_unlearn.tasks import get_task, text_classification

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    vocabulary = [" ".join(f"w{i}" for i in range(2000))] * 2
    tokenizer = train_tokenizer(vocabulary, vocab_size=2500, max_length=128, decoder_only=False)
    task = get_task("text_classification")(tokenizer, {"text": "text", "label": "label"}, label_names=["a", "b"])
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                   intermediate_size=128, max_position_embeddings=128)
    )  # fmt: skip
    task.prepare_model(model)
    short, long = source(options.rows, 12), Rows(source(2000, 60), task)
    long.__getitems__(range(len(long)))
    cut, lengths = text_classification.row_tensors, Rows.lengths

    def encode() -> None:
        rows = Rows(short, task)
        for start in range(0, len(rows), 256):
            rows.__getitems__(range(start, min(start + 256, len(rows))))

    def embed() -> None:
        embeddings(model, task, long)

    def one_by_one(encoded):
        return {key: [torch.tensor(each) for each in values] for key, values in encoded.items()}

    def as_they_are(rows, which):
        return None

    print("| what | before (s) | now (s) | ratio |\n| --- | ---: | ---: | ---: |")
    for name, job in (("encode", encode), ("embeddings", embed)):
        before, now = [], []
        for _ in range(options.rounds):
            for spent, make, length in ((before, one_by_one, as_they_are), (now, cut, lengths)):
                text_classification.row_tensors, Rows.lengths = make, length
                start = time.process_time()
                job()
                spent.append(time.process_time() - start)
        ratio = statistics.median(a / b for a, b in zip(before, now, strict=True))
        print(
            f"| {name} | {statistics.median(before):.2f} | {statistics.median(now):.2f} | {ratio:.2f}× |", flush=True
        )


if __name__ == "__main__":
    main()
