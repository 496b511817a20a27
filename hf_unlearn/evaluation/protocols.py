"""How models are fine-tuned when they are tried on what they forgot: the published ways by name, and our own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One way: plain AdamW without decay, at a constant rate.

    Args:
        name: of the protocol.
        steps: of every fine-tuning.
        batch_size: rows per step.
        learning_rate: published; `None` takes the recipe's, halved until the original survives it.
        marks: steps after which the curve is measured; the last is the last step.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float | None
    marks: tuple[int, ...]


PROTOCOLS = {
    "ours": Protocol("ours", 20, 32, None, (1, 2, 5, 10, 20)),
    "wmdp": Protocol("wmdp", 15, 32, 1e-5, (1, 2, 5, 10, 15)),  # its batch is not published: ours
    "muse": Protocol("muse", 150, 4, 1e-5, (1, 5, 20, 50, 100, 150)),
}
