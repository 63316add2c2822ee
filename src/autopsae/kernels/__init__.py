"""Tensors only: (token, latent) pairs, exact choices from inexact products, sums over pairs, steps of Adam."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
