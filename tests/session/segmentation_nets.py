"""The published segmentation nets in small: the same layers in the same order of kinds, a few channels each."""

from __future__ import annotations

from collections.abc import Callable

CLASSES = 3
_TAIL = """
layer { name: "seg" type: "SegAccuracy" bottom: "score" bottom: "label" top: "seg"
  seg_accuracy_param { ignore_label: 255 } }
"""
_HEAD = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 1 dim: 3 dim: 32 dim: 32 } shape { dim: 1 dim: 1 dim: 32 dim: 32 } } }
"""


def conv(name: str, bottom: str, n: int = 8, more: str = "kernel_size: 3 pad: 1", relu: bool = True) -> str:
    text = f"""layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
      convolution_param {{ num_output: {n} {more} }} }}\n"""
    return text + (_in_place(f"{name}_relu", "ReLU", name) if relu else "")


def _in_place(name: str, kind: str, blob: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{blob}" top: "{blob}" {more} }}\n'


def _layer(name: str, kind: str, bottoms: str, more: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {read} top: "{name}" {more} }}\n'


def _pool(name: str, bottom: str) -> str:
    return _layer(name, "Pooling", bottom, "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")


def _up(name: str, bottom: str, factor: int, n: int = CLASSES) -> str:
    kernel = f"num_output: {n} kernel_size: {2 * factor} stride: {factor} bias_term: false"
    return _layer(name, "Deconvolution", bottom, f"convolution_param {{ {kernel} }}")


def _crop(name: str, bottom: str, like: str, offset: int) -> str:
    return _layer(name, "Crop", f"{bottom} {like}", f"crop_param {{ axis: 2 offset: {offset} }}")


def _score(name: str, bottom: str) -> str:
    return conv(name, bottom, CLASSES, "kernel_size: 1", relu=False)


def fcn() -> str:
    """FCN-8s: a first padding of many pixels, scores of three depths, deconvolved, cropped and summed."""
    return (
        conv("c1", "data", more="kernel_size: 3 pad: 9")
        + _pool("p1", "c1")
        + conv("c2", "p1")
        + _pool("p2", "c2")
        + conv("c3", "p2")
        + _pool("p3", "c3")
        + _in_place("drop", "Dropout", "p3")
        + _score("s3", "p3")
        + _up("up3", "s3", 2)
        + _score("s2", "p2")
        + _crop("up3c", "up3", "s2", 1)
        + _layer("sum", "Eltwise", "up3c s2")
        + _up("up2", "sum", 4)
        + _crop("score", "up2", "data", 9)
    )


def segnet() -> str:
    """SegNet: BN, masks of maxima, and Upsample that puts values back there."""
    bn = "bn_param { bn_mode: INFERENCE }"
    down = "".join(
        conv(f"c{i}", f"p{i - 1}" if i > 1 else "data", relu=False)
        + _in_place(f"bn{i}", "BN", f"c{i}", bn)
        + _in_place(f"relu{i}", "ReLU", f"c{i}")
        + f'layer {{ name: "p{i}" type: "Pooling" bottom: "c{i}" top: "p{i}" top: "m{i}" '
        "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
        for i in (1, 2)
    )
    return (
        down
        + _layer("u2", "Upsample", "p2 m2", "upsample_param { scale: 2 }")
        + conv("d2", "u2")
        + _layer("u1", "Upsample", "d2 m1", "upsample_param { scale: 2 }")
        + _score("score", "u1")
    )


def enet() -> str:
    """ENet with BN merged away: convolution beside pooling, PReLU, dilated and asymmetric kernels."""
    bottleneck = (
        conv("e1", "k", 4, "kernel_size: 1", relu=False)
        + _in_place("e1p", "PReLU", "e1")
        + conv("e2", "e1", 4, "kernel_size: 3 pad: 2 dilation: 2", relu=False)
        + _in_place("e2p", "PReLU", "e2")
        + conv("e3", "e2", 4, "kernel_h: 5 kernel_w: 1 pad_h: 2 pad_w: 0", relu=False)
        + conv("e4", "e3", 7, "kernel_size: 1", relu=False)
        + _layer("sum", "Eltwise", "k e4")
        + _in_place("sump", "PReLU", "sum")
    )
    return (
        conv("c1", "data", 4, "kernel_size: 3 pad: 1 stride: 2", relu=False)
        + _pool("p1", "data")
        + _layer("k", "Concat", "c1 p1")
        + bottleneck
        + _layer("score", "Deconvolution", "sum", "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }")
    )


def pspnet() -> str:
    """PSPNet: BN of four blobs, averages over parts of the map, brought to one size by Interp, and joined."""
    bn = "bn_param { slope_filler { } bias_filler { } frozen: true }"
    parts = "".join(
        _layer(f"pool{size}", "Pooling", "c1", f"pooling_param {{ pool: AVE kernel_size: {size} stride: {size} }}")
        + conv(f"part{size}", f"pool{size}", 4, "kernel_size: 1")
        + _layer(f"up{size}", "Interp", f"part{size}", "interp_param { height: 16 width: 16 }")
        for size in (16, 8, 4)
    )
    return (
        conv("c1", "data", 8, "kernel_size: 3 pad: 1 stride: 2", relu=False)
        + _in_place("bn1", "BN", "c1", bn)
        + _in_place("relu1", "ReLU", "c1")
        + parts
        + _layer("joined", "Concat", "c1 up16 up8 up4")
        + conv("c2", "joined")
        + _in_place("drop", "Dropout", "c2")
        + _score("s", "c2")
        + _layer(
            "score",
            "Interp",
            "s",
            "interp_param { height: 32 width: 32 }",
        )
    )


def icnet() -> str:
    """ICNet: the image at half the size through a deep branch, at full size through a shallow one, and their sum."""
    return (
        _layer("half", "Interp", "data", "interp_param { zoom_factor: 1 shrink_factor: 2 height: 16 width: 16 }")
        + conv("d1", "half", 8, "kernel_size: 3 pad: 1 stride: 2")
        + conv("d2", "d1", 8, "kernel_size: 3 pad: 2 dilation: 2", relu=False)
        + _layer("d2up", "Interp", "d2", "interp_param { height: 16 width: 16 }")
        + conv("f1", "data", 8, "kernel_size: 3 pad: 1 stride: 2", relu=False)
        + _layer("sum", "Eltwise", "d2up f1")
        + _in_place("sumr", "ReLU", "sum")
        + _score("s", "sum")
        + _layer("score", "Interp", "s", "interp_param { height: 32 width: 32 }")
    )


NETS: dict[str, Callable[[], str]] = {f.__name__: f for f in (fcn, segnet, enet, pspnet, icnet)}


def text_of(name: str) -> str:
    """The prototxt of a net, its scores called `score`, its mean IoU `seg`."""
    return f'name: "{name}"\n' + _HEAD + NETS[name]() + _TAIL
