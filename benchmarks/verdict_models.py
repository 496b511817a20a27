"""The models that `verdict_calibration.py` resamples: originals and many retrained twins, as arrays per row.

Cases on scikit-learn's networks take seconds. Those of shipped recipes, with fewer epochs, take half a minute a model.
Nothing is trained twice: arrays lie in `out/verdict_models/`, one file a case.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scores import SplitScores

FOLDER = Path(os.environ.get("HF_UNLEARN_VERDICT_MODELS", "out/verdict_models"))
ARRAYS = ("loss", "log_odds", "correct")
RECIPES = {"digits_class": (9, 20), "text_10": (5, 12)}  # twins and epochs
NETWORKS = {"net_5": 12, "net_10": 12, "net_30": 12, "net_wrong_labels": 12, "net_class": 12, "net_short_10": 12,
            "net_text_10": 12, "net_text_5": 12}  # fmt: skip
ORIGINALS = 2

Ensemble = tuple[list[ModelScores], list[ModelScores]]
"""Originals and twins of one case."""


def ensemble(case: str) -> Ensemble:
    """The models of a case, made where they are not there yet."""
    path = FOLDER / f"{case}.npz"
    if not path.exists():
        start = time.process_time()
        models = networks(case) if case in NETWORKS else recipe_models(case)
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **_packed(models))
        print(f"{case}: {len(models[1])} twins in {time.process_time() - start:.0f} s of CPU", flush=True)
    with np.load(path) as stored:
        return _unpacked(dict(stored))


def networks(case: str) -> Ensemble:
    """One hidden layer of 64 on scikit-learn's digits (1,024 training rows, 500 test rows), or on the words of
    `docstrings`."""
    features, labels, train, test = _words() if "text" in case else _pixels()
    rng = np.random.default_rng(0)
    if case.endswith("class"):
        forget, nonmembers, test = train[labels[train] == 3], test[labels[test] == 3], test[labels[test] != 3]
    else:
        share = int(case.split("_")[-1]) / 100 if case[-1].isdigit() else 0.1
        forget, nonmembers = train[: round(share * len(train))], test
    if case == "net_wrong_labels":
        classes = labels.max() + 1
        labels[forget] = (labels[forget] + rng.integers(1, classes, len(forget))) % classes
    places = {"forget": forget, "retain": np.setdiff1d(train, forget), "test": test, "nonmembers": nonmembers}
    epochs = 12 if "short" in case else 20 if "text" in case else 80

    def make(rows: np.ndarray, seed: int) -> ModelScores:
        return _network(features, labels, rows, seed, epochs, places)

    originals = [make(train, 100 + seed) for seed in range(ORIGINALS)]
    return originals, [make(places["retain"], seed) for seed in range(NETWORKS[case])]


def _pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels, places of the training rows, places of the test rows."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order] / 16, labels[order], np.arange(1024), np.arange(1024, 1524)


def _words() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    from hf_unlearn.data.sources import load_source

    source = load_source("docstrings", seed=0)
    train, test = len(source.train), len(source.test)
    texts = [*source.train["text"], *source.test["text"]]
    labels = np.array([*source.train["label"], *source.test["label"]])
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts[:train]).transform(texts).toarray()
    order = np.random.default_rng(0).permutation(train)
    return words, labels, order, np.arange(train, train + test)


def _network(features, labels, rows: np.ndarray, seed: int, epochs: int, places: dict[str, np.ndarray]) -> ModelScores:
    import warnings

    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(64, learning_rate_init=3e-3, batch_size=64, max_iter=epochs, random_state=seed, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features[rows], labels[rows])
    column = {label: i for i, label in enumerate(model.classes_)}

    def score(places: np.ndarray) -> SplitScores:
        hidden = np.maximum(features[places] @ model.coefs_[0] + model.intercepts_[0], 0)
        logits = hidden @ model.coefs_[1] + model.intercepts_[1]
        if len(column) <= labels.max():  # a class that was never seen gets the logit of an untrained output
            logits = np.insert(logits, 3, logits.min(axis=1) - 3, axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[np.arange(len(places)), labels[places]]
        others = logits.copy()
        others[np.arange(len(places)), labels[places]] = -np.inf
        log_odds = own - np.log(np.exp(others).sum(axis=1))
        correct = (logits.argmax(axis=1) == labels[places]).astype(float)
        loss = np.logaddexp(0, -log_odds)
        return SplitScores(loss, log_odds, correct, np.exp(-loss), loss)

    found = {role: score(rows) for role, rows in places.items()}
    if places["nonmembers"] is places["test"]:
        found["nonmembers"] = found["test"]
    return found


def recipe_models(case: str) -> Ensemble:
    """A case of `quality.py`, made by its shipped recipe on one core."""
    import torch
    import transformers
    from quality import case_arguments

    from hf_unlearn.data.build import training_rows
    from hf_unlearn.run import stages
    from hf_unlearn.run.parsing import parse_arguments
    from hf_unlearn.run.rows import prepare_data

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        epochs = ["--original_num_train_epochs", str(RECIPES[case][1])]
        arguments = parse_arguments([*case_arguments(case, 0, Path(scratch)), *epochs, "--use_cpu", "true"])
        data = prepare_data(arguments)

        def make(rows, seed: int, title: str) -> ModelScores:
            model = stages.train_by_recipe(arguments, data, rows, seed, title).model
            return stages.score_model(arguments, data, model)

        everything = training_rows(data.splits)
        originals = [make(everything, 0, "original")]
        return originals, [make(data.splits.retain, k, f"twin {k}") for k in range(1, RECIPES[case][0] + 1)]


def _packed(models: Ensemble) -> dict[str, np.ndarray]:
    roles = ("forget", "retain", "test", "nonmembers")
    packed = {"own_nonmembers": np.array(models[1][0]["nonmembers"] is not models[1][0]["test"])}
    for kind, found in zip(("original", "twins"), models, strict=True):
        for role in roles:
            for name in ARRAYS:
                packed[f"{kind}/{role}/{name}"] = np.stack([getattr(m[role], name) for m in found]).astype(np.float32)
    return packed


def _unpacked(stored: dict[str, np.ndarray]) -> Ensemble:
    def models(kind: str) -> list[ModelScores]:
        found = []
        for i in range(len(stored[f"{kind}/forget/loss"])):
            scores: ModelScores = {}
            for role in ("forget", "retain", "test", "nonmembers"):
                loss, log_odds, correct = (stored[f"{kind}/{role}/{name}"][i].astype(float) for name in ARRAYS)
                scores[role] = SplitScores(loss, log_odds, correct, np.exp(-loss), loss)
            if not stored["own_nonmembers"]:
                scores["nonmembers"] = scores["test"]
            found.append(scores)
        return found

    return models("original"), models("twins")


if __name__ == "__main__":
    for name in (*NETWORKS, *RECIPES):
        ensemble(name)
