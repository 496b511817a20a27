"""Back to the last state that validation rows call sound, where a run has ended in one that they do not."""

from collections.abc import Iterator

import numpy as np
import torch

from hf_unlearn.saliency.shards import is_spread
from hf_unlearn.trainers.measuring import Measuring

WORSE = 2.0  # standard errors of a mean difference, row by row, from which it is no chance
LOST = 0.05  # of accuracy; as much may lie between a small fine-tune and its own twins, by their seeds alone
KEPT, AT = "kept/weights/", "kept/step"  # the copy among the tensors of a checkpoint, and the step that it is of
LOSSES, RIGHT = "kept/losses", "kept/right"  # of validation rows, of the best state so far


class Restoring(Measuring):
    """Gives a trainer [`note_state`], to be called at some steps with what the model says of validation rows.

    A copy of the trained weights (of an adapter: of the adapter alone) is kept of the last state that was not damaged.
    Where the end is damaged the model gets it back, which the notes and the log say. The copy lies in the host's
    memory and in checkpoints, and is there only after the proxies are gone, which took more. Where FSDP or ZeRO-3 has
    spread the weights no copy is kept, and a note says that the model is damaged.

    A state is damaged where validation rows lose accuracy, by more than five points, and their loss is higher by more
    than chance, row by row, than in the best state so far. What fewer training rows cost does not count: with a share
    f of them gone, losses and errors may be as much higher as 1/(1 − f) says. A removed class and wrong labels that go
    make validation better, if anything.
    """

    @property
    def keeps_states(self) -> bool:
        """Whether there will be a state to go back to."""
        return not (self.is_fsdp_enabled or self.zero_stage == 3 or is_spread(self.model))

    def look_at_validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Losses in nats and whether the answer is right, of validation rows under the current model, both `(rows,)`.
        The same rows each time."""
        raise NotImplementedError

    def kept_bytes(self) -> int:
        """Size of the copy."""
        return sum(p.numel() * p.element_size() for _, p in self._trained()) if self.keeps_states else 0

    def note_state(self) -> None:
        """Keep the state that the model is in, unless it is damaged."""
        losses, right = self.look_at_validation()
        state = self.method_state
        if LOSSES not in state or losses.mean() < state[LOSSES].numpy().mean():
            state |= {LOSSES: torch.tensor(losses), RIGHT: torch.tensor(right)}
        if self.keeps_states and not self._damaged(losses, right):
            state[AT] = torch.tensor(self.state.global_step)
            for name, value in self._trained():
                state[KEPT + name] = value.detach().to("cpu", copy=True)

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        if LOSSES in self.method_state:
            losses, right = self.look_at_validation()
            if self._damaged(losses, right):
                self._set_back(float(np.mean(right)))
            for key in [key for key in self.method_state if key.startswith(KEPT)]:
                del self.method_state[key]
        return output

    def _damaged(self, losses: np.ndarray, right: np.ndarray) -> bool:
        best, was_right = self.method_state[LOSSES].numpy(), self.method_state[RIGHT].numpy()
        gone = len(self.splits.forget) / max(1, len(self.splits.retain))  # 1/(1 − f) = 1 + gone
        lost = was_right.mean() - right.mean() - gone * (1 - was_right.mean())
        return bool(lost > LOST) and is_worse(losses, best * (1 + gone))

    @torch.no_grad()
    def _set_back(self, ended: float) -> None:
        """To the copy, if there is one. `ended`: accuracy on the validation rows at the end."""
        state = self.method_state
        best = float(state[RIGHT].numpy().mean())
        why = f"validation rows had {100 * ended:.0f} % right at the end, for {100 * best:.0f} % in the best state"
        if AT not in state:
            self.notes.append(f"The run damaged the model ({why}). A lower rate may help.")
            return
        step = int(state[AT])
        for name, value in self._trained():
            value.copy_(state[KEPT + name])
        back = f"step {step:,} of {self.state.global_step:,}" if step else "the original, so nothing is forgotten"
        self.notes.append(f"The run damaged the model ({why}): it was set back to {back}. A lower rate may help.")
        self.log({"set_back_to_step": step})

    def _trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What steps change: trained weights, and statistics of layers that gather some."""
        model = self.accelerator.unwrap_model(self.model)
        yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        if not self.args.disable_dropout:
            yield from model.named_buffers()


def is_worse(losses: np.ndarray, best: np.ndarray) -> bool:
    """Whether a model's losses on rows are above those of an earlier one, by more than chance: both `(rows,)`."""
    difference = losses - best
    return bool(difference.mean() > WORSE * difference.std() / len(difference) ** 0.5)
