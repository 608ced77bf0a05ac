"""What is known of a net, its weights and its data before any actor starts. No Ray."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from distcalib.caffe.graph import Blob
from distcalib.data import SkippableError, advising
from distcalib.engine.net import open_net
from distcalib.errors import DataError, FormatError
from distcalib.session.inputs import Inputs, open_inputs
from tests.session.tiny import BATCH, ITERATIONS, N_RECORDS, Tiny


def opened(tiny: Tiny, n_iterations: int = ITERATIONS) -> Inputs:
    return open_inputs(open_net(tiny.prototxt), tiny.weights, n_iterations=n_iterations)


def test_open_inputs_knows_batch_shapes_and_lengths(tiny: Tiny) -> None:
    inputs = opened(tiny)
    assert (inputs.batch, inputs.n_iterations, inputs.skips) == (BATCH, ITERATIONS, False)
    assert inputs.data_shapes["data"][0] == BATCH
    assert [length.n_records for length in inputs.lengths] == [N_RECORDS]
    assert inputs.weights_name == tiny.weights.name
    with pytest.raises(FrozenInstanceError):
        inputs.batch = 1  # type: ignore[misc]


def test_inputs_say_what_blobs_take_per_image_and_per_iteration(tiny: Tiny) -> None:
    inputs = opened(tiny)
    blobs = [blob for blob, shape in inputs.shapes.items() if shape[:1] == (BATCH,) and len(shape) == 4]
    sizes = [4 * inputs.shapes[blob][1] * inputs.shapes[blob][2] * inputs.shapes[blob][3] for blob in blobs]
    assert inputs.image_bytes(blobs) == sum(sizes)
    assert inputs.in_parts(blobs, 1) == [(blob,) for blob in blobs], "each alone where nothing fits"
    assert inputs.in_parts(blobs, BATCH * sum(sizes)) == [tuple(blobs)]


def test_inputs_count_multiply_adds_per_image(tiny: Tiny) -> None:
    inputs = opened(tiny)
    [layer] = [node for node in inputs.net.graph if node.name == "conv3"]
    kernel = inputs.weights["conv3"][0]
    n_outputs = inputs.shapes[layer.tops[0]][2] * inputs.shapes[layer.tops[0]][3]
    assert inputs.work(["conv3"]) == {"conv3": kernel.size * n_outputs}


def test_open_inputs_names_a_caffemodel_that_is_absent(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent\.caffemodel: no such file; check the path"):
        open_inputs(open_net(tiny.prototxt), tmp_path / "absent.caffemodel")


def test_open_inputs_starts_no_ray(tiny: Tiny) -> None:
    lines = [
        "import pathlib, sys",
        "from distcalib.engine.net import open_net",
        "from distcalib.session.inputs import open_inputs",
        "net, weights = map(pathlib.Path, sys.argv[1:])",
        "open_inputs(open_net(net), weights)",
        "print('ray' in sys.modules)",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(tiny.prototxt), str(tiny.weights)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize(("may_skip", "kind"), [(True, DataError), (False, SkippableError)])
def test_advising_names_the_flag_where_the_command_has_it(may_skip: bool, kind: type[DataError]) -> None:
    with pytest.raises(kind) as caught, advising(may_skip):
        raise SkippableError("database: key '3' is no image")
    assert str(caught.value).endswith("is no image, or give --skip-bad-records") == may_skip


def test_shapes_are_of_every_value(tiny: Tiny) -> None:
    inputs = opened(tiny)
    assert inputs.shapes[Blob("data", 0)] == inputs.data_shapes["data"]
    assert {blob.name for blob in inputs.shapes} >= {"conv1", "conv3"}
