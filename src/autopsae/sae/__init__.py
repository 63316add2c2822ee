"""The sparse autoencoder alone: drawn, encoding, decoding, folded, saved; which of its latents fire."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
