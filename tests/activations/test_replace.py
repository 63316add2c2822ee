"""Laws of replacing: what follows a point sees the new activations, and nothing else changes."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autopsae.activations.replace import at_module, replace_activations
from autopsae.arrays import InputError


class Network(nn.Module):
    """Parts that give a tensor, a tuple, a list and a dict, one that is not run, one that is run twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bare, self.pair, self.many, self.named = nn.Linear(4, 4), Gives(tuple), Gives(list), Gives(dict)
        self.unused, self.twice = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bare(x)
        x = self.pair(scale=2.0, x=x)[1]
        x = self.many(2.0, x)[1]
        x = self.named(2.0, x=x)["x"]
        found: Tensor = self.twice(self.twice(x))
        return found


class Gives(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(4, 4), kind

    def forward(self, scale: float, x: Tensor) -> Any:
        found = [("scale", scale), ("x", self.linear(x) * scale)]
        return OrderedDict(found) if self.kind is dict else self.kind(value for _, value in found)


def by_hand(network: Network, x: Tensor, changed: str) -> Tensor:
    """The pass in plain words, where the activation called `changed` is multiplied by 3."""

    def at(name: str, value: Tensor) -> Tensor:
        return 3 * value if name == changed else value

    x = at("bare", network.bare(at("bare:input", x)))
    for name in ("pair", "many", "named"):
        x = at(name, network.get_submodule(f"{name}.linear")(at(f"{name}:input", x)) * 2)
    found: Tensor = network.twice(network.twice(x))
    return found


POINTS = [name + end for name in ("bare", "pair", "many", "named") for end in ("", ":input")]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_the_pass_goes_on_with_the_new_activations(point: str, shape: tuple[int, ...]) -> None:
    network, x = Network(), torch.randn(*shape)
    with replace_activations(network, point, lambda x: 3 * x):
        found = network(x)
    assert torch.allclose(found, by_hand(network, x, point), atol=1e-6)
    assert not torch.allclose(found, network(x))
    with replace_activations(network, point, lambda x: x):
        unchanged = network(x)
    assert torch.equal(unchanged, by_hand(network, x, "nothing"))


def test_the_hook_is_removed_however_the_context_ends() -> None:
    network = Network()

    def fail(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    for point in POINTS:
        with pytest.raises(KeyboardInterrupt), replace_activations(network, point, fail):
            network(torch.ones(1, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(("point", "times"), [("unused", 0), ("twice", 2), ("twice:input", 2)])
def test_a_point_that_is_not_reached_once_is_refused(point: str, times: int) -> None:
    network = Network()
    with (
        pytest.raises(InputError, match=f"{point}: expected to be reached once, got {times} times; replace only"),
        replace_activations(network, point, lambda x: x),
    ):
        network(torch.ones(1, 4))


def test_unknown_points_are_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match="unknown layer 'nmaed'; near names: named"):
        at_module(Network(), "nmaed", torch.ones(1, 4))
    with pytest.raises(InputError, match="near names: bare"), replace_activations(Network(), "bear", lambda x: x):
        pass


def test_a_point_at_a_module_is_its_own_and_needs_no_pass() -> None:
    assert at_module(Network(), "pair:input", None) == "pair:input"


# Hidden states


def tiny(family: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 64}
    own = {
        "OPT": {"ffn_dim": 16, "word_embed_proj_dim": 8},
        "Gemma3": {"intermediate_size": 16, "num_key_value_heads": 2, "head_dim": 4},
    }
    config = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
    torch.manual_seed(0)
    found = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")
    model: nn.Module = found(config(**sizes, **ends, **own.get(family, {}))).eval()
    return model


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("Llama", "model.layers"),
        ("GPT2", "transformer.h"),
        ("GPTNeoX", "gpt_neox.layers"),
        ("OPT", "model.decoder.layers"),
        ("Gemma3", "model.layers"),
    ],
)
def test_a_hidden_state_is_what_the_next_block_or_the_output_layer_takes(family: str, blocks: str) -> None:
    model = tiny(family)
    found = [at_module(model, point, IDS) for point in ("hs0", "1", "hs2")]
    assert found[:2] == [f"{blocks}.0:input", f"{blocks}.1:input"]
    assert model.get_submodule(found[2].removesuffix(":input")) is model.get_output_embeddings()  # type: ignore[operator]


def test_a_replaced_hidden_state_is_all_that_comes_after_it() -> None:
    """With the states of other texts in its place, the model answers to the other texts."""
    model = tiny("Llama")
    with torch.no_grad():
        other = model((IDS + 9) % 30, output_hidden_states=True)
        for number, state in enumerate(other.hidden_states):
            with replace_activations(model, at_module(model, f"hs{number}", IDS), lambda _, state=state: state):  # type: ignore[misc]
                assert torch.equal(model(IDS).logits, other.logits), number


def test_a_hidden_state_that_no_module_takes_is_refused() -> None:
    model: Any = tiny("Llama")
    with pytest.raises(InputError, match=r"hs1: expected a point at a module, got a hidden state; pass at_module"):
        replace_activations(model, "hs1", lambda x: x).__enter__()
    headless = model.model
    message = "hs2: expected a hidden state that a block or the output layer takes as it is, found no such module; "
    with pytest.raises(InputError, match=message):
        at_module(headless, "hs2", IDS)
    # A norm before the block, outside of it: the block no longer takes the state as it is.
    handle = model.model.layers[1].register_forward_pre_hook(lambda _, args: (2 * args[0], *args[1:]))
    with pytest.raises(InputError, match="hs1: expected a hidden state that a block"):
        at_module(model, "hs1", IDS)
    handle.remove()


def test_the_features_of_an_image_are_replaced_as_tokens_of_their_channels() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    x, factors = torch.randn(2, 3, 6, 5), torch.tensor([1.0, 2.0, 3.0, 4.0])
    shapes = []

    def scale(tokens: Tensor) -> Tensor:
        shapes.append(tuple(tokens.shape))
        return tokens * factors

    with replace_activations(network, "0", scale):
        replaced = network(x)
    assert shapes == [(2, 4 * 3, 4)]
    assert torch.equal(replaced, network[1](network[0](x) * factors[:, None, None]))
