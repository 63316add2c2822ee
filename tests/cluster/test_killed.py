"""Workers that are killed at random moments: `benchmarks/cluster.py`, its laws asserted."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cluster import ENGINES, measure

long = pytest.mark.long
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")


def check(result: dict[str, Any]) -> None:
    """The results of one process; nothing lost, and nothing done twice."""
    for one in result["runs"]:
        assert one["jobs_done"] == one["jobs"], one
        assert one["done_twice"] == 0, one
        assert one["equal"], one
        assert one["largest_difference"] < 1e-5, one  # SAEs that are trained together share their products
        assert one.get("each_step_recorded_once", True), one


@pytest.mark.parametrize(
    ("engine", "layers", "members"),
    [
        ("local:2", 2, 2),
        pytest.param("local:3", 8, 6, marks=long),
        pytest.param("slurm:cluster=local,jobs=2", 4, 3, marks=[long, needs_submitit]),
    ],
)
def test_results_of_workers_that_are_killed_are_those_of_one_process(
    engine: str, layers: int, members: int, tmp_path: Path
) -> None:
    result = measure(tmp_path, [engine], layers=layers, members=members, kills=4)
    assert [(one["work"], one["jobs"]) for one in result["runs"]] == [("diagnosis", layers), ("sweep", members)]
    check(result)


@long
@needs_submitit
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_results_of_a_cluster_that_loses_a_node_and_many_workers_are_those_of_one_process(tmp_path: Path) -> None:
    result = measure(tmp_path, ENGINES, layers=24, members=12, kills=20)
    assert result["nodes_removed"] == 2
    assert result["kills"] == 20
    assert len(result["prescribed"]) > 1
    check(result)
