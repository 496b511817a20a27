"""Rows of a few tokens each, and a task and a model that read them: what a language model leaves, without one."""

import torch

from hf_unlearn.tasks.predictions import Predictions


class TokenRows:
    """Rows of one to four tokens each."""

    def __init__(self, size):
        generator = torch.Generator().manual_seed(1)
        lengths = [1 + i % 4 for i in range(size)]
        self.rows = [
            {"x": torch.randn(n, 4, generator=generator), "y": torch.randint(0, 6, (n,), generator=generator)}
            for n in lengths
        ]

    def __len__(self):
        return len(self.rows)

    def __getitems__(self, batch):
        return [self.rows[i] for i in batch]


class TokenTask:
    arrays = ()

    def __init__(self):
        self.forwards = 0

    def collate(self, features):
        example = torch.cat([torch.full((len(row["y"]),), i) for i, row in enumerate(features)])
        x, y = (torch.cat([row[key] for row in features]) for key in ("x", "y"))
        return {"x": x, "y": y, "example": example, "size": torch.tensor(len(features))}

    def predict(self, model, batch):
        self.forwards += int(batch["size"])
        return Predictions(model(batch["x"]), batch["y"], int(batch["size"]), batch["example"])


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 6))
