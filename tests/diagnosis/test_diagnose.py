import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.ladder import remedy_ladder
from autopsae.diagnosis.prescribe import LOPSIDED
from autopsae.diagnosis.survey import COMPARED, survey
from autopsae.remedies.remedy import Remedy, whiten
from autopsae.sae.init import born
from autopsae.sae.sparsity import ReLU, TopK
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.outlook import Expected
from tests import oracles

# Death is asked for on as many tokens as there are: the forecast is then the count.
SMALL: dict[str, Any] = {"d_sae": 512, "k": 8, "at_tokens": 4000}


def tokens(gamma: float, *, strays: int = 0, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4000, 32, generator=generator)
    x[:, 3] += gamma * 32**0.5
    x[:strays] = 300 * torch.ones(32)
    return x * scale


def test_a_mild_layer_needs_nothing() -> None:
    diagnosis = diagnose(tokens(0.05), **SMALL)
    assert diagnosis.prescription.remedy.name == "none"
    assert diagnosis.prescription.remedy.affine.linear is None
    assert not diagnosis.prescription.b_dec.any()
    assert diagnosis.findings == ()
    assert "Not enough" not in diagnosis.prescription.reason


def test_a_shifted_layer_is_centered_by_the_median() -> None:
    diagnosis = diagnose(tokens(10.0), **SMALL)
    assert diagnosis.birth["none"].dead > 0.5
    assert diagnosis.prescription.remedy.name == "median"
    offset = diagnosis.prescription.b_dec[3]
    assert float(offset) == pytest.approx(10 * 32**0.5, rel=0.01)
    finding, outlier, stuck = diagnosis.findings
    assert (outlier.name, diagnosis.outlier_dimensions[0].index) == ("outlier dimensions", 3)
    assert diagnosis.recovery is not None
    assert (stuck.name, stuck.value) == ("dead-by-ReLU after training", diagnosis.recovery.dead_by_relu)
    assert diagnosis.to_dict()["recovery"]["born"] == diagnosis.expected["none"].dead_by_relu.value
    assert (finding.name, finding.threshold, finding.tokens) == ("gamma", 1.0, 4000)
    dead = diagnosis.birth["none"].dead
    assert f"{dead:.1%} of 512 latents are born dead, counted on 4,000 tokens" in str(finding)
    assert "center by the median (0.0% dead as counted, 0.0% as expected)" in str(finding)


def test_stray_tokens_drag_the_mean_and_are_named() -> None:
    diagnosis = diagnose(tokens(0.2, strays=40), **SMALL)
    assert diagnosis.birth["mean"].dead > diagnosis.birth["none"].dead
    assert diagnosis.birth["median"].dead < 0.01
    names = [finding.name for finding in diagnosis.findings]
    assert "mean-median distance" in names
    assert "stray tokens' share of the squared norm" in names
    assert diagnosis.severity.stray_tokens == pytest.approx(0.01)
    assert diagnosis.severity.stray_square > 0.9


def test_a_low_rank_layer_is_whitened_by_the_smallest_sufficient_alpha() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6000, 48, generator=generator) * torch.cat([torch.tensor([60.0, 20.0]), torch.ones(46)])
    diagnosis = diagnose(x, **SMALL)
    dead = {name: birth.dead for name, birth in diagnosis.birth.items()}
    assert dead["median"] > 0.01
    assert diagnosis.severity.effective_rank > 2
    # No further than to the first that suffices.
    considered = list(diagnosis.expected)
    assert considered == ["none", "median", "whiten_0.15", "whiten_0.3", "whiten_0.5", "whiten"][: len(considered)]
    assert diagnosis.prescription.remedy.name == considered[-1]
    *earlier, prescribed = diagnosis.expected.values()
    assert all(outlook.dead.value > 0.01 or outlook.dominance > LOPSIDED for outlook in earlier)
    assert prescribed.dead.value <= 0.01
    assert "effective rank / d_in" in [finding.name for finding in diagnosis.findings]


def test_a_layer_that_centering_cures_is_not_escalated() -> None:
    assert set(diagnose(tokens(10.0), **SMALL).birth) == {"none", "median", "mean", "zscore", "whiten"}


