"""What a pickle would do, told from its opcodes without doing it.

`torch.load(weights_only=True)` runs no foreign code, but it builds what it is told to: tuples of tuples that take
an age to hash, or an array of zeros that fills the memory.
"""

import io
import pickletools

DEEPEST = 8
"""Tuples in tuples; `torch.save` needs three."""
GREEDY = "bytearray"
"""The one function that PyTorch allows and that takes as much memory as it is told."""
LONGER = ("remain", "to read long4")
"""In pickletools' messages for a part that is longer than the file; PyTorch would ask for as much memory."""
PICKLES_IN_A_ROW = 5
"""Of which files consist that `torch.save` wrote before it wrote archives."""


def why_not(beginning: bytes, largest: int) -> str | None:
    """The reason not to load a file of pickles; None if there is none.

    beginning: `largest` + 1 bytes of it, or all that it has. largest: bytes of the pickles, whose tensors lie
    elsewhere.
    """
    file = io.BytesIO(beginning)
    for _ in range(PICKLES_IN_A_ROW):
        try:
            reason = _why_not_one(file)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if file.tell() > largest:
                return f"it is of more than {largest >> 20} MiB"
            if any(words in str(error) for words in LONGER):
                return "a part of it is longer than the file"
            return None  # no pickle: left to PyTorch's own message
        if reason:
            return reason
    return None


def _why_not_one(file: io.BytesIO) -> str | None:
    depths: list[int | None] = []
    """Tuples in tuples, of each object on the unpickler's stack; None where it has a mark."""
    memo: dict[int, int | None] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, str) and GREEDY in argument.split(" ")[-1]:
            return f"it makes a {GREEDY}"
        name = opcode.name
        if name == "MARK":
            depths.append(None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = depths[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = depths[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            depths.append(memo[int(str(argument))])
        else:
            depth = _taken(depths, opcode) + name.startswith("TUPLE")
            if depth > DEEPEST:
                return f"it has tuples in tuples, more than {DEEPEST} deep"
            depths.extend([depth] * len(opcode.stack_after))
    return None


def _taken(depths: list[int | None], opcode: pickletools.OpcodeInfo) -> int:
    """The deepest of the objects that an opcode takes from the stack, which are removed."""
    before, taken = opcode.stack_before, 0
    count = len(before)
    if pickletools.markobject in before:
        count = before.index(pickletools.markobject)
        while (depth := depths.pop()) is not None:
            taken = max(taken, depth)
    for _ in range(count):
        taken = max(taken, depths.pop() or 0)
    return taken
