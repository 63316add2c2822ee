"""Through which modules do tokens pass in `diagnose`, in order?

    python -m experiments.stations [--src CHECKOUT]

A station is a module that is given tokens: one of its functions is called, or a generator goes on, with a matrix
of d_in columns among its named arguments. What lies inside objects or in `*arguments` does not count, and neither
does what is returned. Matrices of d_sae rows are encoder rows, and those of at most d_in rows are directions; d_in,
d_sae and the number of tokens are chosen so that nothing else has their size.

The layer is severe (gamma 30), so that a remedy is prescribed and the forecast of recovery is made. Stations that
repeat count once, and so do cycles of stations that repeat at once (chunks of a pass, steps of the geometric
median). A step back goes to a room that ROOMS in tests/test_house.py names earlier.

At commit 7d7a39c: 41 stations, 17 steps back, `remedies` entered twice. The issue that asked for the restructuring
says 39 and 14, and not by which rule.
"""

import argparse
import ast
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

D_IN, D_SAE, K, TOKENS = 37, 101, 4, 5003
GAMMA = 30.0
ROOT = Path(__file__).parents[1]


def is_tokens(value: Any) -> bool:
    """Whether this is a matrix of tokens: neither encoder rows nor a few directions."""
    if not isinstance(value, Tensor | np.ndarray) or value.ndim != 2 or value.shape[1] != D_IN:
        return False
    return value.shape[0] > D_IN and value.shape[0] != D_SAE


def visits() -> list[str]:
    """The module of every call in `diagnose` that is given tokens, in order."""
    from autopsae import diagnose

    random = np.random.default_rng(0)
    tokens = random.standard_normal((TOKENS, D_IN)) + GAMMA * np.sqrt(D_IN) * np.eye(D_IN)[3]
    x = torch.from_numpy(tokens.astype(np.float32))
    diagnose(x[:200], d_sae=D_SAE, k=K)  # what is imported and compiled at first use is no station
    found: list[str] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("autopsae."):
            code = frame.f_code
            named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(is_tokens(frame.f_locals.get(name)) for name in named):
                found.append(module.removeprefix("autopsae."))

    sys.setprofile(look)
    try:
        diagnose(x, d_sae=D_SAE, k=K)
    finally:
        sys.setprofile(None)
    return found


def collapsed(visits: Sequence[str]) -> list[str]:
    """Of whatever repeats at once, be it one visit or a cycle of them, the first alone."""
    kept: list[str] = []
    for visit in visits:
        kept.append(visit)
        while length := _repeated(kept):
            del kept[-length:]
    return kept


def _repeated(kept: list[str]) -> int:
    """The length of the cycle that the end repeats, 0 where there is none."""
    halves = range(1, len(kept) // 2 + 1)
    return next((n for n in halves if kept[-n:] == kept[-2 * n : -n]), 0)


def steps_back(stations: Sequence[str], rooms: Sequence[str]) -> list[int]:
    """The places of the stations that lie in an earlier room than the one before."""
    order = [rooms.index(station.split(".")[0]) for station in stations]
    return [place for place in range(1, len(order)) if order[place] < order[place - 1]]


def entries(stations: Sequence[str]) -> dict[str, int]:
    """How often each room is entered from another."""
    rooms = [station.split(".")[0] for station in stations]
    return dict(Counter(room for place, room in enumerate(rooms) if place == 0 or rooms[place - 1] != room))


def rooms_of(checkout: Path) -> list[str]:
    """ROOMS, as tests/test_house.py of that checkout writes it."""
    found: list[str] = []
    for node in ast.walk(ast.parse((checkout / "tests" / "test_house.py").read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        of_rooms = any(isinstance(target, ast.Name) and target.id == "ROOMS" for target in targets)
        if of_rooms and isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
            found += ast.literal_eval(node.value)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--src", type=Path, default=ROOT, help="a checkout (default: this one)")
    checkout = parser.parse_args().src.resolve()
    sys.path.insert(0, str(checkout / "src"))
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        stations = collapsed(visits())
    back = steps_back(stations, rooms_of(checkout))
    for place, station in enumerate(stations):
        print(f"{place + 1:3} {'<' if place in back else ' '} {station}")
    times = ", ".join(f"{room} {n}" for room, n in entries(stations).items())
    print(f"{len(stations)} stations, {len(back)} steps back (<) into an earlier room; entries: {times}")


if __name__ == "__main__":
    main()
