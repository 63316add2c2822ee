"""A member of a sweep is trained as it would be alone: the same weights, the same records, whoever is beside it."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import active_subspace, center, untouched, whiten
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.bias import BIASES, Bias
from autopsae.training.config import Record, TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import L1, L0Target
from autopsae.training.one import train
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member
from autopsae.training.together import SHARED
from tests.training.members import D_IN, STEPS, new_sae, settings, tokens
from tests.ways import without_numba

EXACT = 1e-9


def seen_by(member: Member, common: Tensor) -> Tensor:
    """The raw tokens that a member trains on."""
    raw = common if member.tokens is None else member.tokens
    assert isinstance(raw, Tensor)
    return raw if member.shift is None else raw + member.shift


def agree(found: Record, expected: Record) -> None:
    """Whole numbers are the same, fractions nearly."""
    for part in fields(Record):
        mine, other = getattr(found, part.name), getattr(expected, part.name)
        assert type(mine) is type(other), part.name
        wanted = other if other is None or isinstance(other, int) else pytest.approx(other, rel=EXACT, abs=EXACT)
        assert mine == wanted, (part.name, found, expected)


def same_weights(found: SAE, expected: SAE, tolerance: float = EXACT) -> None:
    for name, value in expected.state_dict().items():
        mine = found.state_dict()[name]
        assert mine.shape == value.shape
        assert torch.allclose(mine, value, rtol=tolerance, atol=tolerance, equal_nan=True), name


@dataclass(frozen=True)
class One:
    """How a member differs: settings of its training, of its SAE, and where its tokens come from."""

    config: dict[str, Any] = field(default_factory=dict)
    sae: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    """The seed of its own tokens."""
    shift: float | None = None

    def member(self, seed: int, sparsity: Sparsity, own: dict[int, Tensor]) -> Member:
        shift = None if self.shift is None else self.shift * torch.linspace(-1, 2, D_IN, dtype=torch.float64)
        sae = new_sae(seed, sparsity, **self.sae)
        raw = None if self.tokens is None else own[self.tokens]
        return Member(sae=sae, config=settings(**self.config), tokens=raw, shift=shift)


def sweep_and_alone(ones: list[One], sparsity: Sparsity) -> tuple[list[list[Record]], list[list[Record]]]:
    """Train all as one and each alone; what they recorded. The weights are compared here."""
    common, own = tokens(), {one.tokens: tokens(1000, one.tokens) for one in ones if one.tokens is not None}
    members = [one.member(seed, sparsity, own) for seed, one in enumerate(ones)]
    starts = [[p.detach().clone() for p in member.sae.parameters()] for member in members]
    found = list(Training(members, common))
    expected: list[list[Record]] = []
    for seed, (one, trained) in enumerate(zip(ones, members, strict=True)):
        alone = one.member(seed, sparsity, own)
        expected.append(train(alone.sae, seen_by(alone, common), alone.config))
        same_weights(trained.sae, alone.sae)
        assert any(not torch.equal(a, b) for a, b in zip(starts[seed], trained.sae.parameters(), strict=True))
    return [[records[m] for records in found] for m in range(len(ones))], expected


def check(ones: list[One], sparsity: Sparsity) -> list[list[Record]]:
    found, expected = sweep_and_alone(ones, sparsity)
    for mine, alone in zip(found, expected, strict=True):
        assert len(mine) == len(alone) > 0
        for a, b in zip(mine, alone, strict=True):
            agree(a, b)
    return found


RATES: list[dict[str, Any]] = [{"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}]
AUXK, GHOSTS = AuxK(dead_after_tokens=320, coefficient=0.5), GhostGradients(dead_after_tokens=448)
RESAMPLINGS = [
    None,
    Resampling(every_steps=30, dead_after_tokens=320),
    Resampling(every_steps=20, until_step=80, dead_after_tokens=640, encoder_norm=0.5),
]

ARCHITECTURES: dict[str, tuple[Sparsity, list[dict[str, Any]]]] = {
    "topk": (TopK(k=3), RATES),
    "topk of many": (TopK(k=17), RATES),
    "topk of all": (TopK(k=32), RATES),
    "batch topk": (BatchTopK(k=3), RATES),
    "relu and l1": (ReLU(), [{"penalty": L1(coefficient=c, warmup_steps=w)} for c, w in ((0.3, 0), (2.0, 50))]),
    "relu, one without l1": (ReLU(), [{"penalty": L1(coefficient=1.0)}, {}]),
    "jumprelu": (JumpReLU(), [{"penalty": L0Target(l0=l0, coefficient=c)} for l0, c in ((3.0, 0.2), (6.0, 1.0))]),
    "jumprelu, one free": (JumpReLU(), [{"penalty": L0Target(l0=3.0)}, {}]),
}

AT_TIMES = (Bias(), Bias(from_step=20), Bias(until_step=20, decoder_only=True))
FEW = {"steps": 60, "record_every": 20}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "auxk or not": [{}, {"revival": AUXK}, {"revival": AuxK(dead_after_tokens=640, coefficient=2.0)}],
    "auxk of two": [{"revival": replace(AUXK, k_aux=2)}, {}, {"revival": AuxK(k_aux=2, dead_after_tokens=700)}],
    "ghosts or not": [{"revival": GHOSTS}, {}, {"revival": replace(GHOSTS, coefficient=0.3)}],
    "auxk and ghosts": [{"revival": GHOSTS}, {"revival": AUXK}, {}],
    "resampling": [{"resampling": r, "seed": seed} for seed, r in enumerate(RESAMPLINGS)],
    "resampling of one stream": [{"resampling": r} for r in RESAMPLINGS],
    "sparse adam": [{"optimizer": "sparse_adam", **rate} for rate in RATES],
    "sign": [{"optimizer": "sign_sgd", "lr": lr} for lr in (1e-4, 1e-3)],
    "clipped": [{"clip_norm": clip, "lr": 1e-2} for clip in (None, 0.01, 3.0)],
    "clipped signs, some frozen": [
        {"optimizer": "sparse_adam", "clip_norm": 0.1, "frozen": frozen} for frozen in ((), ("W_dec",))
    ],
    "frozen": [{"frozen": frozen, "lr": 1e-2} for frozen in ((), ("b_dec",), ("W_enc", "W_dec"), ("b_enc",))],
    "warm-up and decay": [
        {"warmup_steps": up, "decay_steps": down, "lr": 1e-2} for up, down in ((0, 0), (30, 0), (10, 40))
    ],
    "biases": [{"bias": bias, "lr": 1e-2} for bias in BIASES.values()],
    "biases, at times": [{"bias": bias, "lr": 1e-2} for bias in AT_TIMES],
    "biases, revived": [{"bias": bias, "revival": AUXK} for bias in BIASES.values()],
    "biases, resampled": [{"bias": bias, "resampling": RESAMPLINGS[0]} for bias in BIASES.values()],
    "biases, nested": [{"bias": bias, "nested": (3, 10)} for bias in BIASES.values()],
    "free decoders": [{"unit_decoder": False, **rate} for rate in RATES],
    "free decoders and signs": [{"unit_decoder": False, "optimizer": "sign_sgd", "lr": lr} for lr in (1e-4, 1e-3)],
    "patience": [{"dead_after_tokens": n} for n in (64, 640, 100_000)],
    "seeds": [{"seed": seed} for seed in (0, 0, 3)],
    "nested": [{"nested": (3, 10), **rate} for rate in RATES],
    "nested, auxk and ghosts": [{"nested": (16,), "revival": method} for method in (AUXK, GHOSTS, None)],
    "nested, resampled": [{"nested": (1, 2, 31), "resampling": r} for r in RESAMPLINGS],
    "buffers": [{"buffer_tokens": n} for n in (700, 64, 5000)],
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_is_trained_as_alone(kind: str) -> None:
    sparsity, changes = ARCHITECTURES[kind]
    check([One(config={"record_every": 5, **change}) for change in changes], sparsity)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_is_each_members_own(kind: str) -> None:
    found = check([One(config={"record_every": 5, **change}) for change in SETTINGS[kind]], TopK(k=3))
    assert any(record.dead is not None and record.dead > 0 for record in found[0])


@pytest.mark.parametrize("kind", ["auxk or not", "ghosts or not", "resampling", "frozen", "nested"])
@pytest.mark.parametrize("sparsity", [BatchTopK(k=3), JumpReLU()], ids=lambda s: s.name)
def test_settings_hold_for_other_sparsities(kind: str, sparsity: Sparsity) -> None:
    penalty = L0Target(l0=3.0) if sparsity == JumpReLU() else None
    check([One(config={"penalty": penalty, **FEW, **change}) for change in SETTINGS[kind]], sparsity)


@pytest.mark.parametrize("kind", ["auxk and ghosts", "resampling"])
def test_members_without_an_encoder_bias(kind: str) -> None:
    unbiased = {"encoder_bias": False}
    check([One(config={**FEW, **change}, sae=unbiased) for change in SETTINGS[kind]], TopK(k=2))


@pytest.mark.parametrize("sparsity", [TopK(k=3), BatchTopK(k=3), GroupMax(k=4)], ids=lambda s: s.name)
def test_with_a_screen_members_are_those_alone(sparsity: Sparsity) -> None:
    changes = [{"products": "bfloat16", "record_every": 5, **rate} for rate in RATES]
    check([One(config=change) for change in changes], sparsity)


def test_remedies_shifts_and_tokens_are_each_members_own() -> None:
    statistics = collect(tokens())
    spectrum, mean = Spectrum.of(statistics.raw.covariance), statistics.raw.mean
    remedies = [untouched(D_IN), center(mean + 0.1, "median"), whiten(spectrum, mean, alpha=0.3)]
    remedies.append(replace(untouched(D_IN), affine=Affine(center=mean)))
    remedies.append(active_subspace(spectrum, mean, rank=5))
    seen = [One(sae={"remedy": remedy}) for remedy in remedies]
    seen += [One(sae={"layer_norm": True}), One(shift=2.0), One(shift=2.0, sae={"remedy": remedies[2]})]
    seen += [One(tokens=8), One(tokens=9, config={"seed": 4}), One(tokens=8, shift=-1.0)]
    seen += [One(sae={"layer_norm": True}, shift=1.0)]
    check([replace(one, config={**FEW, **one.config}) for one in seen], TopK(k=3))


@pytest.mark.parametrize("kinds", [(0, 1), (2, 1), (0, 3), (3, 4)], ids=str)
def test_plain_views_of_one_stream_are_each_members_own(kinds: tuple[int, int]) -> None:
    """Those that are computed without entering each SAE: scales, centers and shifts alone."""
    mean = tokens().mean(dim=0)
    near, far = (replace(untouched(D_IN), affine=Affine(center=factor * mean)) for factor in (1, 2))
    seen = [One(), One(sae={"remedy": near}), One(sae={"remedy": far}), One(shift=1.0)]
    seen.append(One(shift=2.0, sae={"remedy": near}))
    ones = [seen[kind] for kind in kinds] + [seen[kinds[0]]]
    check([replace(one, config=FEW) for one in ones], TopK(k=3))


@pytest.mark.parametrize("kind", ["auxk or not", "resampling", "sparse adam", "clipped"])
def test_without_numba_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_numba(monkeypatch)
    check([One(config={**FEW, **change}) for change in SETTINGS[kind]], TopK(k=3))


@pytest.mark.parametrize("kind", ["batch topk", "relu and l1", "jumprelu"])
def test_every_architecture_without_numba(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_numba(monkeypatch)
    sparsity, changes = ARCHITECTURES[kind]
    check([One(config={**FEW, **change}) for change in changes], sparsity)


@pytest.mark.parametrize("sparsity", [TopK(k=3), ReLU()], ids=lambda s: s.name)
def test_with_and_without_numba_training_is_the_same(sparsity: Sparsity, monkeypatch: pytest.MonkeyPatch) -> None:
    both = []
    for _ in range(2):
        members = [Member(sae=new_sae(m, sparsity), config=settings(lr=lr)) for m, lr in enumerate((1e-3, 1e-2))]
        both.append((members, list(Training(members, tokens()))[-1]))
        without_numba(monkeypatch)
    for m in range(2):
        same_weights(both[1][0][m].sae, both[0][0][m].sae)
        agree(both[1][1][m], both[0][1][m])


def test_a_sweep_of_one_is_a_training_of_one_and_many_members_may_be_equal() -> None:
    alone, one, twins = new_sae(), new_sae(), [new_sae(), new_sae()]
    records = train(alone, tokens(), settings())
    assert [found[0] for found in Training([Member(sae=one, config=settings())], tokens())] == records
    last = list(Training([Member(sae=sae, config=settings()) for sae in twins], tokens()))[-1]
    assert last[0] == last[1]
    for name, value in alone.state_dict().items():
        assert torch.equal(one.state_dict()[name], value)
        assert torch.equal(twins[0].state_dict()[name], twins[1].state_dict()[name])


# Divergence


def breaks_at(step: int, members: list[Member], which: int, sweep: Training) -> dict[int, Record]:
    """Run up to a step, at which one member's weights become NaN; the last records."""
    records: dict[int, Record] = {}
    while sweep.step < step:
        records = sweep.advance() or records
    with torch.no_grad():
        members[which].sae.W_dec[0] = torch.nan
    return records


