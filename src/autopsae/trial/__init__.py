"""A trial of remedies on the user's own layer: trained side by side for a while, judged on tokens never seen."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
