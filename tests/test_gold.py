"""The examples give what they gave: every byte where the CPU is that of the gold, else all but the last digits.

python -m scripts.tools.make_gold writes the gold anew, when a result is meant to change.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from distcalib.actors.isa import isa_here
from distcalib.caffe.caffe_pb2 import NetParameter
from scripts.tools.make_gold import EXAMPLES, GOLD, made

KERNELS = "avx512_core_vnni"
"""Of the CPU that the gold is from; sums in FP32 differ in the last bits on others."""


def nearly(value: Any) -> Any:
    """Numbers up to the fifth digit, in whatever holds them."""
    if isinstance(value, dict):
        return {key: nearly(one) for key, one in value.items()}
    if isinstance(value, list):
        return [nearly(one) for one in value]
    return pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value


def scales(text: str) -> dict[str, Any]:
    net = text_format.Parse(text, NetParameter())
    params = {layer.name: layer.quantization_param for layer in net.layer if layer.HasField("quantization_param")}
    return {name: [*param.scale_in, *param.scale_out, *param.scale_params] for name, param in params.items()}


@pytest.mark.slow
@pytest.mark.parametrize("n_actors", [1, 2, 8])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_its_gold(name: str, n_actors: int, tmp_path: Path) -> None:
    text, report = made(name, tmp_path, n_actors)
    gold = (GOLD / f"{name}_quantized.prototxt").read_text(encoding="utf-8")
    known = json.loads((GOLD / f"{name}.json").read_text(encoding="utf-8"))
    if isa_here().kernels == KERNELS:
        assert text == gold
        assert report == known
    else:
        assert scales(text) == nearly(scales(gold))
        assert report["layers"]["fp32_layers"] == known["layers"]["fp32_layers"]
        assert report["score"] == nearly(known["score"])
