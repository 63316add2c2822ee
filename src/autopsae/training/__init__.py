"""Training one SAE or many at once."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
