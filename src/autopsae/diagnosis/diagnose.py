"""diagnose(tokens, d_sae=..., k=...): how an SAE would fare on a layer, and what to change, before training it."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, check_device
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, SAMPLE_TOKENS, STEPS, Repeated
from autopsae.diagnosis.births import count_births, estimate_births
from autopsae.diagnosis.judge import judge
from autopsae.diagnosis.parameters import Asked, check_repeated
from autopsae.diagnosis.plan import Planner
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import bytes_asked, fit_layers
from autopsae.passes import disk_type, same_passes, source_documents, spread_over
from autopsae.progress import Progress
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.statistics.collect import collect
from autopsae.statistics.repeats import OneOfEach, count_repeats
from autopsae.statistics.wide import WIDE


@whole_arguments("d_sae", "k", "at_tokens", "steps", "seed", "sample_tokens")
def diagnose(
    tokens: Tokens,
    *,
    d_sae: int = 8192,
    k: int | None = None,
    sparsity: Sparsity | None = None,
    at_tokens: int = AT_TOKENS,
    documents: Sequence[int] | NDArray[Any] | None = None,
    layer: str = "layer",
    alphas: Sequence[float] = (),
    ranks: Sequence[int] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    repeated: Repeated = "keep",
    seed: int = 0,
    exact: bool = True,
    sample_tokens: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose one layer from its activations.

    Two passes over the tokens: statistics and a sample of 4,096, then death at birth, counted for a freshly drawn
    SAE under no remedy, centering by the arithmetic mean and by the geometric median, z-scoring and whitening.
    From the sample the death that `at_tokens` tokens would leave is forecast, remedy by remedy from the least
    intrusive, until one leaves at most `acceptable`, and latents that are expected to survive training; it is
    prescribed.

    tokens: [tokens, d_in] or a re-iterable of such batches; d_sae, sparsity: the SAE to be trained (k = 64 is
    short for TopK(k=64), the default); alphas, ranks: further whitening exponents and active subspace ranks to
    measure; documents: the number of the document, image or sequence that each token is from, for the intervals
    (default: as the files tell, else guessed); acceptable: fraction of latents that may be born dead; lr, steps:
    the training by which `recovery` is judged; repeated: "leave_out" keeps one of each vector (a third pass, and
    up to 24 bytes of memory for each of them), "keep" all tokens; seed: of the drawn SAE and of the token sample;
    exact: count death at birth on all tokens; if not, the second pass is left out, and death is estimated from the
    sample (`Birth.dead_interval`) for all tokens, also for those of a file from which `Activations.take` took
    some; the effective rank and the whitening of a layer of over 2,048 dimensions are then from a sample of 4 d_in
    tokens (`statistics.collect`); sample_tokens: tokens of the sample (default: 4,096, or half or a quarter of it
    where the memory is too small for that and the width is known before a pass); device: where to compute
    (default: where the tokens are, for the products too); progress: told the tokens of each pass, as "statistics"
    and "birth".

    Raises InputError for tokens as `chunks`, for d_in < 2, for norms whose squares overflow or vanish, for passes
    that differ, for fewer than 40 tokens or where all are the same; for a layer so wide that it would not fit in
    memory (`bytes_of_diagnosis`); for numbers that cannot be (`Asked`); and for a device that does not
    compute in float64.
    """
    asked = Asked(
        d_sae=d_sae,
        sparsity=topk_unless(sparsity, k),
        at_tokens=at_tokens,
        alphas=alphas,
        ranks=ranks,
        acceptable=acceptable,
        lr=lr,
        steps=steps,
        seed=seed,
        sample_tokens=sample_tokens,
    )
    return diagnose_as_asked(
        tokens,
        asked,
        documents=documents,
        layer=layer,
        repeated=repeated,
        exact=exact,
        device=device,
        progress=progress,
    )


def diagnose_as_asked(
    tokens: Tokens,
    asked: Asked,
    *,
    layer: str,
    repeated: Repeated,
    exact: bool,
    device: torch.device | str | None,
    progress: Progress | None,
    documents: Sequence[int] | NDArray[Any] | None = None,
    planner: Planner | None = None,
) -> Diagnosis:
    """`diagnose`, of which the arguments are checked. planner: shown the layer."""
    check_repeated(repeated)
    if documents is not None and repeated == "leave_out":
        raise InputError('documents: expected repeated="keep", as copies that are left out have documents too')
    check_device(device, torch.float64)
    if documents is None and repeated == "keep":
        documents = source_documents(tokens)
    size = fit_layers([tokens], asked, exact=exact, device=device)
    sample_tokens = size.tokens if size else asked.sample_tokens or SAMPLE_TOKENS
    tokens = same_passes(tokens) if exact else tokens
    repeats = count_repeats(tokens) if repeated == "leave_out" else None
    tokens = OneOfEach(tokens) if repeats else tokens
    statistics = collect(
        tokens,
        sample_tokens=sample_tokens,
        seed=asked.seed,
        wide=None if exact else WIDE,
        device=device,
        needs=lambda d_in: bytes_asked(asked, d_in, sample_tokens),
        progress=progress,
    )
    diagnosis = judge(
        statistics,
        asked,
        count_births(tokens, progress) if exact else estimate_births,
        layer=layer,
        repeats=repeats,
        documents=documents,
        stream_tokens=None if exact else spread_over(tokens),
    )
    if planner:
        planner.show(diagnosis.prescription, statistics.sample, disk_type(tokens))
    return diagnosis
