"""Files that somebody made to deceive: each is refused by name, or reads as the plain reader reads it."""

import json
import os
import random
import resource
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from oracles import plain_reader

from layerprobe import LayerprobeError, open_store
from layerprobe.cache.file.layout import json_bytes
from layerprobe.cache.store.info import describe
from layerprobe.cache.store.merge import merge
from layerprobe.cache.store.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("store-*.h5"))


def copy_of(tmp_path, kind="float32"):
    path = tmp_path / "s.h5"
    path.write_bytes((GOLDEN / f"store-1.0-{kind}.h5").read_bytes())
    return path


def sum_of(values):
    return f"{xxhash.xxh3_64_intdigest(values.tobytes()):016x}"


def forge(file, key, values):
    """Put other values in the place of an immutable dataset, with checksums that hold."""
    del file[key]
    file.create_dataset(key, data=values, track_times=False)
    sums = json.loads(file["checksums"][()].tobytes())
    sums[key] = sum_of(values)
    del file["checksums"]
    raw = json_bytes(sums)
    file.create_dataset("checksums", data=raw, track_times=False)
    file.attrs["checksums_xxh3"] = sum_of(raw)


def forge_header(file, change):
    header = json.loads(file["header"][()].tobytes())
    change(header)
    forge(file, "header", json_bytes(header))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_files_read_as_the_plain_reader_reads_them(path):
    assert plain_reader.differences(open_store(path), path) == []


def test_the_plain_reader_can_tell_a_difference(tmp_path):
    path = copy_of(tmp_path)
    store = open_store(path, verify="off")
    with path.open("r+b") as file, h5py.File(path) as held:
        file.seek(held["activations/embed"].id.get_offset())
        file.write(b"\x01")
    assert plain_reader.differences(open_store(GOLDEN / "store-1.0-float32.h5"), path) == ["embed"]
    assert plain_reader.differences(store, path) == []


def swap(file):
    file.move("activations/resid_post", "x")
    file.move("activations/head_out", "activations/resid_post")
    file.move("x", "activations/head_out")


def retype(kind):
    def change(file):
        values, layers = file["activations/resid_post"][()], file["activations/resid_post"].attrs["layers"]
        del file["activations/resid_post"]
        file["activations/resid_post"] = values.astype(kind)
        file["activations/resid_post"].attrs["layers"] = layers

    return change


def relink(link):
    def change(file):
        file.move("activations/resid_post", "elsewhere")
        file["activations/resid_post"] = link(file)

    return change


def chunked(file):
    values = file["prompts/token_ids"][()]
    del file["prompts/token_ids"]
    file.create_dataset("prompts/token_ids", data=values, chunks=(2,))


def stored_elsewhere(file):
    values = file["prompts/text_bytes"][()]
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(b"x" * 100)
    del file["prompts/text_bytes"]
    file.create_dataset(
        "prompts/text_bytes", values.shape, "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
    )


def other_layers(file):
    file["activations/resid_post"].attrs["layers"] = [0, 1]


STRUCTURE = {
    "swapped": swap,
    **{f"as {kind}": retype(kind) for kind in ("f8", ">f4", "i4", "f2")},
    "a soft link": relink(lambda file: h5py.SoftLink("/elsewhere")),
    "an external link": relink(lambda file: h5py.ExternalLink("other.h5", "/x")),
    "an alias": relink(lambda file: file["elsewhere"]),
    "chunks": chunked,
    "external storage": stored_elsewhere,
    "other layers": other_layers,
    "deep header": lambda file: forge(file, "header", np.frombuffer(b'{"a":' * 20_000, dtype=np.uint8)),
    "long number": lambda file: forge(file, "header", np.frombuffer(b'{"a":' + b"9" * 6000, dtype=np.uint8)),
    "no header keys": lambda file: forge(file, "header", np.frombuffer(b"{}", dtype=np.uint8)),
    "a list": lambda file: forge(file, "header", np.frombuffer(b"[]", dtype=np.uint8)),
    "bad bounds": lambda file: forge(file, "prompts/text_starts", np.array([0, 1, 2, 3, 4, 10**9])),
    "bad rows": lambda file: forge(file, "plan/row_starts", np.array([0, 1, 2, 3, 4, 10**12])),
    "bad order": lambda file: forge(file, "plan/order", np.array([0, 1, 2, 10**15])),
    "bad leader": lambda file: forge(file, "plan/same_as", np.array([0, 1, 2, 3, 99])),
    "bad blocks": lambda file: forge(file, "plan/blocks", np.array([0, 10**9])),
    "bad examples": lambda file: forge(file, "rows/examples", np.arange(14)),
    "short labels": lambda file: forge(file, "prompts/labels/score", np.array([1.0])),
    "typed ids": lambda file: forge(file, "prompts/ids", np.arange(5)),
    "no format": lambda file: file.attrs.__delitem__("format_version"),
    "format as number": lambda file: file.attrs.__setitem__("format", 3),
    "no sum": lambda file: file.attrs.__delitem__("checksums_xxh3"),
    "created is no text": lambda file: file.attrs.__setitem__("created", [1, 2]),
    "created is no JSON": lambda file: file.attrs.__setitem__("created", "{" * 100_000),
    "a huge shape": lambda file: forge_header(file, lambda h: h["arrays"][0].update(shape=[1 << 39])),
    "a negative shape": lambda file: forge_header(file, lambda h: h["arrays"][0].update(shape=[-4])),
    "an array outside": lambda file: forge_header(file, lambda h: h["arrays"][0].update(key="../../x")),
    "an array twice": lambda file: forge_header(file, lambda h: h["arrays"].append(h["arrays"][0])),
    "arrays as text": lambda file: forge_header(file, lambda h: h.update(arrays=["activations/embed"])),
}