def test_each_rung_of_the_ladder_makes_the_remedy_of_its_name() -> None:
    spectrum = Spectrum.of(torch.eye(6, dtype=torch.float64))
    ladder, asked = remedy_ladder(spectrum, torch.zeros(6, dtype=torch.float64), 3.4, (0.2,), (2, 4))
    names = ["none", "median", "whiten_0.15", "whiten_0.2", "whiten_0.3", "whiten_0.5", "whiten", "asi_2", "asi_4"]
    assert [*ladder] == names
    assert [make().name for make in ladder.values()] == names
    assert asked == {"whiten_0.2", "asi_2", "asi_4"}


def test_a_whitening_that_nothing_needs_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(*arguments: Any, alpha: float) -> Remedy:
        made.append(alpha)
        return whiten(*arguments, alpha=alpha)

    monkeypatch.setattr("autopsae.diagnosis.ladder.whiten", counted)
    diagnose(tokens(10.0), **SMALL)
    assert made == [1.0]


def test_asked_for_alphas_and_ranks_are_measured() -> None:
    birth = diagnose(tokens(10.0), **SMALL, alphas=(0.2,), ranks=(5, 6)).birth
    assert {"whiten_0.2", "asi_5", "asi_6"} < set(birth)


def test_where_no_remedy_suffices_the_best_is_prescribed_and_said_to_fall_short() -> None:
    # 50 tokens can make at most 50 k latents fire.
    diagnosis = diagnose(tokens(0.0)[:50], d_sae=512, k=2, at_tokens=50)
    assert f"asi_{round(diagnosis.severity.effective_rank)}" in diagnosis.birth
    least = min(birth.dead for name, birth in diagnosis.birth.items() if name not in ("mean", "zscore"))
    assert diagnosis.birth[diagnosis.prescription.remedy.name].dead == least
    assert "No remedy leaves at most 1.0% dead" in diagnosis.prescription.reason
    assert "tokens per dimension" in [finding.name for finding in diagnosis.findings]


def test_the_acceptable_death_decides() -> None:
    few: dict[str, Any] = {**SMALL, "at_tokens": 150}
    x = tokens(0.05)[:150]
    none = diagnose(x, **few).expected["none"].dead.value
    assert none > 0.05
    assert diagnose(x, **few, acceptable=none).prescription.remedy.name == "none"
    assert diagnose(x, **few, acceptable=none - 1e-9).prescription.remedy.name != "none"


def test_death_is_expected_on_as_many_tokens_as_are_asked() -> None:
    def expected(at_tokens: int) -> Expected:
        return diagnose(tokens(3.0), **{**SMALL, "at_tokens": at_tokens}).expected["none"].dead

    counted = diagnose(tokens(3.0), **SMALL).birth["none"].dead
    few, same, many = (expected(at_tokens) for at_tokens in (500, 4000, 10**7))
    assert same.value == pytest.approx(counted, abs=1.5 / 512)
    assert few.value > same.value > many.value > 0
    assert many.low < many.value < many.high
    with pytest.raises(InputError, match=r"at_tokens: expected a whole number from 1 to .*, got 0"):
        expected(0)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_severity_equals_the_plain_way_at_any_scale(scale: float) -> None:
    x = tokens(2.0, scale=scale)
    severity = diagnose(x, **SMALL).severity
    plain = x.double().numpy()
    normed = oracles.layer_norm(plain)
    assert severity.gamma == pytest.approx(oracles.gamma(normed), rel=1e-6)
    assert severity.gamma_raw == pytest.approx(oracles.gamma(plain), rel=1e-6)
    assert severity.effective_rank == pytest.approx(oracles.effective_rank(normed), rel=1e-6)
    assert severity.effective_rank_raw == pytest.approx(oracles.effective_rank(plain), rel=1e-6)
    assert severity.effective_rank_fraction == pytest.approx(severity.effective_rank / 32)


