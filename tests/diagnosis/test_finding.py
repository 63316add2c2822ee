import pytest

from autopsae.diagnosis.finding import Finding

pytestmark = pytest.mark.quick


def finding(value: float, threshold: float = 2.0) -> Finding:
    return Finding(
        name="gamma", value=value, threshold=threshold, tokens=1500, meaning="m", advice="a", source="paper"
    )


def test_a_finding_reads_as_a_sentence() -> None:
    assert str(finding(14.93)) == "gamma 14.9 (over 2, n = 1,500 tokens): m; a"
    assert str(finding(0.5)) == "gamma 0.5 (under 2, n = 1,500 tokens): m; a"


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.0004, "gamma 1.0004 (over 1,"), (0.99951, "gamma 0.9995 (under 1,"), (1.0, "gamma 1 (under 1,")],
)
def test_a_value_near_its_threshold_has_the_digits_that_tell_them_apart(value: float, said: str) -> None:
    assert str(finding(value, threshold=1.0)).startswith(said)


@pytest.mark.parametrize(("value", "gravity"), [(2.0, 1.0), (6.0, 3.0), (0.5, 4.0)])
def test_gravity_counts_how_far_past_the_threshold_on_either_side(value: float, gravity: float) -> None:
    assert finding(value).gravity == pytest.approx(gravity)


def test_gravity_is_finite_where_nothing_is_accepted() -> None:
    assert finding(0.2, threshold=0.0).gravity > finding(0.1, threshold=0.0).gravity > 1e6
