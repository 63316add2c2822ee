"""What an SAE is worth: its error in raw space, its dead latents and their causes, loss recovered."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
