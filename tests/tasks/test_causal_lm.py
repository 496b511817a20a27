import copy

import pytest
import torch
import torch.nn.functional as F
from datasets import Features, Value
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks import supervised_head
from hf_unlearn.tasks.causal_lm import DEFAULT_TEMPLATE, CausalLM

V = 270
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SMALL = {"vocab_size": V, **SPECIAL, **SIZE}
ROPE = {**SMALL, "num_key_value_heads": 1}
CONFIGS = {
    "llama": LlamaConfig(**ROPE),
    "gpt2": GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, **SPECIAL),
    "gemma2": Gemma2Config(**ROPE, head_dim=8, final_logit_softcapping=0.5, query_pre_attn_scalar=8),
    "qwen2": Qwen2Config(**ROPE),
    "cohere": CohereConfig(**ROPE, logit_scale=3.0),
    "granite": GraniteConfig(**ROPE, logits_scaling=0.3),
    "gpt_neox": GPTNeoXConfig(**SMALL),
    "opt": OPTConfig(vocab_size=V, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=16, **SPECIAL),
    "mamba": MambaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=2, state_size=4, **SPECIAL),
}
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PAIR = {"question": "question", "answer": "answer"}
ROWS = {
    "question": ["Where was Ada born?", "Who?", "What is the name of the second book by the author?"],
    "answer": ["In Turin.", "Nobody knows her name, not even the publisher.", "Ash"],
}


def make_tokenizer(bos=True, chat_template=CHAT):
    """Bytes as tokens, after the special ones."""
    vocab = {
        token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    raw = Tokenizer(models.BPE(vocab, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if bos:
        raw.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A $B", [("<bos>", 1)])
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=chat_template, **special)


def make_task(columns=None, tokenizer=None, **kwargs):
    if columns is None or columns.get("question") == "question":
        kwargs = {"prompt_template": DEFAULT_TEMPLATE} | kwargs
    return CausalLM(tokenizer or make_tokenizer(), columns or PAIR, **kwargs)


def make_model(name, dtype=torch.float64):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).to(dtype)
    with torch.no_grad():  # initial logits are tiny: nothing would be capped
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model.eval()


def encode(task, rows):
    return task.encode(rows, list(range(len(next(iter(rows.values()))))))


def supervised_text(task, row):
    return task.processor.decode(row["labels"][row["labels"] != -100])


def test_loss_is_on_the_answer_and_its_end():
    task = make_task()
    for i, row in enumerate(encode(task, ROWS)):
        assert supervised_text(task, row) == ROWS["answer"][i] + "<eos>"
        whole = f"<bos>Question: {ROWS['question'][i]}\nAnswer: {ROWS['answer'][i]}<eos>"
        assert task.processor.decode(row["input_ids"]) == whole


def test_templates():
    task = make_task({"question": "prompt", "answer": "completion"})
    row = encode(task, {"prompt": ["2+2="], "completion": ["4"]})[0]
    assert task.processor.decode(row["input_ids"]) == "<bos>2+2=4<eos>"
    task = make_task({**PAIR, "context": "input"}, prompt_template="Q {question}\n")
    row = encode(task, {"question": ["Add."], "answer": ["4"], "input": ["2, 2"]})[0]
    assert task.processor.decode(row["input_ids"]) == "<bos>Q Add.\n2, 2\n4<eos>"
    task = make_task(prompt_template="chat")
    row = encode(task, {"question": ["2+2"], "answer": ["4"]})[0]
    assert task.processor.decode(row["input_ids"]) == "<|user|>2+2<eos><|assistant|>4<eos>"
    assert supervised_text(task, row) == "4<eos>"
    with pytest.raises(UserError, match="only field"):
        make_task(prompt_template="Q {question} {x}")
    with pytest.raises(UserError, match="question"):
        make_task(prompt_template="Q: {q}")
    with pytest.raises(UserError, match="no chat template"):
        make_task(prompt_template="chat", tokenizer=make_tokenizer(chat_template=None))


def test_a_token_across_the_border_belongs_to_the_answer():
    vocab = {t: i for i, t in enumerate(["<pad>", "<eos>", "A", ":", " ", "x", " x"])}
    raw = Tokenizer(models.BPE(vocab, [(" ", "x")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    task = make_task(tokenizer=tokenizer, prompt_template="{question}: ")
    row = encode(task, {"question": ["A"], "answer": ["x"]})[0]
    assert row["input_ids"].tolist() == [2, 3, 6, 1]
    assert row["labels"].tolist() == [-100, -100, 6, 1]


CHATS = {
    "openai": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}],
    "two turns": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "So"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "unanswered"},
    ],
    "sharegpt": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "A"}],
    "columns": {"role": ["user", "assistant"], "content": ["Hi", "A"]},
}


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_chats_teach_the_last_answer(chat):
    task = make_task({"messages": "messages"}, supervise="last")
    row = encode(task, {"messages": [chat]})[0]
    assert supervised_text(task, row) == "A<eos>"
    text = task.processor.decode(row["input_ids"])
    assert text.startswith("<|user|>Hi<eos><|assistant|>")
    assert "unanswered" not in text


