"""Laws of masks: bool or 0/1 of the tokens that the point sees, or an error that names the mask."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from autopsae.activations.harvest import harvest
from autopsae.activations.hooks import hooked
from autopsae.activations.masks import as_mask, keep_mask, side_of
from autopsae.activations.store import open_layers
from autopsae.arrays import InputError
from autopsae.evaluation.loss_recovered import loss_recovered

IDS = torch.randint(3, 60, (4, 10), generator=torch.Generator().manual_seed(0))
REAL = torch.arange(10) < torch.tensor([10, 6, 10, 8])[:, None]


class Embedder(nn.Module):
    """Token ids to vectors; `flat` sees all positions of all rows in one list, `turned` sees [positions, rows]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Embedding(64, 16)
        self.flat, self.turned = nn.Identity(), nn.Identity()

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        x: Tensor = self.inner(input_ids)
        self.flat(x.flatten(0, 1))
        self.turned(x.transpose(0, 1))
        return x


def harvested(folder: Path, batch: dict[str, Any], point: str = "inner", **asked: Any) -> Tensor:
    return torch.cat(list(harvest(Embedder(), [batch], folder, points=[point], **asked)[point]))


# What a mask is


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]
)
def test_bool_and_0_and_1_of_any_type_keep_where_they_are_1(dtype: torch.dtype, tmp_path: Path) -> None:
    assert torch.equal(as_mask("keep", REAL.to(dtype), REAL.shape), REAL)
    kept = harvested(tmp_path, {"input_ids": IDS, "attention_mask": REAL.to(dtype)})
    assert torch.equal(kept, Embedder().inner(IDS)[REAL])


@pytest.mark.parametrize("value", [-1e9, -math.inf, math.nan, torch.finfo(torch.float32).min, 0.5, 2.0])
@pytest.mark.parametrize("name", ["attention_mask", "keep"])
def test_a_mask_of_other_values_is_refused_and_named(name: str, value: float, tmp_path: Path) -> None:
    additive = torch.zeros(REAL.shape).masked_fill(~REAL, value)
    message = f"^{name}: expected a mask of bool or 0/1, in which 1 keeps a token, got {value:g}; for an additive"
    batch = {"input_ids": IDS} | ({"attention_mask": additive} if name == "attention_mask" else {})
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        harvested(tmp_path, batch, keep=None if name == "attention_mask" else lambda _: additive)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("given", [REAL.long() * 10_000 - 10_000, torch.tensor([[3, 5, 0, 1]]).expand(10, 4).T])
def test_additive_integers_and_token_numbers_are_no_masks(given: Tensor) -> None:
    with pytest.raises(InputError, match=r"keep: expected a mask of bool or 0/1"):
        as_mask("keep", given, REAL.shape)


@pytest.mark.parametrize(
    "given",
    [REAL[:, None, None].expand(4, 1, 10, 10), REAL[..., None], REAL.T, REAL[:, :-1], REAL[0], REAL.flatten()],
)
@pytest.mark.parametrize("name", ["attention_mask", "keep"])
def test_a_mask_of_another_shape_than_the_tokens_is_refused(name: str, given: Tensor, tmp_path: Path) -> None:
    batch = {"input_ids": IDS} | ({"attention_mask": given} if name == "attention_mask" else {})
    with pytest.raises(InputError, match=rf"^{name}: expected a mask of the tokens' shape \(4, 10\), got \("):
        harvested(tmp_path, batch, keep=None if name == "attention_mask" else lambda _: given)


def test_what_is_no_plain_tensor_is_no_mask() -> None:
    jagged = torch.nested.nested_tensor([REAL[0], REAL[1, :6]], layout=torch.jagged)
    for given in (jagged, REAL.to_sparse(), REAL.to("meta")):
        with pytest.raises(InputError, match=r"^keep: expected a mask that is a plain tensor, got one of layout"):
            as_mask("keep", given, REAL.shape)
    for other in (REAL.tolist(), REAL.numpy(), None):
        with pytest.raises(InputError, match=rf"plain tensor, got a {type(other).__name__}; pass a padded bool"):
            as_mask("keep", other, REAL.shape)


@pytest.mark.parametrize("kind", ["jagged", "sparse", "list"])
def test_a_mask_of_another_kind_in_a_batch_ends_a_harvest_with_one_line(kind: str, tmp_path: Path) -> None:
    jagged = torch.nested.nested_tensor(list(REAL), layout=torch.jagged)
    masks = {"jagged": jagged, "sparse": REAL.to_sparse(), "list": REAL.tolist()}
    with pytest.raises(InputError, match=r"^attention_mask: expected a mask that is a plain tensor, got "):
        harvested(tmp_path / kind, {"input_ids": IDS, "attention_mask": masks[kind]})


def test_a_keep_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^keep: expected a mask of the batch, it raised KeyError: 'real'; mend the"
    ):
        harvested(tmp_path, {"input_ids": IDS}, keep=lambda batch: batch["real"])


