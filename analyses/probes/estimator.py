"""The same probe as a scikit-learn estimator, for pipelines and searches that expect one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..reading.threads import one_blas_thread
from ..statistics.resampling import grouped_folds
from .methods import METHODS
from .problem import Fits, Problem

__all__ = ["LinearProbe"]


class LinearProbe(ClassifierMixin, BaseEstimator):
    """A linear probe with scaling and choice of strength inside, in raw-space coefficients.

    Args:
        method: `logistic`, `ridge`, `mass_mean` (two classes), `mass_mean_covariance` or `shrunk_lda`.
        strengths: to choose from by `n_folds`-fold cross-validation (grouped when `fit` is given groups); one
            value is used as it is.
        n_folds: folds of that choice.
        tol: largest gradient entry per row at which an iterative fit stops.
        random_state: seed of the folds.

    After fitting, `coef_` [classes or 1, features] and `intercept_` score raw features; `converged_` says
    whether the solver finished; `strength_` what was chosen.

    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), ["a", "a", "b", "b"]
    >>> LinearProbe(strengths=(1.0,)).fit(x, y).predict([[0.5], [2.5]]).tolist()
    ['a', 'b']
    """

    def __init__(
        self,
        method: str = "logistic",
        *,
        strengths: ArrayLike = (1.0,),
        n_folds: int = 5,
        tol: float = 1e-10,
        random_state: int = 0,
    ) -> None:
        self.method = method
        self.strengths = strengths
        self.n_folds = n_folds
        self.tol = tol
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> "LinearProbe":
        """Fit on X [rows, features] and y [rows]; rows of one group share a fold of the choice."""
        x, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class ({self.classes_[0]!r}), expected 2 or more classes")
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is unknown; choose from {', '.join(METHODS)}")
        if len(self.classes_) > 2 and "multinomial" not in METHODS[self.method].kinds:
            raise ValueError(
                f"Only binary classification is supported by method={self.method!r}. y has "
                f"{len(self.classes_)} classes; choose another method."
            )
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        method = METHODS[self.method]
        strengths = np.sort(np.atleast_1d(np.asarray(self.strengths, dtype=np.float64)))
        with one_blas_thread():
            if len(strengths) > 1:
                strengths = strengths[[self._choose(x, codes, weight, strengths, groups)]]
            fits = method.fit(Problem(x, codes, len(self.classes_), weight[:, None], self.tol), strengths)
        self.strength_ = float(strengths[0])
        self.coef_ = np.atleast_2d(fits.weight[0, 0])
        self.intercept_ = np.atleast_1d(fits.bias[0, 0])
        self.converged_ = bool(fits.converged[0, 0])
        return self

    def _choose(
        self,
        x: NDArray[Any],
        codes: NDArray[Any],
        weight: NDArray[Any],
        strengths: NDArray[Any],
        groups: ArrayLike | None,
    ) -> int:
        fold = grouped_folds(
            np.arange(len(x)) if groups is None else groups,
            codes,
            n_folds=self.n_folds,
            seed=self.random_state,
        )
        masks = (fold[:, None] != np.arange(self.n_folds)) * weight[:, None]
        fits: Fits = METHODS[self.method].fit(
            Problem(x, codes, len(self.classes_), masks, self.tol), strengths
        )
        losses = np.zeros((len(strengths), len(x)))
        for index in range(self.n_folds):
            mine = fold == index
            margins = fits.margins(x[mine], index)
            if margins.ndim == 2:
                losses[:, mine] = np.logaddexp(0, np.where(codes[mine] == 1, -margins, margins))
            else:
                true = np.take_along_axis(margins, codes[mine][None, :, None], axis=2)[:, :, 0]
                losses[:, mine] = np.logaddexp.reduce(margins, axis=2) - true
        return int(np.argmin(losses @ weight))

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """[rows] margins of the second of two classes, or [rows, classes]."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        scores = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """[rows] the class of the largest margin."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """[rows, classes] softmax of the margins; calibrated for `logistic` only."""
        scores = self.decision_function(X)
        scores = np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.method != "mass_mean"
        return tags