def test_every_answer_of_a_chat_is_supervised():
    task = make_task({"messages": "messages"})
    row = encode(task, {"messages": [[{"role": "system", "content": "S"}, *CHATS["two turns"]]]})[0]
    whole = "<|system|>S<eos><|user|>Hi<eos><|assistant|>no<eos><|user|>So<eos><|assistant|>A<eos>"
    assert task.processor.decode(row["input_ids"]) == whole
    runs = "".join("#" if label >= 0 else " " for label in row["labels"]).split()
    assert [len(run) for run in runs] == [3, 2]
    assert supervised_text(task, row) == "no<eos>A<eos>"
    text = task.processor.decode(row["input_ids"][row["labels"] == -100])
    assert text == whole.replace("no<eos>", "").replace("A<eos>", "")


def test_a_chat_that_is_too_long_loses_its_beginning():
    whole = encode(make_task({"messages": "messages"}), {"messages": [CHATS["two turns"]]})[0]
    short = len(whole["input_ids"]) - len("<|user|>Hi") - 1 - len("<|assistant|>") - 1  # "n" is gone, "o" is not
    row = encode(make_task({"messages": "messages"}, max_length=short), {"messages": [CHATS["two turns"]]})[0]
    assert len(row["input_ids"]) == short and (row["labels"] >= 0).sum() in (3, 4)
    kept = row["labels"] >= 0
    assert (row["labels"][kept] == row["input_ids"][kept]).all()
    assert row["labels"].tolist()[1:] == whole["labels"].tolist()[-short + 1 :]


def test_a_template_that_drops_turns_is_refused():
    last_only = "{% set m = messages[-1] %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>"
    task = make_task({"messages": "messages"}, tokenizer=make_tokenizer(chat_template=last_only))
    with pytest.raises(RowError, match="`supervise` last"):
        encode(task, {"messages": [CHATS["two turns"]]})


def test_chat_models_use_their_template():
    assert CausalLM(make_tokenizer(), PAIR).prompt_template == "chat"
    assert CausalLM(make_tokenizer(chat_template=None), PAIR).prompt_template == DEFAULT_TEMPLATE
    with pytest.raises(UserError, match="all or last"):
        make_task(supervise="first")


def test_conversational_prompt_and_completion():
    task = make_task({"question": "prompt", "answer": "completion"})
    prompt = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    rows = {"prompt": [prompt], "completion": [[{"role": "assistant", "content": "A"}]]}
    row = encode(task, rows)[0]
    assert task.processor.decode(row["input_ids"]) == "<|system|>S<eos><|user|>Hi<eos><|assistant|>A<eos>"
    assert supervised_text(task, row) == "A<eos>"


def test_plain_text_is_supervised_from_its_second_token():
    for bos in (True, False):
        task = make_task({"text": "text"}, tokenizer=make_tokenizer(bos=bos))
        row = encode(task, {"text": ["abc"]})[0]
        assert supervised_text(task, row) == ("abc" if bos else "bc")


def test_long_rows_lose_the_start_of_the_prompt_first():
    task = make_task(max_length=12)
    row = encode(task, {"question": ["where"], "answer": ["Turin"]})[0]
    assert task.processor.decode(row["input_ids"]) == "<bos>wer: Turin<eos>"
    assert len(row["input_ids"]) == 12
    assert row["input_ids"][0] == 1
    assert supervised_text(task, row) == "Turin<eos>"
    row = encode(task, {"question": ["where"], "answer": ["in the town of Turin"]})[0]
    assert supervised_text(task, row) == "in the town"
    assert len(row["input_ids"]) == 12
    task = make_task({"text": "text"}, max_length=4)
    row = encode(task, {"text": ["abcdef"]})[0]
    assert task.processor.decode(row["input_ids"]) == "<bos>abcdef" and row["part_length"] == 4
    task = make_task()
    task.prepare_model(make_model("gpt2"))
    assert task.max_length == 1024


