import torch

from autopsae.remedies.remedy import center
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.statistics.strays import leave_out, shorten, typical_norm, weigh_down


def tokens() -> torch.Tensor:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    x[::50] *= 100
    return x


def test_leaving_out_keeps_the_others_in_order_each_time() -> None:
    x, limit = tokens(), 30.0
    stream = leave_out(list(x.split(130)), limit)
    for _ in range(2):
        assert torch.equal(torch.cat(list(stream)), x[x.norm(dim=1) <= limit])


def test_weighing_down_moves_only_strays_and_along_their_direction() -> None:
    x, limit, point = tokens(), 30.0, torch.full((8,), 0.5)
    y = torch.cat(list(weigh_down(x, limit, point)))
    stray = x.norm(dim=1) > limit
    assert torch.equal(y[~stray], x[~stray])
    assert torch.allclose((y - point)[stray].norm(dim=1), torch.tensor(limit))
    cosine = torch.nn.functional.cosine_similarity((y - point)[stray], (x - point)[stray])
    assert torch.allclose(cosine, torch.ones_like(cosine))


def test_to_a_topk_sae_centered_there_it_is_a_weight_on_the_squared_error() -> None:
    x, limit, point = tokens().double(), 30.0, torch.full((8,), 0.5, dtype=torch.float64)
    sae = born(
        center(point, "median"),
        d_sae=20,
        sparsity=TopK(k=3),
        scaled=False,
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )

    def errors(tokens: torch.Tensor) -> torch.Tensor:
        error: torch.Tensor = (tokens - sae(tokens)).square().sum(dim=1)
        return error

    y = torch.cat([z.double() for z in weigh_down(x, limit, point)])
    weight = ((y - point).norm(dim=1) / (x - point).norm(dim=1)).square()
    assert torch.allclose(errors(y), weight * errors(x), rtol=1e-4)


def test_shortened_tokens_keep_their_direction_and_the_others_stay() -> None:
    x = tokens().double()
    y = shorten(x, 30.0)
    long = x.norm(dim=1) > 30
    assert torch.equal(y[~long], x[~long])
    assert torch.allclose(y[long], 30 * torch.nn.functional.normalize(x[long], dim=1))
    assert torch.equal(shorten(torch.zeros(3, 2), 1.0), torch.zeros(3, 2))


def test_the_typical_norm_of_a_sample_is_that_of_the_tokens_that_are_not_zero() -> None:
    x = torch.cat([torch.zeros(50, 3), torch.eye(3)[:1] * torch.arange(1.0, 12.0)[:, None]])
    assert typical_norm(x) == 6.0
    assert typical_norm(torch.zeros(4, 3)) == 1.0