def test_rows_without_a_token_and_padding_on_the_left_are_masks_like_others(tmp_path: Path) -> None:
    mask = REAL.flip(1)
    mask[2] = False
    kept = harvested(tmp_path, {"input_ids": IDS, "attention_mask": mask})
    assert torch.equal(kept, Embedder().inner(IDS)[mask])


def test_a_mask_that_keeps_nothing_ends_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="at least one token to keep, got none; check `tokens`, `keep` and the mask"
    ):
        harvested(tmp_path, {"input_ids": IDS, "attention_mask": torch.zeros_like(IDS)})


def test_a_padding_mask_of_pytorch_is_asked_for_as_a_mask_that_keeps(tmp_path: Path) -> None:
    batch = {"input_ids": IDS, "src_key_padding_mask": ~REAL}
    with pytest.raises(InputError, match=r"src_key_padding_mask: expected the mask as attention_mask or from keep"):
        harvested(tmp_path / "refused", batch)
    kept = harvested(tmp_path / "kept", batch, keep=lambda batch: ~batch["src_key_padding_mask"])
    assert len(kept) == REAL.sum()


def test_a_point_that_sees_all_tokens_in_one_list_takes_the_mask_of_rows_and_positions(tmp_path: Path) -> None:
    batch = {"input_ids": IDS, "attention_mask": REAL}
    flat = harvested(tmp_path, batch, "flat", keep=lambda _: IDS > 9)
    assert torch.equal(flat, Embedder().inner(IDS)[REAL & (IDS > 9)])
    other = {"input_ids": IDS.flatten(), "attention_mask": REAL}
    with pytest.raises(
        InputError, match=r"attention_mask: expected a mask of the tokens' shape \(40,\), got \(4, 10\)"
    ):
        keep_mask(other, None, torch.Size([40]))


def test_positions_before_rows_are_not_read_as_rows_before_positions(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"attention_mask: expected a mask of the tokens' shape \(10, 4\), got \(4, 10\)"
    ):
        harvested(tmp_path, {"input_ids": IDS, "attention_mask": REAL}, "turned")
    model = Embedder()
    with hooked(model, ["inner", "turned"]) as capture:
        model(IDS)
        with pytest.raises(InputError, match=r"turned: expected a bool mask .* of \(10, 4\), got shape \(4, 10\)"):
            capture.take(REAL)


# Encoders and decoders


