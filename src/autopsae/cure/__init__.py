"""The prescription in another library's own training: its object is set up in place, and trained by it as before.

The trainer maps raw tokens as prescribed (scale, centre, whitening). `b_dec` starts at zero, which is the centre,
and learns as prescribed. A subspace becomes the span of the rows. What the library saves takes raw tokens.
"""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
