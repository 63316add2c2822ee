"""The command lines that are run in each tree, in order, spelled as in the tree *before*.

`{tokens}` is the folder of the inputs. `{before}` is where the tree before wrote its files: both trees read those,
so what an older version wrote is read too. All other paths are relative to the folder of the tree.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command line."""

    name: str
    """A name for its exit code and its printed text; no two verbs share one."""
    words: tuple[str, ...]
    """The arguments of `autopsae`."""
    interrupt: str | None = None
    """A pattern: once such a file is there, the verb gets one Ctrl-C. At which step that is, is left to chance, so
    the folder is not compared."""
    copied: tuple[str, str] | None = None
    """A folder that is copied before the verb begins: (from, to)."""
    code: int = 0
    """The exit code in the tree before."""


HALF = ("half", "half_sweep")
"""Folders of interrupted runs."""


def verbs() -> list[Verb]:
    """All command lines."""
    return [*_diagnoses(), *_trainings(), *_sweeps(), *_resumed(), *_conversions(), *_autopsies(), *_refusals()]


def _verb(
    name: str, line: str, *, interrupt: str | None = None, copied: tuple[str, str] | None = None, code: int = 0
) -> Verb:
    return Verb(
        name=name, words=tuple(line.split()), interrupt=interrupt, copied=copied, code=130 if interrupt else code
    )


def _diagnoses() -> list[Verb]:
    layers = "diagnose {tokens}/layers"
    return [
        _verb("all", f"{layers} --d-sae 256 --k 8 --json diagnose/all.json --prescriptions diagnose/all"),
        _verb(
            "more",
            f"{layers} --layers severe low_rank --d-sae 192 --k 4 --ranks 4 8 --alphas 0.2 0.7 --acceptable 0.001 "
            "--at-tokens 100000 --lr 1e-3 --steps 2000 --seed 3 --json diagnose/more.json "
            "--prescriptions diagnose/more",
        ),
        _verb(
            "one_of_each",
            f"{layers} --layers strays mild --repeated leave_out --tokens 2000 --d-sae 512 --k 16 "
            "--json diagnose/one_of_each.json --prescriptions diagnose/one_of_each",
        ),
        _verb(
            "padded",
            "diagnose {tokens}/sequences.npy --lengths {tokens}/lengths.npy --d-sae 64 --k 2 "
            "--json diagnose/padded.json --prescriptions diagnose/padded",
        ),
    ]


def _train(name: str, layer: str, options: str, *, steps: int = 60, batch: int = 256, d_sae: int = 128) -> Verb:
    line = f"train {{tokens}}/layers --layer {layer} --out {name} --d-sae {d_sae} --batch-tokens {batch}"
    return _verb(name, f"{line} --steps {steps} {options}")


def _trainings() -> list[Verb]:
    schedule = "--warmup-steps 10 --decay-steps 20 --evaluate-every 30 --csv --record-every 3 --checkpoint-every 30"
    return [
        _train("prescribed", "severe", f"--prescription diagnose/all/severe --k 8 {schedule}", d_sae=256),
        _train("prescribed_low_rank", "low_rank", "--prescription diagnose/more/low_rank --k 4", d_sae=192),
        _train("carried", "low_rank", "--prescription {before}/diagnose/all/low_rank --k 8", d_sae=256),
        _train("topk", "mild", "--k 4 --init mean --lr 1e-3 --seed 5"),
        _train("batch_topk", "strays", "--sparsity batch_topk --k 8 --strays leave_out --firing-rate 0.05"),
        _train("weighed_down", "strays", "--k 6 --strays weigh_down --lr 1e-3 --held-out 500"),
        _train("relu", "severe", "--sparsity relu --l1 2 --firing-rate 0.1 --lr 1e-3 --bias slow"),
        _train("relu_from_zero", "severe", "--sparsity relu --l1 1 --init zero --no-scale"),
        _train("jumprelu", "mild", "--sparsity jumprelu --k 8 --lr 3e-3 --decay-steps 10"),
        _train("layer_norm", "severe", "--layer-norm --init whiten --alpha 0.5 --k 8"),
        _train("active_subspace", "low_rank", "--init asi --rank 8 --no-scale --k 4 --lr 1e-3"),
        _train("frozen_b_dec", "severe", "--init zero --bias frozen --k 8 --lr 1e-3"),
        _train("k_8", "mild", "--k 8"),
        _train("target", "mild", "--k 16 --lr 3e-3 --evaluate-every 5 --target-fvu 0.5", steps=400),
        _train("auxk", "severe", "--init zero --k 4 --revive auxk --lr 1e-3", steps=145, batch=2048, d_sae=96),
        _train("ghost", "severe", "--init zero --k 4 --revive ghost --lr 1e-3", steps=145, batch=2048, d_sae=96),
        _train("resample", "severe", "--init zero --k 4 --revive resample --record-every 20", steps=1150, d_sae=96),
    ]


