"""A device that is not there: tensors say that they lie on "cuda:0", and are computed on the CPU.

A tensor that was left on the CPU is then found without a GPU, and so is each wait for the device. While
`pretended_device` is on,

- `tensor.device` is what the code asked for. All tensors that share memory are on one device.
- an operator with tensors on both devices raises, as PyTorch does. A single number on the CPU is allowed where
  PyTorch allows it, and so are indices.
- an operator raises if PyTorch has no kernel of it for CUDA, as the list in the installed PyTorch tells, or none of
  bfloat16, as far as a GPU has told (`NOT_BFLOAT16`).
- `numpy()` of a tensor on the device raises, as there.
- what makes the host wait for the device on a GPU is counted, with the line of autopsae that asked for it.

The values are those of the CPU, so that control flow that depends on them runs too; fake tensors stop there.
Operators are seen in the thread that turned it on.
"""

import inspect
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, ValuesView
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchgen  # type: ignore[import-untyped]
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")
FREE_BYTES = 1 << 40

FACTORIES = (
    *("zeros", "ones", "full", "empty", "arange", "eye", "linspace", "logspace", "tril_indices", "triu_indices"),
    *("rand", "randn", "randint", "randperm", "tensor", "as_tensor", "asarray"),
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
)
METHODS = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")

# Operators whose CUDA kernels wait for the device: they need the size of what they return, or check values.
WAITS = (
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "histc"),
    *("_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "segment_reduce"),
    *("_linalg_eigh", "_linalg_svd", "_linalg_check_errors", "linalg_lstsq", "linalg_cholesky"),
)
# Operators whose CUDA kernels do not take bfloat16: seen on an H200 with PyTorch 2.11.
NOT_BFLOAT16 = ("_embedding_bag_per_sample_weights_backward",)
# Operators that take tensors of both devices: copies, indices that may be on the CPU, and a number to fill with.
COPIES = ("copy_", "set_")
INDEXED = ("index", "index_put_", "index_put", "_index_put_impl_")
FILLED = ("index_fill_", "index_fill", "masked_fill_", "masked_fill", "fill_")


class Mixed(RuntimeError):
    """Tensors of both devices in one operator, or an operator that CUDA does not have."""


