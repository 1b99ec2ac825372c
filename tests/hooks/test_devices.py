"""`device=` is read in one way by models, probes, separation and studies."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

import layerprobe as lp
from layerprobe.hooks.devices import read_device
from layerprobe.probe.study.checks import check_device


def test_what_is_meant(monkeypatch):
    assert read_device("cpu") == read_device(None) == read_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert read_device("auto") == read_device(None, default="auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert read_device("auto") == torch.device("cuda")
    assert read_device("cuda:1") == torch.device("cuda", 1)


def store():
    rng = np.random.default_rng(0)
    return lp.from_arrays({"resid_post": rng.normal(size=(2, 40, 4))}, labels={"y": np.arange(40) % 2})


USERS = {
    "model": lambda device: lp.load_model(tiny_model("llama"), device=device, check=False),
    "probe": lambda device: lp.linear_probe(store(), label="y", groups=None, device=device),
    "separation": lambda device: lp.separation(store(), label="y", groups=None, device=device),
    "study": lambda device: check_device(SimpleNamespace(device=device, reads=("device",))),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cudo", "device='cudo' is unknown: expected 'auto', 'cpu', 'cuda'"),
        ("cuda:99", "device='cuda:99' cannot be used .*CUDA devices"),
        ("meta", "device='meta' cannot be used"),
        (3, "device=3: expected"),
    ],
)
def test_what_is_refused_is_refused_everywhere_in_the_same_words(user, given, message):
    with pytest.raises(lp.LayerprobeError, match=message):
        USERS[user](given)


def test_separation_takes_auto_as_probes_do():
    result = lp.separation(store(), label="y", groups=None, n_permutations=9, n_bootstrap=9, device="auto")
    assert len(result.table)
