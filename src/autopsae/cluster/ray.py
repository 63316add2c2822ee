"""Ray: a cluster that runs already, by its address, or one of this machine that is started for the work."""

from collections.abc import Sequence
from typing import Any

from autopsae.arrays import InputError
from autopsae.cluster.engine import DEATHS, Ended, Task, Work, attempt, too_many_deaths
from autopsae.extras import package_error
from autopsae.words import reason


class Ray:
    """A core for each task. address: of the cluster; None for RAY_ADDRESS, or else one of this machine's cores."""

    def __init__(self, address: str | None = None) -> None:
        """Raises InputError where the cluster cannot be reached."""
        try:
            import ray
        except ImportError as error:
            raise package_error("--on ray", "ray", error, install="autopsae[ray]") from error
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
            except Exception as error:  # Ray raises Exception itself where a node does not start in time
                raise InputError(
                    f"--on ray: expected a cluster at {address or 'this machine'} ({reason(error)}); start it with "
                    "`ray start --head`"
                ) from error

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        """As `Engine.run`. Ray itself runs a task again whose process or node dies."""
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=DEATHS)(attempt)
        going = {remote.remote(work, dict(task)): number for number, task in enumerate(tasks)}
        try:
            while going:
                [ended], _ = ray.wait([*going], num_returns=1)
                number = going.pop(ended)
                try:
                    yield number, ray.get(ended)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                    raise too_many_deaths("ray") from error
        finally:
            for left in going:
                ray.cancel(left, force=True)
            if self._is_ours:
                ray.shutdown()
