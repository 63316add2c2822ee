"""A sparsity that the library does not have is one class: its margins; everything else follows from them.

It is the example of CONTRIBUTING's "how to add a sparsity", and goes through every verb.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.recentre import recentre
from autopsae.evaluation.reconstruction import evaluate
from autopsae.interop.convert import save_sae
from autopsae.remedies.remedy import center, untouched, whiten
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import SPARSITIES, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import forecast_births
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_needed
from autopsae.training.one import train
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member


@dataclass(frozen=True, kw_only=True)
class Fraction(Sparsity):
    """All latents over a fraction of the token's largest fire."""

    name: ClassVar[str] = "fraction"
    fraction: float = 0.5

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        return pre - self.fraction * pre.amax(dim=1, keepdim=True).clamp_min(0)

    def check(self, d_sae: int) -> None:
        check_k(1, d_sae)
        if not 0 < self.fraction < 1:
            raise InputError(f"Fraction: expected a fraction between 0 and 1, got {self.fraction:g}")


del SPARSITIES["fraction"]  # other tests read the names that the library has

D_IN, D_SAE = 12, 64


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPARSITIES, "fraction", Fraction)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(n: int = 4000, seed: int = 5) -> Tensor:
    """With a mean that kills a part of the latents at birth."""
    x = torch.randn(n, D_IN, generator=generator(seed), dtype=torch.float64)
    return x * torch.logspace(0.3, -0.7, D_IN, dtype=torch.float64) + 1.5


def new_sae(seed: int = 0, fraction: float = 0.5) -> SAE:
    sparsity = Fraction(fraction=fraction)
    return born(
        untouched(D_IN),
        d_sae=D_SAE,
        sparsity=sparsity,
        sample=tokens(),
        generator=generator(seed),
        encoder_bias=True,
    )


def dense(sae: SAE, x: Tensor) -> Tensor:
    """Codes by a loop over tokens."""
    pre = sae.pre_activations(sae.enter(x)[0]).detach()
    rows = [torch.where(row > 0.5 * max(0.0, float(row.max())), row, 0).clamp_min(0) for row in pre]
    return torch.stack(rows)


def test_it_encodes_as_a_loop_over_tokens_does_also_where_nothing_is_positive() -> None:
    sae, x = new_sae(), tokens(700)
    with torch.no_grad():
        for shift in (0.0, -1e3):
            sae.b_enc.fill_(shift)  # type: ignore[union-attr]
            assert torch.equal(sae.encode(x), dense(sae, x))
            sae.train()
            assert torch.equal(sae.encode(x), dense(sae, x))
            assert torch.equal(sae(x), sae.decode(dense(sae, x)).to(sae.W_dec))
            sae.eval()
    assert not sae.encode(x).any()


def test_its_counts_its_forecasts_and_a_real_birth_agree() -> None:
    x, sparsity = tokens(6000), Fraction(fraction=0.7)
    statistics = collect(x)
    spectrum, median = Spectrum.of(statistics.raw.covariance), x.median(dim=0).values
    remedies = [untouched(D_IN), center(median, "median"), whiten(spectrum, median)]
    births = measure_birth(x, remedies, d_sae=D_SAE, sparsity=sparsity, generator=generator())
    forecasts = forecast_births(x[::10], remedies, sparsity, d_sae=D_SAE, generator=generator())
    for remedy in remedies:
        sae = born(remedy, d_sae=D_SAE, sparsity=sparsity, sample=x, generator=generator())
        real, counted = fates(sae, x), births[remedy.name]
        assert (counted.dead, counted.dead_by_relu) == (real.dead, real.dead_by_relu)
        expected = forecasts[remedy.name].dead(len(x))
        assert expected.low <= counted.dead <= expected.high
    assert births["none"].dead_by_topk > 0.05


def test_it_is_diagnosed_and_born_from_its_prescription(tmp_path: Path) -> None:
    x = tokens()
    diagnosis = diagnose(x, d_sae=D_SAE, sparsity=Fraction(fraction=0.7))
    assert diagnosis.sparsity == Fraction(fraction=0.7)
    assert diagnosis.birth["none"].dead > diagnosis.birth["median"].dead
    assert diagnosis.predicted == Prediction(dead_by_relu=diagnosis.predicted.dead_by_relu, dead=None)
    assert "born dead" in str(diagnosis.findings[0])
    diagnosis.prescription.save(tmp_path / "layer")
    sae = born(Prescription.load(tmp_path / "layer"))
    assert (sae.sparsity, sae.d_sae) == (Fraction(fraction=0.7), D_SAE)