@pytest.mark.parametrize("which", [0, 1, 2])
def test_where_one_diverges_the_others_go_on_as_alone(which: int) -> None:
    """With other seeds, tokens, optimizer moments, AuxK and clipping, so that every part has to be kept right."""
    ones = [
        One(config={"lr": 1e-3, "seed": 1, "clip_norm": 0.5}),
        One(config={"lr": 3e-3, "revival": AUXK}, tokens=8),
        One(config={"lr": 5e-3, "resampling": RESAMPLINGS[1]}, shift=1.0),
    ]
    own = {8: tokens(1000, 8)}
    members = [one.member(m, TopK(k=3), own) for m, one in enumerate(ones)]
    sweep = Training(members, tokens())
    breaks_at(40, members, which, sweep)
    before = {name: value.clone() for name, value in members[which].sae.state_dict().items()}
    records = list(sweep)
    assert list(sweep.diverged) == [which]
    rate = members[which].config.lr
    assert sweep.diverged[which] == f"step 40: the loss is nan; lower the learning rate ({rate:g})"
    for name, value in members[which].sae.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), before[name].nan_to_num(7.0)), name
    assert len(records) == STEPS - 40
    assert all(set(found) == {0, 1, 2} - {which} for found in records)
    for m in {0, 1, 2} - {which}:
        alone = ones[m].member(m, TopK(k=3), own)
        expected = train(alone.sae, seen_by(alone, tokens()), alone.config)
        same_weights(members[m].sae, alone.sae)
        for found, wanted in zip(records, expected[40:], strict=True):
            agree(found[m], wanted)


