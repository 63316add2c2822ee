import re
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.survey import Survey, survey
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.recentre import cost_of_recentring
from autopsae.remedies.remedy import untouched
from autopsae.report.autopsy_plots import autopsy_figure
from autopsae.report.figures import save_figure
from autopsae.report.survey_plots import survey_figure
from autopsae.report.text import autopsy_text, survey_text
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.sparsity import JumpReLU, TopK

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def found() -> Survey:
    layers = {}
    for i, gamma in enumerate([0.05, 8.0, 2.0, 4.0]):
        x = torch.randn(1500, 24, generator=torch.Generator().manual_seed(i + 1))
        x[:, 5] += gamma * 24**0.5
        layers[f"hs{i}"] = x
    return survey(layers, d_sae=256, k=4)


def printed(found: Survey, width: int) -> str:
    page = StringIO()
    Console(width=width, file=page).print(survey_text(found))
    return page.getvalue()


def test_the_table_shows_every_number_of_every_layer_in_80_columns(found: Survey) -> None:
    text = printed(found, width=80)
    assert "…" not in text
    for diagnosis in found:
        [row] = [
            line
            for line in text.split("Born dead")[1].splitlines()
            if line.strip().startswith(f"{diagnosis.layer} ")
        ]
        for name in ("none", "mean", "median", "whiten"):
            assert f"{diagnosis.birth[name].dead:.1%}" in row
        assert f" {diagnosis.expected['none'].dead.value:.1%} " in row
        remedy = diagnosis.prescription.remedy.name
        assert row.split()[-2:] == [remedy, f"{diagnosis.expected[remedy].dead.value:.1%}"]


@pytest.mark.parametrize("width", [30, 50])
def test_no_number_is_cut_on_a_narrow_terminal(found: Survey, width: int) -> None:
    text = printed(found, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    names = [d.layer for d in found]
    for diagnosis, following in zip(found, [*names[1:], ""], strict=True):
        # A layer's lines stand between its name and the next, or the empty line after the last.
        words = text.split(f"\n{diagnosis.layer}\n")[1].split(f"\n{following}\n")[0].replace(",", " ").split()
        for name in ("none", "mean", "median", "whiten"):
            assert f"{diagnosis.birth[name].dead:.1%}" in words
        assert f"{diagnosis.severity.gamma:.2f}" in words
        assert f"{diagnosis.expected['none'].dead.value:.1%}" in words
        assert diagnosis.prescription.remedy.name in words


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_a_hostile_name_is_shown_as_words_at_any_width(width: int) -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    text = printed(survey({"[red]a\n\x1b[2Jb": x, "hs1": x}, d_sae=32, k=4), width)
    assert "\x1b" not in text
    assert r"[red]a\n\x1b[2Jb: " in text
    assert "\nhs1" in text


def test_a_name_longer_than_a_line_is_folded_and_never_cut() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    names = [f"{number}{'a' * 150}" for number in range(9)]
    layers = dict.fromkeys(names, x) | {names[0]: x + 5}  # which needs a change: it is named alone
    text = printed(survey(layers, d_sae=32, k=4), width=80)
    bullets = text.split("\nPrescriptions")[1]
    assert "…" not in bullets
    assert names[0] in bullets.replace("\n", "").replace(" ", "")


def test_what_long_names_share_is_said_once() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    layers = {f"model.layers.{n}.self_attn.out_projection": x + 5 * (n > 3) for n in range(12)}
    text = printed(survey(layers, d_sae=32, k=4), width=80)
    assert "\nlayers: model.layers.*.self_attn.out_projection, without what they share\n" in text
    assert re.search(r"\n10 +\d+\.\d\d ", text)  # a row of the table, which fits
    assert "change nothing: 4 of 12 layers (0, 1, 2, 3)" in text
    assert "the paper's rule says median: all 12 layers" in text
    lines = printed(survey(layers, d_sae=32, k=4), width=50)
    assert "\n10\n" in lines
    assert max(map(len, lines.splitlines())) <= 50


def test_every_finding_and_reason_stands_under_the_table(found: Survey) -> None:
    text = " ".join(printed(found, width=1000).split())
    for diagnosis in found:
        assert diagnosis.prescription.reason in text
        for finding in diagnosis.findings:
            assert str(finding) in text


def test_of_many_layers_each_finding_is_told_once_at_its_gravest(found: Survey) -> None:
    # hs1 has the largest gamma of the layers over 1 (hs1, hs2, hs3).
    many = Survey((*found.diagnoses, found.diagnoses[0]))
    text = " ".join(printed(many, width=1000).split())
    gravest = next(finding for finding in found["hs1"].findings if finding.name == "gamma")
    said = str(gravest).removeprefix("gamma ")
    assert f"gamma, on 3 of 5 layers (hs1, hs2, hs3); gravest on hs1: {said}" in text
    assert "change nothing: 2 of 5 layers (hs0, hs0)" in text
    assert "center by the median: 3 of 5 layers (hs1, hs2, hs3)" in text


def test_the_figure_shows_the_survey_s_own_numbers(found: Survey) -> None:
    axes = survey_figure(found).get_axes()
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes[0].get_lines()}
    counted: list[Any] = [*axes[0].containers]
    lines |= {str(one.get_label()): np.asarray(one.lines[0].get_ydata()) for one in counted}
    for name, label in (("none", "no remedy"), ("median", "geometric median")):
        assert list(lines[label]) == [100 * diagnosis.birth[name].dead for diagnosis in found]
    assert list(lines["closed form from gamma"]) == [100 * (diagnosis.predicted.dead or 0.0) for diagnosis in found]
    shown = [axis.get_title(loc="left").split("\n")[0] for axis in axes[1:4]]
    assert shown == ["hs1", "hs2", "hs0"]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure_is_written_in_the_format_of_its_name(tmp_path: Path, found: Survey, suffix: str) -> None:
    path = tmp_path / f"figure{suffix}"
    save_figure(found, path)
    magic = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_of_another_kind_is_refused(tmp_path: Path, found: Survey) -> None:
    with pytest.raises(InputError, match=r"expected a figure named .png, .pdf or .svg, got '.gif'"):
        save_figure(found, tmp_path / "figure.gif")
    assert not list(tmp_path.iterdir())