def test_the_dictionary_holds_every_promised_key_and_is_json(tmp_path: Path) -> None:
    found = survey({"hs0": tokens(0.1), "hs1": tokens(5.0)}, **SMALL)
    found.save(tmp_path / "deep/survey.json")
    rows = json.loads((tmp_path / "deep/survey.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == ["hs0", "hs1"]
    for row in rows:
        assert {"tokens", "d_in", "gamma", "gamma_raw", "effective_rank", "effective_rank_fraction"} < set(row)
        assert row["kurtosis"] == pytest.approx(0.0, abs=0.5)
        assert set(row["predicted"]) == {"dead_by_relu", "dead"}
        assert set(row["prescription"]) == {"remedy", "instruction", "encoder_scale", "reason", "paper"}
        assert {"none", "median", row["prescription"]["remedy"]} <= set(row["expected"])
        for outlook in row["expected"].values():
            assert outlook["tokens"] == 4000
            for way in ("dead", "dead_by_relu"):
                assert 0 <= outlook[way]["low"] <= outlook[way]["value"] <= outlook[way]["high"] <= 1
        for remedy in COMPARED:
            birth = row["birth"][remedy]
            assert birth["dead"] == pytest.approx(birth["dead_by_relu"] + birth["dead_by_topk"])
            assert 0 <= birth["dead_by_relu"] <= birth["dead"] <= 1


def test_the_frame_has_a_row_per_layer_and_dotted_columns() -> None:
    found = survey({"hs0": tokens(0.1), "hs1": tokens(5.0)}, **SMALL)
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["layer"]) == ["hs0", "hs1"]
    assert frame["birth.none.dead"][1] == found["hs1"].birth["none"].dead
    assert found["hs1"].to_frame()["gamma"][0] == found["hs1"].severity.gamma


def test_notebooks_show_a_table_with_escaped_names() -> None:
    found = survey({"<hs0>": tokens(5.0)}, **SMALL)
    for shown in (found._repr_html_(), next(iter(found))._repr_html_()):
        assert "<table>" in shown
        assert "&lt;hs0&gt;" in shown
        assert "<hs0>" not in shown


def test_progress_names_each_pass_and_its_tokens() -> None:
    heard: dict[str, tuple[int, int | None]] = {}
    layers = {"hs0": tokens(8.0), "hs1": tokens(8.0)}
    survey(layers, **SMALL, progress=lambda stage, done, total: heard.update({stage: (done, total)}))
    stages = [f"layer {n} of 2: hs{n - 1}, {name}" for n in (1, 2) for name in ("statistics", "birth")]
    assert heard == dict.fromkeys(stages, (4000, 4000))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((9, 4), torch.nan), "NaN or infinite values in 9 of 9 tokens, the first at token 0"),
        (torch.zeros(0, 4), "expected at least one token, got none"),
        (torch.randn(1, 4), "expected at least 2 tokens, got 1"),
        (torch.ones(9, 4), "expected tokens that differ, got 9 without spread"),
        (torch.randn(1, 4).expand(9, 4) * 1e-3, "expected tokens that differ, got 9 without spread"),
        (torch.randn(9, 1), "expected d_in of at least 2, got 1"),
    ],
)
def test_bad_tokens_give_one_clear_error_that_names_the_layer(bad: Tokens, message: str) -> None:
    with pytest.raises(InputError, match=message):
        diagnose(bad, **SMALL)
    with pytest.raises(InputError, match=f"layer 'hs7': .*{message}"):
        survey({"hs7": bad}, **SMALL)


def test_k_over_d_sae_is_refused_before_the_tokens_are_read() -> None:
    with pytest.raises(InputError, match=r"expected 1 <= k <= d_sae = 4, got k = 5"):
        diagnose(iter([]), d_sae=4, k=5)


@pytest.mark.parametrize(("spectrum", "rule"), [(0.0, "median"), (6.0, "whiten")])
def test_the_papers_rule_stands_beside_the_prescription(spectrum: float, rule: str) -> None:
    x = gaussian_tokens(4000, 256, 1.0, spectrum=spectrum, generator=torch.Generator().manual_seed(1))
    diagnosis = diagnose(x, d_sae=512, k=8)
    assert diagnosis.paper == diagnosis.to_dict()["prescription"]["paper"] == rule
    assert (diagnosis.severity.effective_rank_fraction < 0.015) == (rule == "whiten")
    assert f". The paper's rule: {rule}\n" in f"{diagnosis}\n"