@pytest.mark.parametrize("sparsity", [TopK(k=3), BatchTopK(k=3), ReLU(), JumpReLU()], ids=lambda s: s.name)
def test_a_member_that_diverges_at_birth_touches_no_other(sparsity: Sparsity) -> None:
    """Its numbers overflow: pre-activations and gradients that are not finite stay its own."""
    config = settings(steps=30, revival=AUXK, clip_norm=1.0)
    members = [Member(sae=new_sae(m, sparsity), config=config) for m in range(3)]
    with torch.no_grad():
        members[1].sae.W_enc.mul_(1e200)
    sweep = Training(members, tokens())
    before = [p.detach().clone() for p in members[1].sae.parameters()]
    records = list(sweep)
    assert list(sweep.diverged) == [1]
    assert sweep.diverged[1].startswith("step 0: the loss is inf") or "nan" in sweep.diverged[1]
    assert all(torch.equal(a, b) for a, b in zip(before, members[1].sae.parameters(), strict=True))
    for m in (0, 2):
        alone = new_sae(m, sparsity)
        for found, wanted in zip(records, train(alone, tokens(), config), strict=True):
            agree(found[m], wanted)
        same_weights(members[m].sae, alone)


@pytest.mark.parametrize("size", [1e200, torch.nan])
def test_a_member_that_diverges_when_resampling_is_due_is_not_resampled(size: float) -> None:
    config = settings(steps=25, resampling=Resampling(every_steps=10, dead_after_tokens=64))
    members = [Member(sae=new_sae(m), config=config) for m in range(2)]
    sweep = Training(members, tokens())
    for _ in range(9):
        sweep.advance()
    with torch.no_grad():
        members[1].sae.b_dec[0] = size
    before = [p.detach().clone() for p in members[1].sae.parameters()]
    records = list(sweep)
    assert list(sweep.diverged) == [1]
    for old, new in zip(before, members[1].sae.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(7.0), new.nan_to_num(7.0))
    expected = train(new_sae(0), tokens(), config)
    assert expected[9].resampled > 0
    for found, wanted in zip(records, expected[9:], strict=True):
        agree(found[0], wanted)


