"""Names of the Hugging Face Hub."""

import os
import socket
from typing import Any
from urllib.parse import urlsplit


def hub_source(name: str) -> dict[str, Any]:
    """Arguments of transformers for a name of the Hub. Without a connection, only what was downloaded before: the
    Hub's client would try again for a minute.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)
    except OSError:
        return {"pretrained_model_name_or_path": name, "local_files_only": True}
    return {"pretrained_model_name_or_path": name}


def can_be_hub_name(name: str) -> bool:
    """Whether a name can be one of the Hub, NAME or OWNER/NAME; if not, it can only be a path."""
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not name.endswith(".gguf")
