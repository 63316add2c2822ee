"""Laws of copies to a GPU: no wait, the same values, and the source may fill its memory anew at once."""

import pytest
import torch

from autopsae.transfers import is_gpu, numbers_like, rows_for, send
from tests.pretended_device import pretended_device

pytestmark = pytest.mark.quick
X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cuda", "cpu", None])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_copy_has_the_values_of_now_and_nobody_waits(
    dtype: torch.dtype | None, device: str | None, pinned: bool
) -> None:
    with pretended_device() as there:
        source = X.clone().pin_memory() if pinned else X.clone()
        sent = send(source, device, dtype)
        assert not there.waits
        source.fill_(torch.nan)
        assert sent.device.type == (device or "cpu")
        assert torch.equal(sent.cpu(), X.to(dtype or X.dtype))


def test_what_is_on_the_device_already_is_copied_there_and_comes_back() -> None:
    with pretended_device() as there:
        source = X.to("cuda")
        there.waits.clear()
        for device in ("cuda", None):
            sent = send(source, device)
            assert sent.device.type == "cuda"
            assert sent.data_ptr() != source.data_ptr()
        assert not there.waits
        assert torch.equal(send(source, "cpu"), X)
        assert sum(there.waits.values()) == 1  # whoever reads it on the CPU needs its values


def test_rows_are_gathered_where_they_can_be_sent_from() -> None:
    rows = torch.tensor([3, 1, 3])
    assert torch.equal(rows_for(X, rows, None), X[rows])
    with pretended_device() as there:
        gathered = rows_for(X, rows, "cuda")
        assert gathered.is_pinned()
        assert torch.equal(gathered, X[rows])
        on_device = X.to("cuda")
        there.waits.clear()
        assert rows_for(on_device, rows, "cuda").device.type == "cuda"
        assert not there.waits


def test_numbers_take_the_type_and_the_device_of_what_they_are_for() -> None:
    with pretended_device() as there:
        like = X.to("cuda", torch.float32)
        there.waits.clear()
        numbers = numbers_like(like, [[1.0, 2.0], [0.1, 3.0]])
        assert not there.waits
        assert (numbers.dtype, numbers.device) == (like.dtype, like.device)
        assert numbers.tolist() == torch.tensor([[1.0, 2.0], [0.1, 3.0]]).tolist()


def test_the_host_may_read_only_beside_a_gpu() -> None:
    assert is_gpu("cuda:1")
    assert is_gpu(torch.device("cuda"))
    assert not is_gpu("cpu")
    assert not is_gpu(None)