def test_where_all_diverge_the_iteration_ends() -> None:
    members = [Member(sae=new_sae(m), config=settings(lr=lr, record_every=13)) for m, lr in enumerate((1e-3, 0.02))]
    sweep = Training(members, tokens())
    breaks_at(10, members, 1, sweep)
    sweep.advance()
    assert list(sweep.diverged) == [1]
    breaks_at(12, members, 0, sweep)
    assert list(sweep) == []
    assert sweep.step == 13
    assert sweep.diverged == {
        1: "step 10: the loss is nan; lower the learning rate (0.02)",
        0: "step 12: the loss is nan; lower the learning rate (0.001)",
    }
    assert not any(member.sae.training for member in members)


# Records


@pytest.mark.parametrize("every", [7, 25, 1000])
def test_records_come_at_multiples_and_at_the_end_and_count_all_steps_between(every: int) -> None:
    changes: list[dict[str, Any]] = [{"lr": 1e-2}, {"lr": 1e-2, "resampling": RESAMPLINGS[1]}]

    def run(record_every: int) -> list[dict[int, Record]]:
        members = [
            Member(sae=new_sae(m), config=settings(record_every=record_every, **change))
            for m, change in enumerate(changes)
        ]
        return list(Training(members, tokens()))

    sparse, full = run(every), run(1)
    assert [found[0].step + 1 for found in full] == list(range(1, STEPS + 1))
    expected = sorted({*range(every, STEPS + 1, every), STEPS})
    assert [found[0].step + 1 for found in sparse] == expected
    counted = ("died", "revived_from_relu", "revived_from_topk", "resampled")
    for m in range(2):
        start = 0
        for found, end in zip(sparse, expected, strict=True):
            between = full[start:end]
            sums = {name: sum(getattr(one[m], name) for one in between) for name in counted}
            assert found[m] == replace(between[-1][m], **sums)
            start = end
    totals = {name: sum(getattr(found[1], name) for found in sparse) for name in counted}
    assert min(totals["died"], totals["revived_from_topk"], totals["resampled"]) > 0


