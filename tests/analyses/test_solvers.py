"""Solvers against scikit-learn at tight tolerance and against explicit refits, numpy and torch alike."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

import layerprobe as lp
from layerprobe.analyses.probes.discriminant import solve_shrunk
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.problem import Problem, moments
from layerprobe.analyses.solvers.arrays import square_root
from layerprobe.analyses.solvers.logistic import solve_logistic
from layerprobe.analyses.solvers.ridge import decompose, leave_out_predictions, solve_ridge
from layerprobe.analyses.solvers.row_space import ridge_from_moments, stream_moments
from layerprobe.cache.prompts.table import PromptTable

SHAPES = {
    "rows > width": (200, 12),
    "rows < width": (40, 120),
    "collinear": (100, 20),
    "imbalanced": (200, 10),
    "separable": (60, 30),
}


def data(name, seed=0):
    n, d = SHAPES[name]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d))) + 5 * rng.normal(size=d)
    if name == "collinear":
        x[:, 10:] = x[:, :10] @ rng.normal(size=(10, 10))
    score = (x - x.mean(0)) @ rng.normal(size=d) / np.sqrt(d) + (
        0 if name == "separable" else 1
    ) * rng.normal(size=n)
    return x, (score > np.quantile(score, 0.95 if name == "imbalanced" else 0.5)).astype(int)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("c", [0.01, 10.0])
def test_logistic_equals_scikit_learn(name, c):
    x, y = data(name)
    ours = solve_logistic(x, y[:, None], [1 / c], tol=1e-9)
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=50_000, solver="newton-cholesky").fit(x, y)
    assert ours.converged[0] and ours.gradient[0] <= 1e-9
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.weight[0], theirs.coef_[0], atol=2e-5 * scale)
    np.testing.assert_allclose(x @ ours.weight[0] + ours.bias[0], theirs.decision_function(x), atol=1e-3)


@pytest.mark.parametrize("name", ["rows > width", "rows < width", "imbalanced"])
def test_a_probe_fold_equals_a_pipeline_that_saw_only_that_fold(name):
    x, y = data(name)
    masks = np.stack([np.arange(len(y)) % 3 != fold for fold in range(3)], axis=1).astype(float)
    masks[:, 2] *= np.where(y == 1, 2.0, 1.0)
    strengths = np.array([0.01, 1.0])
    fits = METHODS["logistic"].fit(Problem(x, y, 2, masks), strengths)
    for fold in range(3):
        u = masks[:, fold]
        mean = np.average(x, axis=0, weights=u)
        scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=u))
        for index, c in enumerate(strengths):
            theirs = LogisticRegression(C=c, tol=1e-10, max_iter=20_000, solver="newton-cholesky")
            theirs.fit((x - mean) / scale, y, sample_weight=u)
            expected = theirs.decision_function((x - mean) / scale)
            np.testing.assert_allclose(fits.margins(x, fold)[index], expected, atol=5e-4)


@pytest.mark.parametrize("name", ["rows > width", "rows < width", "collinear"])
def test_one_shared_gram_gives_every_fold_its_own_minimum(name):
    x, y = data(name)
    masks = np.stack([np.arange(len(y)) % 3 != fold for fold in range(3)], axis=1).astype(float)
    fits = METHODS["logistic_unscaled"].fit(Problem(x, y, 2, masks, 1e-9), np.array([0.01, 1.0]))
    for fold in range(3):
        for index, c in enumerate([0.01, 1.0]):
            seen = masks[:, fold] > 0
            theirs = LogisticRegression(C=c, tol=1e-10, max_iter=20_000, solver="newton-cholesky")
            theirs.fit(x[seen], y[seen])
            np.testing.assert_allclose(fits.margins(x, fold)[index], theirs.decision_function(x), atol=1e-4)
    assert fits.converged.all()


@pytest.mark.parametrize("repeated", [False, True])
def test_many_rows_of_greater_width_equal_scikit_learn(repeated):
    """Above 300 rows the row space is a Cholesky factor with a sketched preconditioner; eigenvectors if rows
    repeat."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(420, 500)) * np.arange(1, 501) ** -0.5 @ np.linalg.qr(rng.normal(size=(500, 500)))[0]
    if repeated:
        x[200:] = x[:220]
    x += 3 * rng.normal(size=500)
    y = (x[:, 0] - x[:, 0].mean() + 0.1 * rng.normal(size=420) > 0).astype(int)
    masks = np.stack([np.arange(420) % 10 != fold for fold in range(2)], axis=1).astype(float)
    strengths = np.array([1e-4, 1.0, 10.0])
    fits = METHODS["logistic"].fit(Problem(x, y, 2, masks, 1e-9), strengths)
    assert fits.converged.all()
    for fold in range(2):
        seen = masks[:, fold] > 0
        mean, scale = x[seen].mean(axis=0), x[seen].std(axis=0)
        for index, c in enumerate(strengths):
            theirs = LogisticRegression(C=c, tol=1e-9, max_iter=20_000, solver="newton-cholesky")
            theirs.fit((x[seen] - mean) / scale, y[seen])
            expected = theirs.coef_[0] / scale
            np.testing.assert_allclose(fits.weight[fold, index], expected, atol=1e-5 * np.abs(expected).max())
            np.testing.assert_allclose(
                fits.margins(x, fold)[index], theirs.decision_function((x - mean) / scale), atol=1e-4
            )


