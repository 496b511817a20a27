import copy

import pytest
import torch
from datasets import ClassLabel, Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLNetConfig,
)

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.text_classification import TextClassification

WORDS = ["the", "a", "cat", "dog", "runs", "sleeps", "fast", "slowly", "and", "or", "big", "small", "red", "blue"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 3, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "bert": BertConfig(vocab_size=20, **SIZE),
    "distilbert": DistilBertConfig(vocab_size=20, dim=16, n_layers=2, n_heads=2, hidden_dim=16, num_labels=3),
    "roberta": RobertaConfig(vocab_size=20, pad_token_id=0, **SIZE),
    "gpt2": GPT2Config(vocab_size=20, **GPT2),
    "llama": LlamaConfig(vocab_size=20, num_key_value_heads=1, **SIZE),
    "xlnet": XLNetConfig(vocab_size=20, d_model=16, n_layer=2, n_head=2, d_inner=16, num_labels=3),
}
TEXTS = ["the cat runs", "a big red dog sleeps slowly and runs fast", "or", "blue"]


def make_tokenizer(pad=True, **kwargs):
    vocab = {word: i for i, word in enumerate(["<pad>", "<cls>", "<sep>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = "<cls> $A <sep> $B:1 <sep>:1"
    raw.post_processor = processors.TemplateProcessing("<cls> $A <sep>", pair, [("<cls>", 1), ("<sep>", 2)])
    special = {"unk_token": "<unk>", "eos_token": "<sep>"} | ({"pad_token": "<pad>"} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special, **kwargs)


def make_task(columns=None, **kwargs):
    tokenizer = make_tokenizer(**kwargs.pop("tokenizer", {}))
    return TextClassification(tokenizer, columns or {"text": "text", "label": "label"}, ["x", "y", "z"], **kwargs)


def make_model(name):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(copy.deepcopy(CONFIGS[name])).eval()


def encode(task, texts, labels=None):
    labels = labels or [i % 3 for i in range(len(texts))]
    return task.encode({"text": texts, "label": labels}, list(range(len(texts))))


@pytest.mark.parametrize("pad", [True, False], ids=["pad", "no-pad"])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_the_models_own_whatever_the_padding(name, pad):
    model, task = make_model(name), make_task(tokenizer={"pad": pad})
    task.prepare_model(model)
    features = encode(task, TEXTS)
    with torch.no_grad():
        together = task.predict(model, task.collate(features)).loss
        for row, loss in zip(features, together, strict=True):
            alone = task.collate([row])
            torch.testing.assert_close(loss, task.predict(model, alone).loss[0], atol=1e-5, rtol=0)
            if name in ("bert", "llama", "roberta"):  # the others refuse or misuse the token types
                torch.testing.assert_close(loss, model(**alone).loss, atol=1e-5, rtol=0)
    embedded = task.embed(model, task.collate(features))
    assert embedded.shape == (4, 16)
    torch.testing.assert_close(embedded[3], task.embed(model, task.collate(features[3:]))[0], atol=1e-5, rtol=0)


def test_token_types_reach_only_models_with_segments():
    """GPT-2 would add the embedding of token 0 everywhere; BERT needs them for pairs."""
    columns = {"text": "text", "text_pair": "other", "label": "label"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    task = make_task(columns, tokenizer={"model_input_names": names})
    rows = {"text": ["the cat"], "other": ["a dog"], "label": [0]}
    batch = task.collate(task.encode(rows, [0]))
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    flat = {**batch, "token_type_ids": torch.zeros_like(batch["token_type_ids"])}
    for name, differs in (("bert", True), ("gpt2", False), ("distilbert", False)):
        model = make_model(name)
        a, b = (task.predict(model, x).logits for x in (batch, flat))
        assert torch.equal(a, b) is not differs
    gpt2 = make_model("gpt2")
    plain = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    assert torch.equal(task.predict(gpt2, batch).logits, gpt2(**plain).logits)


def test_truncation_to_what_is_asked_or_what_the_model_takes():
    long = " ".join(["cat"] * 700)
    task = make_task(max_length=5)
    assert encode(task, [long])[0]["input_ids"].tolist() == [1, 5 + 1, 6, 6, 2]
    for name, limit in (("bert", 512), ("roberta", 511), ("gpt2", 700 + 2), ("llama", 702)):
        model, task = make_model(name), make_task()
        task.prepare_model(model)
        row = encode(task, [long])[0]
        assert len(row["input_ids"]) == limit
        task.predict(model, task.collate([row]))
    with pytest.raises(UserError, match="`max_length` 600 is longer than the 512 positions"):
        make_task(max_length=600).prepare_model(make_model("bert"))


def test_rows_without_text_or_label():
    task = make_task()
    missing, truth = "it has no text$", "its text is a truth value"
    for bad, told in ((None, missing), ("", missing), ("  \n", missing), (float("nan"), missing), (True, truth)):
        with pytest.raises(RowError, match=f"^row 1: {told}"):
            encode(task, ["the cat", bad])
    with pytest.raises(RowError, match="^row 0: its label is not one of the classes"):
        encode(task, ["cat"], ["w"])
    assert encode(task, ["cat"], ["z"])[0]["labels"] == 2


def test_columns():
    detect = TextClassification.detect_columns
    assert detect(["idx", "sentence", "label"], None, {}) == {"text": "sentence", "label": "label"}
    pair = {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    assert detect(["premise", "hypothesis", "label"], None, {}) == pair
    assert detect(["premise", "hypothesis", "label"], None, {"text": "premise"}) == {
        "text": "premise",
        "label": "label",
    }
    features = Features({"words": Value("large_string"), "kind": ClassLabel(names=["a", "b"])})
    assert detect(list(features), features, {}) == {"text": "words", "label": "kind"}
    with pytest.raises(UserError, match="no column found for 'text'.*words, label"):
        detect(["words", "label"], None, {})


def test_pad_token_id_is_set_for_models_that_look_for_the_last_token():
    model = make_model("gpt2")
    assert model.config.pad_token_id is None
    make_task().prepare_model(model)
    assert model.config.pad_token_id == 0
    model = make_model("gpt2")
    make_task(tokenizer={"pad": False}).prepare_model(model)
    assert model.config.pad_token_id == 2


@pytest.mark.parametrize("name", ["gpt2", "llama", "roberta"])
def test_padding_goes_by_the_models_id_not_the_tokenizers(name):
    model, task = make_model(name), make_task()
    model.config.pad_token_id = 9 if name != "roberta" else 0
    task.prepare_model(model)
    batch = task.collate(encode(task, TEXTS[:3]))
    assert batch["input_ids"][2, -1] == model.config.pad_token_id
    alone = task.predict(model, task.collate(encode(task, TEXTS[2:3]))).logits
    torch.testing.assert_close(task.predict(model, batch).logits[2:], alone, atol=1e-5, rtol=0)