def test_rows_that_cannot_be_learned_from():
    for columns, rows, reason in (
        (PAIR, {"question": ["a", "b"], "answer": ["c", ""]}, "it has no answer"),
        (PAIR, {"question": ["a", "b"], "answer": ["c", True]}, "its answer is a truth value and no text"),
        (PAIR, {"question": ["a", None], "answer": ["c", "d"]}, "it has no question"),
        ({"text": "text"}, {"text": ["abc", " "]}, "it has no text"),
        ({"messages": "m"}, {"m": [CHATS["openai"], CHATS["openai"][:1]]}, "no answer of the assistant"),
        ({"messages": "m"}, {"m": [CHATS["openai"], ["hello"]]}, "no role and content"),
        ({"messages": "m"}, {"m": [CHATS["openai"], None]}, "no role and content"),
    ):
        with pytest.raises(RowError, match=f"^row 1: .*{reason}"):
            encode(make_task(columns), rows)
    with pytest.raises(RowError, match="no token to learn from"):
        encode(make_task({"text": "text"}, tokenizer=make_tokenizer(bos=False)), {"text": ["a"]})


def test_columns():
    detect = CausalLM.detect_columns
    assert detect(["question", "answer", "paraphrased_answer"], None, {}) == PAIR
    assert detect(["prompt", "prompt_id", "messages"], None, {}) == {"messages": "messages"}
    assert detect(["Prompt", "completion"], None, {}) == {"question": "Prompt", "answer": "completion"}
    alpaca = {"question": "instruction", "answer": "output", "context": "input"}
    assert detect(["instruction", "input", "output", "text"], None, {}) == alpaca
    assert detect(["question", "answer", "text"], None, {"text": "text"}) == {"text": "text"}
    assert detect(["question", "answer", "short"], None, {"answer": "short"}) == PAIR | {"answer": "short"}
    assert (
        detect(["lyrics", "year"], Features({"lyrics": Value("string"), "year": Value("int64")}), {})["text"]
        == "lyrics"
    )
    with pytest.raises(UserError, match="no column found for 'answer': .*question, reply"):
        detect(["question", "reply"], None, {"question": "question"})
    with pytest.raises(UserError, match="'question' or 'messages' or 'text': name one of the data's columns, a, b"):
        detect(["a", "b"], None, {})


