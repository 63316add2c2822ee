"""Which networks there are, what to feed them, and statistics of all their layers in one run of the model."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
