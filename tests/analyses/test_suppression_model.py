import numpy as np
import pytest
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.lens.from_model import candidate_ids, lens_from_model
from layerprobe.analyses.lens.suppression import suppression
from layerprobe.hooks.errors import LayerprobeError


def test_a_lens_read_later_is_the_lens_that_was_captured():
    model = tiny("gemma2")
    store = tiny_store(model)
    lens = lens_from_model(store, model, "answer", "foil")
    for name in ("candidate_logits", "logsumexp", "kl_to_final"):
        np.testing.assert_allclose(getattr(lens, name), getattr(store.lens, name), atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(lens.candidate_ids, store.lens.candidate_ids)
    np.testing.assert_array_equal(lens.candidate_ranks, store.lens.candidate_ranks)


def test_suppression_works_from_a_model_and_literal_answers():
    model = tiny("llama")
    store = tiny_store(model)
    result = suppression(
        store, target="answer", foil="unknown", model=model, groups=None, n_bootstrap=20, n_permutations=20
    )
    assert set(result.frames["verdicts"]["subset"]) == {"all"}
    assert (candidate_ids(store, model, "answer", "unknown")[:, 1] >= -1).all()


def test_a_tuned_lens_is_read_where_asked_and_the_output_stays_the_models():
    model = tiny("llama")
    store = tiny_store(model)

    class Doubled(type(model.lens)):
        def translate(self, resid, layer):
            return -resid

    lens = lens_from_model(store, model, "answer", "foil", lens=Doubled(model.lens.head))
    plain = lens_from_model(store, model, "answer", "foil")
    assert not np.allclose(lens.logsumexp[0], plain.logsumexp[0])
    np.testing.assert_allclose(lens.logsumexp[-1], plain.logsumexp[-1])
    few = {"groups": None, "n_bootstrap": 20, "n_permutations": 20, "model": model}
    said = [
        str(suppression(store, target="answer", foil="foil", lens=which, **few).summary())
        for which in (Doubled(model.lens.head), None)
    ]
    assert "learns the override into earlier layers" in said[0] and "tuned lens" not in said[1]


def test_another_models_unembedding_is_refused():
    with pytest.raises(LayerprobeError, match="other weights"):
        lens_from_model(tiny_store(tiny("llama")), tiny("llama", 1), "answer", "foil")
