import pytest

from fastcifar.analysis.statistics import interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "published"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (40, 2.0211), (99, 1.9842), (199, 1.9720)],
)
def test_t_quantile_matches_published_tables(degrees: int, published: float) -> None:
    assert t_quantile(degrees) == pytest.approx(published, abs=2e-4)


def test_interval_by_hand() -> None:
    assert interval([0.90, 0.91, 0.92]) == pytest.approx((0.91, 0.01, 4.3027 * 0.01 / 3**0.5), rel=1e-4)
    assert interval([0.5]) == (0.5, None, None)
