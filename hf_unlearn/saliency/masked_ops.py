"""In-place arithmetic that touches only the selected weights of a tensor, and is exact on the others.

A mask multiplied onto a tensor is not exact: 0 · inf is NaN, and -0.0 + 0.0 is 0.0. These functions work on the bits.
They take `keep`, the mask as int8 with all bits set (-1) for a selected weight and 0 for any other. Widened to the
tensor's own width it is a bit mask, which a CPU applies 7 times faster than `masked_fill_`.
"""

from collections.abc import Iterator

import torch

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = (
    1 << 17
)  # elements; what is widened stays in the CPU's cache, and no second tensor of the weight's size is made


def keep_bits(mask: torch.Tensor) -> torch.Tensor:
    """A boolean mask as int8: -1 where it is true, 0 elsewhere; the same shape, one byte a weight."""
    return mask.to(torch.int8).neg_()


def zero_outside_(tensor: torch.Tensor, keep: torch.Tensor, negative: bool = False) -> None:
    """Set `tensor` to exactly 0 where `keep` is 0, whatever stood there (inf and NaN too).

    Args:
        tensor, keep: of one shape.
        negative (`bool`): set it to -0.0 instead.
    """
    for part, bits in _pieces(tensor, keep):
        _zero(part, bits, negative)


def add_inside_(
    tensor: torch.Tensor, keep: torch.Tensor, other: torch.Tensor, alpha: float, negative: bool = False
) -> None:
    """`tensor += alpha · other` where `keep` is -1, and exactly 0 (or -0.0) elsewhere; rounds as `Tensor.add` does."""
    for part, bits, addend in _pieces(tensor, keep, other):
        part.add_(addend, alpha=alpha)
        _zero(part, bits, negative)


def scale_inside_(tensor: torch.Tensor, keep: torch.Tensor, factor: float) -> None:
    """`tensor *= factor` where `keep` is -1, bit-identical elsewhere; rounds as `Tensor.mul_(factor)` does."""
    # A number times a 16-bit tensor is computed in 32 bits, so the factors may not be rounded to 16 either.
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    one = torch.ones((), dtype=dtype, device=tensor.device)
    drop = float(1 - torch.tensor(factor, dtype=dtype))  # exact for a factor from 0.5 to 2, and so is 1 - drop
    for part, bits in _pieces(tensor, keep):
        factors = bits.to(dtype)
        torch.add(one, factors, alpha=drop, out=factors)  # 1 - drop where selected, 1 elsewhere
        part.mul_(factors)


def fill_outside_(codes: torch.Tensor, keep: torch.Tensor, code: int) -> None:
    """Set 8-bit `codes` (uint8) to `code` where `keep` is 0."""
    codes.bitwise_xor_(code).bitwise_and_(keep.view(torch.uint8)).bitwise_xor_(code)


def _zero(part: torch.Tensor, bits: torch.Tensor, negative: bool) -> None:
    if negative:
        part.neg_()
    part.view(_INTEGERS[part.element_size()]).bitwise_and_(bits)
    if negative:
        part.neg_()


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The tensors side by side in chunks, as views; whole on an accelerator, or where they are not contiguous."""
    if tensors[0].device.type == "cpu" and all(t.is_contiguous() for t in tensors):
        return zip(*(t.view(-1).split(_CHUNK) for t in tensors), strict=True)
    return iter([tensors])
