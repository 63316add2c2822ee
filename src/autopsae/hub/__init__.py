"""SAEs sent to the Hugging Face Hub and fetched from it, with their results."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
