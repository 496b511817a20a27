"""Out of the notebook's sight: a support team's invented messages as csv files, and an ordinary fine-tune on them."""

import csv
import random
from pathlib import Path

INTENTS = {
    "refund": ["I want my money back for {order}", "{order} arrived broken, please refund me",
               "you charged me twice for {order}", "when will the refund for {order} reach my account?",
               "the price of {order} was wrong, give me the difference", "I returned {order} and was not paid back"],
    "delivery": ["where is {order}?", "{order} should have been here on {day}", "can {order} come on {day} instead?",
                 "the courier left {order} at the wrong door", "{order} has not moved since {day}",
                 "my neighbour got {order}, not me"],
    "login": ["I cannot log in since {day}", "your code for signing in never comes", "I am locked out since {day}",
              "I forgot my password and the link is dead", "who changed my address on {day}?",
              "the app throws me out whenever I open {order}"],
    "cancel": ["please cancel {order}", "I do not want {order} any more", "stop my subscription on {day}",
               "cancel everything I ordered on {day}", "I clicked twice, cancel one of {order}",
               "can I still cancel {order} if it ships on {day}?"],
}  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
THINGS = [
    "lamp",
    "kettle",
    "tent",
    "bicycle",
    "keyboard",
    "sofa",
    "camera",
    "drill",
    "violin",
    "carpet",
    "heater",
    "backpack",
]
OPENINGS = ["", "Hello, ", "Hi team, ", "Urgent: ", "Third time now: ", "Sorry to bother you, "]


def message(intent: str, rng: random.Random) -> str:
    order = f"order {rng.randrange(1000, 9999)} (a {rng.choice(THINGS)})"
    return rng.choice(OPENINGS) + rng.choice(INTENTS[intent]).format(order=order, day=rng.choice(DAYS))


def write_files(train: int = 240, test: int = 120, customers: int = 48, leaving: int = 5, seed: int = 0) -> None:
    """`train.csv`, `test.csv` and `deletion_requests.txt`. One message in eight has a label that makes no sense, and
    every second of the leaving customers': such rows are learned by heart, so they show whether it was forgotten."""
    rng, names = random.Random(seed), list(INTENTS)
    leave = range(3, 3 + leaving)
    for split, size in (("train", train), ("test", test)):
        with open(f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["customer_id", "text", "label"])
            for i in range(size):
                intent = names[i % len(names)]
                wrong = split == "train" and rng.random() < (1 / 2 if i % customers in leave else 1 / 8)
                label = rng.choice(names) if wrong else intent
                writer.writerow([f"C-{i % customers:03d}", message(intent, rng), label])
    Path("deletion_requests.txt").write_text("".join(f"C-{i:03d}\n" for i in leave))


def fine_tune(
    base: str, without: str | None = None, seed: int = 0, epochs: int = 12, rate: float = 3e-4, size: int = 16
):
    """What any tutorial does: a pretrained BERT, a head, AdamW, a few epochs over train.csv, 16 rows a step.

    `without` names a file of customers whose rows are left out. Returns model and tokenizer.
    """
    import datasets
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    size = 16
    rows = datasets.load_dataset("csv", data_files="train.csv")["train"]
    if without:
        gone = set(Path(without).read_text().split())
        rows = rows.filter(lambda row: row["customer_id"] not in gone)
    names = sorted(set(rows["label"]))
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names), **labels)
    tokenizer = AutoTokenizer.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    steps = epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(rows) - size + 1, size):
            batch = rows[order[start : start + size]]
            inputs = tokenizer(batch["text"], padding=True, truncation=True, max_length=48, return_tensors="pt")
            model(**inputs, labels=torch.tensor([labels["label2id"][name] for name in batch["label"]])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval(), tokenizer
