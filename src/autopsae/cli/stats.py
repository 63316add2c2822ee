"""autopsae stats SHARD...: the statistics of some shards, as a part for `merge`."""

from autopsae.arrays import InputError
from autopsae.cli.options.stats import StatsOptions
from autopsae.cli.printing import print_line
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.diagnosis.parts import collect_part


def stats(options: StatsOptions) -> None:
    """Write the part, and say what it covers. Raises InputError."""
    if options.out.suffix != ".safetensors":
        raise InputError(f"--out {options.out}: expected a name that ends in .safetensors")
    check_places(options.out)
    device = take_device(options.device)
    with progress_bar("opening") as (bar, task):
        coverage = collect_part(
            options.shards,
            options.out,
            layers=() if options.layer is None else (options.layer,),
            start=options.start,
            sample_tokens=options.sample_tokens,
            seed=options.seed,
            device=device,
            progress=progress_on(bar, task),
        )
    print_line(f"{options.out}: {coverage}")
