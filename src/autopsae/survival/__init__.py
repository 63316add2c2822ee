"""Death at birth: by the paper's formula, counted, and forecast for any number of tokens."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
