"""SAEs of other libraries and of public suites, read and written."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
