"""What the latents of an SAE know: sparse codes, concepts, probes, top activations, monosemanticity."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
