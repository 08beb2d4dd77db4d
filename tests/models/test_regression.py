"""The batched regressions against loops over series and samples."""

import numpy as np

from sentinel_core.models import regression, rows


def test_shares_agree_with_a_loop() -> None:
    """Shares per lead are reweighted ridge regressions of each series by itself, over its complete samples."""
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.normal(size=(4, 90)), axis=1) / 10
    series[1, :20] = np.nan
    series[2, rng.random(90) < 0.2] = np.nan
    leads = np.array([1, 4])
    mean = rows.trailing_mean(series, 10)

    def back(_: int, origins: slice) -> list[np.ndarray]:
        return [mean[:, origins] - series[:, origins], -series[:, origins]]

    found, _ = regression.shares(series, back, (0.0, 0.0), leads, 90)
    for row, values in enumerate(series):
        before = np.zeros(2)
        pull = regression.PRIOR_SAMPLES * np.nanmean(values**2)
        for k, lead in enumerate(leads):
            samples = [
                (mean[row, t] - values[t], -values[t], values[t + lead] - values[t])
                for t in range(90 - lead)
                if np.isfinite(values[t]) and np.isfinite(values[t + lead])
            ]
            X, y = np.array(samples)[:, :2], np.array(samples)[:, 2]
            weights = np.ones(len(y))
            for _ in range(regression.REWEIGHTINGS + 1):
                normal = (X.T * weights) @ X + pull * np.eye(2)
                share = np.linalg.solve(normal, (X.T * weights) @ y + pull * before)
                size = np.abs(y - X @ share)
                weights = size.mean() / np.maximum(size, regression.SMALLEST_RESIDUAL * size.mean())
            np.testing.assert_allclose(found[row, k], share, rtol=1e-8)
            before = share


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    """Without reweighting, targets counted in two calls add up to those of one."""
    series = np.random.default_rng(1).normal(size=(3, 60))

    def stay(_: int, origins: slice) -> list[np.ndarray]:
        return [-series[:, origins]]

    whole = np.array([(series[r, :-2] ** 2).sum() for r in range(3)])
    columns = [-series[:, :-2]]
    target = series[:, 2:] - series[:, :-2]
    first = regression.products([c[:, :30] for c in columns], target[:, :30])
    second = regression.products([c[:, 30:] for c in columns], target[:, 30:])
    np.testing.assert_allclose(first + second, regression.products(columns, target))
    np.testing.assert_allclose((first + second)[:, 0, 0], whole)
    # only targets among the newest columns count
    _, sums = regression.shares(series, stay, (0.0,), np.array([2]), 10, np.zeros((3, 1, 2, 2)))
    assert np.all(sums[:, 0, 0, 0] < 2 * (series[:, 48:58] ** 2).sum(axis=1) * 10)


def test_absolute_weights_tame_outliers() -> None:
    """One wild sample hardly moves what a hundred others say."""
    x = np.random.default_rng(2).normal(size=(1, 200))
    walk = np.cumsum(0.1 * x, axis=1)
    wild = walk.copy()
    wild[0, 77] += 50.0

    def momentum(of: np.ndarray):  # type: ignore[no-untyped-def]
        step = np.diff(of, axis=1, prepend=of[:, :1])
        return lambda _, origins: [step[:, origins]]

    calm, _ = regression.shares(walk, momentum(walk), (0.0,), np.array([1]), 200)
    shaken, _ = regression.shares(wild, momentum(wild), (0.0,), np.array([1]), 200)
    assert abs(calm[0, 0, 0]) < 0.2
    assert abs(shaken[0, 0, 0]) < 0.6


def test_between_knots_is_linear_in_the_logarithm() -> None:
    """Coefficients between knots are interpolated, those beyond the last kept."""
    at, coefficients = np.array([1, 2, 8]), np.array([[[0.0], [1.0], [3.0]]])
    found = rows.between_knots(coefficients, at, np.array([[1, 2, 4, 8, 100]]))
    np.testing.assert_allclose(found[0, :, 0], [0.0, 1.0, 2.0, 3.0, 3.0])
