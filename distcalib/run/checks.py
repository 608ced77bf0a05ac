"""What can be said against a run before any actor starts: a wrong net costs a second, not an hour."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np

from distcalib.caffe import Weights, caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.caffe.in_place import in_place_faults
from distcalib.caffe.paths import resolve_path
from distcalib.data import DATA_TYPES, FLAG, REFUSED_DATA
from distcalib.engine.builder import unconverted
from distcalib.engine.worker import data_nodes, refuse_host_feeding
from distcalib.errors import DataError, DistcalibError, OptionError, UnsupportedError, WeightsError
from distcalib.metrics import AP_VERSIONS, DEFAULT_AP, DETECTION, HOST_TYPES, check_layer, read_sizes
from distcalib.quantize.force_u8 import ignores_data
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import ZERO_POINT, params_of
from distcalib.run.net import Net

MOST_ITERATIONS = 10_000_000
"""An iteration is a row, and a place in the order of rows, which are in memory; ImageNet has 50,000 test images."""
IN_PLACE_FLAG = "--allow-overwritten"
_KINDS = ", ".join(sorted(DATA_TYPES))


def net_problems(net: Net, fed: bool = False) -> list[str]:
    """A sentence for everything in the prototxt itself that keeps the net from being run.

    `fed` tells that a file feeds the Input layers.
    """
    found = unconverted(net.graph, net.name)
    found += _said(lambda: refuse_host_feeding(net.graph, net.name))
    for node in net.graph:
        if node.type in HOST_TYPES:
            said = _said(lambda layer=node.layer: check_layer(layer))  # type: ignore[misc]
            if not (said or node.tops):
                said = [f"layer '{node.name}' ({node.type}): has no top; name the blob that it makes"]
            found += [f"{net.name}: {one}" for one in said]
    files = [n.layer.detection_evaluate_param.name_size_file for n in net.graph if n.type == DETECTION]
    for path in dict.fromkeys(filter(None, files)):
        found += _said(lambda path=path: read_sizes(str(resolve_path(path, net.path))))  # type: ignore[misc]
    found += [f"{net.name}: {said}" for said in _said(lambda: params_of(net.graph))]
    found += [f"{net.name}: {said}" for said in _said(lambda: find_fused(net.graph))]
    nodes = data_nodes(net.graph)
    found += [f"{net.name}: {said}" for node in nodes for said in _padding_problems(net.graph, node)]
    if not nodes and not any(node.type in REFUSED_DATA for node in net.graph):
        found.append(f"{net.name}: has no data layer in the TEST phase; add one ({_KINDS})")
    inputs = ", ".join(f"'{node.name}'" for node in nodes if node.type == "Input")
    if inputs and not fed:
        found.append(
            f"{net.name}: layer {inputs} (Input) has no data; give its arrays with --data FILE.npz, "
            "or a prototxt whose TEST phase reads data"
        )
    return found


def net_notes(net: Net) -> list[str]:
    """A sentence for everything in the prototxt that Caffe would do and that is not done here."""
    found = []
    for layer in net.test.layer:
        where = f"{net.name}: layer '{layer.name}' ({layer.type})"
        transform, samplers = layer.transform_param, layer.annotated_data_param.batch_sampler
        if layer.type == "AnnotatedData":
            random = ["batch_sampler"] if any(sampler.ListFields() for sampler in samplers) else []
            random += [name for name in ("distort_param", "expand_param") if transform.HasField(name)]
            if random:
                found.append(f"{where}: random {' and '.join(random)} {'are' if random[1:] else 'is'} not applied")
        if layer.detection_output_param.HasField("save_output_param"):
            found.append(f"{where}: save_output_param is ignored: no detections are written to files")
        if layer.detection_output_param.visualize:
            found.append(f"{where}: visualize is ignored: nothing is shown")
    return found


def in_place_warnings(net: Net) -> list[str]:
    """A sentence for each layer in place whose result, or another's, is something else in Caffe."""
    return [f"{net.name}: {said}" for _, said in in_place_faults(net.graph, _fused_sums(net.graph))]


