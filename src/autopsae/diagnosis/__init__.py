"""What is wrong with a layer, and what to change before training an SAE on it."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