@pytest.mark.parametrize("products", ["bfloat16", "auto"])
def test_it_learns_and_is_saved_loaded_folded_and_evaluated(tmp_path: Path, products: str) -> None:
    sae, x = new_sae(), tokens()
    config = TrainConfig(steps=200, lr=1e-2, batch_tokens=600, products=products)  # type: ignore[arg-type]
    records = train(sae, x, config)
    first, last = records[0].fvu, records[-1].fvu
    assert first is not None
    assert last is not None
    assert last < 0.5 * first
    sae.save(tmp_path / "sae")
    loaded = SAE.load(tmp_path / "sae")
    assert loaded.sparsity == sae.sparsity
    assert torch.equal(loaded.encode(x), sae.encode(x))
    folded, evaluation = sae.fold(), evaluate(sae, x)
    assert torch.allclose(folded.encode(x.float()), sae.encode(x), atol=1e-4)
    assert evaluation.fvu_raw is not None
    assert evaluation.fvu_raw < 0.5
    assert evaluation.l0 == pytest.approx(float((dense(sae, x) > 0).sum()) / len(x))


def test_settings_that_cannot_be_are_refused_also_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Fraction: expected a fraction between 0 and 1, got 2"):
        new_sae(fraction=2.0)
    sae = new_sae()
    sae.sparsity = Fraction(fraction=-1.0)
    sae.save(tmp_path / "sae")
    with pytest.raises(InputError, match=r"sae\.json: Fraction: expected a fraction between 0 and 1, got -1"):
        SAE.load(tmp_path / "sae")
    with pytest.raises(InputError, match="k: expected a sparsity whose k can change"):
        train(new_sae(), tokens(), TrainConfig(steps=3, lr=1e-3, k_start=8, k_steps=2))


@pytest.mark.parametrize(
    "more",
    [
        {"revival": AuxK(dead_after_tokens=1000)},
        {"revival": GhostGradients(dead_after_tokens=1000)},
        {"resampling": Resampling(every_steps=20, dead_after_tokens=1000)},
    ],
    ids=["auxk", "ghost", "resampling"],
)
def test_the_silent_are_revived(more: dict[str, object]) -> None:
    sae, x = new_sae(), tokens()
    with torch.no_grad():
        sae.b_enc[:10] = -20  # type: ignore[index]
    config = TrainConfig(steps=60, lr=1e-2, batch_tokens=200, dead_after_tokens=1000, **more)  # type: ignore[arg-type]
    before = sae.W_enc.detach().clone()
    records = train(sae, x, config)
    revived = records[-1].resampled + sum(r.revived_from_relu + r.revived_from_topk + r.resampled for r in records)
    assert revived > 0 or not torch.equal(before[:10], sae.W_enc[:10])


def test_a_sweep_of_two_is_two_trainings_and_goes_on_from_a_checkpoint_bit_by_bit(tmp_path: Path) -> None:
    def members() -> list[Member]:
        configs = [
            TrainConfig(steps=20, lr=lr, batch_tokens=100, revival=AuxK(dead_after_tokens=300))
            for lr in (1e-3, 1e-2)
        ]
        return [Member(sae=new_sae(seed), config=config, name=str(seed)) for seed, config in enumerate(configs)]

    x, whole, broken, resumed = tokens(), members(), members(), members()
    for _ in Training(whole, x):
        pass
    for member, alone in zip(whole, members(), strict=True):
        train(alone.sae, x, alone.config)
        assert torch.allclose(member.sae.W_enc, alone.sae.W_enc, atol=1e-5)
    sweep = Training(broken, x)
    for _ in range(9):
        sweep.advance()
    sweep.save(tmp_path / "checkpoint")
    again = Training(resumed, x)
    again.load(tmp_path / "checkpoint")
    for _ in again:
        pass
    for member, other in zip(whole, resumed, strict=True):
        assert torch.equal(member.sae.W_enc, other.sae.W_enc)
        assert torch.equal(member.sae.b_dec, other.sae.b_dec)


def test_the_memory_of_its_training_can_be_told() -> None:
    member = Member(sae=new_sae(), config=TrainConfig(steps=1, lr=1e-3), name="one")
    assert bytes_needed(member) > 4 * 4 * 2 * D_SAE * D_IN


def test_the_autopsy_tells_who_is_dead_and_recentring_wakes_them() -> None:
    sae, x = new_sae(fraction=0.7), tokens()
    result, real = autopsy(sae, x), fates(sae, x)
    assert result.sparsity == "fraction"
    assert torch.equal(result.fired, real.fired)
    assert torch.equal(result.margin > 0, real.fired > 0)
    assert result.fates["dead_by_topk"] == round(real.dead_by_topk * D_SAE)
    assert sum(result.causes.values()) == int(result.is_dead.sum()) > 0
    assert result.causes["shift"] > 0
    woken = recentre(sae, center=result.center, is_dead=result.is_dead)
    assert fates(woken, x).dead < real.dead


def test_two_sparsities_of_one_name_are_refused() -> None:
    def again() -> type[Sparsity]:
        class Other(TopK):
            name: ClassVar[str] = "topk"

        return Other

    with pytest.raises(InputError, match="Other: expected a name of its own, got 'topk', which TopK has"):
        again()
    assert SPARSITIES["topk"] is TopK


@pytest.mark.parametrize("to", ["saelens", "dictionary_learning", "sparsify"])
def test_a_library_that_does_not_have_it_is_not_written_for(tmp_path: Path, to: str) -> None:
    with pytest.raises(InputError, match=r"expected .*fraction"):
        save_sae(new_sae(), tmp_path / "sae", to=to)
