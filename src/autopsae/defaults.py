"""Defaults and choices that the library and the options of its command line share.

Nothing heavy is imported here: `autopsae VERB --help` shows them without waiting for PyTorch.
"""

from typing import Literal

ACCEPTABLE = 0.01
"""Fraction of latents that may be born dead before something is prescribed; death that is foreseen in training is
another reason.
"""

AT_TOKENS = 1_000_000
"""Tokens on which death is forecast, where nothing else is asked."""

MOST_TOKENS = 10**15
"""More tokens than anybody has: a larger number is a slip."""

SAMPLE_TOKENS = 4096
"""Tokens in a sample, unless told otherwise."""

LR, STEPS = 3e-4, 100_000
"""The training of which it is asked what it leaves dead-by-ReLU (steps: the paper's)."""

D_SAE = 8192
"""Latents of an SAE, where nothing else is asked."""

K = 64
"""Latents that fire per token, where nothing else is asked."""

RARE = 1e-4
"""A latent that fires on a smaller share of the tokens is rare."""

Repeated = Literal["keep", "leave_out"]
"""What to do with tokens that are the same vector: keep all, or keep one of each."""

STARTS = ("zero", "mean", "median", "whiten", "asi")
"""The names of the starts of an SAE."""

BiasName = Literal["learned", "slow", "frozen", "decoder"]
"""The ways in which `b_dec` learns: `training.bias.BIASES` has the settings of each."""

Strays = Literal["keep", "leave_out", "weigh_down"]
"""What to do with training tokens of over ten times the median norm."""

Format = Literal["autopsae", "saelens", "dictionary_learning", "sparsify"]
"""The formats in which SAEs are written, by their library."""

Prefer = Literal["life", "error"]
"""What a trial prefers, where it shall not weigh both: few dead latents, or a low error."""

PROBE_KS = (1, 16, 128)
"""Numbers of latents or neurons that sparse probes see, where nothing else is asked."""

ProbeRows = Literal["documents", "tokens"]
"""What a probe says of a concept: whether a document has it, or whether a token has it."""

Pool = Literal["max", "mean", "last"]
"""How the codes of a document's tokens become one row."""