class Generator(torch.Generator):
    """A generator that may say it is on the device. It then draws other numbers from a seed, as a GPU's does."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        generator = super().__new__(cls)
        generator.on = is_device(device)  # type: ignore[attr-defined]
        return generator

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(seed + 1 if self.on else seed)  # type: ignore[attr-defined]
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA if self.on else CPU  # type: ignore[attr-defined]


class PretendedDevice(TorchDispatchMode):
    """Which memory is on the device, and what waited for it. waits: how often each line of autopsae has."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._asked = False
        """Whether a function of Python is making a tensor."""
        self._thread = threading.get_ident()
        # By the number of the memory. A reference keeps the number from being given to other memory.
        self._pinned: dict[int, StorageWeakRef] = {}
        self._device: dict[int, StorageWeakRef] = {}
        # Memory that an operator of PyTorch makes for itself. It is on the device of what it meets first.
        self._undecided: dict[int, StorageWeakRef] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch would import its compiler, which takes seconds, to say that this class is not to be compiled.
        return False

    def has(self, tensor: Tensor) -> bool:
        """Is this tensor on the device?"""
        return memory_of(tensor) in self._device

    def put(self, value: Any) -> Any:
        """Let tensors be on the device from now on. Their memory is not copied."""
        for tensor in tensors_in(value):
            self._device[memory_of(tensor)] = StorageWeakRef(tensor.untyped_storage())
            self._undecided.pop(memory_of(tensor), None)
        return value

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While a tensor is made by a function of Python, which says where."""
        self._asked |= (mine := threading.get_ident() == self._thread)
        try:
            yield
        finally:
            self._asked &= not mine

    def pin(self, tensor: Tensor) -> Tensor:
        """Let a tensor be in pinned memory."""
        self._pinned[memory_of(tensor)] = StorageWeakRef(tensor.untyped_storage())
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Is it in pinned memory?"""
        return memory_of(tensor) in self._pinned

    def take_off(self, tensor: Tensor) -> Tensor:
        self._device.pop(memory_of(tensor), None)
        return tensor

    def waited(self, what: str) -> None:
        """Count a wait, at the innermost line of autopsae."""
        frame = inspect.currentframe()
        while frame and "/autopsae/" not in frame.f_code.co_filename:
            frame = frame.f_back
        where = f"{frame.f_code.co_filename.rpartition('/autopsae/')[2]}:{frame.f_lineno}" if frame else "elsewhere"
        self.waits[f"{where} {what}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [*tensors_in(args), *tensors_in(kwargs.values())]
        there = [tensor for tensor in tensors if self.has(tensor)]
        if there:
            self.put([tensor for tensor in tensors if memory_of(tensor) in self._undecided])
            self._check(func, name, tensors)
            if self._waits(name, args, kwargs):
                self.waited(name)
        result = func(*args, **kwargs)
        if not tensors and not self._asked and isinstance(result, Tensor):
            self._undecided[memory_of(result)] = StorageWeakRef(result.untyped_storage())
        if there:
            # What an operator writes stays where it is: only new memory is put where the operands are.
            old = {memory_of(tensor) for tensor in tensors}
            self.put([tensor for tensor in tensors_in(result) if memory_of(tensor) not in old])
        return result

    def _waits(self, name: str, args: Any, kwargs: Any) -> bool:
        """Whether the host waits for the device in an operator with these arguments."""
        if name == "repeat_interleave":
            return kwargs.get("output_size") is None
        if name not in INDEXED:
            return name in WAITS
        # A mask waits for the number of its places, except where a single number is written through it. An index
        # that is on the CPU is copied.
        indices = [*tensors_in(args[1])]
        masked = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        fills = name != "index" and args[2].numel() == 1
        return (masked and not fills) or not all(map(self.has, indices))

    def _check(self, func: Any, name: str, tensors: list[Tensor]) -> None:
        if not is_on_cuda(func):
            raise Mixed(f"{func}: PyTorch has no kernel for CUDA")
        if name in NOT_BFLOAT16 and any(t.dtype == torch.bfloat16 for t in tensors):
            raise Mixed(f"{func}: PyTorch has no kernel of bfloat16 for CUDA")
        left = [t for t in tensors if not self.has(t)]
        if name in COPIES:
            left = []
        elif name in INDEXED and self.has(tensors[0]):
            left = [t for t in left if t.is_floating_point() and t.ndim]  # the values, not the indices
        elif torch.Tag.pointwise in func.tags or name in FILLED:
            left = [t for t in left if t.ndim]
        if left:
            raise Mixed(f"{func}: expected all tensors on {CUDA}, got one on cpu of shape {tuple(left[0].shape)}")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among what an operator takes or gives: one, or some in lists in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, ValuesView)):
        for part in value:
            yield from tensors_in(part)


def memory_of(tensor: Tensor) -> int:
    """The number of a tensor's memory, which no other has while it is referred to."""
    number: int = tensor.untyped_storage()._cdata
    return number


