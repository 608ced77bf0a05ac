"""How many axes values have, as far as the prototxt alone tells: INT8 is for images, of four.

Intel Caffe's MKLDNN convolution is made for two axes of positions, or else takes them for three, so that one ends it
(mkldnn_convolution_layer.cpp of commit 44d5363 reads shape(4) then). Of mkl-dnn 0.18's INT8 kernels those that are fast
read four axes alone (jit_avx512_core_x8s8s32x_conv_kernel.cpp, gemm_x8s8s32x_convolution.hpp: nhwc), so that three axes
of positions would be left to its reference loops; no recording tells what comes of that.
"""

from collections.abc import Mapping

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.quantize.layouts import IMAGES

_KEEP = frozenset(
    {"BN", "BatchNorm", "Bias", "Concat", "Convolution", "Deconvolution", "Dropout", "ELU", "Eltwise", "LRN"}
    | {"NdPooling", "PReLU", "Pooling", "Power", "ReLU", "ReLU6", "Scale", "Sigmoid", "Slice", "Softmax", "Split"}
    | {"Swish", "TanH"}
)


def known_axes(graph: Graph) -> Mapping[Blob, int]:
    """The number of axes of each value of which it is known."""
    axes_of: dict[Blob, int] = {}
    for node in graph:
        for i, top in enumerate(node.tops):
            n_axes = _axes(node, i, axes_of)
            if n_axes is not None:
                axes_of[top] = n_axes
    return axes_of


def _axes(node: Node, i: int, known: Mapping[Blob, int]) -> int | None:
    layer = node.layer
    if node.type in IMAGES:
        return 4 if i == 0 else None
    if node.type in ("Input", "DummyData"):
        param = layer.input_param if node.type == "Input" else layer.dummy_data_param
        shapes = list(param.shape)
        shape = shapes[i] if len(shapes) > 1 and i < len(shapes) else shapes[0] if shapes else None
        return None if shape is None else len(shape.dim)
    if node.type == "Convolution" and len(layer.convolution_param.kernel_size) > 2:
        return 2 + len(layer.convolution_param.kernel_size)
    return known.get(node.bottoms[0]) if node.type in _KEEP and node.bottoms else None