def test_few_documents_are_said_of_a_shuffled_stream_whether_its_documents_are_known_or_not() -> None:
    generator = torch.Generator().manual_seed(0)
    documents = torch.arange(12).repeat_interleave(500)[torch.randperm(6000, generator=generator)]
    x = torch.randn(12, 32, generator=generator)[documents] + 0.7 * torch.randn(6000, 32, generator=generator)
    known, unknown = (diagnose(x, **SMALL, documents=d) for d in (documents.tolist(), None))
    told = {"harvest more documents or images", "pass the document of each token: they are unknown here"}
    for diagnosis, worth in ((known, 100), (unknown, 130)):
        [few] = [finding for finding in diagnosis.findings if finding.name == "effective tokens"]
        assert few.value == diagnosis.expected["none"].effective_tokens < worth
        assert "tokens of one document make the same latents fire" in few.meaning
        told -= {advice for advice in told if few.advice.startswith(advice)}
    assert not told
    # They are worth as much as the tokens of documents that share a tenth of their variance.
    assert unknown.expected["none"].effective_tokens == pytest.approx(4096 / (1 + 0.1 * (4096 * 512 / 6000 - 1)))


def test_documents_that_do_not_fit_the_stream_are_refused() -> None:
    with pytest.raises(InputError, match=r"a whole number for each of 4,000 tokens, got int64 of shape \(3,\)"):
        diagnose(tokens(1.0), **SMALL, documents=[1, 2, 3])
    with pytest.raises(InputError, match=r'documents: expected repeated="keep"'):
        diagnose(tokens(1.0), **SMALL, documents=[0] * 4000, repeated="leave_out")


@pytest.mark.parametrize(
    ("steps", "lr", "remedy"),
    [
        *((1000, 3e-4, "whiten_0.15"), (1000, 1e-3, "whiten_0.15"), (3, 1 / 3, "whiten_0.15")),
        *((1001, 1e-3, "median"), (101, 1e-2, "median"), (0, 3e-4, "median")),
    ],
)
def test_a_short_training_is_prescribed_a_whitening_and_a_fitted_encoder(
    steps: int, lr: float, remedy: str
) -> None:
    x = tokens(10.0)
    diagnosis = diagnose(x, **SMALL, steps=steps, lr=lr)
    prescription = diagnosis.prescription
    is_short = remedy != "median"
    said = [finding for finding in diagnosis.findings if finding.name == "lr x steps"]
    assert prescription.remedy.name == remedy
    assert ("fit the encoder" in str(diagnosis), bool(said)) == (is_short, is_short)
    assert prescription.training["relative_encoder_lr"] is is_short
    assert (prescription.lr_steps is not None) is is_short
    if is_short:
        # The least squared error of s z W_dec, by another way: least squares over all of the tokens.
        plain = born(prescription.remedy, d_sae=512, sparsity=TopK(k=8), sample=x)
        y = plain.affine(x) - plain.b_dec
        decoded = plain.reconstruct(plain.select(plain.affine(x))) - plain.b_dec
        best = torch.linalg.lstsq(decoded.detach().reshape(-1, 1), y.detach().reshape(-1, 1)).solution.item()
        assert prescription.encoder_scale == pytest.approx(best, rel=0.03)  # for 1,000 of the 4,000 tokens
        torch.testing.assert_close(born(prescription).W_enc, plain.W_enc * prescription.encoder_scale)


def test_a_short_training_whitens_a_mild_layer_too_and_fits_no_encoder_under_a_penalty() -> None:
    mild = diagnose(tokens(0.05), **SMALL, steps=1000)
    assert mild.prescription.remedy.name == "whiten_0.15"
    assert [finding.name for finding in mild.findings] == ["lr x steps"]
    shifted = diagnose(tokens(10.0), d_sae=512, sparsity=ReLU(), at_tokens=4000, steps=1000).prescription
    assert (shifted.remedy.name, shifted.encoder_scale) == ("median", 1.0)


def test_a_short_training_keeps_a_stronger_whitening_that_the_layer_needs() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 128, generator=generator) * torch.logspace(0, -5, 128)
    long = diagnose(x, **SMALL).prescription
    short = diagnose(x, **SMALL, steps=1000).prescription
    assert long.remedy.name == short.remedy.name == "whiten_0.5"
    assert (long.encoder_scale, short.encoder_scale < 1) == (1.0, True)
    assert long.lr_steps is None
    assert short.lr_steps == pytest.approx(0.3)