@contextmanager
def pretended_device() -> Iterator[PretendedDevice]:
    """Within the context, "cuda" is a device as any other."""
    there = PretendedDevice()
    changes: list[Any] = [
        mock.patch.object(torch.cuda, "mem_get_info", return_value=(FREE_BYTES, FREE_BYTES)),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch, "Generator", Generator),
    ]
    for name in FACTORIES:
        changes.append(mock.patch.object(torch, name, _factory(there, getattr(torch, name))))
    for name in METHODS:
        changes.append(_of_tensor(name, _factory(there, getattr(Tensor, name))))
    for name, change in {**_copies(there), **_readings(there)}.items():
        changes.append(_of_tensor(name, change))
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        with there:
            yield there


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
    name = original.__name__
    from_values = name in ("tensor", "as_tensor", "asarray", "new_tensor")

    def make(*args: Any, device: Any = None, pin_memory: bool = False, **kwargs: Any) -> Any:
        like = args[0] if args and isinstance(args[0], Tensor) and name != "tensor" else None
        before = like is not None and there.has(like)
        on = before if device is None else is_device(device)
        if (generator := kwargs.get("generator")) is not None and is_device(generator.device) != on:
            raise Mixed(f"{name}: expected a generator on the device of the tensor, got one on {generator.device}")
        with there.asking():
            made = original(*args, **kwargs)
        if pin_memory:
            there.pin(made)
        if on and from_values and (name == "new_tensor" or not before):
            there.waited(name)  # the values are copied from memory that is not pinned
        if on:
            return there.put(made)
        if like is not None and before and memory_of(made) == memory_of(like):
            made = made.clone()
        return there.take_off(made)

    return make


def _copies(there: PretendedDevice) -> dict[str, Any]:
    """What of tensors tells their device, and what copies them from one to the other."""
    real_to, real_copy, real_device = Tensor.to, Tensor.copy_, torch._C.TensorBase.device.__get__

    def device(x: Tensor) -> torch.device:
        return CUDA if there.has(x) else real_device(x)

    def count_wait(up: bool, source: Tensor, what: str, *, non_blocking: bool) -> None:
        # Up from memory that is not pinned, the host waits in any case.
        if not non_blocking or (up and not there.is_pinned(source)):
            there.waited(what)

    def to(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        # (device, dtype, ...), (dtype, ...) or (tensor, ...)
        if args and isinstance(args[0], torch.dtype):
            args = (None, *args)
        elif args and isinstance(args[0], Tensor):
            args = (device(args[0]), args[0].dtype, *args[1:])
        return move(x, *args, **kwargs)

    def move(x: Tensor, device: Any = None, dtype: Any = None, non_blocking: bool = False, **more: Any) -> Any:
        on = there.has(x) if device is None else is_device(device)
        dtype = x.dtype if dtype is None else dtype
        if there.has(x) == on:
            return real_to(x, dtype, **more)
        count_wait(on, x, "to the device" if on else "to the CPU", non_blocking=non_blocking)
        moved = real_to(x, dtype, **{**more, "copy": True})
        return there.put(moved) if on else there.take_off(moved)

    def copy_(x: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
        if there.has(x) != there.has(source):
            count_wait(there.has(x), source, "copy_", non_blocking=non_blocking)
        return real_copy(x, source)

    up = {"to": to, "cpu": lambda x: to(x, CPU), "cuda": lambda x: to(x, CUDA), "copy_": copy_}
    told = {"device": device, "is_cuda": lambda x: there.has(x), "is_cpu": lambda x: not there.has(x)}
    return up | {name: property(tell) for name, tell in told.items()}


def _readings(there: PretendedDevice) -> dict[str, Any]:
    """What makes something else of tensors: lists, arrays, pinned memory."""
    real: dict[str, Any] = {name: getattr(Tensor, name) for name in ("numpy", "__array__", "tolist")}

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

    return {
        "numpy": refuse("numpy"),
        "__array__": refuse("__array__"),
        "tolist": tolist,
        "pin_memory": lambda x: x if there.is_pinned(x) else there.pin(x.clone()),
        "is_pinned": lambda x: there.is_pinned(x),
    }


@cache
def _without_cuda() -> frozenset[str]:
    """The operators, by overload, that have a kernel for the CPU and none for CUDA."""
    path = Path(inspect.getfile(torchgen)).parent / "packaged/ATen/native/native_functions.yaml"
    missing, delegates, known = set(), {}, {}
    for entry in re.split(r"^- func: ", path.read_text(), flags=re.M)[1:]:
        name = entry.split("(")[0]
        keys = {
            key.strip()
            for line in re.findall(r"^    ([A-Z][\w, ]*):", entry, flags=re.M)
            for key in line.split(",")
        }
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
