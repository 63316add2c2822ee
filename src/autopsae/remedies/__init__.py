"""What can be changed before training: the centre, the metric, the subspace in which rows begin."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