# Whose memory


def shared(members: list[Member]) -> bool:
    return len({p.untyped_storage().data_ptr() for m in members for p in [m.sae.W_enc]}) < len(members)


def test_saes_show_their_weights_while_running_and_own_them_afterwards(tmp_path: Any) -> None:
    members = [Member(sae=new_sae(m, BatchTopK(k=3)), config=settings(steps=30)) for m in range(2)]
    sweep = Training(members, tokens())
    for _ in range(12):
        sweep.advance()
    for m, member in enumerate(members):
        alone = new_sae(m, BatchTopK(k=3))
        training = Training([Member(sae=alone, config=settings(steps=30))], tokens())
        for _ in range(12):
            training.advance()
        same_weights(member.sae, alone)
        assert torch.allclose(member.sae.eval()(tokens()), alone.eval()(tokens()), rtol=1e-9, atol=1e-9)
    assert shared(members)
    list(sweep)
    assert not shared(members)
    before = {name: value.clone() for name, value in members[1].sae.state_dict().items()}
    with torch.no_grad():
        for parameter in members[0].sae.parameters():
            parameter.fill_(9.0)
    for name, value in members[1].sae.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.untyped_storage().nbytes() == value.nbytes, name
    members[1].sae.save(tmp_path / "sae")
    loaded = SAE.load(tmp_path / "sae")
    assert torch.equal(loaded(tokens()), members[1].sae(tokens()))
    assert not members[1].sae.training
    records = train(members[1].sae, tokens(), settings(steps=3))  # and may be trained on
    assert len(records) == 3


