"""Runs a model in plain OpenVINO and tells what it answered: a program, started where distcalib is never imported.

    python plain_openvino.py model.xml input.npz answers.npz

input.npz holds the batches by input, (iterations, N, ...); answers.npz gets the outputs by name, stacked alike.  The
last line on stdout is JSON: the execution types of all multiplying layers.
"""

import json
import sys

import numpy as np
import openvino as ov

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def main(model: str, inputs: str, answers: str) -> None:
    compiled = ov.Core().compile_model(model, "CPU", CONFIG)
    given = np.load(inputs)
    names = {name: given[name] for name in given.files}
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = {}
    for i in range(len(next(iter(names.values())))):
        made = compiled({name: batches[i] for name, batches in names.items()})
        for output in compiled.outputs:
            found.setdefault(output.get_any_name(), []).append(np.array(made[output]))
    stacked = {name: np.stack(values) for name, values in found.items()}
    np.savez(answers, **stacked)  # type: ignore[arg-type]  # its stub takes names for options
    kinds = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if info["layerType"].astype(str) in ("Convolution", "FullyConnected", "MatMul"):
            kinds.append(info["primitiveType"].astype(str))
    assert not [name for name in sys.modules if name.split(".")[0] == "distcalib"]
    print(json.dumps(kinds))


if __name__ == "__main__":
    main(*sys.argv[1:])
