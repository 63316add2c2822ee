"""From activations to folders: one SAE or a sweep."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
