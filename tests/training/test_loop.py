import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from autopsae.activations.synthetic import synthetic_features
from autopsae.arrays import InputError
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.training.bias import Bias
from autopsae.training.config import TrainConfig
from autopsae.training.data import Shuffled
from autopsae.training.loop import Training
from autopsae.training.objective import L1, L0Target
from autopsae.training.one import Diverged, steps, train
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member


def tokens(n: int = 3000, d_in: int = 16) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(5)) + 1


def new_sae(x: torch.Tensor, *, sparsity: Sparsity | None = None, dtype: torch.dtype = torch.float32) -> SAE:
    return born(
        untouched(x.shape[1]),
        d_sae=64,
        sparsity=sparsity or TopK(k=4),
        sample=x,
        generator=torch.Generator().manual_seed(0),
        encoder_bias=True,
        dtype=dtype,
    )


def test_the_same_seed_gives_the_same_weights() -> None:
    x = tokens()
    config = TrainConfig(steps=30, lr=1e-3, batch_tokens=256, revival=AuxK(dead_after_tokens=1000))
    first, second = new_sae(x), new_sae(x)
    assert train(first, x, config) == train(second, x, config)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_equals_dense_autograd_and_adam() -> None:
    x = tokens(256).double()
    found, expected = new_sae(x, dtype=torch.float64), new_sae(x, dtype=torch.float64)
    config = TrainConfig(steps=5, lr=1e-2, batch_tokens=256, unit_decoder=False, buffer_tokens=256)
    train(found, x, config)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-2)
    for batch in [batch for batch, _ in zip(Shuffled(x, 256, buffer_tokens=256, seed=0), range(5), strict=False)]:
        y = expected.affine(batch.double())
        pre = expected.pre_activations(y)
        latents = pre.detach().topk(4, dim=1).indices
        codes = torch.zeros_like(pre).scatter(1, latents, pre.gather(1, latents)).relu()
        loss = (codes @ expected.W_dec + expected.b_dec - y).square().sum() / len(y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in expected.named_parameters():
        assert torch.allclose(found.get_parameter(name), parameter, atol=1e-6), name


def test_decoder_rows_stay_at_unit_norm_only_if_wanted() -> None:
    x = tokens()
    for unit in (True, False):
        sae = new_sae(x)
        train(sae, x, TrainConfig(steps=20, lr=1e-2, batch_tokens=256, unit_decoder=unit))
        norms = sae.W_dec.norm(dim=1)
        assert torch.allclose(norms, torch.ones(64), atol=1e-5) == unit


def test_b_dec_moves_by_its_own_learning_rate_and_not_at_all_at_zero() -> None:
    x = tokens()
    for rate, moved in ((0.0, 0.0), (1e-3, 1e-3), (1e-1, 1e-1)):
        sae = new_sae(x)
        train(sae, x, TrainConfig(steps=1, lr=1e-4, bias=Bias(lr_fraction=rate / 1e-4), batch_tokens=512))
        assert float(sae.b_dec.detach().abs().max()) == pytest.approx(moved, rel=1e-3)


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    x = tokens()
    config = TrainConfig(steps=10, lr=1e-2, warmup_steps=4, decay_steps=4, batch_tokens=512)
    sae = new_sae(x)
    moves, before = [], sae.b_dec.detach().clone()
    for _ in steps(sae, x, config):
        moves.append(float((sae.b_dec.detach() - before).abs().max()))
        before = sae.b_dec.detach().clone()
    # Adam's step is about the learning rate.
    assert moves[0] == pytest.approx(2.5e-3, rel=1e-2)
    assert moves[-1] < moves[5] / 2
    assert len(moves) == 10


def test_records_count_tokens_and_silence() -> None:
    x = tokens()
    config = TrainConfig(steps=8, lr=1e-3, batch_tokens=500, dead_after_tokens=2000)
    records = train(new_sae(x), x, config)
    assert [record.tokens for record in records] == [500 * (i + 1) for i in range(8)]
    for record in records:
        assert 0 < record.l0 <= 4
        if record.dead is not None and record.dead_by_relu is not None and record.dead_by_topk is not None:
            assert record.dead == pytest.approx(record.dead_by_relu + record.dead_by_topk)
    assert records[-1].loss < records[0].loss


@pytest.mark.parametrize(("after", "known_from"), [(1, 0), (500, 0), (501, 1), (2000, 3), (4001, None)])
def test_records_say_nothing_of_death_until_its_tokens_have_passed(after: int, known_from: int | None) -> None:
    x = tokens()
    records = train(new_sae(x), x, TrainConfig(steps=8, lr=1e-3, batch_tokens=500, dead_after_tokens=after))
    for record in records:
        known = known_from is not None and record.step >= known_from
        death = (record.dead, record.dead_by_relu, record.dead_by_topk, record.dead_tokens)
        assert [value is not None for value in death] == [known] * 4
        assert record.dead_tokens == (after if known else None)
        assert 0 <= record.never_fired <= 1
    if known_from is not None:
        # Silent for as long as training lasts is never fired.
        assert records[known_from].dead == records[known_from].never_fired > 0


def test_never_fired_is_the_share_of_latents_that_fired_in_no_batch_so_far() -> None:
    x = tokens()[:500] + 1
    sae = new_sae(x)
    training = Training(
        [Member(sae=sae, config=TrainConfig(steps=12, lr=3e-2, batch_tokens=500, record_every=4))], x
    )
    ever = torch.zeros(sae.d_sae, dtype=torch.bool)
    shares = []
    for _ in range(12):
        ever |= fates(sae, x).fired > 0  # a batch is all of the tokens
        records = training.advance()
        if records is not None:
            [record] = records.values()
            assert record.never_fired == float((~ever).double().mean())
            shares.append(record.never_fired)
    assert len(shares) == 3
    assert shares[0] > shares[-1] > 0


@pytest.mark.parametrize("batch", [1, 20])
def test_a_batch_whose_tokens_do_not_differ_has_no_fvu(batch: int) -> None:
    x = tokens() if batch == 1 else tokens(1).expand(100, -1)
    records = train(new_sae(x), x, TrainConfig(steps=3, lr=1e-3, batch_tokens=batch))
    assert [record.fvu for record in records] == [None] * 3
    assert all(record.loss > 0 for record in records)


def test_stopping_the_iteration_stops_the_training() -> None:
    x = tokens()
    sae = new_sae(x)
    running = steps(sae, x, TrainConfig(steps=100, lr=1e-3, batch_tokens=256))
    next(running)
    running.close()  # type: ignore[attr-defined]
    weights = [parameter.clone() for parameter in sae.parameters()]
    assert list(running) == []
    assert all(torch.equal(a, b) for a, b in zip(weights, sae.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_before_the_step_and_says_where() -> None:
    x = tokens()
    sae = new_sae(x)
    running = steps(sae, x, TrainConfig(steps=10, lr=1e-3, batch_tokens=256))
    next(running)
    next(running)
    with torch.no_grad():
        sae.W_dec[0] = torch.nan
    weights = [parameter.clone() for parameter in sae.parameters()]
    with pytest.raises(Diverged, match=r"step 2: the loss is nan; lower the learning rate \(0.001\)"):
        next(running)
    for before, after in zip(weights, sae.parameters(), strict=True):
        assert torch.equal(before.nan_to_num(7.0), after.nan_to_num(7.0))


PENALTIES: dict[Sparsity, L1 | L0Target | None] = {
    TopK(k=5): None,
    BatchTopK(k=5): None,
    ReLU(): L1(coefficient=1.0),
    JumpReLU(): L0Target(l0=5.0),
}


@pytest.mark.parametrize("sparsity", PENALTIES, ids=lambda sparsity: sparsity.name)
def test_a_centered_sae_recovers_the_true_features_at_gamma_40(sparsity: Sparsity) -> None:
    data = synthetic_features(100_000, 40.0, generator=torch.Generator().manual_seed(0))
    sae = born(
        center(data.mean.double(), "mean"),
        d_sae=100,
        sparsity=sparsity,
        sample=next(iter(data)) - data.mean,  # the scale of the spread: at gamma 40 the mean's would hide it
        generator=torch.Generator().manual_seed(0),
    )
    config = TrainConfig(steps=1000, lr=5e-3, batch_tokens=256, decay_steps=400, buffer_tokens=20_000)
    records = train(sae, data, replace(config, penalty=PENALTIES[sparsity]))
    assert 2 < records[-1].l0 < 15
    found = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    mmcs = float((data.features @ found.T).max(dim=1).values.mean())
    assert mmcs > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "expected lr > 0 and finite, got 0.0"),
        ({"lr": float("nan")}, "expected lr > 0 and finite, got nan"),
        ({"steps": 0}, "expected steps >= 1, got 0"),
        ({"batch_tokens": 0}, "expected batch_tokens >= 1, got 0"),
        (
            {"bias": Bias(lr_fraction=0.0), "frozen": ("b_dec",)},
            "expected b_dec frozen or a bias of its own, got ('b_dec',) and Bias(lr_fraction=0.0",
        ),
        ({"warmup_steps": 6, "decay_steps": 5}, "expected warmup_steps + decay_steps <= steps = 10, got 6 + 5"),
        ({"k_start": 20, "k_steps": 50}, "expected k_steps <= steps = 10, got 50"),
        ({"clip_norm": 0.0}, "expected clip_norm > 0 or None, got 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        TrainConfig(**{"steps": 10, "lr": 1e-3, **change})


def test_evaluation_equals_plain_numpy() -> None:
    x = tokens()
    sae = new_sae(x)
    train(sae, x, TrainConfig(steps=20, lr=1e-2, batch_tokens=256))
    found = evaluate(sae, list(x.split(700)))
    with torch.no_grad():
        error = (x - sae(x)).double().square().sum()
        codes = sae.encode(x)
        bias = sae.affine.invert(sae.b_dec[None])[0].double()
    mean = x.double().mean(dim=0)
    assert found.fvu_raw == pytest.approx(float(error / (x - mean).square().sum()), rel=1e-5)
    assert found.mse_raw == pytest.approx(float(error / x.numel()), rel=1e-5)
    assert found.l0 == pytest.approx(float((codes > 0).sum() / len(x)))
    assert found.bias_captured == pytest.approx(float(bias @ mean / (mean @ mean)))
    assert found.fates.fired.tolist() == (codes > 0).sum(dim=0).tolist()


def test_records_follow_the_bias_towards_the_mean_and_the_threshold_of_being_heard() -> None:
    x = tokens() + 3
    sae = new_sae(x)
    records = train(sae, x, TrainConfig(steps=60, lr=1e-3, bias=Bias(lr_fraction=10.0), batch_tokens=256))
    captured = [record.bias_captured for record in records]
    assert captured[0] < 0.02 < captured[30] < captured[-1]
    assert captured[-1] == pytest.approx(evaluate(sae, x).bias_captured, abs=0.02)
    codes = sae.encode(x).detach()
    smallest = codes.where(codes > 0, torch.inf).amin(dim=1)
    assert records[-1].threshold == pytest.approx(float(smallest[smallest.isfinite()].mean()), rel=0.1)


def test_training_prints_nothing_and_tells_progress_the_steps_of_each_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, config = tokens(), TrainConfig(steps=5, lr=1e-3, batch_tokens=256, record_every=2)
    heard: list[tuple[str, int, int | None]] = []
    silent = train(new_sae(x), x, config)
    assert train(new_sae(x), x, config, progress=lambda *told: heard.append(told)) == silent
    assert heard == [("training", 2, 5), ("training", 4, 5), ("training", 5, 5)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("sparsity", [TopK(k=4), BatchTopK(k=4), JumpReLU()], ids=lambda s: s.name)
def test_a_training_ends_with_the_same_bits_under_every_screen(sparsity: Sparsity) -> None:
    x = tokens()
    penalty = L0Target(l0=4.0) if sparsity == JumpReLU() else None
    config = TrainConfig(steps=30, lr=3e-3, batch_tokens=256, penalty=penalty, revival=AuxK(dead_after_tokens=600))
    saes = [new_sae(x, sparsity=sparsity) for _ in range(3)]
    records = [
        train(sae, x, replace(config, products=products))  # type: ignore[arg-type]
        for sae, products in zip(saes, ("float32", "bfloat16", "int8"), strict=True)
    ]
    assert records[0] == records[1] == records[2]
    for name, tensor in saes[0].state_dict().items():
        assert all(torch.equal(sae.state_dict()[name], tensor) for sae in saes[1:])
