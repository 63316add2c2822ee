"""autopsae convert SOURCE TARGET: an SAE from one library to another."""

from autopsae.cli.options.convert import ConvertOptions
from autopsae.cli.overwriting import check_overwriting
from autopsae.cli.printing import print_line
from autopsae.files import pair_files
from autopsae.interop.convert import load_sae, save_sae


def convert(options: ConvertOptions) -> None:
    """Write an SAE in another format. Raises InputError."""
    if options.to == "autopsae":
        check_overwriting("convert", options, pair_files(options.target))
    sae = load_sae(options.source, scale=options.scale, k=options.k)
    save_sae(sae, options.target, to=options.to, model_name=options.model_name, hook_name=options.hook_name)
    what = f"{sae.sparsity.name} SAE of {sae.d_sae:,} latents on {sae.d_in:,} dimensions"
    print_line(f"{options.target}: {what}, for {options.to}")
