"""Runs of Weights & Biases for the folders of a training: begun, gone on with, and finished."""

import secrets
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.training.logs import WandB
from autopsae.words import reason


def import_wandb() -> Any:
    """The package wandb. Raises InputError where it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise package_error("--wandb", "wandb", error, install="autopsae[wandb]") from error
    return wandb


class WandBFolder(WandB):
    """A run of Weights & Biases that is named for the folder of a training, and is finished when it is closed.

    wandb keeps its files in `wandb/` in that folder. Whether they are sent is for wandb to say: `wandb login`, or
    WANDB_MODE=offline and `wandb sync` later.
    """

    def __init__(self, folder: Path, project: str, *, group: str | None = None, after: int = 0) -> None:
        """project: as wandb calls it; group: the name of a sweep; after: the steps already done, where a training
        is resumed: then the run that the folder has is gone on with.

        Raises InputError where wandb is not installed, or begins no run.
        """
        wandb = import_wandb()
        earlier = _last_run(folder) if after else None
        try:
            run = wandb.init(
                project=project,
                name=folder.name,
                group=group,
                dir=str(folder),
                id=earlier or secrets.token_hex(4),
                resume="allow" if earlier else None,
                reinit="create_new",  # the members of a sweep are trained at the same time
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:  # the errors of wandb and of the network have no common class
            raise InputError(
                f"--wandb {project}: expected a run of Weights & Biases, got none ({reason(error)}); log in (wandb "
                "login), or set WANDB_MODE=offline"
            ) from error
        super().__init__(run)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _last_run(folder: Path) -> str | None:
    """The ID of the run in a folder that was begun last: `wandb/[offline-]run-DATE_TIME-ID`."""
    runs = [path.name for path in (folder / "wandb").glob("*run-*-*") if path.is_dir()]
    last = max(runs, key=lambda name: name.removeprefix("offline-"), default=None)
    return last and last.rsplit("-", 1)[1]
