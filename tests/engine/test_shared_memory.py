"""Read-only memory is used where it lies, is not written to, and lives as long as what uses it."""

import gc
import mmap
import weakref
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from distcalib.caffe import read_net, test_net
from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import BuiltModel, build_model
from distcalib.engine.program import Bytes, Program, compile_program
from distcalib.engine.shared_memory import ALIGNMENT, is_lendable, lent
from distcalib.engine.spec import NetSpec
from distcalib.layers import RandomBlobs
from distcalib.layers.blobs import FloatArray, Role

# Half of it in one inner product, as in VGG-16: 64 MB.
WIDE = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 8 dim: 32 dim: 32 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 2048 } }
"""
MB = 2**20


def protected(array: np.ndarray, folder: Path) -> np.ndarray:
    """The same values in pages that the kernel lets nobody write to."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(array.tobytes())
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return np.frombuffer(pages, array.dtype).reshape(array.shape)


class ProtectedBlobs(RandomBlobs):
    """Weights in protected pages, as a map of the caffemodel or the object store has them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self._folder = folder

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """As RandomBlobs has it."""
        return protected(super().get(layer, index, shape, role), self._folder)


def wide(blobs: RandomBlobs, folder: Path) -> BuiltModel:
    (folder / "net.prototxt").write_text(WIDE)
    graph = build_graph(test_net(read_net(folder / "net.prototxt")).layer, "net")
    return build_model(graph, blobs, {"data": (1, 8, 32, 32)}, "net")


def batch() -> dict[str, FloatArray]:
    return {"data": np.random.default_rng(0).normal(size=(1, 8, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Bytes:
    return compile_program(wide(RandomBlobs(1), tmp_path_factory.mktemp("net")), NetSpec(b"", "net"), 1)


def private_bytes() -> int:
    """What this process alone has in memory and is in no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Anonymous:")).split()[1]) * 1024


def test_lent_is_the_same_memory_and_says_it_can_be_written_to() -> None:
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    view = lent(array)
    assert view.flags.writeable
    assert view.ctypes.data == array.ctypes.data
    assert (view.shape, view.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(view, array)


@pytest.mark.parametrize("array", [np.arange(3), np.empty((0, 2))], ids=["writeable", "empty"])
def test_lent_leaves_alone_what_needs_no_view(array: np.ndarray) -> None:
    assert lent(array) is array


def test_lent_keeps_what_it_looks_at() -> None:
    pages = np.arange(64.0)
    pages.flags.writeable = False
    gone = weakref.ref(pages)
    view = lent(pages)[8:]
    del pages
    gc.collect()
    assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


def test_a_constant_keeps_the_memory_that_it_was_lent() -> None:
    pages = np.arange(64, dtype=np.float32)
    pages.flags.writeable = False
    gone = weakref.ref(pages)
    constant = ops.constant(lent(pages), shared_memory=True)
    del pages
    gc.collect()
    assert gone() is not None
    del constant
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("offset", "step", "expected"),
    [(0, 1, True), (ALIGNMENT, 1, True), (4, 1, False), (0, 2, False)],
    ids=["page", "line", "askew", "strided"],
)
def test_is_lendable_asks_for_whole_lines(offset: int, step: int, expected: bool) -> None:
    pages = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.float32)
    assert is_lendable(pages[offset // 4 :: step]) is expected


def test_a_program_in_protected_pages_answers_as_one_of_its_own_memory(compiled: Bytes, tmp_path: Path) -> None:
    own, shared = Program(compiled.copy(), 1), Program(protected(compiled, tmp_path), 1)
    for _ in range(2):
        [expected] = own.run(batch())[0].values()
        [found] = shared.run(batch())[0].values()
        np.testing.assert_array_equal(found, expected)


def test_weights_in_protected_pages_compile_to_the_same_program(compiled: Bytes, tmp_path: Path) -> None:
    other = compile_program(wide(ProtectedBlobs(tmp_path), tmp_path), NetSpec(b"", "net"), 1)
    [expected] = Program(compiled, 1).run(batch())[0].values()
    [found] = Program(other, 1).run(batch())[0].values()
    np.testing.assert_array_equal(found, expected)


def test_a_program_repacks_its_weights_and_copies_nothing_else(compiled: Bytes, tmp_path: Path) -> None:
    """One copy of the weights is the CPU plugin's own layout; the exported bytes would be a second."""
    ov.Core().available_devices  # noqa: B018  the plugin's code is loaded before anything is measured
    assert compiled.nbytes > 64 * MB
    before = private_bytes()
    program = Program(protected(compiled, tmp_path), 1)
    program.run(batch())
    assert private_bytes() - before < 1.3 * compiled.nbytes


def test_a_program_keeps_the_bytes_that_it_was_made_from(compiled: Bytes, tmp_path: Path) -> None:
    pages = mmap.mmap(-1, compiled.nbytes)
    pages.write(compiled.tobytes())
    blob = np.frombuffer(pages, np.uint8)
    blob.flags.writeable = False
    gone = weakref.ref(pages)
    program = Program(blob, 1)
    del pages, blob
    gc.collect()
    assert gone() is not None
    del program
    gc.collect()
    assert gone() is None
