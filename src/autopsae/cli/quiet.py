"""What the client of the Hugging Face Hub prints: progress on a terminal alone, and no warnings of its own."""

import os
import sys


def quiet_hub() -> None:
    """Tell huggingface_hub, by the environment that it reads when it is imported, to draw no progress bars where
    standard error is no terminal, and to log errors alone: what goes wrong is one line of ours. What the user has
    set there stays.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