@pytest.mark.parametrize("name", CONFIGS)
def test_head_on_supervised_positions_is_the_full_forward(name):
    """Logits and the gradients of every parameter, in float64; and the head really sees these positions only."""
    model, task = make_model(name), make_task()
    batch = task.collate(encode(task, ROWS))
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda m, args, out: seen.append(out.shape[:-1].numel())
    )
    predictions = task.predict(model, batch)
    handle.remove()
    supervised = int((batch["labels"] != -100).sum())
    assert seen[-1] == supervised == len(predictions.logits)
    predictions.loss.sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()

    full = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    nll = F.cross_entropy(full.transpose(1, 2), labels, reduction="none")  # 0 where the label is -100
    (nll.sum(1) / (labels != -100).sum(1)).sum().backward()
    torch.testing.assert_close(predictions.logits, full[labels != -100], atol=1e-9, rtol=1e-9)
    tolerance = 1e-4 if name == "mamba" else 1e-9  # Mamba computes in float32 inside
    for n, p in model.named_parameters():
        torch.testing.assert_close(gradients[n], p.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_the_models_own_whatever_the_padding(name):
    model, task = make_model(name, torch.float32), make_task()
    features = encode(task, ROWS)
    with torch.no_grad():
        batch = task.collate(features)
        predictions = task.predict(model, batch)
        assert predictions.size == 3
        for i, row in enumerate(features):
            own = model(**task.collate([row])).loss
            torch.testing.assert_close(predictions.loss[i], own, atol=1e-5, rtol=1e-6)
        tokens = torch.bincount(predictions.example)
        mean = (predictions.loss * tokens).sum() / tokens.sum()
        torch.testing.assert_close(mean, model(**batch).loss, atol=1e-5, rtol=1e-6)
        assert task.embed(model, batch).shape == (3, 16)
        alone = task.embed(model, task.collate(features[:1]))
        torch.testing.assert_close(task.embed(model, batch)[:1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_forward_predicts_and_says_where_rows_lie(name):
    model, task = make_model(name, torch.float32).eval(), make_task()
    batch = task.collate(encode(task, ROWS))
    with torch.no_grad():
        predictions, place = task.predict(model, batch), task.embed(model, batch)
        forwards = []
        handle = model.register_forward_hook(lambda *_: forwards.append("model"))
        inner = model.base_model.register_forward_hook(lambda *_: forwards.append("backbone"))
        both, where = task.predict_and_embed(model, batch)
    assert sorted(forwards) == ["backbone", "model"]
    assert torch.equal(both.logits, predictions.logits) and torch.equal(where, place)
    handle.remove(), inner.remove()
    assert not model.base_model._forward_hooks


class NoBackbone(LlamaForCausalLM):
    """A model that names no backbone of its own."""

    base_model_prefix = ""


def test_a_model_without_a_backbone_is_run_twice():
    model, task = NoBackbone(make_model("llama", torch.float32).config).eval(), make_task()
    assert model.base_model is model
    batch = task.collate(encode(task, ROWS))
    _, place = task.predict_and_embed(model, batch)
    assert torch.equal(place, task.embed(model, batch)) and place.shape == (3, 16)


class PositionalHead(LlamaForCausalLM):
    """Its logits depend on where a position stands among those that the head sees."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        output.logits = output.logits + output.logits.cumsum(-2)
        return output


class ShapeHead(LlamaForCausalLM):
    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        output.logits = output.logits.view(*input_ids.shape, -1)
        return output


class NoHead(LlamaForCausalLM):
    def get_output_embeddings(self):
        return None


class TupleOutput(LlamaForCausalLM):
    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        return (super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs).logits,)


@pytest.mark.parametrize(
    ("model_class", "reason"),
    [
        (PositionalHead, "depends on the other"),
        (ShapeHead, "refuses"),
        (NoHead, "names no output"),
        (TupleOutput, None),
    ],
)
def test_strange_heads_fall_back_to_the_full_forward_once_and_say_so(model_class, reason, caplog):
    torch.manual_seed(0)
    model, task = model_class(copy.deepcopy(CONFIGS["llama"])).eval(), make_task()
    batch = task.collate(encode(task, ROWS))
    for _ in range(2):
        predictions = task.predict(model, batch)
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    full = output[0] if isinstance(output, tuple) else output.logits
    torch.testing.assert_close(predictions.logits, full[:, :-1][batch["labels"][:, 1:] != -100])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (reason is not None)
    assert not reason or reason in messages[0]


def test_the_comparison_leaves_no_trace():
    model, task = make_model("gpt2", torch.float32), make_task()
    model.train()
    model.transformer.h[0].eval()
    flags = [m.training for m in model.modules()]
    batch = task.collate(encode(task, ROWS))
    torch.manual_seed(7)
    first = task.predict(model, batch).logits  # dropout is active; compares before it
    torch.manual_seed(7)
    second = task.predict(model, batch).logits
    assert torch.equal(first, second)
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not model.lm_head._forward_pre_hooks
    assert not model.lm_head._forward_hooks


def test_the_hook_goes_when_the_forward_fails():
    model, task = make_model("llama", torch.float32), make_task()
    batch = task.collate(encode(task, ROWS))
    task.predict(model, batch)
    with pytest.raises(IndexError):
        task.predict(model, {**batch, "input_ids": batch["input_ids"] + V})
    assert not model.lm_head._forward_pre_hooks


def test_mixed_precision_and_checkpointing():
    model, task = make_model("llama", torch.float32), make_task()
    batch = task.collate(encode(task, ROWS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = task.predict(model, batch)
    assert supervised_head._AGREES[model]
    assert predictions.loss.dtype == torch.float32

    def gradients():
        model.zero_grad()
        task.predict(model, batch).loss.sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.train()
    model.gradient_checkpointing_enable()
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_under_ddp(tmp_path):
    """Logits, and the gradients that DDP reduces, are those of the bare model."""
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model, task = make_model("llama", torch.float32), make_task()
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        batch = task.collate(encode(task, ROWS))
        predictions = task.predict(wrapped, batch)
        assert supervised_head._AGREES[model]
        predictions.loss.sum().backward()
        reduced = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        bare = task.predict(model, batch)
        bare.loss.sum().backward()
        assert torch.equal(predictions.logits, bare.logits)
        for a, p in zip(reduced, model.parameters(), strict=True):
            torch.testing.assert_close(a, p.grad)
    finally:
        dist.destroy_process_group()


def test_tokenizer_of_a_folder(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    assert CausalLM.load_processor(str(tmp_path)).eos_token_id == 2
    with pytest.raises(UserError, match="no tokenizer at"):
        CausalLM.load_processor(str(tmp_path / "empty"))
