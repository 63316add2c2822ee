"""autopsae convert SOURCE TARGET: an SAE from one library to another."""

from pathlib import Path

from tyro.conf import Positional

from autopsae.cli.printing import print_line
from autopsae.interop.convert import Format, load_sae, save_sae


def convert(
    source: Positional[str],
    target: Positional[Path],
    /,
    *,
    to: Format,
    model_name: str | None = None,
    hook_name: str | None = None,
    scale: float | None = None,
    k: int | None = None,
) -> None:
    """Carry an SAE over from any library or public suite to SAELens, dictionary_learning, sparsify or autopsae.

    Args:
        source: The folder of an SAE, one of its files, the name of an autopsae SAE, or hf:owner/repository/folder.
        target: A new folder; for autopsae, a new name, to which .json and .safetensors are added.
        to: The library that shall load it.
        model_name: The model that its tokens come from, to be stored with it (saelens, dictionary_learning).
        hook_name: The place in that model.
        scale: What tokens are multiplied with before the SAE, where its files do not say it (docs/files.md).
        k: Active latents per token, where its files do not say it (Qwen-Scope).
    """
    sae = load_sae(source, scale=scale, k=k)
    save_sae(sae, target, to=to, model_name=model_name, hook_name=hook_name)
    what = f"{sae.sparsity.name} SAE of {sae.d_sae:,} latents on {sae.d_in:,} dimensions"
    print_line(f"{target}: {what}, for {to}")
