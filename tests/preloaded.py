"""What the programs of tests/processes.py import, imported once in the process that they are forked from.

It computes nothing: a pool of threads would not come along with a fork.
"""

import pkgutil
from importlib import import_module

import autopsae.cli

for module in pkgutil.iter_modules(autopsae.cli.__path__):
    import_module(f"autopsae.cli.{module.name}")

try:
    from numba.core.registry import cpu_target

    # Numba looks for what can be compiled when a function is first called, which takes a second.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
except ImportError:
    pass