def _sweeps() -> list[Verb]:
    return [
        _train("sweep", "mild", "--k 4 --lr 1e-3,3e-3 --init zero,whiten --alpha 0.2,0.5 --seed 0,1", steps=30),
        _train("sweep_l1", "severe", "--sparsity relu --l1 0.5,5 --lr 1e-3,1e-2 --evaluate-every 10", steps=30),
        _train(
            "sweep_resample",
            "severe",
            "--sparsity batch_topk --init zero,median --k 4 --revive resample --record-every 50",
            steps=1150,
            d_sae=64,
        ),
        _train("sweep_portions", "mild", "--k 4 --lr 1e-3,2e-3,3e-3 --memory 0.0008", steps=20),
    ]


def _resumed() -> list[Verb]:
    common = "train {tokens}/layers --layer severe --d-sae 96 --k 4 --init zero --batch-tokens 64 --steps 4000 "
    common += "--checkpoint-every 50 --evaluate-every 100 --record-every 10"
    half, sweep = f"{common} --revive auxk", f"{common} --lr 1e-3,3e-3"
    return [
        _verb("half", f"{half} --out half", interrupt="half/checkpoint*"),
        _verb("resumed", f"{half} --out resumed --resume", copied=("half", "resumed")),
        _verb("carried_half", f"{half} --out carried_half --resume", copied=("{before}/half", "carried_half")),
        _verb("half_sweep", f"{sweep} --out half_sweep", interrupt="half_sweep/checkpoint*"),
        _verb("resumed_sweep", f"{sweep} --out resumed_sweep --resume", copied=("half_sweep", "resumed_sweep")),
    ]


def _conversions() -> list[Verb]:
    there = [
        ("topk", "saelens"),
        ("batch_topk", "saelens"),
        ("relu", "saelens"),
        ("jumprelu", "saelens"),
        ("topk", "dictionary_learning"),
        ("batch_topk", "dictionary_learning"),
        ("relu", "dictionary_learning"),
        ("prescribed", "sparsify"),
        ("active_subspace", "saelens"),
    ]
    found = []
    for sae, library in there:
        path = f"converted/{sae}_{library}"
        found.append(_verb(f"{sae}_to_{library}", f"convert {sae}/sae {path} --to {library}"))
        found.append(_verb(f"{sae}_from_{library}", f"convert {path} {path}_back --to autopsae"))
    return [
        *found,
        _verb("groupmax_to_sparsify", "convert python/groupmax converted/groupmax --to sparsify"),
        _verb("groupmax_from_sparsify", "convert converted/groupmax converted/groupmax_back --to autopsae"),
        _verb("carried_convert", "convert {before}/jumprelu/sae converted/carried --to saelens --hook-name h.3"),
    ]


def _autopsies() -> list[Verb]:
    def autopsy(name: str, sae: str, layer: str, more: str = "") -> Verb:
        line = f"autopsy {sae} {{tokens}}/layers --layer {layer} --json autopsy/{name}.json"
        return _verb(f"autopsy_{name}", f"{line} --table autopsy/{name}.csv {more}")

    again = "--revive autopsy/{0}_again --prescription autopsy/{0}_next"
    return [
        autopsy("auxk", "auxk/sae", "severe", again.format("auxk")),
        autopsy("frozen", "frozen_b_dec/sae", "severe", "--lr 1e-5 --steps 100 " + again.format("frozen")),
        autopsy("prescribed", "prescribed/sae", "severe", "--revive autopsy/prescribed_again"),
        autopsy("batch_topk", "batch_topk/sae", "strays"),
        autopsy("jumprelu", "jumprelu/sae", "mild", "--rare 0.01"),
        autopsy("relu", "relu/sae", "severe"),
        autopsy("relu_from_zero", "relu_from_zero/sae", "severe", again.format("relu_from_zero")),
        autopsy("layer_norm", "layer_norm/sae", "severe"),
        autopsy("groupmax", "python/groupmax", "severe", "--tokens 1000"),
        autopsy("saelens", "converted/topk_saelens", "mild", "--prescription autopsy/saelens_next"),
        autopsy("dictionary_learning", "converted/batch_topk_dictionary_learning", "strays"),
        autopsy("sparsify", "converted/groupmax", "severe"),
        autopsy("carried", "{before}/resample/sae", "severe", again.format("carried")),
    ]


def _refusals() -> list[Verb]:
    """Exit codes of bad input."""
    return [
        _verb("refused_k", "diagnose {tokens}/layers --d-sae 8 --k 9", code=2),
        _verb("refused_taken", "train {tokens}/layers --layer mild --out topk --d-sae 128 --k 4 --steps 3", code=2),
        _verb("refused_layer", "autopsy topk/sae {tokens}/layers --layer nothing", code=2),
    ]