@pytest.mark.parametrize("what", STRUCTURE)
def test_what_is_not_as_the_format_says_is_refused_by_name(tmp_path, what):
    path = copy_of(tmp_path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        STRUCTURE[what](file)
    with pytest.raises(LayerprobeError, match=r"s\.h5"):
        open_store(path, verify="all")
    assert not verify(path).ok
    with pytest.raises(LayerprobeError, match=r"s\.h5"):
        describe(path)


def test_datasets_that_share_bytes_are_refused(tmp_path):
    path = copy_of(tmp_path)
    with h5py.File(path) as file:
        ours, theirs = (file[f"activations/{name}"].id.get_offset() for name in ("embed", "resid_post"))
    raw = path.read_bytes()
    assert raw.count(ours.to_bytes(8, "little")) == 1
    path.write_bytes(raw.replace(ours.to_bytes(8, "little"), (theirs + 4).to_bytes(8, "little")))
    with pytest.raises(LayerprobeError):  # the object header's own checksum, or what we compare
        open_store(path)


def test_sizes_are_compared_with_the_file_before_memory_is_taken(tmp_path):
    path = copy_of(tmp_path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file["prompts/token_ids"]
        space = h5py.h5s.create_simple((1 << 40,))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        h5py.h5d.create(file["prompts"].id, b"token_ids", h5py.h5t.STD_I32LE, space, properties)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LayerprobeError, match="token_ids"):
        open_store(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_created_does_not_override_the_header(tmp_path):
    path = copy_of(tmp_path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file.attrs["created"] = json.dumps({"shard": {"index": 0, "of": 10**9}, "model": {"source": "evil"}})
    store = open_store(path)
    assert store.provenance["model"]["source"] == "golden"
    assert "shard" not in store.provenance


def test_a_billion_shards_are_no_reason_to_hang(tmp_path):
    path = copy_of(tmp_path)
    for shard in ({"index": 0, "of": 10**9, "prompts": "x"}, {"index": "0", "of": None}, 7):
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            forge_header(file, lambda header, shard=shard: header["provenance"].update(shard=shard))
        with pytest.raises(LayerprobeError, match=r"missing|shard"):
            merge([path], tmp_path / "all.h5")


def test_a_pipe_is_no_store(tmp_path):
    os.mkfifo(tmp_path / "s.h5")
    signal.alarm(20)
    try:
        for action in (open_store, describe):
            with pytest.raises(LayerprobeError, match="no ordinary file"):
                action(tmp_path / "s.h5")
        with pytest.raises(LayerprobeError, match="no ordinary file"):
            verify(tmp_path / "s.h5")
    finally:
        signal.alarm(0)


def test_a_mistake_of_ours_is_not_called_damage(tmp_path, monkeypatch):
    from layerprobe.cache.file import opening

    def broken(*arguments):
        raise TypeError("a mistake of ours")

    path = copy_of(tmp_path)
    monkeypatch.setattr(opening, "_plan", broken)
    with pytest.raises(TypeError, match="a mistake of ours"):
        open_store(path)


def test_hdf5s_own_words_stay_as_the_cause(tmp_path):
    path = copy_of(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(LayerprobeError) as refused:
        open_store(path)
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("where", ["root header", "anywhere"])
def test_flipped_bits_are_refused_or_harmless(tmp_path, kind, where):
    """Seeded; `make soak` does more."""
    flips(tmp_path, kind, where, 60)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("where", ["root header", "anywhere"])
def test_many_flipped_bits_are_refused_or_harmless(tmp_path, kind, where):
    flips(tmp_path, kind, where, 5_000)


def flips(tmp_path, kind, where, count):
    rng = random.Random(f"{kind} {where}")
    whole = (GOLDEN / f"store-1.0-{kind}.h5").read_bytes()
    path, seen = tmp_path / "s.h5", {"refused": 0, "same": 0}
    for _ in range(count):
        raw = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            raw[rng.randrange(1200 if where == "root header" else len(raw))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.1:
            raw = raw[: rng.randrange(len(raw))]
        path.write_bytes(raw)
        try:
            store = open_store(path, verify="all")
            if not store.complete:
                raise LayerprobeError("incomplete")
            assert plain_reader.differences(store, path) == [], path
            seen["same"] += 1
        except LayerprobeError:
            seen["refused"] += 1
        try:
            verify(path)
            describe(path)
        except LayerprobeError:
            pass
    assert seen["refused"] > 0
