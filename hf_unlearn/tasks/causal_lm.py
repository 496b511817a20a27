"""Causal language models: questions and answers, prompts and completions, chats, or plain text."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.columns import check_overrides, find, missing, only_feature
from hf_unlearn.tasks.forward import model_inputs, pad
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_parts import OWNER, PART, in_parts
from hf_unlearn.tasks.supervised_head import supervised, supervised_logits
from hf_unlearn.tasks.tokenizing import check_vocabulary, fit_max_length, load_tokenizer, pad_token_id, text_of

MESSAGES = ("messages", "conversations", "conversation", "chat")
# (question, answer) pairs of columns, in the order they are looked for.
PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "response"),
    ("question", "response"),
    ("query", "response"),
)
TEXTS = ("text", "content", "document", "story", "passage", "article", "body")
DEFAULT_TEMPLATE = "Question: {question}\nAnswer: "
VERBATIM = "{question}"
CHAT = "chat"
# ShareGPT's names for the chat roles.
SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant"}


class CausalLM(Task):
    """Any model of `AutoModelForCausalLM`. The loss is on the answer only, its end token included.

    Args:
        processor, columns, label_names, max_length: see [`Task`]. Rows that are too long lose the start of their
            prompt first, and the end of their answer only if that is not enough. Running text loses nothing: it is
            read in parts of `max_length` tokens, and its figures are over all of them.
        prompt_template (`str`, *optional*): how a question becomes a prompt, with `{question}` in it, or `chat` to put
            question and answer through the tokenizer's chat template. By default `prompt` columns are taken as they
            are, and questions go through the chat template, or, without one, become `Question: …\\nAnswer: `.
        supervise (`str`): which answers of a chat the loss is on: `all` of the assistant's, or the `last`.
    """

    name: ClassVar[str] = "causal_lm"
    roles: ClassVar[tuple[str, ...]] = ("question", "answer", "context", "messages", "text")
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pipeline_tag: ClassVar[str] = "text-generation"
    example_input: ClassVar[str] = "A question?"
    accuracy_name: ClassVar[str] = "token accuracy"
    peft_task_type: ClassVar[str | None] = "CAUSAL_LM"
    has_classes: ClassVar[bool] = False
    has_prompts: ClassVar[bool] = True
    generates: ClassVar[bool] = True
    partly_read: ClassVar[dict[str, str]] = {
        "start": "are longer than {max_length} tokens: the start of their prompt is not read",
        "end": "are longer than {max_length} tokens: what follows is neither forgotten nor measured",
        "parts": "are longer than {max_length} tokens: they are read in parts, none of which sees the part before it",
        "turns": "have earlier answers of the assistant: only the last one is forgotten and measured",
    }
    wrong_labels: ClassVar[str] = "uniform"  # a token made likely is soon the most likely one

    def __init__(
        self,
        processor,
        columns: dict[str, str],
        label_names: list[str] | None = None,
        max_length: int | None = None,
        prompt_template: str | None = None,
        supervise: str = "all",
    ):
        super().__init__(processor, columns, label_names, max_length)
        if supervise not in ("all", "last"):
            raise UserError(f"supervise is '{supervise}'; it is all or last")
        if prompt_template is None:
            usual = CHAT if getattr(processor, "chat_template", None) else DEFAULT_TEMPLATE
            prompt_template = VERBATIM if columns.get("question") == "prompt" else usual
        fields = set(re.findall(r"\{(\w+)\}", prompt_template))
        if prompt_template != CHAT and "question" not in fields:
            raise UserError("`prompt_template` has no {question} in it: say where the question goes, or 'chat'")
        if other := sorted(fields - {"question"}):
            raise UserError(f"`prompt_template` has {{{other[0]}}} in it: {{question}} is the only field")
        if (prompt_template == CHAT or "messages" in columns) and not getattr(processor, "chat_template", None):
            raise UserError("the tokenizer has no chat template: give question and answer columns, or a chat model")
        self.prompt_template = prompt_template
        self.supervise = supervise

    @classmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        return load_tokenizer(name_or_path, **hub_kwargs)

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Roles: `messages`; or `question` and `answer` (and `context`, put after the question); or `text`."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        if "messages" in chosen or "text" in chosen:
            return chosen
        if "question" in chosen or "answer" in chosen:
            usual = {
                "question": find((q for q, _ in PAIRS), column_names),
                "answer": find((a for _, a in PAIRS), column_names),
            }
            for role in ("question", "answer"):
                if (chosen.get(role) or usual[role]) is None:
                    raise missing(role, column_names)
            return {role: name for role, name in (usual | chosen).items() if name is not None}
        if messages := find(MESSAGES, column_names):
            return {"messages": messages}
        for pair in PAIRS:
            question, answer = (find([name], column_names) for name in pair)
            if question and answer:
                columns = {"question": question, "answer": answer}
                # Alpaca's third column: what the instruction is to be carried out on.
                context = find(["input"], column_names) if pair[0] == "instruction" else None
                return columns | ({"context": context} if context else {}) | chosen
        text = find(TEXTS, column_names) or only_feature("string", features)
        if text is None:
            raise missing(("question", "messages", "text"), column_names)
        return {"text": text}

    def prepare_model(self, model: torch.nn.Module) -> None:
        super().prepare_model(model)
        check_vocabulary(self.processor)
        self.max_length = fit_max_length(self.processor, self.max_length, model)

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        count = range(len(positions))
        row = {role: rows[column] for role, column in self.columns.items()}
        if "text" in row:
            texts = [text_of(row["text"][i], positions[i], "text") for i in count]
            ids = self.processor(texts)["input_ids"]
            return [self._text_features(ids[i], positions[i]) for i in count]
        if "messages" in row:
            chats = [_chat(row["messages"][i], positions[i]) for i in count]
            prompts, wholes = self._chat_texts(chats, positions)
            earlier = [self._earlier_answers(*pair) for pair in zip(chats, wholes, positions, strict=True)]
            return self._encode_texts(prompts, wholes, positions, special=False, earlier=earlier)
        else:
            pairs = [self._question_answer(row, i, positions[i]) for i in count]
            if all(isinstance(question, str) for question, _ in pairs) and self.prompt_template != CHAT:
                return self._encode_pairs(pairs, positions)
            chats = [_pair_as_chat(*pairs[i], positions[i]) for i in count]
        prompts, wholes = self._chat_texts(chats, positions)
        return self._encode_texts(prompts, wholes, positions, special=False)

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels` (-100 where not supervised), `(batch, seq)`, padded right.

        Where texts are read in parts, `batch` is the number of parts, and `owner` `(batch,)` says whose they are.
        """
        sequences, owner = in_parts(features)
        batch = pad(sequences, {"input_ids": pad_token_id(self.processor), "labels": -100})
        return batch if len(sequences) == len(features) else batch | {OWNER: torch.tensor(owner)}

    def host_facts(self, batch: dict[str, torch.Tensor]) -> dict[str, list]:
        """`supervised`: tokens of each row that have a label and something to be told from."""
        if not batch:
            return {}
        counts = supervised(batch["labels"]).sum(1)
        if OWNER in batch:
            counts = counts.new_zeros(int(batch[OWNER][-1]) + 1).index_add(0, batch[OWNER], counts)
        return {"supervised": counts.tolist()}

    def predict(self, model: torch.nn.Module, batch: dict[str, Any]) -> Predictions:
        counts = (batch if "supervised" in batch else self.host_facts(batch))["supervised"]
        inputs = model_inputs(model, {key: value for key, value in batch.items() if key != "supervised"})
        logits, targets, example = supervised_logits(model, inputs, batch["labels"], counts)
        example = batch[OWNER][example] if OWNER in batch else example
        return Predictions(logits, targets, len(counts), example, counts)

    @property
    def has_answers(self) -> bool:
        return "answer" in self.columns or "messages" in self.columns

    def with_answers(self, rows: dict[str, list], answers: list[str]) -> dict[str, list]:
        """The answer's column, or the last message of the assistant, replaced."""
        if "messages" not in self.columns:
            return rows | {self.columns["answer"]: list(answers)}
        column = self.columns["messages"]
        chats = [_chat(chat, -1) for chat in rows[column]]
        replaced = [[*chat[:-1], {**chat[-1], "content": a}] for chat, a in zip(chats, answers, strict=True)]
        return rows | {column: replaced}

    def asked_again(self, rows: dict[str, list], instruction: str) -> dict[str, list]:
        """Raw columns of a few rows whose question is their own, followed by their answer and an `instruction`."""
        columns, count = self.columns, range(len(next(iter(rows.values()))))
        if "messages" in columns:
            chats = [_chat(chat, -1) for chat in rows[columns["messages"]]]
            return rows | {columns["messages"]: [_instructed(chat, instruction) for chat in chats]}
        pairs = [self._question_answer({role: rows[column] for role, column in columns.items()}, i, -1) for i in count]
        if all(isinstance(part, str) for pair in pairs for part in pair):
            asked = {columns["question"]: [f"{question}\n{answer}\n\n{instruction}" for question, answer in pairs]}
            return rows | asked | ({columns["context"]: [None] * len(count)} if "context" in columns else {})
        chats = [_instructed(_pair_as_chat(*pair, -1), instruction) for pair in pairs]
        return rows | {
            columns["question"]: [chat[:-1] for chat in chats],
            columns["answer"]: [chat[-1:] for chat in chats],
        }

    def token_mask(self, batch: dict[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        return batch["labels"] != -100

    def _question_answer(self, row: dict[str, list], i: int, position: int) -> tuple[Any, Any]:
        question, answer = row["question"][i], row["answer"][i]
        if isinstance(question, list) or isinstance(answer, list):
            return question, answer
        if not isinstance(question, str):
            raise RowError(position, "it has no question")
        context = row["context"][i] if "context" in row else None
        if isinstance(context, str) and context.strip():
            question = f"{question}\n{context}"
        return question, text_of(answer, position, "answer")

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]], positions: list[int]) -> list[dict[str, Any]]:
        prompts = [self.prompt_template.replace("{question}", question) for question, _ in pairs]
        wholes = [prompt + answer for prompt, (_, answer) in zip(prompts, pairs, strict=True)]
        return self._encode_texts(prompts, wholes, positions, special=True)

    def _chat_texts(self, chats: list[list[dict]], positions: list[int]) -> tuple[list[str], list[str]]:
        for chat, position in zip(chats, positions, strict=True):
            if any(message["role"] == "assistant" for message in chat[:-1]):
                self.left_out["turns"].add(position)
        prompts, wholes = [], []
        render = self.processor.apply_chat_template
        for chat, position in zip(chats, positions, strict=True):
            try:
                prompts.append(render(chat[:-1], tokenize=False, add_generation_prompt=True) if chat[:-1] else "")
                wholes.append(render(chat, tokenize=False))
            except Exception as error:  # templates refuse chats with errors of their own
                raise RowError(position, "the chat template refuses its messages") from error
        return prompts, wholes

    def _earlier_answers(self, chat: list[dict], whole: str, position: int) -> list[tuple[int, int]]:
        """Where the answers before the last one stand among the tokens of `whole`, if they are supervised.

        Raises `RowError` where the template does not write a chat as the continuation of its beginning.
        """
        turns = [k for k, message in enumerate(chat[:-1]) if message["role"] == "assistant"]
        if self.supervise == "last" or not turns:
            return []
        prompts, ends = self._chat_texts([chat[: k + 1] for k in turns], [position] * len(turns))
        if not all(whole.startswith(end) for end in ends):
            raise RowError(position, "the chat template rewrites or drops earlier answers: use `supervise` last")
        ids = self.processor([whole, *prompts, *ends], add_special_tokens=False)["input_ids"]
        shared = [_shared(ids[0], part) for part in ids[1:]]
        return list(zip(shared[: len(turns)], shared[len(turns) :], strict=True))

    def _encode_texts(
        self,
        prompts: list[str],
        wholes: list[str],
        positions: list[int],
        special: bool,
        earlier: list[list[tuple[int, int]]] | None = None,
    ) -> list[dict[str, Any]]:
        """Prompt and answer are tokenized together, as the model will read them.

        What the whole shares with the prompt alone is prompt; a token across the border belongs to the answer.
        `special` adds the tokenizer's own begin and end tokens, which chat templates bring themselves. `earlier` has
        the places of each row's supervised tokens before the last answer.
        """
        prompt_ids = self.processor(prompts, add_special_tokens=special)["input_ids"]
        whole_ids = self.processor(wholes, add_special_tokens=special)["input_ids"]
        end = self.processor.eos_token_id
        features = []
        earlier = earlier or [[]] * len(wholes)
        for prompt, whole, spans, position in zip(prompt_ids, whole_ids, earlier, positions, strict=True):
            if special and end is not None and whole[-1:] != [end]:
                whole = [*whole, end]
            features.append(self._features(whole, _shared(prompt, whole), position, spans))
        return features

    def _text_features(self, ids: list[int], position: int) -> dict[str, Any]:
        """Tensors of running text: all of it, and where it is long the length of its parts."""
        if not self.max_length or len(ids) <= self.max_length:
            return self._features(ids, 1, position)
        self.left_out["parts"].add(position)
        input_ids = torch.tensor(ids)
        labels = input_ids.clone()
        labels[0] = -100  # it has nothing to be told from
        mask = torch.ones_like(input_ids)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels, PART: max(self.max_length, 2)}

    def _features(
        self, ids: list[int], start: int, position: int, earlier: Sequence[tuple[int, int]] = ()
    ) -> dict[str, torch.Tensor]:
        """Tensors of a row whose supervised tokens are those from `start` on (the first token has nothing to be told
        from) and those of the `earlier` spans."""
        cut, start = 0, max(start, 1)
        if self.max_length and len(ids) > self.max_length:
            self.left_out["end" if len(ids) - start >= self.max_length else "start"].add(position)
            before = start
            ids, start = self._shorten(ids, start)
            cut = before - start
        if len(ids) <= start:
            raise RowError(position, "it has no token to learn from")
        input_ids = torch.tensor(ids)
        labels = input_ids.clone()
        labels[:start] = -100
        for first, end in earlier:
            kept = slice(max(first - cut, 1), max(end - cut, 1))
            labels[kept] = input_ids[kept]
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}

    def _shorten(self, ids: list[int], start: int) -> tuple[list[int], int]:
        prompt, answer = ids[:start], ids[start:]
        longest = self.max_length or len(ids)
        room = max(longest - len(answer), 1)
        if prompt[0] == self.processor.bos_token_id and room > 1:
            prompt = prompt[:1] + (prompt[1:][-(room - 1) :])
        else:
            prompt = prompt[-room:]
        return (prompt + answer)[:longest], len(prompt)


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _chat(value: Any, position: int) -> list[dict[str, str]]:
    """Messages up to the last one of the assistant, as `role` and `content`. Raises `RowError`."""
    if isinstance(value, dict):  # a column of lists, as older data sets store messages
        value = [dict(zip(value, items, strict=False)) for items in zip(*value.values(), strict=False)]
    try:
        chat = [
            {**{k: v for k, v in m.items() if k not in ("from", "value")}, "role": role, "content": content}
            for m in value
            for role, content in [(m["role"], m["content"]) if "role" in m else (m["from"], m["value"])]
        ]
    except (TypeError, KeyError, AttributeError):
        raise RowError(position, "its messages have no role and content") from None
    for message in chat:
        message["role"] = SPEAKERS.get(message["role"], message["role"])
    while chat and chat[-1]["role"] != "assistant":
        chat.pop()
    if not chat:
        raise RowError(position, "its messages have no answer of the assistant")
    text_of(chat[-1]["content"], position, "answer")
    return chat


def _instructed(chat: list[dict[str, str]], instruction: str) -> list[dict[str, str]]:
    """The chat with its last answer and an instruction at the end of the message before that answer."""
    *earlier, asked, answer = chat if len(chat) > 1 else [{"role": "user", "content": ""}, *chat]
    return [*earlier, {**asked, "content": f"{asked['content']}\n{answer['content']}\n\n{instruction}"}, answer]


def _pair_as_chat(question: Any, answer: Any, position: int) -> list[dict[str, str]]:
    """A chat from two texts, or from two lists of messages (TRL's conversational prompts and completions)."""
    question = [{"role": "user", "content": question}] if isinstance(question, str) else question
    answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    if not isinstance(question, list) or not isinstance(answer, list):
        raise RowError(position, "it has no question and answer")
    return _chat(question + answer, position)
