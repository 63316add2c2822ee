"""The prescription in another library's own training: its object is set up in place, and trained by it as before.

A centre becomes the start of `b_dec`, a subspace the span of the rows. Whitening changes the tokens themselves, so
it goes where a library lets tokens be mapped: SAELens' scaler, or the stream of activations before any other.
"""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
