"""The verdict in sentences."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.verdict import spans, verdict
from autopsae.sae.sparsity import TopK

pytestmark = pytest.mark.quick


def layer(name: str, remedy: str, *, dead: float = 0.0, dragged: float = 0.0) -> Any:
    instruction = {"none": "change nothing", "median": "center by the median"}.get(remedy, remedy)
    outlook = {
        "none": SimpleNamespace(dead=SimpleNamespace(value=dead), tokens=1_000_000),
        remedy: SimpleNamespace(dead=SimpleNamespace(value=0.0 if remedy != "none" else dead), tokens=1_000_000),
    }
    findings = [SimpleNamespace(name="mean-median distance")] if dragged else []
    prescription = SimpleNamespace(remedy=SimpleNamespace(name=remedy), instruction=instruction)
    return Mock(
        spec=Diagnosis,
        layer=name,
        prescription=prescription,
        expected=outlook,
        findings=findings,
        birth={"mean": SimpleNamespace(dead=dragged)},
        d_sae=8192,
        sparsity=TopK(k=64),
    )


def test_layers_that_follow_each_other_are_named_by_the_first_and_the_last() -> None:
    layers = [layer(f"hs{n}", "none") for n in range(9)]
    assert spans(layers, [0, 1, 2, 4, 6, 7]) == "hs0 to hs2, hs4, hs6, hs7"
    assert spans(layers, [0, 2, 4, 6, 8]) == "hs0, hs2, hs4, hs6 and 1 more"


def test_it_says_how_many_layers_need_nothing_and_what_the_others_need() -> None:
    layers = [layer("hs0", "none"), layer("hs1", "none")]
    layers += [layer("hs2", "median", dead=0.4, dragged=0.78), layer("hs3", "median", dead=0.2)]
    first, second = verdict(layers)
    sae = "an SAE with 8,192 latents (TopK(k=64))"
    assert (
        first == f"2 of 4 layers need a change before you train {sae}; train on the others (hs0, hs1) as they are."
    )
    assert second == (
        "hs2, hs3: center by the median; 0.0% of the latents are then expected dead on 1,000,000 tokens, 20.0% to "
        "40.0% without it. Never center by the arithmetic mean (hs2): it leaves up to 78% dead."
    )


def test_a_change_that_is_not_for_the_dead_says_so() -> None:
    assert verdict([layer("hs0", "median", dead=0.0)])[1] == (
        "hs0: center by the median; 0.0% of the latents are expected dead on 1,000,000 tokens with it and without "
        "it: the findings say what it is for."
    )


def test_one_layer_all_layers_and_no_layer() -> None:
    sae = "an SAE with 8,192 latents (TopK(k=64))"
    assert verdict([layer("hs0", "none")]) == [f"hs0: train {sae} as it is."]
    assert verdict([layer("hs0", "median", dead=0.5)])[0] == f"hs0: make a change before you train {sae}."
    assert verdict([layer("hs0", "none"), layer("hs1", "none")]) == [f"All 2 layers: train {sae} as they are."]
    both = verdict([layer("hs0", "median", dead=0.5), layer("hs1", "median", dead=0.5)])
    assert both[0] == f"All 2 layers need a change before you train {sae}."
    mixed = verdict([layer("hs0", "none"), layer("hs1", "median", dead=0.5)])
    assert mixed[0] == f"1 of 2 layers needs a change before you train {sae}; train on the other (hs0) as it is."
    assert both[1].startswith("hs0, hs1: center by the median; 0.0% of the latents are then expected dead")
