"""The best living peer on the same net, data and tolerance: NNCF's quantization with accuracy control.

    pip install nncf            (an extra of its own: nothing of distcalib needs it)
    python -m scripts.bench.peer_nncf -m net.prototxt -w net.caffemodel -i 100 -s 10 -l 0.005

Takes the FP32 net as the embedded engine builds it, BatchNorm folded, so that both start from the same OpenVINO model.
Prints one line of JSON: the scores, the layers that it left in FP32, those that Intel Caffe would then run in FP32 (a
convolution with a fused sum needs an INT8 residual, which NNCF does not ask for), and the seconds from the start of
this process to NNCF's answer; what is measured after that is not counted.  `scripts/bench/bench_search.py` runs it.
Its ranking looks at as many images as distcalib's.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import psutil
from numpy.typing import NDArray

from distcalib.calibration.goal import ranked_iterations
from distcalib.data import open_source
from distcalib.engine.builder import build_model
from distcalib.engine.net import Net, open_net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec
from distcalib.engine.worker import Setting, data_nodes
from distcalib.metrics import choose_score, evaluate_layer, mean
from distcalib.quantize.fusion import QUANTIZABLE
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer

Batch = dict[str, NDArray[np.float32]]


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-w", "--weights", type=Path, required=True)
    parser.add_argument("-i", "--iterations", type=int, required=True)
    parser.add_argument("-s", "--sampling_iterations", type=int, default=10)
    parser.add_argument("-l", "--accuracy_loss", type=float, default=0.01)
    args = parser.parse_args()

    import nncf  # seconds; the help needs none of it

    net = open_net(args.model)
    [node] = data_nodes(net.graph)
    source = open_source(node.layer, net.path)
    metric = choose_score(net.test)
    layer = next(n.layer for n in net.graph if n.type == "Accuracy" and n.tops[0].name == metric)
    batches = [source.batch(i) for i in range(args.iterations)]
    model = _model(net, args.weights, dict(source.shapes))
    image = node.layer.top[0]

    def validate(compiled: Any, data: Iterable[Batch]) -> tuple[float, list[float]]:
        request = compiled.create_infer_request()
        partials = []
        for batch in data:
            logits = request.infer([batch[image]], share_inputs=True)[0]
            partials.append(evaluate_layer(layer, [logits, batch[node.layer.top[1]]]))
        return mean(partials), [partial.value for partial in partials]

    n_ranked = len(ranked_iterations(args.iterations, source.batch_size))
    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(batches[: args.sampling_iterations], lambda batch: batch[image]),
        validation_dataset=nncf.Dataset(batches),
        validation_fn=validate,
        max_drop=args.accuracy_loss,
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=args.sampling_iterations,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=n_ranked),
    )
    seconds = time.time() - psutil.Process().create_time()
    score, _ = validate(ov.Core().compile_model(quantized, "CPU"), batches)
    fp32, _ = validate(ov.Core().compile_model(model, "CPU"), batches)
    layers = _in_fp32(quantized)
    in_caffe = Quantizer(net.graph, Options(enable_1st_conv=True)).space.all_int8.without(*layers).fp32_layers
    found = {"fp32_layers": layers, "fp32_layers_in_caffe": in_caffe, "seconds": seconds}
    print(json.dumps({"fp32_score": fp32, "score": score, **found}))


def _model(net: Net, weights: Path, shapes: dict[str, tuple[int, ...]]) -> ov.Model:
    spec: NetSpec = net.spec()
    setting = Setting(net.path.resolve(), net.weights(weights), weights.name, {})
    outputs = score_inputs(net, choose_score(net.test))
    built = build_model(net.graph, setting.blobs_of(spec), shapes, net.name, keep=outputs)
    names = {node.name for node in net.graph if node.type in QUANTIZABLE}
    for op in built.model.get_ordered_ops():  # names that survive what NNCF does to the model
        if op.get_friendly_name() in names:
            op.output(0).get_tensor().set_names({op.get_friendly_name()})
    return built.model


def _in_fp32(model: ov.Model) -> list[str]:
    """Convolutions and inner products that do not read a FakeQuantize."""
    found = []
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            feeder = op.input_value(0).get_node()
            while feeder.get_type_name() in ("Reshape", "Squeeze"):
                feeder = feeder.input_value(0).get_node()
            if feeder.get_type_name() != "FakeQuantize":
                found.append(op.get_friendly_name())
    return found


if __name__ == "__main__":
    main()
