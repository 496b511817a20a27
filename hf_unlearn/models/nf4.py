"""NF4 in plain torch: weights as four bits would hold them (Dettmers et al., QLoRA, arXiv 2305.14314).

Each block of 64 weights is divided by its largest absolute value, and every weight becomes the nearest of 16 levels,
which are quantiles of a normal distribution. What comes back is what four-bit layers compute with: the constants of
the blocks stay in float32 here, where QLoRA may quantize them once more.
"""

import torch

BLOCK = 64
# As published (QLoRA, appendix E) and as bitsandbytes has them.
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@torch.no_grad()
def nf4_rounded(weight: torch.Tensor, block: int = BLOCK) -> torch.Tensor:
    """`weight` rounded to NF4 and back, in its own shape and type.

    Args:
        weight: of a linear layer, `(out, in)`; blocks run along its rows, over their ends; the last may be shorter.
        block: weights that share a constant.
    """
    flat = weight.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(LEVELS, device=flat.device)
    between = (levels[1:] + levels[:-1]) / 2
    nearest = torch.bucketize(blocks / largest.clamp(min=torch.finfo(torch.float32).tiny), between)
    return (levels[nearest] * largest).flatten()[: len(flat)].view_as(weight).to(weight.dtype)