def test_stopping_the_iteration_stops_the_training_of_all() -> None:
    members = [Member(sae=new_sae(m), config=settings()) for m in range(2)]
    sweep = Training(members, tokens())
    for found in sweep:
        if found[0].step == 4:
            break
    assert sweep.step == 5
    second = list(sweep)
    assert [found[1].step for found in second] == list(range(5, STEPS))


def test_moments_of_resampled_latents_are_forgotten_in_their_member_alone() -> None:
    changes: list[dict[str, Any]] = [{}, {"resampling": Resampling(every_steps=30, dead_after_tokens=320)}]
    sweep = Training([Member(sae=new_sae(1), config=settings(lr=1e-2, **change)) for change in changes], tokens())
    for _ in range(29):
        sweep.advance()
    records = sweep.advance()
    assert records is not None
    assert records[1].resampled > 0 == records[0].resampled
    for name in ("W_enc", "W_dec", "b_enc"):
        moments = sweep._optimizer.moments[name]
        never_moved, forgotten = (~(of_one.reshape(len(of_one), -1) != 0).any(dim=1) for of_one in moments[1])
        assert int(forgotten.sum()) == records[1].resampled, name
        assert int(never_moved.sum()) < records[1].resampled, name
        assert torch.equal(moments[:, 0, ~forgotten], moments[:, 1, ~forgotten])


# What cannot be


@pytest.mark.parametrize(
    ("config", "sae", "message"),
    [
        ({"steps": 7}, {}, "steps 100, got 7"),
        ({"batch_tokens": 7}, {}, "batch_tokens 64, got 7"),
        ({"optimizer": "sign_sgd"}, {}, "optimizer adam, got sign_sgd"),
        ({"unit_decoder": False}, {}, "unit_decoder True, got False"),
        ({"products": "bfloat16"}, {}, "products auto, got bfloat16"),
        ({"record_every": 2}, {}, "record_every 1, got 2"),
        ({"nested": (4,)}, {}, r"nested \(\), got \(4,\)"),
        ({"k_start": 9, "k_steps": 5}, {}, "k_start None, got 9; k_steps 0, got 5"),
        ({}, {"d_sae": 31}, r"d_sae, d_in \(32, 12\), got \(31, 12\)"),
        ({}, {"sparsity": TopK(k=2)}, r"sparsity TopK\(k=3\), got TopK\(k=2\)"),
        ({}, {"sparsity": ReLU()}, r"sparsity TopK\(k=3\), got ReLU\(\)"),
        ({}, {"dtype": torch.float32}, "dtype torch.float64, got torch.float32"),
        ({}, {"encoder_bias": False}, "an encoder bias True, got False"),
        ({"steps": 7, "record_every": 2}, {}, "steps 100, got 7; record_every 1, got 2"),
    ],
    ids=str,
)
def test_members_that_cannot_be_trained_as_one_are_refused(
    config: dict[str, Any], sae: dict[str, Any], message: str
) -> None:
    good = [Member(sae=new_sae(m), config=settings()) for m in range(2)]
    other = Member(sae=new_sae(2, **sae), config=settings(**config), name="odd")
    before = {name: value.data_ptr() for name, value in good[0].sae.state_dict().items()}
    expected = f"expected members to agree, but member 2 'odd' differs from the first: {message}; train them in"
    with pytest.raises(InputError, match=expected):
        Training([*good, other], tokens())
    assert {name: value.data_ptr() for name, value in good[0].sae.state_dict().items()} == before


def test_every_shared_setting_was_tried() -> None:
    tried = {"steps", "batch_tokens", "optimizer", "unit_decoder", "products", "record_every", "k_start", "k_steps"}
    tried |= {"nested"}
    assert {*SHARED} == tried
    assert {*SHARED} <= {part.name for part in fields(TrainConfig)}