def seq2seq(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    if name == "t5":
        config = transformers.T5Config(
            vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
        return transformers.T5ForConditionalGeneration(config).eval()
    sizes = {f"{side}_{size}": 2 for side in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    wide = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32}
    config = transformers.BartConfig(vocab_size=64, d_model=16, **sizes, **wide)
    return transformers.BartForConditionalGeneration(config).eval()


POINTS = {
    "t5": (
        "encoder.block.1",
        "decoder.block.0.layer.1.EncDecAttention.k",
        "decoder.block.0.layer.1.EncDecAttention.q",
    ),
    "bart": (
        "model.encoder.layers.0",
        "model.decoder.layers.1.encoder_attn.v_proj",
        "model.decoder.layers.1.encoder_attn.out_proj:input",
    ),
}
DECODER_IDS, DECODER_REAL = IDS.flip(0), REAL.flip(0)


@pytest.mark.parametrize("length", [10, 7])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_each_side_of_an_encoder_decoder_has_its_own_mask_also_where_lengths_are_equal(
    name: str, length: int, tmp_path: Path
) -> None:
    model = seq2seq(name)
    ids, mask = DECODER_IDS[:, :length], DECODER_REAL[:, :length]
    batch = {
        "input_ids": IDS,
        "attention_mask": REAL.long(),
        "decoder_input_ids": ids,
        "decoder_attention_mask": mask,
    }
    encoder, from_encoder, decoder = POINTS[name]
    for number, point in enumerate([encoder, from_encoder, "hs1", decoder, "lm_head"]):
        harvest(model, [batch], tmp_path / str(number), points=[point])
        tokens = open_layers(tmp_path / str(number))[point].tokens
        assert tokens == (mask if point in (decoder, "lm_head") else REAL).sum()
    assert stored_ids(tmp_path / "0") == IDS[REAL].tolist()
    assert stored_ids(tmp_path / "3") == ids[mask].tolist()


def stored_ids(folder: Path) -> list[int]:
    with safe_open(folder / "shard-00000.safetensors", framework="pt") as file:
        found: list[int] = file.get_tensor("token.id").tolist()
    return found


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_without_a_mask_of_its_own_a_decoder_s_tokens_are_all_kept(name: str, tmp_path: Path) -> None:
    batch = {"input_ids": IDS, "attention_mask": REAL, "decoder_input_ids": DECODER_IDS}
    point = POINTS[name][2]
    assert harvest(seq2seq(name), [batch], tmp_path, points=[point])[point].tokens == 40


def test_a_decoder_s_tokens_made_of_padded_ones_want_a_mask(tmp_path: Path) -> None:
    point = POINTS["bart"][2]
    batch = {"input_ids": IDS, "attention_mask": REAL}  # BART makes decoder ids of these, padding included
    with pytest.raises(
        InputError, match=r"^decoder_attention_mask: expected the mask of the decoder's tokens, got only"
    ):
        harvest(seq2seq("bart"), [batch], tmp_path, points=[point])


def test_points_of_both_sides_are_two_harvests(tmp_path: Path) -> None:
    encoder, _, decoder = POINTS["t5"]
    batch = {"input_ids": IDS, "decoder_input_ids": DECODER_IDS}
    with pytest.raises(
        InputError, match=rf"points: .* got {encoder} of the encoder's and {decoder} of the decoder's"
    ):
        harvest(seq2seq("t5"), [batch], tmp_path, points=[encoder, decoder])


class Pair(nn.Module):
    """An encoder and a decoder that no configuration tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, source: Tensor, target: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        x: Tensor = self.encoder(source)
        return self.decoder(x if target is None else target)  # type: ignore[no-any-return]


def test_whose_mask_it_is_must_be_known(tmp_path: Path) -> None:
    model, x = Pair(), torch.randn(4, 10, 4)
    two = {"source": x, "target": x + 1, "attention_mask": REAL}
    with pytest.raises(
        InputError, match=r"^attention_mask: expected to know whether it is the mask of decoder, as"
    ):
        harvest(model, [two], tmp_path / "two", points=["decoder"])
    assert harvest(model, [two], tmp_path / "encoder", points=["encoder"])["encoder"].tokens == 34
    one = {"source": x, "attention_mask": REAL}  # an autoencoder: both parts see the same tokens
    assert harvest(model, [one], tmp_path / "one", points=["decoder"])["decoder"].tokens == 34


@pytest.mark.parametrize("point", ["model.decoder.layers.0", "lm_head", "hs1", "cls.predictions.decoder"])
def test_a_model_of_one_sequence_has_one_mask_whatever_its_modules_are_called(point: str) -> None:
    assert side_of(Embedder(), [point], {"input_ids": IDS, "labels": IDS, "attention_mask": REAL}) == ""


def test_the_loss_of_an_encoder_decoder_is_no_loss_recovered() -> None:
    batch = {"input_ids": IDS, "decoder_input_ids": DECODER_IDS}
    with pytest.raises(InputError, match="expected a causal language model, got an encoder-decoder"):
        loss_recovered(lambda x: x, seq2seq("t5"), [batch], point="decoder.block.0")


# Memory that is used again


class Refilled:
    """Batches whose tensors are one memory, filled anew for each and spoilt after the last."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        held = {"input_ids": torch.empty(2, 5).long(), "attention_mask": torch.empty(2, 5).bool()}
        held["token.document"] = torch.empty(2).long()
        for batch in fresh():
            for name, value in batch.items():
                held[name].copy_(value)
            yield held
        for value in held.values():
            value.fill_(0)


def fresh() -> Iterator[dict[str, Tensor]]:
    for row in range(4):
        columns = slice(row % 2 * 5, row % 2 * 5 + 5)
        rows = slice(row // 2 * 2, row // 2 * 2 + 2)
        documents = torch.tensor([10 + row, 20 + row])
        yield {"input_ids": IDS[rows, columns], "attention_mask": REAL[rows, columns], "token.document": documents}


class OneBuffer(Embedder):
    """A network that writes what it gives into the same memory in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.empty(2, 5, 16), persistent=False)

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        return self.flat(self.memory.copy_(self.inner(input_ids)))  # type: ignore[no-any-return, operator]


def test_a_harvest_from_refilled_memory_is_that_of_fresh_batches_to_the_byte(tmp_path: Path) -> None:
    refilled = OneBuffer()
    harvest(refilled, Refilled(), tmp_path / "refilled", points=["flat", "inner"])
    own = Embedder()
    found = harvest(own, list(fresh()), tmp_path / "fresh", points=["inner"], keep=None)["inner"]
    stored = open_layers(tmp_path / "refilled")
    assert torch.equal(torch.cat(list(stored["flat"])), torch.cat(list(found)))
    assert torch.equal(torch.cat(list(stored["inner"])), torch.cat(list(found)))
    assert stored_ids(tmp_path / "refilled") == stored_ids(tmp_path / "fresh")


def test_what_a_capture_gives_stays_when_the_network_runs_again() -> None:
    model = OneBuffer()
    with hooked(model, ["flat"]) as capture, torch.no_grad():
        model(IDS[:2, :5])
        taken = capture.take()["flat"]
        before = taken.clone()
        model(IDS[2:, 5:])
        assert torch.equal(taken, before)