@pytest.mark.parametrize("basis_width", [4, 64])
def test_the_preconditioner_changes_iterations_and_nothing_else(basis_width, monkeypatch):
    monkeypatch.setattr("layerprobe.analyses.solvers.precondition.SKETCH_RANK", 3)
    x, y = data("rows > width")
    x = x * np.logspace(0, 2, x.shape[1])
    masks = np.stack([np.arange(len(y)) % 4 != fold for fold in range(4)], axis=1).astype(float)
    fit = solve_logistic(
        x,
        np.repeat(y[:, None], 4, axis=1),
        np.ones(4),
        row_weights=masks,
        fold=np.arange(4),
        basis_width=basis_width,
        tol=1e-9,
    )
    for fold in range(4):
        alone = solve_logistic(x[masks[:, fold] > 0], y[masks[:, fold] > 0, None], [1.0], tol=1e-9)
        np.testing.assert_allclose(fit.weight[fold], alone.weight[0], atol=1e-6)


@pytest.mark.parametrize("width", [30, 400])
def test_features_that_a_fold_never_sees_get_no_weight_there(width):
    """Rare words: absent from a fold's rows, present in those it is scored on."""
    rng = np.random.default_rng(0)
    x = (rng.random((150, width)) < 0.1).astype(float)
    fold = np.arange(150) % 5
    for rare in range(10):
        x[:, rare] = 0
        x[np.flatnonzero(fold == rare % 5)[: 2 + rare // 5], rare] = 1
    y = (x[:, 10:20].sum(axis=1) + 0.5 * rng.normal(size=150) > 1).astype(int)
    masks = (fold[:, None] != np.arange(5)).astype(float)
    scale = moments(Problem(x, y, 2, masks))[1]
    strengths = np.array([0.1, 10.0])
    fits = METHODS["logistic"].fit(Problem(x, y, 2, masks), strengths)
    for f in range(5):
        seen = fold != f
        scaler = StandardScaler().fit(x[seen])
        np.testing.assert_allclose(scale[f], scaler.scale_, rtol=1e-9)
        absent = x[seen].std(axis=0) == 0
        assert absent.sum() >= 2 and np.abs(fits.weight[f][:, absent]).max() < 1e-12
        for index, c in enumerate(strengths):
            theirs = LogisticRegression(C=c, tol=1e-10, max_iter=20_000, solver="newton-cholesky")
            theirs.fit(scaler.transform(x[seen]), y[seen])
            expected = theirs.decision_function(scaler.transform(x[~seen]))
            np.testing.assert_allclose(fits.margins(x[~seen], f)[index], expected, atol=3e-3)


def test_streamed_moments_give_the_same_ridge():
    x, y = data("rows > width")
    targets = np.stack([y, x[:, 0]], axis=1).astype(float)
    moments_ = stream_moments((x[i : i + 33], targets[i : i + 33]) for i in range(0, len(x), 33))
    weight, bias = ridge_from_moments(moments_, np.array([0.5, 5.0]))
    path = solve_ridge(x, targets, np.array([0.5, 5.0]))
    np.testing.assert_allclose(weight, path.weight, atol=1e-9)
    np.testing.assert_allclose(bias, path.bias, atol=1e-8)


def test_softmax_equals_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    y = np.argmax(x[:, :3] + rng.normal(size=(150, 3)), axis=1)
    ours = solve_logistic(x, y[:, None], [0.5], n_classes=3, tol=1e-9)
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=20_000).fit(x, y)
    np.testing.assert_allclose(ours.weight[0], theirs.coef_, atol=1e-5)


def test_columns_do_not_disturb_one_another():
    x, y = data("rows > width")
    labels = np.stack([y, 1 - y, np.roll(y, 7)], axis=1)
    together = solve_logistic(x, labels, [0.1, 1.0, 10.0], tol=1e-9)
    for column, l2 in enumerate([0.1, 1.0, 10.0]):
        alone = solve_logistic(x, labels[:, column : column + 1], [l2], tol=1e-9)
        np.testing.assert_allclose(together.weight[column], alone.weight[0], atol=1e-6)


def test_a_start_does_not_move_the_minimum_and_an_unfinished_fit_says_so():
    x, y = data("rows > width")
    cold = solve_logistic(x, y[:, None], [1.0], tol=1e-9)
    warm = solve_logistic(x, y[:, None], [1.0], tol=1e-9, start=cold.weight)
    np.testing.assert_allclose(cold.weight, warm.weight, atol=1e-6)
    assert warm.iterations <= cold.iterations
    assert not solve_logistic(x, y[:, None], [1.0], tol=1e-9, max_iterations=2).converged[0]


@pytest.mark.parametrize("name", SHAPES)
def test_ridge_equals_scikit_learn_for_every_penalty_and_target(name):
    x, y = data(name)
    targets = np.stack([y, x[:, 0] - x[:, 1]], axis=1).astype(float)
    alphas = np.array([0.1, 10.0])
    u = np.random.default_rng(1).random(len(y)) + 0.5
    path = solve_ridge(x, targets, alphas, row_weights=u)
    for index, alpha in enumerate(alphas):
        theirs = Ridge(alpha=alpha, solver="cholesky", tol=1e-12).fit(x, targets, sample_weight=u)
        np.testing.assert_allclose(path.weight[index], theirs.coef_, atol=1e-8)
        np.testing.assert_allclose(path.bias[index], theirs.intercept_, atol=1e-7)


@pytest.mark.parametrize("name", ["rows > width", "rows < width", "collinear"])
@pytest.mark.parametrize("weighted", [False, True])
def test_held_out_ridge_predictions_equal_explicit_refits(name, weighted):
    x, y = data(name)
    targets, alphas = y[:, None].astype(float), np.array([0.5, 20.0])
    u = np.random.default_rng(1).random(len(y)) + 0.5 if weighted else np.ones(len(y))
    parts = decompose(x, row_weights=u)
    fold = np.arange(len(y)) % 4
    for folds in (fold, None):
        ours = leave_out_predictions(parts, targets, alphas, fold=folds)
        of_row = np.arange(len(y)) if folds is None else folds
        for index, alpha in enumerate(alphas):
            for left_out in np.unique(of_row)[:6]:
                mine = of_row == left_out
                refit = Ridge(alpha=alpha, solver="cholesky").fit(
                    x[~mine], targets[~mine], sample_weight=u[~mine]
                )
                np.testing.assert_allclose(ours[index, mine, 0], np.ravel(refit.predict(x[mine])), atol=1e-7)


def test_lda_equals_scikit_learn():
    x, y = data("rows > width")
    fits = METHODS["mass_mean_covariance"].fit(Problem(x, y, 2, np.ones((len(y), 1))), np.ones(1))
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    np.testing.assert_allclose(fits.weight[0, 0], theirs.coef_[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fits.margins(x, 0)[0], theirs.decision_function(x), atol=2e-2)


def test_shrunk_inverse_equals_the_dense_one():
    rng = np.random.default_rng(0)
    for n, d in ((50, 8), (8, 50)):
        r = rng.normal(size=(n, d))
        r -= r.mean(axis=0)
        v = rng.normal(size=(d, 3))
        sigma = 0.7 * r.T @ r / n + 0.3 * (r**2).sum() / (n * d) * np.eye(d)
        ours = solve_shrunk(
            torch.from_numpy(r), torch.from_numpy(v), lambda *_: torch.tensor(0.3, dtype=torch.float64)
        )
        np.testing.assert_allclose(ours, np.linalg.solve(sigma, v), atol=1e-9)


def test_tensors_in_tensors_out():
    x, y = data("rows > width")
    fit = solve_logistic(torch.from_numpy(x), torch.from_numpy(y[:, None]), torch.tensor([1.0]))
    assert isinstance(fit.weight, torch.Tensor)
    np.testing.assert_allclose(fit.weight.numpy(), solve_logistic(x, y[:, None], [1.0]).weight)
    path = solve_ridge(torch.from_numpy(x), torch.from_numpy(y[:, None].astype(float)), torch.tensor([1.0]))
    assert isinstance(path.weight, torch.Tensor)


def test_moments_survive_a_large_offset():
    x = np.random.default_rng(0).normal(size=(300, 4)) + 1e6
    mean, scale = moments(Problem(x, np.zeros(300), 2, np.ones((300, 1))))
    np.testing.assert_allclose(scale[0], x.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(mean[0], x.mean(axis=0))


def test_moments_streamed_from_a_store_on_disk_give_the_ridge_of_all_its_rows(tmp_path):
    from tiny_models import WORDS, tiny_model

    rng = np.random.default_rng(0)
    words = [word for word in WORDS if word.isalpha()]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(70)]
    labels = pd.DataFrame({"prompt": texts, "y": rng.normal(size=70)})
    prompts = PromptTable.from_frame(labels, text="prompt", labels=["y"])
    model = lp.load_model(tiny_model("llama"))
    store = lp.capture(
        model, prompts, sites="resid_post", tokens="last", path=tmp_path / "s.h5", progress=False
    )
    y = np.asarray(store.labels("y"), dtype=float)[:, None]
    batches = ((rows, y[16 * i : 16 * i + 16]) for i, rows in enumerate(store.iter_rows("resid_post", 1, 16)))
    weight, bias = ridge_from_moments(stream_moments(batches), np.array([3.0]))
    whole = solve_ridge(store.activations("resid_post", 1), y, np.array([3.0]))
    np.testing.assert_allclose(weight, whole.weight, atol=1e-7)
    np.testing.assert_allclose(bias, whole.bias, atol=1e-6)


def test_square_roots_of_layers_of_different_rank():
    rows = np.random.default_rng(0).normal(size=(2, 6, 6))
    rows[1, :3] = rows[1, 3:]  # rank 3
    gram = torch.from_numpy(rows @ rows.swapaxes(-1, -2))
    root, inverse, vectors = square_root(gram, 1e-12)
    scaled = vectors * root[..., None, :]
    np.testing.assert_allclose(scaled @ scaled.mT, gram, atol=1e-9)
    assert (root[1] > 0).sum() == 3 and (vectors[1][:, root[1] == 0] == 0).all()
    unscaled = vectors * inverse[..., None, :]
    np.testing.assert_allclose(unscaled @ unscaled.mT, torch.linalg.pinv(gram, hermitian=True), atol=1e-8)