def test_no_members_no_tokens_and_two_kinds_of_auxk_are_refused() -> None:
    with pytest.raises(InputError, match="training: expected at least one member, got none"):
        Training([], tokens())
    members = [
        Member(sae=new_sae(), config=settings(), tokens=tokens()),
        Member(sae=new_sae(), config=settings(), name="b"),
    ]
    with pytest.raises(InputError, match="member 'b': expected tokens, of its own or of the sweep, got none"):
        Training(members)
    auxk = [settings(revival=AuxK(k_aux=k, dead_after_tokens=64)) for k in (2, 3)]
    with pytest.raises(InputError, match=r"expected one k_aux for all members with AuxK, got \[2, 3\]"):
        Training([Member(sae=new_sae(), config=config) for config in auxk], tokens())
    one = new_sae()
    with pytest.raises(InputError, match="an SAE of its own for each member, got the same object twice"):
        Training([Member(sae=one, config=settings()) for _ in range(2)], tokens())
    with pytest.raises(InputError, match=r"member 'm': expected a shift of shape \[d_in = 12\], got \(1,\)"):
        Training([Member(sae=new_sae(), config=settings(), shift=torch.ones(1), name="m")], tokens())
    with pytest.raises(InputError, match="expected tokens of width d_in = 12, as the SAE has, got 13"):
        Training([Member(sae=new_sae(), config=settings())], torch.randn(500, 13)).advance()
    with pytest.raises(InputError, match="expected weights in float32, float64 or bfloat16, got float16"):
        Training([Member(sae=new_sae(dtype=torch.float16), config=settings())], tokens())


def test_an_sae_whose_weights_moved_and_a_sweep_that_is_over_take_no_step() -> None:
    members = [Member(sae=new_sae(m), config=settings(steps=3)) for m in range(2)]
    sweep = Training(members, tokens())
    sweep.advance()
    list(Training([Member(sae=members[1].sae, config=settings(steps=1))], tokens()))
    assert sweep.advance()  # a stack of one moves nothing
    list(Training([Member(sae=member.sae, config=settings(steps=1)) for member in members[::-1]], tokens()))
    with pytest.raises(InputError, match="member 0 '': expected the SAE's weights where this training put them"):
        sweep.advance()
    over = Training([Member(sae=new_sae(), config=settings(steps=2))], tokens())
    assert len(list(over)) == 2
    with pytest.raises(InputError, match="got 2 of 2 steps done and 1 members; begin another training"):
        over.advance()


def test_members_with_penalties_of_both_kinds_are_each_as_alone() -> None:
    penalties = L1(coefficient=0.3), L0Target(l0=3.0), None
    configs = [settings(penalty=penalty) for penalty in penalties]
    members = [Member(sae=new_sae(m, sparsity=JumpReLU()), config=c) for m, c in enumerate(configs)]
    list(Training(members, tokens()))
    alone = [new_sae(m, sparsity=JumpReLU()) for m in range(3)]
    for sae, config, member in zip(alone, configs, members, strict=True):
        train(sae, tokens(), config)
        same_weights(member.sae, sae)


def test_weights_in_another_order_of_memory_are_trained() -> None:
    sae, transposed = new_sae(), new_sae()
    transposed.W_dec.data = transposed.W_dec.data.T.contiguous().T
    assert not transposed.W_dec.is_contiguous()
    config = settings(steps=20)
    assert train(sae, tokens(), config) == train(transposed, tokens(), config)
    same_weights(sae, transposed)


def test_stopped_members_stay_and_the_others_go_on() -> None:
    members = [Member(sae=new_sae(m), config=settings(steps=20)) for m in range(3)]
    sweep, kept = Training(members, tokens()), None
    for records in sweep:
        if sweep.step == 5:
            sweep.stop([1])
            kept = [p.detach().clone() for p in members[1].sae.parameters()]
        assert {*records} == ({0, 1, 2} if sweep.step <= 5 else {0, 2})
    assert kept is not None
    assert all(torch.equal(a, b) for a, b in zip(kept, members[1].sae.parameters(), strict=True))
    assert [sweep.steps_of(m) for m in range(3)] == [20, 5, 20]
    with pytest.raises(InputError, match=r"stop: expected places from 0 to 2, got \[7\]"):
        sweep.stop([7])


def test_a_penalty_or_frozen_part_that_one_member_cannot_have_is_refused() -> None:
    for change, message in (
        ({"penalty": L0Target(l0=3.0)}, "L0Target: expected a JumpReLU SAE"),
        ({"frozen": ("b",)}, "frozen: exp"),
    ):
        members = [Member(sae=new_sae(), config=config) for config in (settings(), settings(**change))]
        with pytest.raises(InputError, match=message):
            Training(members, tokens())
