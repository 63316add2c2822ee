"""Where tokens come from: files, shards, models harvested with hooks, synthetic tokens."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
