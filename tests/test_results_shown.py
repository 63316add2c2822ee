"""Every public result shows itself in a few lines: `repr`, `str` and in a notebook."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import autopsae
from autopsae import SAE, BatchTopK, TopK, TrainConfig
from autopsae.activations import open_activations
from autopsae.arrays import InputError
from autopsae.evaluation import LossRecovered, cost_of_recentring
from autopsae.report.figures import FIGURES
from autopsae.sae.model import SAE as Model
from autopsae.statistics import collect
from autopsae.survival import forecast, forecast_trained
from autopsae.tables import Result, brief
from tests.features.sources import every_result

ROOMS = [value for name in autopsae.__all__ if isinstance(value := getattr(autopsae, name), ModuleType)]  # type: ignore[attr-defined]
PUBLIC = {value for room in ROOMS for name in room.__all__ if inspect.isclass(value := getattr(room, name))}
RESULTS = sorted((c for c in PUBLIC if issubclass(c, Result)), key=lambda c: c.__name__)
OTHERS = sorted((c for c in PUBLIC - {*RESULTS} if is_dataclass(c)), key=lambda c: str(c.__name__))
# At least these; the test fails where one of the public results is never made.
NAMED = "Diagnosis Survey Finding Birth Outlook Forecast Recovery Prediction Prescription Remedy Affine View Fates "
NAMED += "Evaluation LossRecovered Autopsy RecentringCost Record Statistics Moments Activations TrainConfig"
# Settings, sources, tables that were read, parts of results, and single statements.
WITHOUT_FIGURE = (
    "Activations Annotations Budget Candidate CodeBlock Codes ConceptCounts Finding Labels OutlierDimension "
)
WITHOUT_FIGURE += "Point ProbeTask Record Repeats Selection Severity TokenTable TrainConfig TrainingPlan View"
EVIL = "<b>hs0\n\x1b[2J"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[type, list[Any]]:
    """One or more of each public result, with all that they are made of."""
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(0)) + 1
    survey = autopsae.survey({EVIL: x, "hs1": x}, d_sae=32, k=4, acceptable=0.0)
    sae = autopsae.born(survey["hs1"].prescription)
    records = autopsae.train(sae, x, TrainConfig(steps=2, lr=1e-3, batch_tokens=64))
    dying = SAE(W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec.detach() + 40, sparsity=TopK(k=4))
    autopsy = autopsae.autopsy(dying, x)
    woken = autopsae.recentre(dying, center=autopsy.center, is_dead=autopsy.is_dead)
    path = tmp_path_factory.mktemp("tokens") / "x.npy"
    np.save(path, x.numpy())
    statistics = collect(x)
    made = [survey, records, autopsae.evaluate(sae, x), autopsy, cost_of_recentring(dying, woken, x), statistics]
    made += [
        statistics.rows.repeats(),
        open_activations(path),
        TrainConfig(steps=1, lr=0.1),
    ]
    made += [
        forecast(x, sae.W_enc.detach(), TopK(k=4)),
        forecast_trained(sae, x),
        survey["hs1"].prescription.remedy.enters(x),
    ]
    made += [sae.select(sae.enter(x)[0]), autopsae.statistics.Spectrum.of(statistics.raw.covariance)]
    made += [LossRecovered(tokens=9, loss=1.0, loss_reconstructed=1.5, loss_ablated=3.0, recovered=0.75)]
    made += [survey["hs1"].recovery or autopsae.survival.recovery(x, sae.W_enc.detach(), lr=1e-3, steps=10)]
    made += every_result(x, sae)
    made += [autopsae.training.plan_training(sae, x, TrainConfig(steps=1, lr=0.1), layer=EVIL)]
    tried = {"config": TrainConfig(steps=2, lr=1e-3, batch_tokens=64), "d_sae": 32, "sparsity": TopK(k=4)}
    made += [autopsae.trial.trial(x, ["none", "median"], layer=EVIL, acceptable=0.0, **tried)]  # type: ignore[arg-type]
    made += [autopsae.trial.Candidate(remedy=survey["hs1"].prescription.remedy)]
    found: dict[type, list[Any]] = {}
    for value in parts(made):
        found.setdefault(type(value), []).append(value)
    return found


def parts(value: Any) -> Iterator[Any]:
    """All dataclasses in a value, itself included."""
    if isinstance(value, list | tuple):
        for entry in value:
            yield from parts(entry)
    elif isinstance(value, Mapping):
        yield from parts([*value.values()])
    elif is_dataclass(value) and not isinstance(value, type):
        yield value
        yield from parts([getattr(value, field.name) for field in fields(value)])


def test_all_results_that_the_library_returns_are_gone_over(shown: dict[type, list[Any]]) -> None:
    assert {*NAMED.split()} <= {c.__name__ for c in RESULTS}
    assert [c.__name__ for c in RESULTS if c not in shown] == []


@pytest.mark.parametrize("kind", RESULTS, ids=lambda c: c.__name__)
def test_a_result_shows_itself_in_a_few_lines_without_a_tensors_numbers(
    kind: type, shown: dict[type, list[Any]]
) -> None:
    for value in shown[kind]:
        assert len(repr(value)) <= 300
        assert "\n" not in repr(value)
        assert "tensor(" not in repr(value) + str(value)
        assert " object at 0x" not in repr(value) + str(value)
        assert repr(value).startswith(f"{kind.__name__}(")
        # Findings are sentences, of which a diagnosis has some.
        assert len(str(value).splitlines()) <= 12


@pytest.mark.parametrize("kind", RESULTS, ids=lambda c: c.__name__)
def test_a_notebook_shows_a_table_in_which_everything_is_escaped(kind: type, shown: dict[type, list[Any]]) -> None:
    for value in shown[kind]:
        html = value._repr_html_()
        assert "<table>" in html
        assert "<b>" not in html
        assert "Fates(...)" not in html  # a result in a result says its sentence
        first = escape(str(value).split("\n")[0])
        if kind.__name__ not in ("Survey", "Trial"):  # whose verdicts have more to say
            assert html.startswith(f'<p style="font-weight: bold; margin: 0.3em 0">{first}</p>')


def rows_of(value: Result) -> list[list[str]]:
    """The cells of its table in a notebook."""
    rows = re.findall("<tr>(<td>.*?)</tr>", value._repr_html_())
    return [re.findall("<td>(.*?)</td>", row) for row in rows]


def test_a_notebook_shows_the_fates_of_an_autopsy_and_the_latents_of_a_coverage(
    shown: dict[type, list[Any]],
) -> None:
    [autopsy] = shown[autopsae.evaluation.Autopsy]
    counts = {name: int(number) for name, number, _ in rows_of(autopsy)}
    causes = {name: number for name, number in counts.items() if name.startswith("cause of death")}
    assert sum(counts.values()) - sum(causes.values()) == autopsy.d_sae
    assert sum(causes.values()) == int(autopsy.is_dead.sum()) > 0
    coverage = shown[autopsae.features.Coverage][0]
    scores = {score.concept: score for score in coverage.scores}
    assert 0 < len(rows_of(coverage)) == min(20, len(scores))
    for concept, latent, validation, test, *_ in rows_of(coverage):
        assert int(latent) == scores[concept].latent
        assert (float(validation), float(test)) == pytest.approx(
            (scores[concept].validation_f1, scores[concept].f1), abs=0.0051
        )


@pytest.mark.parametrize("kind", RESULTS, ids=lambda c: c.__name__)
def test_a_result_draws_its_figure_in_a_notebook_too_or_says_that_it_has_none(
    kind: type, shown: dict[type, list[Any]]
) -> None:
    value = shown[kind][0]
    if any(one in FIGURES for one in kind.__mro__):
        assert value.plot().get_axes()
        assert value._repr_html_().count("<img") == 1
    else:
        assert kind.__name__ in WITHOUT_FIGURE.split()
        with pytest.raises(InputError, match=f"expected a result with a figure .*, got '{kind.__name__}'"):
            value.plot()
        assert "<img" not in value._repr_html_()


@pytest.mark.parametrize("kind", RESULTS, ids=lambda c: c.__name__)
def test_every_field_of_a_result_has_a_line_of_its_own(kind: type) -> None:
    assert undocumented(kind) == []


@pytest.mark.parametrize("kind", OTHERS, ids=lambda c: c.__name__)
def test_every_field_of_a_public_dataclass_has_a_line_of_its_own(kind: type) -> None:
    assert undocumented(kind) == []


def undocumented(kind: type) -> list[str]:
    """Fields without a string under them."""
    [tree] = [
        node
        for node in ast.parse(Path(inspect.getfile(kind)).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    missing = []
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            missing += [] if told else [ast.unparse(node.target)]
    return missing


def test_an_sae_names_its_shape_its_sparsity_and_its_scale() -> None:
    sae = Model(W_enc=torch.eye(3), W_dec=torch.eye(3), b_dec=torch.zeros(3), sparsity=BatchTopK(k=2))
    assert repr(sae) == "SAE(d_in=3, d_sae=3, sparsity=BatchTopK(k=2), scale=1, dtype=torch.float32, device=cpu)"
    assert str(sae) == "an SAE of 3 latents on 3 dimensions, BatchTopK(k=2)"
    sae.learn(sae.select(torch.eye(3)))
    assert str(sae).endswith(", learned threshold 1")
    assert "<td>W_enc</td><td>[3, 3] torch.float32</td>" in sae._repr_html_()


def test_a_repr_leaves_out_what_is_at_its_default() -> None:
    assert repr(TrainConfig(steps=3, lr=0.5)) == "TrainConfig(steps=3, lr=0.5)"
    revived = TrainConfig(steps=3, lr=0.5, revival=autopsae.AuxK(k_aux=8))
    assert repr(revived) == "TrainConfig(steps=3, lr=0.5, revival=AuxK(k_aux=8))"
    assert repr(TrainConfig(steps=3, lr=0.5, frozen=("b_dec",))) == "TrainConfig(steps=3, lr=0.5, frozen=['b_dec'])"
    names = tuple(f"{'a' * 50}{n}" for n in range(4))
    assert brief(dict.fromkeys(names, 0)) == f"{{{', '.join(names[:3])}, ...}}"
    assert brief([1, 2, 3, 4, 5]) == "[5 of int]"
    assert brief(torch.zeros(2, 3)) == brief(np.zeros((2, 3))) == "[2, 3]"


def test_a_survey_of_many_layers_says_how_many_are_left_out(shown: dict[type, list[Any]]) -> None:
    [survey] = shown[autopsae.diagnosis.Survey]
    many = type(survey)(survey.diagnoses * 7)
    assert str(many).splitlines()[-1] == "and 4 layers more"
    assert len(str(many).splitlines()) == 13  # the verdict, ten layers, and how many more
