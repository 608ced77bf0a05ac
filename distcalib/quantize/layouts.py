"""How FP32 and INT8 values lie in memory under mkl-dnn 0.18: which layers find what others have left there."""

from collections.abc import Sequence

from distcalib.caffe import caffe_pb2

IMAGES = frozenset({"AnnotatedData", "Data", "DenseImageData", "ImageData", "ImageSegData"})
"""Data layers whose first top is images."""
PLAIN, NHWC = "nchw", "nhwc"
BLOCKS = {8: "nChw8c", 16: "nChw16c"}
"""The FP32 layout by the channels of a block: with AVX2, with AVX-512."""
LAYOUTS = (PLAIN, NHWC, *BLOCKS.values())
"""In the order of mkl-dnn's enumeration: of several, Concat and Eltwise take the last."""


def conv_layout(layer: caffe_pb2.LayerParameter, n_in: int | None, block: int) -> str:
    """The layout in which an FP32 convolution leaves its output (init_conf of mkl-dnn's jit kernels)."""
    param = layer.convolution_param
    n_out, group = param.num_output, max(param.group, 1)
    if group in (1, n_out):
        return BLOCKS[block]
    sizes = [n_out // group] + ([] if n_in is None else [n_in // group])
    return next((BLOCKS[b] for b in (block, 8) if all(size % b == 0 for size in sizes)), PLAIN)


def same_memory(a: str, b: str, channels: int) -> bool:
    """Whether values of two layouts lie in the same places: nhwc is one block where that has as many channels."""
    return a == b or ({a, b} - {NHWC} == {BLOCKS.get(channels)} and NHWC in (a, b))


def source_layout(layer: caffe_pb2.LayerParameter, n_in: int | None, block: int) -> str:
    """The layout in which an FP32 convolution reads its input: an image's few channels as they are."""
    group = max(layer.convolution_param.group, 1)
    few = (1, 3) if block == 16 else range(1, 8)
    if n_in is not None and n_in // group in few and group != layer.convolution_param.num_output:
        return PLAIN
    return conv_layout(layer, n_in, block)


def concat_layout(layouts: Sequence[str], channels: Sequence[int | None]) -> str:
    """That of the inputs if each ends at the end of a block, else plain (cpu_concat.hpp, set_default_params)."""
    layout = max(layouts, key=LAYOUTS.index)
    block = next((block for block, name in BLOCKS.items() if name == layout), 1)
    return layout if all(n is None or n % block == 0 for n in channels) else PLAIN


def data_channels(layer: caffe_pb2.LayerParameter) -> int | None:
    """How many channels a data layer's images have: as its shape says; else 3, of which a first convolution knows."""
    shapes = (*layer.input_param.shape, *layer.dummy_data_param.shape)
    if shapes:
        return int(shapes[0].dim[1]) if len(shapes[0].dim) == 4 else None
    return 3 if layer.type in IMAGES else None
