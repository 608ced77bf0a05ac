"""The 43 nets that a real Intel Caffe was recorded on, exported, each in its own runtime: the same stored integers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, read_weights, test_net
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.exporters import build_export
from distcalib.layers import FileBlobs
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import Grid, params_of, runs_int8, storage
from tests.cpu import needs_vnni
from tests.engine.test_golden import NAMES
from tests.exporters.exports import Array, run_both

pytest.importorskip("onnxruntime")
from distcalib.exporters.runtimes import INTEGER_OPS

LEAST_IR, LEAST_ONNX = 0.999, 0.999


def agrees(found: Array, answer: Array, grid: Grid | None, least: float) -> bool:
    """Whether integers are the same but for a few that are off by one; FP32 to 1e-4 of the largest."""
    if grid is None:
        return bool(np.abs(found - answer).max() <= 1e-4 * np.abs(answer).max())
    steps = np.abs(np.rint(found * grid.scale) - np.rint(answer * grid.scale))
    return bool(steps.max() <= 1 and np.mean(steps == 0) >= least)


@needs_vnni
@pytest.mark.golden
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_net_answers_like_intel_caffe_in_both_runtimes(golden: Path, name: str) -> None:
    path = golden / "golden" / f"{name}.prototxt"
    graph: Graph = build_graph(test_net(read_net(path)).layer, path.name)
    arrays = np.load(path.with_suffix(".npz"))
    answers = {key[2:]: arrays[key] for key in arrays.files if key.startswith("y_")}
    blobs = FileBlobs(read_weights(path.with_suffix(".caffemodel")), f"{name}.caffemodel")
    made = build_export(graph, blobs, {"x": arrays["x"].shape}, path.name, outputs=list(answers))
    assert made.batch is None
    kernels: Counter[str] = Counter()
    ir, onnx = run_both(made, {"x": arrays["x"]}, kernels)
    groups, params = find_fused(graph), params_of(graph)
    stored = storage(graph, groups, params)
    last: dict[str, Blob] = {top.name: top for node in graph for top in node.tops}
    assert sorted(ir) == sorted(answers)
    for blob, answer in answers.items():
        grid = stored.get(last[blob])
        assert agrees(ir[blob], answer, grid, LEAST_IR), blob
        assert agrees(onnx[blob], answer, grid, LEAST_ONNX), blob
    n_int8 = sum(runs_int8(group, params, stored) for group in groups.values())
    assert sum(kernels[kind] for kind in INTEGER_OPS) == n_int8
