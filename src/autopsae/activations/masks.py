"""Masks: which tokens of a batch are kept, and whose they are where a model reads two sequences.

A mask is bool or 0/1, has one entry for each token, and keeps the tokens where it is True or 1. Nothing else is
read as one: an additive mask (0 keeps, -1e9 hides) would keep exactly the padding. A bool mask in which True is
padding, as PyTorch's `key_padding_mask`, cannot be told from one in which True is a token: pass its opposite.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from autopsae.activations.batches import is_plain, parts_of, row_count
from autopsae.activations.sources import one_line
from autopsae.arrays import InputError

_DECODER = "decoder_"
_OF_THE_ENCODER = re.compile(
    # A module under the encoder, a hidden state (see `hooks`), what leads from the encoder to the decoder, and the
    # keys and values of the decoder's attention to the encoder.
    r"((?!decoder\b)\w+\.)*encoder(\..*)?|hs\d+|(.*\.)?enc_to_dec_proj"
    r"|.*\b(EncDecAttention|encoder_attn|cross_?attn|crossattention)\.(.*\.)?(k|v|k_proj|v_proj|key|value)"
)


def is_encoder_decoder(model: nn.Module, batch: Any) -> bool:
    """Whether the model reads two sequences: its configuration says so, or the batch has names `decoder_*`."""
    configs = (getattr(module, "config", None) for module in model.modules())
    said = any(getattr(config, "is_encoder_decoder", False) is True for config in configs)
    return said or any(name.startswith(_DECODER) for name in parts_of(batch))


def side_of(model: nn.Module, points: Sequence[str], batch: Any) -> str:
    """Whose tokens the points see: "decoder_" for the decoder's in an encoder-decoder model, "" for all others.

    It begins the batch's names of what belongs to these tokens: `decoder_attention_mask`, `decoder_input_ids`. It
    goes by the points' names, because the two sequences may happen to have the same length.

    Raises InputError for points of both sides, and where the batch does not say whose the attention mask is.
    """
    inside = {point: bool(_OF_THE_ENCODER.fullmatch(point.removesuffix(":input"))) for point in points}
    sure = is_encoder_decoder(model, batch)
    if all(inside.values()) or not (sure or _two_sequences(model, batch)):
        return ""
    outside = next(point for point, within in inside.items() if not within)
    if not sure:
        raise InputError(
            f"attention_mask: expected to know whether it is the mask of {outside}, as the model has an encoder "
            "and a decoder and the batch two sequences; call the decoder's sequence decoder_input_ids and its mask "
            "decoder_attention_mask"
        )
    if any(inside.values()):
        encoder = next(point for point, within in inside.items() if within)
        raise InputError(
            f"points: expected tokens of one sequence, got {encoder} of the encoder's and {outside} of the "
            "decoder's; harvest the two in two folders"
        )
    return _DECODER


def _two_sequences(model: nn.Module, batch: Any) -> bool:
    pairs = ({name for name, _ in module.named_children()} for module in model.modules())
    parts = parts_of(batch)
    sequences = [
        name
        for name, value in parts.items()
        if isinstance(value, Tensor) and value.ndim > 1 and "mask" not in name and not name.startswith("token.")
    ]
    return (
        "attention_mask" in parts and len(sequences) > 1 and any({"encoder", "decoder"} <= pair for pair in pairs)
    )


def keep_mask(
    batch: Any, keep: Callable[[Any], Any] | None, shape: torch.Size, side: str = ""
) -> Bool[Tensor, "*batch"]:
    """Where both the batch's attention mask and `keep(batch)` keep a token; everywhere without either.

    shape: that of the tokens at the points, [rows, positions] or [tokens]. A network that puts all positions of all
    rows into one list may be given masks [rows, positions]. side: what `side_of` says.

    Raises InputError as `as_mask`, and where the batch tells of padding but not of which of these tokens are some.
    """
    parts = parts_of(batch)
    name = f"{side}attention_mask"
    shape = _rows_and_positions(batch, [name, f"{side}input_ids"], shape)
    masks = [] if parts.get(name) is None else [as_mask(name, parts[name], shape)]
    masks += [] if keep is None else [as_mask("keep", _from_keep(keep, batch), shape)]
    if not masks:
        _check_no_padding_is_told(parts, side)
    return torch.stack([torch.ones(shape, dtype=torch.bool, device="cpu"), *masks]).all(dim=0)


def keep_first(mask: Bool[Tensor, "*batch"], tokens: int) -> Bool[Tensor, "*batch"]:
    """Of the tokens that a mask keeps, at most so many: the first ones."""
    return mask & (mask.flatten().cumsum(0) <= tokens).view_as(mask)


def _from_keep(keep: Callable[[Any], Any], batch: Any) -> Any:
    try:
        return keep(batch)
    except Exception as error:
        raise InputError(
            f"keep: expected a mask of the batch, it raised {one_line(error)}; mend the function"
        ) from error


def as_mask(name: str, given: Any, shape: torch.Size) -> Bool[Tensor, "*batch"]:
    """A mask of tokens, on the CPU: bool, or 0 and 1 in any type, one entry per token; it keeps where it is 1.

    Raises InputError that names the mask, for another shape, for other values (additive masks, token numbers) and
    for what is no plain tensor (nested, sparse, an array, a list).
    """
    if not isinstance(given, Tensor) or not is_plain(given):
        got = f"a {type(given).__name__}" if not isinstance(given, Tensor) else f"one of layout {given.layout}"
        raise InputError(f"{name}: expected a mask that is a plain tensor, got {got}; pass a padded bool tensor")
    if given.shape != shape:
        raise InputError(
            f"{name}: expected a mask of the tokens' shape {tuple(shape)}, got {tuple(given.shape)}; pass one "
            "entry for each token that the point sees"
        )
    mask = given.detach().cpu()
    other = mask[~((mask == 0) | (mask == 1))] if mask.dtype != torch.bool else mask[:0]
    if other.numel():
        raise InputError(
            f"{name}: expected a mask of bool or 0/1, in which 1 keeps a token, got {other[0].item():g}; for an "
            "additive mask, in which 0 keeps, pass mask == 0"
        )
    return mask.bool()


def _rows_and_positions(batch: Any, names: Sequence[str], shape: torch.Size) -> torch.Size:
    """The shape [rows, positions] of the batch's tokens where the network has put them into one list."""
    given = (value for name, value in parts_of(batch).items() if name in names and isinstance(value, Tensor))
    grids = (value.shape for value in given if value.ndim == 2 and len(value) == row_count(batch))
    same = (grid for grid in grids if len(shape) == 1 and grid.numel() == shape.numel())
    return next(same, shape)


def _check_no_padding_is_told(parts: Mapping[str, Any], side: str) -> None:
    """InputError where all tokens would be kept though the batch says that there is padding among them."""
    padding = next((name for name, value in parts.items() if "padding_mask" in name and value is not None), None)
    if padding is not None:
        raise InputError(
            f"{padding}: expected the mask as attention_mask or from keep, as True may be padding here; where it "
            f"is, pass keep=lambda batch: ~batch[{padding!r}]"
        )
    told = parts.get("attention_mask") is not None
    if side and told and not {f"{side}input_ids", f"{side}inputs_embeds"} & parts.keys():
        raise InputError(
            f"{side}attention_mask: expected the mask of the decoder's tokens, got only attention_mask, which is "
            f"the encoder's; pass {side}input_ids, and {side}attention_mask where they are padded"
        )
