"""The weights that a library stores, in place of those that it trains: of raw tokens, not of mapped ones."""

from typing import Any

import torch
from torch import Tensor, nn

from autopsae.remedies.affine import Affine

_ENCODERS, _DECODERS = ("encoder.weight", "W_enc"), ("decoder.weight", "W_dec")
_CENTERS = ("b_dec", "bias", "decoder_bias", "decoder.bias")
_BIASES = ("encoder.bias", "b_enc", "gate_bias", "mag_bias")


def store_for_raw_tokens(module: nn.Module, affine: Affine, *, centers: bool = True) -> None:
    """Let `module`, an SAE that is trained on affine(x), store and load weights for raw tokens x: what
    `state_dict()` gives and `load_state_dict()` takes.

    Codes become those of mapped tokens divided by affine.scale, so the rows of a decoder stay as long as they are
    unless there is a whitening. centers: whether the encoder subtracts the bias of the decoder.
    """
    d_in = len(affine.center)
    backwards = Affine(
        center=affine(torch.zeros(1, d_in, dtype=torch.float64, device="cpu"))[0],
        linear=affine.inverse,
        inverse=affine.linear,
        scale=1 / affine.scale,
    )

    def to_raw(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
        _pass_through(state, prefix, affine, centers=centers)

    def from_raw(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
        _pass_through(state, prefix, backwards, centers=centers)

    module.register_state_dict_post_hook(to_raw)
    module.register_load_state_dict_pre_hook(from_raw)


@torch.no_grad()
def _pass_through(state: dict[str, Tensor], prefix: str, affine: Affine, *, centers: bool) -> None:
    """The weights of an SAE of tokens affine(x) become those of one of tokens x, in place, each in its type.

    With y = s A (x - c): W (y - b) = s W A (x - c - A^-1 b / s), and codes are divided by s.
    """

    def change(name: str, new: Tensor) -> None:
        state[prefix + name] = new.to(state[prefix + name])

    def tensors_of(names: tuple[str, ...]) -> list[tuple[str, Tensor]]:
        return [(name, state[prefix + name].double()) for name in names if prefix + name in state]

    (encoder, W_enc), (decoder, W_dec), (bias, b_dec) = (tensors_of(n)[0] for n in (_ENCODERS, _DECODERS, _CENTERS))
    rows = _rows(encoder, W_enc)
    if affine.linear is not None and affine.inverse is not None:
        rows = rows @ affine.linear.to(W_enc)
        change(encoder, _rows(encoder, rows))
        back = affine.inverse.to(W_dec)
        change(decoder, back @ W_dec if decoder == "decoder.weight" else W_dec @ back.T)
    change(bias, affine.invert(b_dec[None])[0])
    for name, values in tensors_of(_BIASES):
        # An encoder that subtracts no bias gets the centre into a bias of its own.
        shift = 0 if centers else rows @ affine.center.to(rows)
        change(name, values / affine.scale - shift)
    for name, values in tensors_of(("threshold",)):
        change(name, torch.where(values < 0, values, values / affine.scale))  # -1: none is learned yet


def _rows(name: str, W: Tensor) -> Tensor:
    """A matrix W_enc is [d_in, d_sae], the weight of a Linear layer [d_sae, d_in]; the same way back."""
    return W.T if name == "W_enc" else W
