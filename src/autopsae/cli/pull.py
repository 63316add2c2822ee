"""autopsae pull REPOSITORY FOLDER: an SAE from the Hugging Face Hub."""

from autopsae.cli.options.hub import PullOptions
from autopsae.cli.printing import print_line
from autopsae.hub.pull import pull as fetch
from autopsae.interop.convert import load_sae


def pull(options: PullOptions) -> None:
    """Fetch an SAE, and say what it is. Raises InputError."""
    place = fetch(options.repository, options.folder, revision=options.revision, scale=options.scale, k=options.k)
    sae = load_sae(place, scale=options.scale, k=options.k)
    print_line(f"{place}: {sae.sparsity.name} SAE of {sae.d_sae:,} latents on {sae.d_in:,} dimensions")
