"""Autopsies of SAEs whose dead latents were made on purpose, and of each number by an oracle."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.causes import CAUSES
from autopsae.evaluation.result import COLUMNS, FATES, Autopsy
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.median import geometric_median
from autopsae.training.config import TrainConfig
from autopsae.training.one import train


def drawn(gamma: float, seed: int = 0, d_in: int = 32, tokens: int = 4000, **options: float) -> Tensor:
    return gaussian_tokens(tokens, d_in, gamma, generator=torch.Generator().manual_seed(seed), **options)  # type: ignore[arg-type]


def named(found: Autopsy, cause: str) -> float:
    """The share of the dead that died of it."""
    return found.causes[cause] / int(found.is_dead.sum())


def birth(x: Tensor, sparsity: Sparsity, *, d_sae: int = 512, centered: bool = True, seed: int = 1) -> SAE:
    remedy = center(geometric_median(x), "median") if centered else untouched(x.shape[1])
    generator = torch.Generator().manual_seed(seed)
    return born(remedy, d_sae=d_sae, sparsity=sparsity, sample=x, generator=generator)


@pytest.mark.parametrize("gamma", [5.0, 30.0])
@pytest.mark.parametrize("sparsity", [TopK(k=16), BatchTopK(k=16), GroupMax(k=16), ReLU()], ids=lambda s: s.name)
def test_latents_that_the_mean_kills_died_of_the_shift(sparsity: Sparsity, gamma: float) -> None:
    x = drawn(gamma)
    found = autopsy(birth(x, sparsity, centered=False), x)
    assert int(found.is_dead.sum()) > 50
    assert named(found, "shift") >= 0.95


@pytest.mark.parametrize("gamma", [1.0, 8.0])
def test_encoder_rows_turned_against_the_mean_died_of_the_shift_whatever_their_decoders(gamma: float) -> None:
    x = drawn(gamma) * 3 + 2
    sae = birth(x, TopK(k=16), centered=False)
    against = torch.arange(512) < 100
    with torch.no_grad():
        noise = 0.05 * torch.randn(100, 32, generator=torch.Generator().manual_seed(2))
        sae.W_enc[against] = normalize(noise - normalize(x.mean(dim=0), dim=0), dim=1)
    found = autopsy(sae, x)
    dead = found.is_dead & against
    assert int(dead.sum()) == 100
    assert float((found.cause[dead] == CAUSES.index("shift")).double().mean()) >= 0.95
    assert float(found.alignment[dead].max()) < -0.9


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("gamma", "centered"), [(0.0, True), (6.0, True), (6.0, False)])
def test_latents_in_directions_without_variance_died_of_low_variance(
    gamma: float, centered: bool, tied: bool
) -> None:
    eigenvalues = torch.cat([torch.ones(16), torch.full((16,), 1e-3)]).double()
    x = gaussian_tokens(4000, 32, gamma, spectrum=eigenvalues, generator=torch.Generator().manual_seed(0))
    directions = torch.linalg.eigh((x - x.mean(dim=0)).T @ (x - x.mean(dim=0))).eigenvectors.T
    sae = birth(x, TopK(k=16), centered=centered)
    low = torch.arange(512) < 128
    with torch.no_grad():
        half = directions[:16], directions[16:]
        rows = torch.where(low[:, None], sae.W_enc[:, :16] @ half[0], sae.W_enc[:, 16:] @ half[1])
        sae.W_enc.copy_(normalize(rows, dim=1))
        if tied:
            sae.W_dec.copy_(sae.W_enc)
    found = autopsy(sae, x)
    dead = found.is_dead & low
    assert int(dead.sum()) > 50
    assert float((found.cause[dead] == CAUSES.index("low_variance")).double().mean()) >= 0.95


def test_latents_with_short_rows_were_outcompeted() -> None:
    x = drawn(0.0)
    sae = birth(x, TopK(k=4))
    with torch.no_grad():
        sae.W_enc[64:] *= 0.1
    found = autopsy(sae, x)
    assert int(found.is_dead.sum()) > 300
    assert named(found, "outcompeted") >= 0.95


def test_latents_that_stronger_ones_always_beat_were_outcompeted() -> None:
    x = drawn(0.0)
    sae = birth(x, TopK(k=4))
    with torch.no_grad():
        strong = torch.arange(512) < 64
        sae.W_enc[strong] *= 8
        sae.W_dec[strong] /= 8
    found = autopsy(sae, x)
    assert int(found.is_dead.sum()) > 300
    assert bool((found.max_pre[found.is_dead] > 0).all())
    assert named(found, "outcompeted") >= 0.95


KILLED = [
    (sparsity, gamma, lr, frozen)
    for sparsity in (TopK(k=4), BatchTopK(k=4), GroupMax(k=4), JumpReLU(), ReLU())
    for gamma, lr in ((0.0, 0.3), (3.0, 0.3), (1.0, 0.05))
    for frozen in ((), ("b_dec",))
    # Where b_dec cannot move, such rates leave most without TopK alive.
    if isinstance(sparsity, TopK | BatchTopK) or (lr > 0.1 and not frozen)
]


@pytest.mark.parametrize(("sparsity", "gamma", "lr", "frozen"), KILLED)
def test_latents_that_a_learning_rate_kills_died_in_training(
    sparsity: Sparsity, gamma: float, lr: float, frozen: tuple[str, ...]
) -> None:
    x = drawn(gamma, spectrum=0.5)
    generator, middle = torch.Generator().manual_seed(1), center(geometric_median(x), "median")
    sae = born(middle, d_sae=256, sparsity=sparsity, sample=x, generator=generator, encoder_bias=True)
    assert fates(sae, x).dead < 0.01
    train(sae, x, TrainConfig(steps=60, lr=lr, batch_tokens=512, frozen=frozen))
    found = autopsy(sae, x)
    assert int(found.is_dead.sum()) > 20
    assert named(found, "died_in_training") >= 0.95


def test_latents_whose_bias_has_sunk_died_in_training() -> None:
    x = drawn(0.0)
    sae = born(
        center(geometric_median(x), "median"),
        d_sae=64,
        sparsity=ReLU(),
        sample=x,
        generator=torch.Generator(),
        encoder_bias=True,
    )
    assert sae.b_enc is not None
    with torch.no_grad():
        sae.b_enc[:20] = -30.0
    found = autopsy(sae, x)
    assert found.is_dead.tolist() == [True] * 20 + [False] * 44
    assert found.causes["died_in_training"] == 20


def test_four_causes_are_told_apart_in_one_sae() -> None:
    generator = torch.Generator().manual_seed(0)
    eigenvalues = torch.cat([torch.ones(48), torch.full((16,), 1e-3)]).double()
    x = gaussian_tokens(4000, 64, 2.0, spectrum=eigenvalues, generator=generator)
    low = torch.linalg.eigh((x - x.mean(dim=0)).T @ (x - x.mean(dim=0))).eigenvectors.T[:16]
    sae = born(untouched(64), d_sae=512, sparsity=TopK(k=32), sample=x, generator=generator, encoder_bias=True)
    assert sae.b_enc is not None
    with torch.no_grad():
        noise = 0.05 * torch.randn(50, 64, generator=generator)
        sae.W_enc[:50] = normalize(noise - normalize(x.mean(dim=0), dim=0), dim=1)
        sae.W_enc[50:100] = normalize(torch.randn(50, 16, generator=generator) @ low, dim=1)
        sae.W_enc[100:150] *= 0.02
        sae.b_enc[150:200] = -60
    found = autopsy(sae, x)
    for first, cause in ((0, "shift"), (50, "low_variance"), (100, "outcompeted"), (150, "died_in_training")):
        own = torch.arange(512).sub(first).div(50, rounding_mode="floor") == 0
        dead = own & found.is_dead
        assert int(dead.sum()) > 30
        assert float((found.cause[dead] == CAUSES.index(cause)).double().mean()) >= 0.95


def by_hand() -> tuple[SAE, Tensor]:
    """Five latents on tokens around (4, 1), of which the rows say what becomes of them."""
    angles = torch.linspace(0, 2 * torch.pi, 401, dtype=torch.float64)[:-1]
    x = torch.stack([4 + angles.cos(), 1 + angles.sin()], dim=1)
    W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.1, 0.0], [0.6, -0.8]], dtype=torch.float64)
    return SAE(W_enc=W, W_dec=W, b_dec=torch.zeros(2, dtype=torch.float64), sparsity=TopK(k=1)), x


def test_every_number_is_what_it_is_by_hand() -> None:
    sae, x = by_hand()
    found = autopsy(sae, x, lr=0.1, steps=20)
    pre = x @ sae.W_enc.detach().T
    assert [FATES[number] for number in found.fate.tolist()] == [
        "always_on",
        "dead_by_topk",
        "dead_by_relu",
        "dead_by_topk",
        "dead_by_topk",
    ]
    assert found.fired.tolist() == [400, 0, 0, 0, 0]
    assert torch.allclose(found.max_pre, pre.amax(dim=0))
    others = [torch.cat([pre[:, :i], pre[:, i + 1 :]], dim=1).amax(dim=1).clamp_min(0) for i in range(5)]
    assert torch.allclose(found.margin, torch.stack([(pre[:, i] - others[i]).max() for i in range(5)]))
    assert torch.allclose(found.shift, torch.tensor([4.0, 1.0, -4.0, 0.4, 1.6]).double(), atol=1e-4)
    half = 0.5**0.5
    assert torch.allclose(found.signal, torch.tensor([half, half, half, 0.1 * half, half]).double())
    assert torch.allclose(found.variance_share, torch.ones(5).double(), atol=1e-6)
    assert torch.allclose(found.alignment[2], torch.tensor(-4 / 17**0.5).double(), atol=1e-5)
    assert torch.allclose(found.tied, torch.ones(5).double())
    # The best token of latent 2 is at x = 3: b_dec has to move by 3 in the one coordinate that its row looks at.
    assert torch.allclose(found.travel, torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]).double())
    assert found.reachable.tolist() == [True, True, False, True, True]
    assert found.strays == 0
    assert found.to_dict()["recovery"] == {"lr": 0.1, "steps": 20, "reach": 2.0, "out_of_reach": 1}


def test_a_row_of_zeros_is_beyond_reach() -> None:
    sae, x = by_hand()
    with torch.no_grad():
        sae.W_enc[4] = 0
    found = autopsy(sae, x)
    assert FATES[int(found.fate[4])] == "dead_by_relu"
    assert CAUSES[int(found.cause[4])] == "low_variance"
    assert (float(found.travel[4]), bool(found.reachable[4])) == (torch.inf, False)
    assert (float(found.variance_share[4]), float(found.alignment[4])) == (0, 0)


@pytest.mark.parametrize("length", [1e-9, 1e-25, 1e20])
def test_the_angles_of_a_row_do_not_depend_on_its_length(length: float) -> None:
    sae, x = by_hand()
    with torch.no_grad():
        sae.W_dec.copy_(sae.W_enc)
    expected = autopsy(sae, x)
    with torch.no_grad():
        sae.W_enc[1] *= length
    now = autopsy(sae, x)
    assert now.tied[1] == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(now.alignment, expected.alignment)


def test_no_training_moves_what_an_encoder_with_a_center_of_its_own_subtracts() -> None:
    sae, x = by_hand()
    sae.fix_encoder_center()
    found = autopsy(sae, x)
    assert found.travel.tolist() == [0.0, 0.0, torch.inf, 0.0, 0.0]
    [said] = [finding for finding in found.findings if finding.name == "out_of_reach"]
    assert "the encoder subtracts b_pre" in said.meaning
    assert "--recentre" in said.advice


def test_the_counts_are_those_of_fates_and_say_so_in_every_form() -> None:
    x = drawn(4.0)
    sae = birth(x, TopK(k=8), centered=False)
    found, counted = autopsy(sae, list(x.split(700)), rare=0.01), fates(sae, x)
    assert torch.equal(found.fired, counted.fired)
    said = found.to_dict()
    assert said["n_alive"] == int((counted.fired > 0).sum())
    assert said["n_dead_by_relu"] == int((~counted.positive).sum())
    assert said["n_alive"] + said["n_dead_by_relu"] + said["n_dead_by_topk"] == said["d_sae"] == 512
    assert said["tokens"] == 4000
    assert said["n_rare"] == int(((counted.fired > 0) & (counted.fired < 40)).sum()) > 0
    assert said["n_always_on"] == int((counted.fired >= 3600).sum())
    assert sum(found.fates.values()) == 512
    assert sum(said["causes"].values()) == said["n_dead"]
    assert said["dead"] == pytest.approx(said["dead_by_relu"] + said["dead_by_topk"]) == said["n_dead"] / 512
    table = found.to_frame()
    assert [*table.columns] == list(COLUMNS)
    assert (table["cause"] == "none").sum() == said["n_alive"]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_affine_map_and_layer_norm_are_part_of_the_sae(layer_norm: bool) -> None:
    x = drawn(6.0)
    generator = torch.Generator().manual_seed(1)
    gain = torch.linspace(1, 3, 32)
    scaled = Affine(center=torch.ones(32), linear=gain.diag(), inverse=(1 / gain).diag(), scale=0.5)
    W = normalize(torch.randn(256, 32, generator=generator), dim=1)
    sae = SAE(
        W_enc=W, W_dec=W, b_dec=torch.zeros(32), sparsity=TopK(k=8), affine=scaled, layer_norm=layer_norm
    ).eval()
    entered, _ = sae.enter(x)
    plain = SAE(W_enc=W, W_dec=W, b_dec=torch.zeros(32), sparsity=TopK(k=8)).eval()
    found, expected = autopsy(sae, x), autopsy(plain, entered)
    for name in COLUMNS:
        assert found.columns()[name] == expected.columns()[name], name
    assert found.causes["shift"] > 50


def test_stray_tokens_do_not_hide_the_centre_or_the_spread() -> None:
    x = drawn(0.0)
    with_strays = torch.cat([x, torch.full((40, 32), 500.0)])
    sae = birth(x, TopK(k=8))
    found = autopsy(sae, with_strays)
    assert found.strays == 40 / 4040
    assert torch.allclose(found.signal, autopsy(sae, x).signal, rtol=1e-3)
    assert float(found.shift.abs().max()) < 0.2


def test_memory_does_not_grow_with_the_tokens_and_batches_do_not_matter() -> None:
    x = drawn(2.0)
    sae = birth(x, JumpReLU())
    whole, parts = autopsy(sae, x), autopsy(sae, [part.numpy() for part in x.split(333)])
    assert whole.columns()["cause"] == parts.columns()["cause"]
    assert torch.equal(whole.fired, parts.fired)


def test_findings_say_what_to_do_and_silence_means_all_is_well() -> None:
    x = drawn(8.0)
    raw = autopsy(birth(x, TopK(k=16), centered=False), x, lr=1e-4, steps=10)
    assert {finding.name for finding in raw.findings} >= {"shift", "out_of_reach", "always_on"}
    [shift] = [finding for finding in raw.findings if finding.name == "shift"]
    assert shift.value == raw.causes["shift"] / 512
    meant = (
        f"{raw.causes['shift']:,} latents; they would fire if b_dec lay, or had lain from the start, at the centre"
    )
    assert meant in str(shift)
    assert f"where {int(raw.wakes.sum()):,} would fire if each were re-centred alone" in str(shift)
    well = autopsy(birth(x, TopK(k=64)), x)
    assert well.findings == ()
    assert well.causes == {"shift": 0, "low_variance": 0, "died_in_training": 0, "outcompeted": 0}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_table_has_a_row_per_latent(tmp_path: Path, suffix: str) -> None:
    sae, x = by_hand()
    found, path = autopsy(sae, x), tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    found.save_table(path)
    if suffix == "csv":
        header, *rows = list(csv.reader(path.read_text().splitlines()))
    else:
        import pandas

        read = pandas.read_parquet(path)
        header, rows = [*read.columns], read.astype(str).to_numpy().tolist()
    assert header == list(COLUMNS)
    assert [row[1] for row in rows] == found.columns()["fate"]
    assert [float(row[7]) for row in rows] == found.shift.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (torch.randn(500, 7), {}, "expected tokens of d_in = 2, as the SAE's, got 7; choose the layer"),
        (torch.randn(99, 2), {}, "expected at least 100 tokens, got 99; silence on few says little"),
        (torch.full((500, 2), torch.nan), {}, "expected finite activations, got NaN or infinite values in 500"),
        (torch.randn(0, 2), {}, "expected at least one token, got none"),
        (torch.randn(500, 2), {"lr": -1.0}, "expected lr and steps of at least 0 and rare in"),
        (torch.randn(500, 2), {"rare": 2.0}, "got 0.0003, 100000 and 2"),
    ],
)
def test_bad_input_is_named(tokens: Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        autopsy(by_hand()[0], tokens, **options)  # type: ignore[arg-type]


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    sae, x = by_hand()
    with pytest.raises(InputError, match=r"expected a table named .csv or .parquet, got '.xlsx'"):
        autopsy(sae, x).save_table(tmp_path / "table.xlsx")