def test_ways_to_be_dead_are_called_the_same_for_every_sparsity_and_by_no_other() -> None:
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0)) + 1
    diagnosis = diagnose(x, d_sae=32, sparsity=JumpReLU())
    sae = born(untouched(16), d_sae=32, sparsity=JumpReLU(), sample=x)
    found = autopsy(sae, x)
    page = StringIO()
    Console(width=120, file=page).print(autopsy_text(found))
    legend = " ".join(str(c.get_label()) for axis in autopsy_figure(found).axes for c in axis.collections)
    for shown in (diagnosis._repr_html_(), str(diagnosis.birth["none"]), str(fates(sae, x)), page.getvalue()):
        assert "never positive" in shown
        assert "never selected" in shown
        assert "TopK" not in shown
    assert "TopK" not in legend


@pytest.mark.parametrize("width", [40, 120])
def test_an_autopsy_of_which_nothing_is_dead_names_no_cause(width: int) -> None:
    x = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    sae = born(untouched(16), d_sae=16, sparsity=TopK(k=4), sample=x, generator=torch.Generator().manual_seed(0))
    alive, page = autopsy(sae, x), StringIO()
    cost = cost_of_recentring(sae, sae, x)
    Console(width=width, file=page).print(autopsy_text(alive, cost))
    said = " ".join(page.getvalue().split())
    assert said.startswith("0 of 16 latents (topk) are dead on 1,000 tokens")
    assert "outcompeted" not in said
    assert said.endswith("- re-centred: no latent is dead (n = 1,000 tokens), so that nothing is gained")
    assert str(alive).startswith("0 of 16 latents (0.0%) are dead on 1,000 tokens; ")
    assert [axis.get_title(loc="left") for axis in autopsy_figure(alive).axes] == ["Fate on 1,000 tokens"]


def test_an_autopsy_says_first_how_many_are_dead_and_of_what() -> None:
    x = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    x[:, 3] += 30
    sae = born(untouched(16), d_sae=100, sparsity=TopK(k=4), sample=x, generator=torch.Generator().manual_seed(0))
    result = autopsy(sae, x)
    dead, by = int(result.is_dead.sum()), result.fates
    ways = f"{by['dead_by_relu']} never positive, {by['dead_by_topk']} never selected"
    said = f"{dead} of 100 latents ({dead}.0%) are dead on 1,000 tokens: {ways}; causes of death: "
    assert str(result).startswith(said)
    assert f">{escape(str(result))}</p><table>" in result._repr_html_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_autopsy_draws_every_latent_once_by_fate_and_once_by_cause(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 16, generator=generator)
    x[:, 3] += 30
    sae = born(untouched(16), d_sae=100, sparsity=TopK(k=4), sample=x, generator=generator).to(dtype)
    found = autopsy(sae, x)
    for axis, groups in zip(autopsy_figure(found).axes, (found.fates, found.causes), strict=True):
        drawn = {c.get_label(): len(c.get_offsets()) for c in axis.collections}  # type: ignore[arg-type]
        assert sum(drawn.values()) == 100
        for name, number in groups.items():
            label = {"dead_by_relu": "dead, never positive", "dead_by_topk": "dead, never selected"}.get(
                name, name.replace("_", " ")
            )
            assert drawn.get(f"{label} ({number:,})", 0) == number
    page = StringIO()
    Console(width=120, file=page).print(autopsy_text(found))
    assert f"{int(found.is_dead.sum())} of 100 latents (topk) are dead on 1,000 tokens" in page.getvalue()
    assert all(str(finding)[:40] in page.getvalue() for finding in found.findings)
