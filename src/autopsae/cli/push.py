"""autopsae push FOLDER REPOSITORY: a trained SAE to the Hugging Face Hub."""

from autopsae.cli.options.hub import PushOptions
from autopsae.cli.printing import print_line, print_note
from autopsae.hub.push import push as send


def push(options: PushOptions) -> None:
    """Send an SAE, and say where it is. Raises InputError."""
    address = send(
        options.folder,
        options.repository,
        prescription=options.prescription,
        diagnosis=options.diagnosis,
        trained_on=options.trained_on,
        model_name=options.model_name,
        hook_name=options.hook_name,
        license=options.license,
        public=options.public,
        replace=options.replace,
    )
    print_line(f"{address}: sent; load it by autopsae.load_sae('hf:{options.repository.removeprefix('hf:')}')")
    if not options.public:
        print_note(
            "a repository that was created now can be read by you alone; its settings on the Hub change that"
        )
