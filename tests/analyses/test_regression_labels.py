"""A label of values is regressed, without being told twice."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.validation.nested_cv import nested_cv
from layerprobe.analyses.validation.transfer import generalisation_matrix

FEW = {"n_bootstrap": 20, "n_permutations": 20}


def graded(seed=0, n=120, whole=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, n, 6))
    y = x[0, :, 0] + 0.1 * rng.normal(size=n)
    y = np.clip(np.round(2 * y), -4, 4).astype(int) if whole else y
    return lp.from_arrays({"resid_post": x}, labels={"y": y}, ids=[f"{seed} {i}" for i in range(n)])


def test_values_are_fitted_with_ridge_by_themselves_and_grades_where_said():
    for store, kind in ((graded(), None), (graded(whole=True), "regression")):
        result = lp.linear_probe(store, label="y", groups=None, kind=kind, **FEW)
        assert set(result.table["method"]) == {"ridge"} and result.provenance["tasks"] == ["regression"]
        assert result.table.set_index("metric").loc["r2", "estimate"] > 0.8
        assert (
            nested_cv(store, label="y", groups=None, kind=kind, repeats=1).table["method"].iloc[0] == "ridge"
        )


def test_generalisation_takes_what_its_errors_advise():
    stores = {"a": graded(0, whole=True), "b": graded(1, whole=True)}
    table = generalisation_matrix(stores, label="y", groups=None, kind="regression", n_bootstrap=20).table
    assert (table["metric"] == "pearson").all() and table["estimate"].min() > 0.8
    with pytest.raises(lp.LayerprobeError, match="kind='regression'"):
        generalisation_matrix(stores, label="y", groups=None, n_bootstrap=20)
    few = {name: store.select(np.arange(7)) for name, store in stores.items()}
    options = {"label": "y", "groups": None, "kind": "regression", "n_bootstrap": 20, "baselines": False}
    assert len(generalisation_matrix(few, **options, n_folds=2).table) == 4
