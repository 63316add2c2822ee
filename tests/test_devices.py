"""Every public function that takes tensors runs with all of them on a GPU, as far as that can be seen without one.

`pretended_device` says what it finds and what it cannot.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autopsae as a
from autopsae import activations, cure, diagnosis, evaluation, models, remedies, sae, statistics, survival, training
from autopsae import run as runs
from autopsae.activations.batches import forward
from autopsae.cli import verbs
from autopsae.models.spliceai import build_spliceai
from autopsae.models.unirep import build_unirep
from autopsae.run.members import Layer
from autopsae.survival import tails
from tests.features.sources import every_result, small_sae
from tests.models.test_installable import tiny_spliceai, tiny_unirep
from tests.models.words import Words
from tests.pretended_device import Mixed, PretendedDevice, pretended_device
from tests.test_house import HOUSE
from tests.ways import without_numba

D_IN, D_SAE = 12, 64
SPARSITIES = [a.TopK(k=3), a.BatchTopK(k=3), a.GroupMax(k=4), a.ReLU(), a.JumpReLU()]


@pytest.fixture(autouse=True)
def few_bisections(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are many small operators, the same again and again."""
    monkeypatch.setattr(tails, "_BISECTIONS", 3)


def tokens(n: int = 400, dtype: torch.dtype = torch.float64) -> Tensor:
    """On the CPU: of a few directions and a mean, so that some latents die."""
    spread = torch.randn(n, D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return (spread * torch.logspace(0.3, -0.7, D_IN, dtype=torch.float64) + 0.7).to(dtype)


def there(x: Tensor) -> Tensor:
    return x.to("cuda")


def generator(device: str = "cuda") -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def new_sae(
    sparsity: a.Sparsity = SPARSITIES[0], *, d_sae: int = D_SAE, device: str = "cuda", **more: Any
) -> a.SAE:
    settings: dict[str, Any] = {} if sparsity.name == "groupmax" else {"firing_rate": 0.15, "encoder_bias": True}
    born = a.born(remedies.untouched(D_IN), d_sae=d_sae, sparsity=sparsity, sample=tokens(), **settings, **more)
    if born.b_enc is not None:
        with torch.no_grad():
            born.b_enc[:10] = -20  # silent ones, for what revives them
    return born.to(device)


def every_remedy(x: Tensor) -> list[a.Remedy]:
    seen = statistics.collect(x)
    spectrum, median = statistics.Spectrum.of(seen.raw.covariance), seen.sample.median(dim=0).values
    return [
        remedies.untouched(D_IN),
        remedies.center(median, "median"),
        remedies.z_score(seen.raw.std, median),
        remedies.whiten(spectrum, median),
        remedies.active_subspace(spectrum, median, rank=4),
    ]


class Language(nn.Module):
    """A causal language model of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(12, D_IN), nn.Linear(D_IN, D_IN), nn.Linear(D_IN, 12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(torch.tanh(self.block(self.embed(input_ids)))))


def texts() -> list[dict[str, Tensor]]:
    ids = torch.randint(12, (4, 10), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids, "attention_mask": (ids != ids[0, -1]).long()} for _ in range(2)]


# What can be tried, by the name of what is tried. Each is given a folder.

Case = Callable[[Path], object]


def of_statistics(folder: Path) -> object:
    x = there(tokens())
    whole = statistics.collect(x).merge(statistics.collect(tokens(), start=400, device="cuda"))
    median = statistics.geometric_median(x)
    statistics.geometric_median([x[:150], x[150:]], sample=tokens(100))
    dict(models.collect_layers({"x": part} for part in x.split(90)))
    statistics.effective_rank(statistics.Spectrum.of(whole.raw.covariance).eigenvalues)
    statistics.NormHistogram.of(x).merge(whole.norms)
    diagnosis.severity(whole, median)
    np.save(folder / "x.npy", tokens().numpy())
    diagnosis.collect_part([folder / "x.npy"], folder / "part.safetensors", device="cuda")
    return [
        *(str(whole), whole.sample, statistics.layer_norm(x), str(statistics.count_repeats(x))),
        *(diagnosis.gamma(whole.raw), diagnosis.gamma(statistics.Moments.of(x))),
    ]


def births(sparsity: a.Sparsity, _folder: Path) -> object:
    """Tokens, sample, remedies and generator are each on either device."""
    measured, here = [], tokens()
    for x, y, on, drawn in ((there(here), here, None, generator()), (here, there(here), "cuda", generator("cpu"))):
        of = every_remedy(y)
        more: dict[str, Any] = {"d_sae": D_SAE, "generator": drawn}
        measured.append(survival.measure_birth(x, of, sparsity=sparsity, device=on, sample=x, **more))
        survival.forecast_births(x, of[::4], sparsity, **more)
    return measured


def forecasts(_folder: Path) -> object:
    W = there(sae.draw_rows(D_SAE, D_IN, generator=generator("cpu"), dtype=torch.float64))
    b_enc = W.new_zeros(D_SAE)
    kinds = SPARSITIES[1], SPARSITIES[4]
    found = [str(survival.forecast(x, W, sparsity, b_enc=b_enc)) for x, sparsity in zip(both(), kinds, strict=True)]
    return found, str(survival.recovery(tokens(), W, lr=1e-3, steps=20))


def both() -> list[Tensor]:
    return [tokens(), there(tokens())]


def diagnoses(sparsity: a.Sparsity, folder: Path) -> object:
    result = a.diagnose(there(tokens()), d_sae=D_SAE, sparsity=sparsity)
    assert str(result) == str(a.diagnose(tokens(), d_sae=D_SAE, sparsity=sparsity, device="cuda"))
    short = a.diagnose(there(tokens()), d_sae=D_SAE, sparsity=sparsity, steps=1000)
    assert (short.prescription.encoder_scale != 1) == (sparsity.l0 is not None)
    result.prescription.save(folder / "p")
    loaded = a.Prescription.load(folder / "p")
    batches = [*cure.map_tokens(result.prescription, both()), *cure.map_tokens(loaded, both())]
    plain = a.born(remedies.untouched(D_IN), d_sae=D_SAE, sparsity=sparsity, scaled=False)
    cure.unmap_sae(plain.to("cuda"), result.prescription)
    return result.to_dict(), a.born(result.prescription), batches


def surveys(folder: Path) -> object:
    found = a.survey({"first": tokens(), "second": there(tokens())}, d_sae=D_SAE, k=3, device="cuda")
    found.save(folder / "survey.json")
    return str(found), cure.peek([there(tokens())], 200)


def born(sparsity: a.Sparsity, _folder: Path) -> object:
    rate = {} if sparsity.name == "groupmax" else {"firing_rate": 0.15, "encoder_bias": True}
    more: dict[str, Any] = {"d_sae": D_SAE, "sparsity": sparsity, **rate}
    made = []
    for x in both():
        for remedy in every_remedy(x)[::3]:
            remedy.enters(x)
            for sample in both():
                for drawn in (None, generator()):
                    made.append(a.born(remedy, sample=sample, generator=drawn, layer_norm=drawn is None, **more))
    return made


def model(sparsity: a.Sparsity, folder: Path) -> object:
    # Not the tokens that set the thresholds: of those, some are at them.
    one, x = new_sae(sparsity), there(1.01 * tokens(dtype=torch.float32))
    again = one.decode(one.encode(x))
    assert torch.allclose(one(x), again, atol=1e-4)
    one.fold().encode(x)
    one.bias_captured(x.double().mean(dim=0))
    one.save(folder / "sae")
    assert a.load_sae(folder / "sae").W_enc.device.type == "cpu"
    written = {"topk": "sparsify", "groupmax": "sparsify", "relu": "saelens", "jumprelu": "dictionary_learning"}
    if sparsity.name in written:
        a.save_sae(one, folder / "theirs", to=written[sparsity.name])
        assert torch.allclose(a.load_sae(folder / "theirs")(x.cpu()), again.cpu(), atol=1e-4)
    return str(one), repr(one), one._repr_html_(), one.pre_activations(one.enter(x)[0])


def evaluations(sparsity: a.Sparsity, _folder: Path) -> object:
    one = new_sae(sparsity)
    results: list[Any] = []
    for x in both():
        found = a.autopsy(one, x)
        woken = a.recentre(one, center=found.center, is_dead=found.is_dead)
        results += [str(found), found.to_dict(), str(evaluation.cost_of_recentring(one, woken, x))]
        results += [str(a.evaluate(one, x)), str(a.fates(one, x)), a.fates(one, x).by_rate()]
        results.append(evaluation.fvu_of_prefixes(one, x, [8, 32]))
        results.append(str(survival.forecast_trained(one, x)))
        evaluation.fresh_start(one, found, layer="here")
    return results, evaluation.mmcs(one.W_dec, tokens(20).float()), evaluation.mmcs(one.W_dec, one.W_dec)


def networks(folder: Path) -> object:
    network, one = Language().to("cuda"), new_sae()
    batches = [texts(), [{name: there(part) for name, part in batch.items()} for batch in texts()]]
    found: list[Any] = [evaluation.loss_recovered(one, network, some, point="block") for some in batches]
    for number, some in enumerate(batches):
        found.append(a.harvest(network, some, folder / str(number), points=["block", "head:input"]))
    with activations.hooked(network, ["block"]) as capture:
        network(there(texts()[0]["input_ids"]))
        kept = capture.take(there(texts()[0]["attention_mask"].bool()))["block"]
    assert kept.device.type == "cpu"
    with activations.replace_activations(network, "block", lambda x: one(x.flatten(0, 1)).view(x.shape)):
        network(there(texts()[0]["input_ids"]))
    return found


def synthetic(_folder: Path) -> object:
    more: dict[str, Any] = {"device": "cuda", "generator": generator("cpu")}
    spectra: list[Any] = [0.7, torch.ones(D_IN), there(torch.ones(D_IN))]
    drawn = [activations.gaussian_tokens(50, D_IN, 2.0, spectrum=s, tail=8, **more) for s in spectra]
    drawn += activations.synthetic_features(50, 2.0, **more)
    assert {x.device.type for x in drawn} == {"cuda"}
    return drawn


def networks_of_proteins_and_dna(_folder: Path) -> object:
    """Those of which the forward pass is written here, padded."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    unirep, spliceai = build_unirep(tiny_unirep()).to("cuda"), build_spliceai(tiny_spliceai()).eval().to("cuda")
    with torch.inference_mode(), activations.hooked(unirep, ["layers.0", "layers.1"]) as capture:
        forward(unirep, {"input_ids": torch.tensor([[24, 5, 0], [24, 1, 2]]), "attention_mask": mask}, 0)
        states = capture.take(mask.bool())
    with torch.inference_mode(), activations.hooked(spliceai, ["blocks.15", "skips.3"]) as capture:
        forward(spliceai, {"one_hot": torch.rand(2, 3, 4), "attention_mask": mask}, 0)
        return [*states.values(), *capture.take(mask.bool()).values()]


def trained(sparsity: a.Sparsity, more: dict[str, Any], folder: Path) -> object:
    """Two side by side, one of which diverges; a resumed one; tokens on either device."""
    more = {**more}
    dtype = more.pop("dtype", torch.float32)

    def members() -> list[training.Member]:
        base: dict[str, Any] = {"batch_tokens": 64, "buffer_tokens": 150, "dead_after_tokens": 128, **more}
        config = partial(a.TrainConfig, steps=6, record_every=3, **base)
        shift = there(torch.ones(D_IN))
        return [
            training.Member(sae=new_sae(sparsity, dtype=dtype), config=config(lr=1e-3)),
            training.Member(
                sae=new_sae(sparsity, layer_norm=True, dtype=dtype), config=config(lr=1e-2), shift=shift
            ),
        ]

    first = training.Training(members(), tokens())
    first.advance()
    first.save(folder / "checkpoint")
    resumed = training.Training(members(), tokens())
    resumed.load(folder / "checkpoint")
    list(resumed)
    another = training.Training(members(), there(tokens()))
    another.advance()
    with torch.no_grad():
        another._weights.W_enc[0].fill_(torch.inf)
    list(another)
    assert list(another.diverged) == [0]
    return resumed


def diagnosed_network(_folder: Path) -> object:
    """The network is on the device; what its points give is brought from there."""
    words, texts = Words(), [f"document {number} of forty" for number in range(40)]
    words.model.to("cuda")
    pieces = models.choose_pieces(words, texts, tokens=300, context=8)
    read = models.NetworkBatches(network=words, pieces=pieces, points=words.points, context=8, batch_size=4)
    assert sum(len(given["linear"]) for given in models.run_network(read, tokens=300)) == 300
    return a.diagnose_model(words, texts, tokens=300, d_sae=D_SAE, k=3, device="cuda")


def measured_features(_folder: Path) -> object:
    one = small_sae(d_in=D_IN, d_sae=D_SAE).to("cuda")
    return [[str(result) for result in every_result(x.float(), one)] for x in both()]


def written_runs(folder: Path) -> object:
    summaries = []
    for number, x in enumerate(both()):
        config = a.TrainConfig(steps=4, lr=1e-3, batch_tokens=64)
        entries = [
            runs.Entry(member=training.Member(sae=new_sae(), config=config, name=name), about={})
            for name in ("one", "two")
        ]
        kept, held_out = runs.hold_out(x, 100)
        summaries.append(runs.run(entries[0], kept, held_out, folder / f"one{number}"))
        summaries.append(runs.run_sweep(entries[1:], kept, held_out, folder / f"many{number}"))
    return summaries


def tried(folder: Path) -> object:
    config = a.TrainConfig(steps=6, lr=1e-3, batch_tokens=64)
    candidates = ["none", "median_decoder", "whiten_0.3_slow"]
    x, kept, sparsity = tokens(1500), folder / "trial", a.TopK(k=3)
    return a.trial.trial(x, candidates, config=config, d_sae=64, sparsity=sparsity, device="cuda", folder=kept)


def command_line(folder: Path) -> object:
    layer, out, common = folder / "layer.npy", folder / "out", ["--device", "cuda"]
    np.save(layer, tokens(1500, torch.float32).numpy())
    size = ["--d-sae", "64", "--k", "3"]
    trained = ["--out", str(out), "--init", "whiten", "--steps", "8", "--batch-tokens", "64", "--revive", "auxk"]
    assert not verbs.run(["diagnose", str(layer), *size, *common])
    assert not verbs.run(["train", str(layer), *size, *trained, *common])
    assert not verbs.run(["autopsy", str(out), str(layer), *common])
    return True


TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
    "auxk": {"revival": training.AuxK(dead_after_tokens=64)},
    "ghosts": {"revival": training.GhostGradients(dead_after_tokens=64)},
    "resampling": {"resampling": training.Resampling(every_steps=3, dead_after_tokens=64)},
    "sign": {"optimizer": "sign_sgd"},
    "bias": {"bias": training.Bias(decoder_only=True, from_step=2)},
    "sparse adam, frozen": {"optimizer": "sparse_adam", "frozen": ("b_dec",)},
    "clipped": {"clip_norm": 1.0},
    "nested": {"nested": (8, 20)},
    "l1": {"penalty": training.L1(coefficient=0.1)},
}

