"""What is said of tokens that are the same vector: padding, zeros, or the few vectors of an embedding."""

from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.measured import FEW_DISTINCT, REPEATED, Measured

_LEAVE_OUT = 'mask them at harvest, or keep one of each with --repeated leave_out (repeated="leave_out")'


def repeat_findings(measured: Measured) -> list[Finding | None]:
    """Where copies were left out, that alone."""
    if measured.tokens < measured.repeats.tokens:
        return [_copies_left_out(measured)]
    return [_repeated_tokens(measured), _zero_tokens(measured), _few_distinct(measured)]


def _repeated_tokens(measured: Measured) -> Finding | None:
    repeats = measured.repeats
    if repeats.largest_share <= REPEATED:
        return None
    zero = " (all zero)" if repeats.zero_rows / repeats.tokens > REPEATED else ""
    return Finding(
        name="share of one repeated token",
        value=repeats.largest_share,
        threshold=REPEATED,
        tokens=repeats.tokens,
        meaning=f"{repeats.largest_share:.0%} of the tokens are one and the same vector{zero}: padding, or a BOS "
        f"in every sequence? It counts in every number here, which rest on {_distinct(measured)} distinct vectors",
        advice=_LEAVE_OUT,
        source="autopsae; copies of a token tell nothing new of the layer",
    )


def _zero_tokens(measured: Measured) -> Finding | None:
    """Where they are not the repeated token already."""
    repeats = measured.repeats
    share = repeats.zero_rows / repeats.tokens
    if share == 0 or share > REPEATED:
        return None
    return Finding(
        name="zero tokens",
        value=share,
        threshold=0.0,
        tokens=repeats.tokens,
        meaning=f"{repeats.zero_rows:,} of {repeats.tokens:,} tokens ({share:.2%}) are all zero: padding?",
        advice=_LEAVE_OUT,
        source="autopsae; no activation of a network is zero in every dimension",
    )


def _few_distinct(measured: Measured) -> Finding | None:
    """As in an embedding: nothing to worry about, but the sample is no larger."""
    repeats = measured.repeats
    share = repeats.distinct_estimate / repeats.tokens
    if share >= FEW_DISTINCT or repeats.largest_share > REPEATED:
        return None
    return Finding(
        name="distinct tokens",
        value=share,
        threshold=FEW_DISTINCT,
        tokens=measured.sample_size,
        meaning=f"the {repeats.tokens:,} tokens are {_distinct(measured)} distinct vectors, as in an embedding: "
        "that is the sample size",
        advice="",
        source="autopsae; copies of a token tell nothing new of the layer",
    )


def _copies_left_out(measured: Measured) -> Finding:
    read = measured.repeats.tokens
    return Finding(
        name="copies left out",
        value=1 - measured.tokens / read,
        threshold=0.0,
        tokens=measured.tokens,
        meaning=f"of {read:,} tokens one of each of {measured.tokens:,} distinct vectors was kept; the most "
        f"frequent was {measured.repeats.largest_share:.1%} of them, {measured.repeats.zero_rows:,} were all zero",
        advice="",
        source="as asked (repeated leave_out)",
    )


def _distinct(measured: Measured) -> str:
    about = "" if measured.repeats.distinct is not None else "about "
    return f"{about}{measured.repeats.distinct_estimate:,}"
