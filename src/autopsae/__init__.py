"""autopsae: know how many latents of a sparse autoencoder will be born dead on a layer, why, and what to change.

The rooms, in the order in which the data pass through them; a room imports only rooms named before it:

    words            names and values from anywhere, fit for a message
    lazy, modules    names of a package imported when they are first used; PyTorch modules
    defaults, version  defaults that the library and its command line share; the version of both
    progress         what a long call tells of how far it is
    threads          an iterator read in a thread of its own
    transfers        from the memory of the host to a GPU without a wait
    arrays           what a token matrix is, its checks, the one error class
    arguments        counts that callers give: integers, no truth values and no floats
    extras           one message where a package that may be missing is missing
    seeds, passes    a random stream for each purpose of a seed; whether two passes see the same tokens
    memory           what is free of it, and a refusal of what would not fit
    reading, pickles files that may be anything: regular ones only, JSON within bounds, harmless pickles
    provenance       what wrote a result: version, date, source, settings
    disk, files      a full disk, locks, partial files of dead processes; files written whole or not at all
    tables           results as data frames, CSV and Parquet files, and HTML
    kinds, saved     what our own files must hold; written with checksums, and checked when they are read back
    kernels          tensors only: (token, latent) pairs, the k largest, sums over pairs, a step of Adam
    statistics       tokens -> moments, norms, a uniform sample, geometric median, spectrum; one pass, float64
    remedies         what can be changed: a centre, a metric (z-score, whitening), a subspace for the rows
    activations      where tokens come from: files, shards, models harvested with hooks, synthetic tokens
    models           which networks there are, what to feed them, statistics of all their layers at once
    sae              the model alone: drawn under a remedy, encode, decode, fold, save; which latents fire
    survival         death at birth: by the paper's formula, counted, and forecast for any number of tokens
    training         fit one or many at once: objectives, revival, optimizers, the loop, checkpoints, logs
    diagnosis        severity, findings, the prescription
    evaluation       measure it: error in raw space, death and its causes, true directions found, loss recovered
    features         what latents know: concepts that they cover, probes, top activations, monosemanticity
    interop          SAEs of other libraries and public suites: loaded as ours, ours written for the libraries
    cure             the prescription in another library's own training
    run              training from activations to folders: one SAE, or a sweep
    trial            remedies trained side by side on a layer for a while, and one of them prescribed
    report           results -> tables and figures; computes nothing
    hub              SAEs with their results, sent to the Hugging Face Hub and fetched from it
    cli              the command line

The common way through: `survey(open_layers(folder), d_sae=..., k=...)`, or `diagnose(tokens, ...)` for one layer;
then `born(diagnosis.prescription, ...)` and `train(sae, tokens, TrainConfig(...))`.
"""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
