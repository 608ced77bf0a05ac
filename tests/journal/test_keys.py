from dataclasses import replace

import numpy as np
import pytest

from distcalib.actors.isa import Isa
from distcalib.caffe.graph import Blob
from distcalib.engine.intel_caffe import CaffeSpec, Slices
from distcalib.engine.ranking import RankSpec
from distcalib.engine.spec import Kept, NetSpec, Outputs, Sampling
from distcalib.engine.timing import TimingSpec
from distcalib.journal.keys import Keys, digest

FC = Blob("fc", 0)
VERSIONS = {"distcalib": "1", "openvino": "2", "numpy": "3", "python": "3.12", "ray": "2"}
WEIGHTS = {"conv": (np.ones((2, 3), np.float32), np.zeros(2, np.float32))}
DATA = [("data.mdb", 4096, 17, b"ends")]
NET = NetSpec(b"net", "net.prototxt")
ARRAY = np.ones(3, np.float32)
RANK = RankSpec({"conv": NET}, (FC,), {0: (ARRAY,)}, (1.0,), NET, ((FC,),))
SAMPLING = Sampling((FC,), True, 0, 10, 1)

ISA = Isa("cascadelake", False, "avx512_core_vnni")
CONTEXTS = {
    "weights": ({"conv": (np.ones((2, 3), np.float32), np.array([0, 1e-30], np.float32))}, DATA, ISA, VERSIONS),
    "shape of weights": ({"conv": (np.ones((3, 2), np.float32), np.zeros(2, np.float32))}, DATA, ISA, VERSIONS),
    "name of weights": ({"fc": WEIGHTS["conv"]}, DATA, ISA, VERSIONS),
    "size of data": (WEIGHTS, [("data.mdb", 4097, 17, b"ends")], ISA, VERSIONS),
    "time of data": (WEIGHTS, [("data.mdb", 4096, 18, b"ends")], ISA, VERSIONS),
    "way": (WEIGHTS, DATA, replace(ISA, emulated=True), VERSIONS),
    "target": (WEIGHTS, DATA, replace(ISA, target="sapphirerapids"), VERSIONS),
    "kernels": (WEIGHTS, DATA, replace(ISA, kernels="avx2_vnni"), VERSIONS),
    "engine": (WEIGHTS, DATA, ISA, {**VERSIONS, "openvino": "3"}),
    "distcalib": (WEIGHTS, DATA, ISA, {**VERSIONS, "distcalib": "2"}),
    "build": (WEIGHTS, DATA, ISA, {**VERSIONS, "intel_caffe": "ab"}),
}
SPECS: dict[str, object] = {
    "as it is": NET,
    "net": replace(NET, net=b"ten"),
    "sampling": replace(NET, sampling=SAMPLING),
    "ends only": replace(NET, sampling=replace(SAMPLING, values=False)),
    "errors": replace(NET, sampling=replace(SAMPLING, errors=True)),
    "sampling from 1": replace(NET, sampling=replace(SAMPLING, first=1)),
    "block": replace(NET, sampling=replace(SAMPLING, block=2)),
    "outputs": replace(NET, outputs=Outputs((FC,))),
    "outputs from 1": replace(NET, outputs=Outputs((FC,), 1)),
    "kept": replace(NET, kept=Kept((FC,), (0, 5))),
    "kept of others": replace(NET, kept=Kept((FC,), (0, 6))),
    "changed": replace(NET, changed={"conv": (ARRAY,)}),
    "changed otherwise": replace(NET, changed={"conv": (ARRAY * 2,)}),
    "ranking": RANK,
    "ranking of others": replace(RANK, candidates={"conv": NET, "fc": NET}),
    "ranking by another reference": replace(RANK, reference={0: (ARRAY * 2,)}),
    "ranking with other weights": replace(RANK, weights=(2.0,)),
    "ranking in other parts": replace(RANK, cuts=()),
    "ranking of another net": replace(RANK, base=replace(NET, net=b"ten")),
    "Caffe's": CaffeSpec(NET, Slices(10, 2)),
    "Caffe's otherwise cut": CaffeSpec(NET, Slices(10, 3)),
    "timing": TimingSpec(NET, 1),
    "timing_of_wider_actors": TimingSpec(NET, 2),
}


def _keys() -> Keys:
    return Keys(WEIGHTS, DATA, ISA, VERSIONS)


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=list(CONTEXTS))
def test_key_depends_on_the_context(context: tuple[object, object, Isa, dict[str, str]]) -> None:
    assert Keys(*context).key(NET) != _keys().key(NET)


def test_key_is_another_for_each_program() -> None:
    found = {name: _keys().key(spec) for name, spec in SPECS.items()}
    assert len(set(found.values())) == len(SPECS)


def test_key_does_not_depend_on_what_decides_nothing() -> None:
    other = Keys(WEIGHTS, DATA, ISA, {**VERSIONS, "python": "3.13", "ray": "3"})
    assert other.key(NET) == _keys().key(NET) == _keys().key(replace(NET, where="elsewhere/net.prototxt"))


ALIKE = {
    "text and bytes": ("a", b"a"),
    "numbers of two types": (1, 1.0),
    "true and one": (True, 1),
    "nested otherwise": ((("a",), "b"), ("a", ("b",))),
    "cut otherwise": (("ab", "c"), ("a", "bc")),
    "arrays of two types": (np.zeros(2, np.float32), np.zeros(2, np.int32)),
    "negative zero": (0.0, -0.0),
    "None and its name": (None, "None"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=list(ALIKE))
def test_digest_tells_apart_what_is_nearly_alike(one: object, other: object) -> None:
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


def test_digest_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="object: cannot be hashed"):
        digest({"a": [object()]})
    with pytest.raises(TypeError, match="array of objects"):
        digest(np.array([None]))
