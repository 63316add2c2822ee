"""What tokens look like: moments, norms, a uniform sample, the geometric median, the spectrum."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