def refuse_in_place(net: Net) -> None:
    """Raise UnsupportedError for a net that Caffe computes otherwise, for its blobs share memory, or not at all."""
    found = in_place_warnings(net)
    if found:
        raise UnsupportedError(f"{'; '.join(found)}; to calibrate as if each blob were its own, give {IN_PLACE_FLAG}")


def _fused_sums(graph: Graph) -> set[int]:
    """The Eltwise layers that Intel Caffe computes inside a convolution."""
    groups = find_fused(graph).values()
    return {group.eltwise.index for group in groups if group.eltwise is not None}


def check_ap_version(name: str, root: str | Path | None) -> None:
    """Raise OptionError for an unknown way to take an AP, and for one that Caffe in `root` does not know."""
    if name not in AP_VERSIONS:
        raise OptionError(f"--ap-version {name}: is none; {', '.join(AP_VERSIONS)} are")
    if root is not None and name != DEFAULT_AP:
        raise OptionError(f"--ap-version {name}: `caffe test` takes {DEFAULT_AP}, whatever it is told; leave out -r")


def check_skipping(skip_bad: bool, root: str | Path | None) -> None:
    """Raise OptionError for records that are to be left out of what Caffe in `root` measures."""
    if skip_bad and root is not None:
        raise OptionError(
            f"{FLAG}: `caffe test` ends at a bad record, so -r cannot go with it; take bad records out of the data, or "
            "leave out -r"
        )


def refuse_unrunnable(net: Net, fed: bool = False) -> None:
    """Raise UnsupportedError with all that net_problems says."""
    found = net_problems(net, fed)
    if found:
        raise UnsupportedError("; ".join(found))


def refuse_other_images(
    net: Net, data: Mapping[str, tuple[int, ...]], shapes: Mapping[Blob, tuple[int, ...]], weights: Weights
) -> None:
    """Raise DataError where the first layers' weights are for images of other channels, or another size: the weights
    do not fit the net then, and it is the data that are wrong."""
    tops = {blob: node for node in data_nodes(net.graph) for blob in node.tops if blob.name in data}
    for node in net.graph:
        kernel = weights.get(node.name, ())[:1]
        source = tops.get(node.bottoms[0]) if node.bottoms else None
        if node.type == "Convolution" and source is not None and kernel and kernel[0].ndim == 4:
            shape, wanted = data[node.bottoms[0].name], kernel[0].shape[1] * node.layer.convolution_param.group
            if len(shape) == 4 and shape[1] != wanted:
                raise DataError(
                    f"{net.name}: layer '{source.name}' ({source.type}): gives images of {shape[1]} channel(s), and "
                    f"the weights of '{node.name}' are for {wanted}; {_channels_remedy(source.layer, shape[1], wanted)}"
                )
        if node.type == "InnerProduct" and kernel and not node.layer.inner_product_param.transpose:
            [first, *_], found = kernel, shapes.get(node.bottoms[0], data.get(node.bottoms[0].name))
            n_out = node.layer.inner_product_param.num_output
            images = [(n, data[blob.name]) for blob, n in tops.items() if len(data[blob.name]) == 4]
            if found is None or not images or first.size % n_out or first.size // n_out == prod(found[1:]):
                continue
            has_kernels = any(n.type == "Convolution" and n.name in weights for n in net.graph)
            its_own = has_kernels and weights.keys() <= {layer.name for layer in net.full.layer}
            if not (its_own and all(_convolution_fits(n, shapes, data, weights) for n in net.graph)):
                continue  # it is another net's caffemodel, and the actors name the first blob that does not fit
            source, shape = images[0]
            sizes = " x ".join(map(str, shape[1:]))
            raise DataError(
                f"{net.name}: layer '{source.name}' ({source.type}): gives images of {sizes}, of which "
                f"{prod(found[1:])} values reach '{node.name}' (InnerProduct), and its weights are for "
                f"{first.size // n_out}; is crop_size, or the size of the images, that of the training? Else give the "
                "caffemodel of this prototxt"
            )