CASES: dict[str, Case] = {
    "statistics": of_statistics,
    "forecasts": forecasts,
    "surveys": surveys,
    "networks": networks,
    "synthetic": synthetic,
    "networks of proteins and DNA": networks_of_proteins_and_dna,
    "a diagnosed network": diagnosed_network,
    "features": measured_features,
    "runs": written_runs,
    "trial": tried,
    "command line": command_line,
    **{f"births {s.name}": partial(births, s) for s in SPARSITIES},
    **{f"diagnoses {s.name}": partial(diagnoses, s) for s in SPARSITIES},
    **{f"born {s.name}": partial(born, s) for s in SPARSITIES},
    **{f"model {s.name}": partial(model, s) for s in SPARSITIES},
    **{f"evaluations {s.name}": partial(evaluations, s) for s in SPARSITIES},
    **{f"trained {s.name}": partial(trained, s, {}) for s in SPARSITIES[1:]},
    **{f"trained topk, {name}": partial(trained, SPARSITIES[0], more) for name, more in TRAININGS.items()},
    "trained jumprelu, l0": partial(trained, SPARSITIES[4], {"penalty": training.L0Target(l0=3.0)}),
    "trained topk, k falls": partial(trained, SPARSITIES[0], {"k_start": 8, "k_steps": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_runs_with_all_tensors_on_the_device(case: str, tmp_path: Path) -> None:
    with pretended_device():
        assert CASES[case](tmp_path)


# Nothing on a device passes through these: names and paths, files, sizes, plain settings, results that are shown.
WITHOUT_TENSORS = """
    Birth DeadForecast Diagnosis Evaluation Expected Finding Forecast TrainedForecast Fates Autopsy InputError
    LossRecovered Outlook Prediction
    Progress RecentringCost Record Recovery Repeats Selection Severity Statistics Survey SyntheticFeatures View
    Budget Candidate Outcome Point Trial trial_text
    Activations Capture Diverged Entry Plan Portions Recipe Sparsity LanguageModel TextBatches
    Csv JsonLines TensorBoard WandB
    autopsy_figure autopsy_text fvu_text save_figure survey_figure survey_text
    format_of hidden_state_names layer_names load_model open_activations open_layers preset_names text_batches
    Document OutlierDimension Piece TrainingPlan DevicesPlan Rates Work load_network
    CatalogueEntry DnaNetwork ImageNetwork Letters Network ProteinNetwork catalogue find_entry image_files
    pictures_in sequences_in
    Annotations CodeBlock Codes ConceptCounts ConceptScore Coverage CoverageComparison CoverageGain Example Labels
    LatentExamples LatentProbe Monosemanticity ProbeCoverage ProbeScore ProbeSurvey ProbeTask Probes TokenTable
    TopActivations comparison_text concept_figure coverage_text examples_text flat_file_annotations mask_annotations
    probe_task_names python_annotations read_annotations read_probe_task read_token_table save_concept_figure
    Engine draw_figure join_parts merge_parts open_engine pull push training_figure trial_figure
    page_html save_page shuffle_documents token_table
    jumprelu_paper predicted_dead predicted_dead_by_relu relu_lindsey
"""
# Tried with the library that they work in, or by what they call.
ELSEWHERE = {
    "Affine": "in every remedy",
    "bionemo_flags": "words and numbers alone",
    "cure_dictionary_learning": "tests/cure: its trainers want their own library",
    "cure_saelens": "tests/cure: its trainers want their own library",
    "cure_sparsify": "tests/cure: its trainers want their own library",
    "NetworkSource": "calls run_network",
    "harvest_text": "calls harvest",
    "harvest_text_on": "processes that each call harvest",
    "probe_documents": "calls pool_codes, pool_tokens and fit_probes",
    **dict.fromkeys(
        [
            *("align_annotations", "compare_coverages", "concept_coverage", "count_concepts", "encode_source"),
            *("fit_probes", "monosemanticity", "neuron_sae", "pool_codes", "pool_tokens", "probe_coverage"),
            *(
                "control_saes",
                "probe_concepts",
                "random_sae",
                "representations",
                "split_documents",
                "top_activations",
            ),
        ],
        "in every_result",
    ),
    "TextNetwork": "tests/models: it wants a tokenizer",
    "steps": "calls Training",
    "train": "calls steps",
    "Moments": "in Statistics",
    "plan_training": "calls Training",
    "survey_on": "calls survey, on CPUs",
    "NormHistogram": "in Statistics",
    **dict.fromkeys(("Ranks", "part_of", "unite", "run_on_ranks"), "tests/training/test_ranks.py, on CPUs"),
    "bytes_of_step": "computes no tensor",
    "seconds_of": "computes no tensor",
    "work_of_statistics": "computes no tensor",
    "work_of_step": "computes no tensor",
}


def test_every_public_name_is_tried_or_has_no_tensors() -> None:
    public: set[str] = set()
    for module in HOUSE.rglob("__init__.pyi"):
        public |= {*re.findall(r"^from [\w.]+\.\w+ import (\w+) as", module.read_text(), flags=re.M)}
    public = {name for name in public if not name.startswith("__")}
    source = Path(__file__).read_text().partition("# Nothing on a device")[0]
    tried = {name for name in public if re.search(rf"\b{name}\b", source)}
    known = {*WITHOUT_TENSORS.split(), *ELSEWHERE}
    assert public - tried - known == set()
    assert known <= public, "a name that is not public any more"


# The numbers are those of the CPU.


def test_a_training_beside_a_gpu_draws_the_same_batches_and_gives_the_same_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_numba(monkeypatch)  # whose loops add up in another order than PyTorch's
    config = a.TrainConfig(steps=12, lr=1e-3, batch_tokens=64, buffer_tokens=150, record_every=4)
    with pretended_device():
        on_device, on_cpu = new_sae(), new_sae().cpu()
        records = a.train(on_device, tokens(), config)
        assert records == a.train(on_cpu, tokens(), config)
        assert torch.equal(on_device.W_enc.cpu(), on_cpu.W_enc)


def test_a_layer_draws_the_same_sae_for_every_device() -> None:
    def drawn(device: str | None) -> Tensor:
        layer = Layer(tokens(), device=device)
        return layer.born(layer.start("median"), d_sae=D_SAE, sparsity=a.TopK(k=3), l0=3.0).W_enc

    with pretended_device():
        on_device = drawn("cuda")
        assert on_device.device.type == "cuda"
        assert torch.equal(on_device.cpu(), drawn("cpu"))
        assert torch.equal(on_device.cpu(), drawn(None))


# How often a step of training waits for the device.


def waits_of_a_step(sparsity: a.Sparsity, **more: Any) -> dict[str, int]:
    with pretended_device() as device:
        config = a.TrainConfig(steps=9, record_every=9, lr=1e-3, batch_tokens=64, buffer_tokens=150, **more)
        going = training.Training([training.Member(sae=new_sae(sparsity, d_sae=256), config=config)], tokens())
        for _ in range(4):
            device.waits.clear()
            going.advance()
    return device.waits


def test_a_topk_step_waits_twice_for_which_losses_are_finite_and_to_send_the_rates() -> None:
    waits = waits_of_a_step(a.TopK(k=3))
    assert sum(waits.values()) <= 2, waits
    assert all(place.startswith("training/loop.py") for place in waits), waits


@pytest.mark.parametrize(
    ("sparsity", "more", "most"),
    [
        (a.GroupMax(k=4), {}, 2),
        (a.TopK(k=3), {"penalty": training.L1(coefficient=0.1)}, 2),
        (a.TopK(k=3), {"revival": training.AuxK(dead_after_tokens=64)}, 6),
        (a.ReLU(), {}, 4),
        (a.JumpReLU(), {"penalty": training.L0Target(l0=3.0)}, 4),
        (a.BatchTopK(k=3), {}, 8),
    ],
    ids=lambda value: str(value)[:12],
)
def test_other_steps_wait_at_most_so_often(sparsity: a.Sparsity, more: dict[str, Any], most: int) -> None:
    waits = waits_of_a_step(sparsity, **more)
    assert sum(waits.values()) <= most, waits


# The pretended device finds what it is for.


def refused(fault: Callable[[Tensor], object]) -> bool:
    try:
        fault(there(tokens()))
    except Mixed:
        return True
    return False


def test_what_a_gpu_refuses_is_refused() -> None:
    faults: dict[str, Callable[[Tensor], object]] = {
        "a tensor made without a device": lambda x: x + torch.zeros(D_IN),
        "a product with weights of the CPU": lambda x: x @ torch.ones(D_IN, 3, dtype=x.dtype),
        "the other way round": lambda x: torch.ones(3, len(x), dtype=x.dtype).mm(x),
        "rows of a matrix on the CPU by places on the device": lambda x: torch.ones(9, 2)[x[:, 0].long() * 0],
        "written into memory of the CPU": lambda x: torch.add(x, 1, out=torch.empty(x.shape, dtype=x.dtype)),
        "an operator without a kernel": lambda x: torch.histogram(x[:, 0], 3),
        "a generator of the CPU": lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    }
    for name, fault in faults.items():
        fault(tokens())
        with pretended_device():
            assert refused(fault), name
    for convert in (lambda x: x.numpy(), np.asarray):
        with pretended_device(), pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            convert(there(tokens()))


def test_a_function_that_forgets_the_device_backwards_is_found() -> None:
    class Forgetful(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            assert grad.device.type == "cuda"
            return grad * torch.full((D_IN,), 2.0)

    with pretended_device(), pytest.raises(Mixed, match=r"expected all tensors on cuda:0, got one on cpu of shape"):
        Forgetful.apply(there(tokens()).requires_grad_()).sum().backward()


def test_what_a_gpu_takes_is_taken() -> None:
    with pretended_device():
        x = there(tokens())
        one = x + torch.tensor(1.0)
        one[torch.tensor([0, 1])] = 0
        one[:3] = tokens(3)
        one[one > 2] = 2
        one.clamp_min_(0).mul_(2)
        assert one.device == torch.device("cuda:0")
        assert torch.nn.functional.one_hot(x[:, 0].long().clamp(0, 3), 4).to(x).device == x.device
        assert x.to(torch.float32).device == x.device
        assert torch.zeros_like(x, device="cpu").device.type == "cpu"
        assert x.cpu().numpy().shape == x.shape
    assert x.device.type == "cpu"


@pytest.mark.parametrize(
    ("waits", "work"),
    [
        (0, lambda x: (x @ x.T).topk(3).values.sum()),
        (0, lambda x: torch.where(x > 0, x, 0)),
        (0, lambda x: x.to(torch.float32)),
        (1, lambda x: float(x.sum())),
        (1, lambda x: x.sum(dim=1).tolist()),
        (1, lambda x: bool((x > 0).all())),
        (1, lambda x: x[x > 0]),
        (0, lambda x: x[(x[:, 0] > 0).long()]),
        (1, lambda x: x[torch.tensor([0, 1])]),
        (0, lambda x: x.masked_fill_(x > 0, 1)),
        (0, lambda x: x.__setitem__(x > 0, 1)),
        (1, lambda x: x.__setitem__(x < torch.inf, x.flatten().clone())),
        (0, lambda x: x[:, 0].repeat_interleave(x[:, 0].long() * 0, output_size=0)),
        (1, lambda x: x[:, 0].repeat_interleave(x[:, 0].long() * 0)),
        (1, lambda x: x.nonzero()),
        (1, lambda x: x.cpu()),
        (1, lambda x: torch.bincount((x > 0).flatten().long())),
        (1, lambda x: torch.tensor([1.0], device=x.device)),
        (1, lambda x: x.new_tensor([1.0])),
        (1, lambda x: torch.ones(3).to(x)),
        (1, lambda x: torch.ones(3).to(x.device, non_blocking=True)),  # from memory that is not pinned
        (0, lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True)),
        (1, lambda x: torch.ones(3).pin_memory().to(x.device)),
    ],
)
def test_what_a_gpu_is_waited_for_is_counted(waits: int, work: Callable[[Tensor], object]) -> None:
    with pretended_device() as device:
        x = there(tokens(20))
        device.waits.clear()
        work(x)
        assert sum(device.waits.values()) == waits, device.waits


def test_after_it_everything_is_as_before() -> None:
    before = {name: Tensor.__dict__.get(name) for name in ("device", "to", "numpy", "new_zeros", "pin_memory")}
    factories = torch.zeros, torch.tensor, torch.Generator
    with pretended_device() as device:
        assert isinstance(device, PretendedDevice)
    assert {name: Tensor.__dict__.get(name) for name in before} == before
    assert (torch.zeros, torch.tensor, torch.Generator) == factories
