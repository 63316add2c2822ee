"""Passes that end at the last wanted point give what whole passes give, and compute less."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from autopsae.activations.early_end import passes_of
from autopsae.activations.harvest import harvest
from autopsae.activations.hooks import hidden_state_names, hooked
from autopsae.arrays import InputError

IDS = torch.tensor([[1, 5, 9, 2], [3, 7, 4, 8]])
SIZES: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**SIZES, intermediate_size=24, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=3, n_head=2))


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**SIZES, intermediate_size=24))


def gemma() -> nn.Module:
    """Its embedding is multiplied after the module that has it, so hs0 is no module's output, but one's input."""
    return transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(**SIZES, intermediate_size=24, num_key_value_heads=1, head_dim=8)
    )


MODELS = [llama, gpt2, bert, gemma]


def count_calls(model: nn.Module) -> list[str]:
    """The modules that were called, which grows."""
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: called.append(name))
    return called


def whole(model: nn.Module, points: list[str]) -> dict[str, Tensor]:
    with torch.no_grad(), hooked(model, points) as capture:
        model(IDS)
        return capture.take()


@pytest.mark.parametrize("make", MODELS)
def test_any_hidden_states_are_those_of_whole_passes_and_later_layers_are_left_out(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    for points in (["hs0"], ["hs1"], ["hs2", "hs0"], ["hs3"], hidden_state_names(model)):
        expected = whole(model, points)
        called = count_calls(model)
        with torch.no_grad(), passes_of(model, points) as passes:
            runs = []
            for number in range(3):
                called.clear()
                taken = passes.run(IDS, number).take()
                assert [*taken] == points
                assert all(torch.equal(taken[point], expected[point]) for point in points)
                runs.append(len(called))
        if "hs3" in points:
            assert runs[0] == runs[1] == runs[2]
        else:
            # The first pass was run twice.
            assert runs[1] == runs[2] < runs[0] / 2
            assert not any("2" in name.split(".") for name in called)  # the third layer
    # Nothing is left behind: a pass outside the context is whole.
    assert model(IDS) is not None


def test_a_modules_points_end_a_pass_too_in_any_order() -> None:
    torch.manual_seed(0)
    model = llama().eval()
    points = ["model.layers.1.mlp", "model.layers.0.self_attn:input", "hs1"]
    expected = whole(model, points)
    called = count_calls(model)
    with torch.no_grad(), passes_of(model, points) as passes:
        for number in range(2):
            called.clear()
            taken = passes.run(IDS, number).take()
            assert all(torch.equal(taken[point], expected[point]) for point in points)
    assert called[-1].startswith("model.layers.1.mlp")


class Odd(nn.Module):
    """Three layers. What the first gives is changed in place afterwards, and the layers may be used again."""

    def __init__(self, *, in_place: bool = False, again: bool = False, noise: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.in_place, self.again, self.noise, self.runs = in_place, again, noise, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if self.noise:
                x = x + torch.randn(x.shape)
            if self.in_place and not number:
                x += 1
        return self.layers[0](x) if self.again else x


BATCH = torch.arange(12.0).view(1, 3, 4)


def run_twice(model: nn.Module, points: list[str]) -> list[Tensor]:
    with torch.no_grad(), passes_of(model, points) as passes:
        return [passes.run(BATCH, number).take()[points[0]] for number in range(2)]


def test_what_is_changed_in_place_later_is_taken_as_it_was() -> None:
    model = Odd(in_place=True)
    first, second = run_twice(model, ["layers.0"])
    assert torch.equal(first, model.layers[0](BATCH)[0])
    assert torch.equal(second, first)
    assert model.runs == 3


def test_a_model_that_is_not_the_same_twice_keeps_whole_passes() -> None:
    model = Odd(noise=True)
    called = count_calls(model)
    first, second = run_twice(model, ["layers.1"])
    assert not torch.equal(first, second)
    assert called[-1] == "layers.2"


def test_a_point_that_a_pass_reaches_twice_is_refused_as_in_whole_passes() -> None:
    with pytest.raises(InputError, match=r"layers.0: expected to be reached once"):
        run_twice(Odd(again=True), ["layers.0"])


def test_nothing_is_run_twice_where_nothing_comes_after_the_points() -> None:
    model = Odd()
    run_twice(model, ["layers.2"])
    assert model.runs == 2


def test_a_models_own_answer_to_errors_does_not_take_the_end_of_a_pass() -> None:
    class Careful(Odd):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return super().forward(x)
            except Exception:  # as a model may that tries another kernel
                return super().forward(x)

    model = Careful()
    run_twice(model, ["layers.0"])
    assert model.runs == 3


def test_harvest_ends_passes_only_where_it_is_asked_to(tmp_path: Path) -> None:
    model, stored = Odd(), []
    called = count_calls(model)
    for end_early in (False, True):
        folder = tmp_path / str(end_early)
        batches = [BATCH, BATCH + 1]
        found = harvest(model, batches, folder, points=["layers.0"], end_early=end_early)["layers.0"]
        stored.append(torch.cat([batch.clone() for batch in found]))
        assert (called[-1] == "layers.2") is not end_early
    assert torch.equal(*stored)
    assert len(stored[0]) == 6