def _convolution_fits(
    node: Node, shapes: Mapping[Blob, tuple[int, ...]], data: Mapping[str, tuple[int, ...]], weights: Weights
) -> bool:
    """Whether the weights of a convolution have its outputs and the channels that it reads; True of other layers."""
    kernel = weights.get(node.name, ())[:1]
    if node.type != "Convolution" or not kernel or kernel[0].ndim != 4:
        return True
    param, bottom = node.layer.convolution_param, node.bottoms[0]
    read = shapes.get(bottom, data.get(bottom.name, ()))
    return kernel[0].shape[0] == param.num_output and read[1:2] == (kernel[0].shape[1] * param.group,)


def _channels_remedy(layer: caffe_pb2.LayerParameter, found: int, wanted: int) -> str:
    """What would make images of `wanted` channels out of those of `found`."""
    if wanted not in (1, 3):
        return "give the data, or the caffemodel, that belongs to this net"
    if layer.type == "ImageData":
        return f"set is_color: {'true' if wanted == 3 else 'false'} in its image_data_param"
    if layer.type in ("Data", "AnnotatedData"):
        flag = "force_color" if wanted == 3 else "force_gray"
        alpha = " (the fourth is alpha)" if found == 4 else ""
        return f"set {flag}: true in its transform_param if the images are encoded{alpha}, else write the data anew"
    return "give arrays of that shape"


def refuse_no_numbers(weights: Weights, path: Path, net: Net) -> None:
    """Raise WeightsError for blobs with NaN or infinity: a ReLU makes zeros of NaN, and no score would show it."""
    names = [node.name for node in net.graph if not all(np.isfinite(blob).all() for blob in weights.get(node.name, ()))]
    if names:
        quoted = ", ".join(f"'{name}'" for name in names)
        raise WeightsError(f"{path}: layer {quoted}: has weights that are NaN or infinite; train or copy it again")


def file_stamp(path: Path) -> tuple[int, ...]:
    """What tells whether a file was changed or replaced since; () where it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def refuse_changed(path: Path, stamp: tuple[int, ...]) -> None:
    """Raise WeightsError for a caffemodel that is another than it was: it is mapped, and to read what was cut off since
    would end the process (SIGBUS)."""
    if file_stamp(path) != stamp:
        raise WeightsError(f"{path}: was changed while the run started; give the same command again once it is whole")


def check_iterations(n_iterations: int, flag: str = "-i") -> None:
    """Raise OptionError for less than one iteration, and for more than can be kept in memory."""
    if n_iterations < 1:
        raise OptionError(f"{flag} {n_iterations}: is no number of iterations; give at least 1")
    if n_iterations > MOST_ITERATIONS:
        raise OptionError(
            f"{flag} {n_iterations}: is more than {MOST_ITERATIONS}; give images / batch size, and raise batch_size"
        )


def _padding_problems(graph: Graph, data: Node) -> Iterator[str]:
    """What reads the frame that transform_param.pad puts around an image, and would not take it for zeros."""
    if not data.layer.transform_param.pad:
        return
    for reader in graph.consumers.get(data.tops[0], ()):
        if ignores_data(reader.layer):
            continue
        if not reader.layer.quantization_param.force_u8_input:
            yield (
                f"layer '{data.name}' ({data.type}): transform_param.pad frames the image with {ZERO_POINT}, which is "
                f"zero with force_u8_input only, and '{reader.name}' ({reader.type}) has none; pad there instead"
            )


def _said(check: Callable[[], object]) -> list[str]:
    """What `check` has to say."""
    try:
        check()
    except DistcalibError as error:
        return [str(error)]
    return []
