"""A device that is not there: tensors say that they lie on "cuda:0", and are computed on the CPU.

A tensor that was left on the CPU is then found without a GPU, and so is each wait for the device. While
`pretended_device` is on,

- `tensor.device` is what the code asked for. All tensors that share memory are on one device.
- an operator with tensors on both devices raises, as PyTorch does. A single number on the CPU is allowed where
  PyTorch allows it, and so are indices.
- an operator raises if PyTorch has no kernel of it for CUDA (`native_functions.yaml` of the installed PyTorch tells).
- `numpy()` of a tensor on the device raises, as there.
- what makes the host wait for the device on a GPU is counted, with the line of autopsae that asked for it.

The values are those of the CPU, so that control flow that depends on them runs too; fake tensors stop there.
Operators are seen in the thread that turned it on.
"""

import inspect
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchgen
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")
SOURCE = str(Path(inspect.getfile(torch)).parent)
FREE_BYTES = 1 << 40

FACTORIES = """zeros ones full empty arange eye linspace logspace rand randn randint randperm tensor as_tensor asarray
zeros_like ones_like full_like empty_like rand_like randn_like randint_like tril_indices triu_indices""".split()
METHODS = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")

# Operators whose CUDA kernels wait for the device: they need the size of what they return, or check values.
WAITS = """_local_scalar_dense nonzero masked_select bincount segment_reduce equal _unique2 unique_dim
unique_consecutive unique_dim_consecutive _linalg_eigh _linalg_svd linalg_lstsq linalg_cholesky _linalg_check_errors
is_nonzero histc""".split()
# Operators that take tensors of both devices: copies, indices that may be on the CPU, and a number to fill with.
COPIES = ("copy_", "set_")
INDEXED = ("index", "index_put_", "index_put", "_index_put_impl_")
FILLED = ("index_fill_", "index_fill", "masked_fill_", "masked_fill", "fill_")


class Mixed(RuntimeError):
    """Tensors of both devices in one operator, or an operator that CUDA does not have."""


