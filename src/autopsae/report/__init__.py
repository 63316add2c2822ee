"""Results as tables and figures; computes nothing."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
