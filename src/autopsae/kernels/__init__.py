"""Tensors only: (token, latent) pairs, the k largest, sums over pairs, a step of Adam, passes over rows."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
