"""A capture that several tests interrupt, damage and compare."""

import random

import h5py

from layerprobe import capture

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "baker",
    "pilot",
    "was",
    "were",
    "at",
    "in",
    "on",
    "park",
    "house",
    "late",
    "early",
    "happy",
    "sad",
]


def texts(count=60):
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 20))) for _ in range(count)]


def run(model, path, **options):
    settings = {"sites": ["resid_post", "lens"], "tokens": "all", "progress": False, **options}
    return capture(model, texts(), path=path, **settings)


def datasets(path):
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found
