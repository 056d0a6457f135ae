from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from toolchain.text.metrics import classification_figures, correlations


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_are_judged_as_glue_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, answers = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    figures = classification_figures(targets, answers, 2)
    assert figures == pytest.approx(
        {"f1": f1_score(targets, answers), "matthews": matthews_corrcoef(targets, answers)}, abs=1e-12
    )
    hits = int(((targets == 1) & (answers == 1)).sum())
    assert figures["f1"] == pytest.approx(2 * hits / (targets.sum() + answers.sum()))
    assert figures["matthews"] == pytest.approx(np.corrcoef(targets, answers)[0, 1])


@pytest.mark.parametrize("classes", [3, 7])
def test_more_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    targets, answers = rng.integers(0, classes, 300), rng.integers(0, classes, 300)
    each = [f1_score(targets == number, answers == number) for number in range(classes)]
    assert classification_figures(targets, answers, classes) == pytest.approx(
        {"f1_macro": np.mean(each), "matthews": matthews_corrcoef(targets, answers)}, abs=1e-12
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("target", "answer"), [(0, 0), (0, 1), (1, 0), (1, 1), (None, 0), (None, 1), (0, None)])
def test_one_class_only_is_no_warning(classes: int, target: int | None, answer: int | None) -> None:
    mixed = np.arange(20) % 2
    targets, answers = (mixed if one is None else np.full(20, one) for one in (target, answer))
    figures = classification_figures(targets, answers, classes)
    assert figures["matthews"] == 0
    assert all(0 <= value <= 1 for value in figures.values())


def test_right_and_wrong_throughout() -> None:
    mixed = np.arange(20) % 2
    assert classification_figures(mixed, mixed, 2) == {"f1": 1, "matthews": 1}
    assert classification_figures(mixed, 1 - mixed, 2) == {"f1": 0, "matthews": -1}


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 6, 200).astype(float)  # with ties
    answers = targets + rng.normal(size=200)
    found = correlations(targets, answers)
    assert found.pearson == pytest.approx(pearsonr(targets, answers).statistic, abs=1e-12)
    assert found.spearman == pytest.approx(spearmanr(targets, answers).statistic, abs=1e-12)
    assert correlations(targets, np.exp(targets)).spearman == pytest.approx(1)


@pytest.mark.parametrize(
    "answers",
    [[2.0] * 5, [np.nan, 1, 2, 3, 4], [np.inf, 1, 2, 3, 4], [1e8, 1e8, 1e8, 1e8, 1e8 + 1e-7], [1e300, 1, 2, 3, 4]],
)
def test_correlations_are_never_nan(answers: list[float]) -> None:
    for pair in ((np.arange(5.0), np.array(answers)), (np.array(answers), np.arange(5.0))):
        assert all(-1 <= value <= 1 for value in correlations(*pair))
    assert correlations(np.array([1.0]), np.array([2.0])) == (0, 0)