class Generator(torch.Generator):
    """A generator that says it is on the device; what it draws is put there."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA


class PretendedDevice(TorchDispatchMode):
    """Which memory is on the device, and what waited for it. waits: how often each line of autopsae has."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.asked = False
        """Whether code is making a tensor by a function of Python."""
        self._storages: dict[int, StorageWeakRef] = {}
        # Memory that an operator of PyTorch makes for itself. It is on the device of what it meets first.
        self._undecided: dict[int, StorageWeakRef] = {}

    def has(self, tensor: Tensor) -> bool:
        """Is this tensor on the device?"""
        return storage_of(tensor).cdata in self._storages

    def put(self, value: Any) -> Any:
        """Let tensors be on the device from now on. Their memory is not copied."""
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor):
                reference = storage_of(tensor)
                # The reference keeps the number from being given to other memory.
                self._storages[reference.cdata] = reference
                self._undecided.pop(reference.cdata, None)
        return value

    def take_off(self, tensor: Tensor) -> Tensor:
        self._storages.pop(storage_of(tensor).cdata, None)
        return tensor

    def waited(self, what: str) -> None:
        """Count a wait, at the innermost line of autopsae."""
        lines = [f for f in traceback.extract_stack() if "/autopsae/" in f.filename]
        where = f"{lines[-1].filename.rpartition('/autopsae/')[2]}:{lines[-1].lineno}" if lines else "elsewhere"
        self.waits[f"{where} {what}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if self.has(tensor)]
        if there:
            self.put([tensor for tensor in tensors if storage_of(tensor).cdata in self._undecided])
            self._check(func, name, tensors)
            if name in WAITS or _waits_here(name, args, kwargs):
                self.waited(name)
        result = func(*args, **kwargs)
        if not tensors and not self.asked and isinstance(result, Tensor):
            self._undecided[storage_of(result).cdata] = storage_of(result)
        if there:
            # What an operator writes stays where it is: only new memory is put where the operands are.
            old = {storage_of(tensor).cdata for tensor in tensors}
            self.put([t for t in tree_leaves(result) if isinstance(t, Tensor) and storage_of(t).cdata not in old])
        return result

    def _check(self, func: Any, name: str, tensors: list[Tensor]) -> None:
        if not is_on_cuda(func):
            raise Mixed(f"{func}: PyTorch has no kernel for CUDA")
        left = [t for t in tensors if not self.has(t)]
        if name in COPIES:
            left = []
        elif name in INDEXED and self.has(tensors[0]):
            left = [t for t in left if t.is_floating_point() and t.ndim]  # the values, not the indices
        elif torch.Tag.pointwise in func.tags or name in FILLED:
            left = [t for t in left if t.ndim]
        if left:
            raise Mixed(f"{func}: expected all tensors on {CUDA}, got one on cpu of shape {tuple(left[0].shape)}")


def storage_of(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _waits_here(name: str, args: Any, kwargs: Any) -> bool:
    """Whether an operator that waits for some arguments waits for these."""
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name not in INDEXED:
        return False
    # A mask waits for the number of its places; not where a single number is written through it. An index that is
    # on the CPU is copied.
    masked = any(isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    return masked and not (name != "index" and args[2].numel() == 1)


@contextmanager
def pretended_device() -> Iterator[PretendedDevice]:
    """Within the context, "cuda" is a device as any other."""
    there = PretendedDevice()
    changes: list[Any] = [
        mock.patch.object(torch.cuda, "mem_get_info", lambda device=None: (FREE_BYTES, FREE_BYTES)),
        mock.patch.object(torch.cuda, "is_available", lambda: True),
    ]
    for name in FACTORIES:
        changes.append(mock.patch.object(torch, name, _factory(there, getattr(torch, name))))
    for name in METHODS:
        changes.append(_of_tensor(name, _factory(there, getattr(Tensor, name))))
    for name, change in _changed_tensor(there).items():
        changes.append(_of_tensor(name, change))
    with there:
        for change in changes:
            change.start() if hasattr(change, "start") else change.__enter__()
        try:
            yield there
        finally:
            for change in reversed(changes):
                change.stop() if hasattr(change, "stop") else change.__exit__(None, None, None)


def is_device(device: Any) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


@contextmanager
def _of_tensor(name: str, value: Any) -> Iterator[None]:
    """Give all tensors another attribute. It hides that of PyTorch's own base class, or replaces it in Tensor."""
    own = Tensor.__dict__.get(name)
    setattr(Tensor, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(Tensor, name)
        else:
            setattr(Tensor, name, own)


def _factory(there: PretendedDevice, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes a tensor, and puts it on the device if asked to."""
    from_values = original.__name__ in ("tensor", "as_tensor", "asarray", "new_tensor")

    def make(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.pop("device", None)
        of = args[0] if args and isinstance(args[0], Tensor) else None
        generator = kwargs.get("generator")
        if device is None:
            on = (of is not None and there.has(of)) if original.__name__ not in ("tensor",) else False
        else:
            on = is_device(device)
        if isinstance(generator, torch.Generator) and is_device(generator.device) != on:
            raise RuntimeError(f"expected a generator on the device of the tensor, got {generator.device}")
        there.asked = True
        try:
            made = original(*args, **kwargs)
        finally:
            there.asked = False
        if not on:
            return there.take_off(made) if of is None or not shares(of, made) else made
        if from_values and not (of is not None and there.has(of) and original.__name__ == "as_tensor"):
            there.waited(original.__name__)  # the values are copied there from memory that is not pinned
        return there.put(made)

    return make


def shares(a: Tensor, b: Tensor) -> bool:
    return storage_of(a).cdata == storage_of(b).cdata


def _changed_tensor(there: PretendedDevice) -> dict[str, Any]:
    """What tensors do that has to do with their device."""
    real = {name: getattr(Tensor, name) for name in ("to", "numpy", "tolist", "__array__", "copy_")}
    real_device = torch._C.TensorBase.device.__get__  # type: ignore[attr-defined]
    pinned = set[int]()

    def device(x: Tensor) -> torch.device:
        return CUDA if there.has(x) else real_device(x)

    def move(x: Tensor, on: bool, dtype: Any, *, copy: bool, non_blocking: bool, **more: Any) -> Tensor:
        if there.has(x) == on:
            return real["to"](x, dtype or x.dtype, copy=copy, **more)
        if not non_blocking or (on and storage_of(x).cdata not in pinned):
            there.waited("a copy to the device" if on else "a copy to the CPU")
        moved = real["to"](x, dtype or x.dtype, copy=True, **more)
        return there.put(moved) if on else there.take_off(moved)

    def to(x: Tensor, *args: Any, copy: bool = False, non_blocking: bool = False, **kwargs: Any) -> Tensor:
        target, dtype, other = kwargs.pop("device", None), kwargs.pop("dtype", None), kwargs.pop("other", None)
        flags = [a for a in args if isinstance(a, bool)]
        non_blocking, copy = (flags + [non_blocking, copy][len(flags) :])[:2]
        for arg in args:
            if isinstance(arg, Tensor):
                other = arg
            elif isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, (str, torch.device)):
                target = arg
        if other is not None:
            target, dtype = device(other), other.dtype
        on = there.has(x) if target is None else is_device(target)
        return move(x, on, dtype, copy=copy, non_blocking=non_blocking, **kwargs)

    def refuse(name: str) -> Callable[..., Any]:
        def convert(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            if there.has(x):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            return real[name](x, *args, **kwargs)

        return convert

    def tolist(x: Tensor) -> Any:
        if there.has(x):
            there.waited("tolist")
        return real["tolist"](x)

    def copy_(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if there.has(x) != there.has(source) and (
            not non_blocking or (there.has(x) and storage_of(source).cdata not in pinned)
        ):
            there.waited("copy_")
        return real["copy_"](x, source)

    def pin_memory(x: Tensor) -> Tensor:
        copied = x.clone()
        pinned.add(storage_of(there_kept(copied)).cdata)
        return copied

    kept: list[Tensor] = []

    def there_kept(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    return {
        "device": property(device),
        "is_cuda": property(there.has),
        "is_cpu": property(lambda x: not there.has(x)),
        "to": to,
        "cpu": lambda x: to(x, "cpu"),
        "cuda": lambda x, *args, **kwargs: to(x, CUDA),
        "numpy": refuse("numpy"),
        "__array__": refuse("__array__"),
        "tolist": tolist,
        "copy_": copy_,
        "pin_memory": pin_memory,
        "is_pinned": lambda x: storage_of(x).cdata in pinned,
    }


@cache
def _without_cuda() -> frozenset[str]:
    """The operators, by overload, that have a kernel for the CPU and none for CUDA."""
    path = Path(inspect.getfile(torchgen)).parent / "packaged/ATen/native/native_functions.yaml"
    missing, delegates, known = set(), {}, {}
    for entry in re.split(r"^- func: ", path.read_text(), flags=re.M)[1:]:
        name = entry.split("(")[0]
        keys = {key.strip() for line in re.findall(r"^    ([A-Z][\w, ]*):", entry, flags=re.M) for key in line.split(",")}
        known[name] = keys
        if delegate := re.search(r"structured_delegate: (\S+)", entry):
            delegates[name] = delegate[1]
    for name, keys in known.items():
        keys = known.get(delegates.get(name, name), keys)
        if "CPU" in keys and not keys & {"CUDA", "CompositeExplicitAutograd", "CompositeImplicitAutograd"}:
            missing.add(name)
    return frozenset(missing)


def is_on_cuda(func: Any) -> bool:
    """Does PyTorch have this operator for CUDA?"""
    overload = func._overloadname
    name = func.overloadpacket.__name__ + ("" if overload == "default" else f".{overload}")
    return name not in _without_cuda()
