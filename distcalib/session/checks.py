"""What is wrong with a run, found before any actor starts: a wrong net costs a second, not an hour."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from distcalib.caffe import Weights, caffe_pb2
from distcalib.caffe.forks import fork_faults, of_other_forks
from distcalib.caffe.graph import Blob, Node
from distcalib.caffe.infogain import lacks_matrix
from distcalib.caffe.paths import not_utf8, resolve_path
from distcalib.caffe.phase import in_test, left_out
from distcalib.caffe.reading import ignored_in, left_unread
from distcalib.data import DATA_TYPES, FLAG, is_shuffled, makes_data, random_parts
from distcalib.engine.net import Net
from distcalib.engine.unconverted import unconverted
from distcalib.engine.worker import data_nodes, refuse_host_feeding
from distcalib.errors import DataError, DistcalibError, OptionError, OutputError, UnsupportedError, WeightsError
from distcalib.layers import layer_refusal
from distcalib.metrics import AP_VERSIONS, DEFAULT_AP, DETECTION, HOST_TYPES, SECOND_TOPS, check_layer, read_sizes
from distcalib.quantize.force_u8 import TRANSFORMING
from distcalib.quantize.fusion import find_fused, uses_global_stats
from distcalib.quantize.mending import troubles
from distcalib.quantize.storage import params_of

MOST_ITERATIONS = 10_000_000
"""An iteration is a row, and a place in the order of rows, which are in memory; ImageNet has 50,000 test images."""
_KINDS = ", ".join(sorted(DATA_TYPES))
_OF_TRAINING = frozenset({"param", "weight_filler", "bias_filler", "filler", "blobs"})


def net_problems(net: Net, fed: bool = False) -> list[str]:
    """A sentence for everything in the prototxt itself that keeps the net from being run.

    `fed` tells that a file feeds the Input layers.
    """
    waiting = unfed(net, fed)
    strange = {node.name for node in unopened(net)}
    opened = [layer for layer in net.test.layer if layer.name not in strange]
    sources = tuple(f"{net.name}: layer '{node.name}' ({node.type}): " for node in unopened(net))
    problems = [problem for problem in unconverted(net.graph, net.name) if not problem.startswith(sources)]
    problems += said_by(lambda: refuse_host_feeding(net.graph, net.name))
    for node in net.graph:
        if node.type in HOST_TYPES:
            own = said_by(lambda layer=node.layer: check_layer(layer))  # type: ignore[misc]
            if not (own or node.tops):
                own = [f"layer '{node.name}' ({node.type}): has no top; name the blob that it makes"]
            problems += [f"{net.name}: {problem}" for problem in own]
    problems += size_faults(net)
    problems += [f"{net.name}: {problem}" for problem in fork_faults(opened)]
    problems += [f"{net.name}: {problem}" for problem in not_finite(net.test)]
    problems += [f"{net.name}: {problem}" for problem in said_by(lambda: params_of(net.graph))]
    problems += [f"{net.name}: {problem}" for problem in said_by(lambda: find_fused(net.graph))]
    nodes = data_nodes(net.graph)
    if not nodes and not unopened(net):
        problems.append(f"{net.name}: has no data layer in the TEST phase; add one ({_KINDS})")
    return problems + waiting


def size_faults(net: Net) -> list[str]:
    """A sentence for each name_size_file that cannot be read: part of the data, as the records are."""
    files = [n.layer.detection_evaluate_param.name_size_file for n in net.graph if n.type == DETECTION]
    faults: list[str] = []
    for path in dict.fromkeys(filter(None, files)):
        faults += said_by(lambda path=path: read_sizes(str(resolve_path(path, net.path))))  # type: ignore[misc]
    return faults


def unopened(net: Net) -> list[Node]:
    """The layers that make data in a way that is not done here."""
    return [node for node in net.graph if makes_data(node.layer) and node.type not in DATA_TYPES]


def unfed(net: Net, fed: bool = False) -> list[str]:
    """A sentence for the layers that wait for arrays: a net is sound without them, and cannot be measured.

    `fed` tells that a file feeds the Input layers.
    """
    problems = [f"{net.name}: layer '{node.name}' ({node.type}): {layer_refusal(node.layer)}" for node in unopened(net)]
    inputs = ", ".join(f"'{node.name}'" for node in data_nodes(net.graph) if node.type == "Input")
    if inputs and not fed:
        problems.append(
            f"{net.name}: layer {inputs} (Input) has no data; give its arrays with --data FILE.npz, "
            "or a prototxt whose TEST phase reads data"
        )
    return problems


def net_notes(net: Net) -> list[str]:
    """A sentence for everything in the prototxt that Caffe would do and that is not done here."""
    notes = [
        f"{net.name}: layer '{one.layer.name}' ({one.layer.type}) is left out: {one.reason}"
        for one in left_out(net.full, net.state)
    ]
    notes += [
        f"{net.name}: layer '{layer.name}' ({layer.type}) is left out: {said}"
        for layer in in_test(net.full, net.state)
        if (said := lacks_matrix(layer, net.path)) is not None
    ]
    notes += [f"{net.name}: {said}" for said in net.renamed]
    notes += [
        f"{net.name}: {said.partition(';')[0]}, in a layer that is not needed or must be fed: it is not in the file "
        "that is written"
        for said in left_unread(net.path)
    ]
    notes += [
        f"{net.name}: {said}: not of this type, so Caffe ignores it; it is not in the file that is written"
        for said in ignored_in(net.path)
    ]
    notes += [
        f"{net.name}: layer '{layer.name}' ({layer.type}): its second top '{layer.top[1]}', {SECOND_TOPS[layer.type]}, "
        "is not evaluated"
        for layer in in_test(net.full, net.state)
        if layer.type in SECOND_TOPS and len(layer.top) == 2
    ]
    for layer in net.test.layer:
        where = f"{net.name}: layer '{layer.name}' ({layer.type})"
        random = random_parts(layer) if layer.type in (*TRANSFORMING, "ImageSegData") else []
        if random:
            *first, last = random
            named = f"{', '.join(first)} and {last}" if first else last
            notes.append(
                f"{where}: random {named}, which Caffe draws in TEST too, {'are' if first else 'is'} not applied; take "
                f"{'them' if first else 'it'} out of the TEST phase"
            )
        if layer.dropout_param.sample_weights_test:
            notes.append(
                f"{where}: sample_weights_test: what it draws in TEST, too, is not drawn; its bottom is handed "
                "on, the mean of all draws"
            )
        if is_shuffled(layer):
            notes.append(
                f"{where}: shuffle: the records are read in their own order; Caffe draws another each run, which gives "
                "the same score over all of the data, and that of other records over a part (-i x batch)"
            )
        if layer.detection_output_param.HasField("save_output_param"):
            notes.append(f"{where}: save_output_param is ignored: no detections are written to files")
        if layer.detection_output_param.visualize:
            notes.append(f"{where}: visualize is ignored: nothing is shown")
    return notes


def load_warnings(net: Net) -> list[str]:
    """A sentence for each layer at which Intel Caffe ends, so that no `caffe test` of its prints these scores."""
    problems = troubles(net.graph, find_fused(net.graph), params_of(net.graph))
    return list(dict.fromkeys(f"{net.name}: {one}" for one in problems if one.fatal))


def check_ap_version(name: str, root: str | Path | None) -> None:
    """Raise OptionError for an unknown way to take an AP, and for one that Caffe in `root` does not know."""
    if name not in AP_VERSIONS:
        raise OptionError(f"--ap-version {name}: unknown; choose {', '.join(AP_VERSIONS)}")
    if root is not None and name != DEFAULT_AP:
        raise OptionError(
            f"--ap-version {name}: `caffe test` takes {DEFAULT_AP}, whatever this option is; leave out -r"
        )


def check_skipping(skip_bad: bool, root: str | Path | None) -> None:
    """Raise OptionError for records that are to be left out of what Caffe in `root` measures."""
    if skip_bad and root is not None:
        raise OptionError(
            f"{FLAG}: `caffe test` ends at a bad record, so -r cannot go with it; take bad records out of the data, or "
            "leave out -r"
        )


def check_folder(folder: Path, files: Sequence[Path]) -> None:
    """Raise OutputError now, not after hours, if `files` cannot be written into `folder` in the end; leave no trace."""
    if wrong := not_utf8(folder):
        raise OutputError(f"{folder}: {wrong}, or give another --out")
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None
    for path in files:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, and a file is to be written there; move it or give --out")


def unwritable(folder: Path, error: OSError) -> OutputError:
    """That nothing can be written to `folder`."""
    return OutputError(f"{folder}: cannot be written to ({error.strerror or error}); give another folder with --out")


def refuse_unrunnable(net: Net, fed: bool = False) -> None:
    """Raise UnsupportedError with all that net_problems says."""
    problems = net_problems(net, fed)
    if problems:
        raise UnsupportedError("; ".join(problems))


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
            [first, *_], input_shape = kernel, shapes.get(node.bottoms[0], data.get(node.bottoms[0].name))
            n_out = node.layer.inner_product_param.num_output
            images = [(n, data[blob.name]) for blob, n in tops.items() if len(data[blob.name]) == 4]
            if input_shape is None or not images or first.size % n_out or first.size // n_out == prod(input_shape[1:]):
                continue
            has_kernels = any(n.type == "Convolution" and n.name in weights for n in net.graph)
            its_own = has_kernels and weights.keys() <= {layer.name for layer in net.full.layer}
            if not (its_own and all(_convolution_fits(n, shapes, data, weights) for n in net.graph)):
                continue  # it is another net's caffemodel, and the actors name the first blob that does not fit
            source, shape = images[0]
            sizes = " x ".join(map(str, shape[1:]))
            raise DataError(
                f"{net.name}: layer '{source.name}' ({source.type}): gives images of {sizes}, of which "
                f"{prod(input_shape[1:])} values reach '{node.name}' (InnerProduct), and its weights are for "
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
    """Raise WeightsError for blobs with NaN or infinity, and for statistics of a BatchNorm that make such: a ReLU makes
    zeros of NaN, and no score would show it."""
    names = [node.name for node in net.graph if not all(np.isfinite(blob).all() for blob in weights.get(node.name, ()))]
    if names:
        quoted = ", ".join(f"'{name}'" for name in names)
        raise WeightsError(f"{path}: layer {quoted}: has weights that are NaN or infinite; train or copy it again")
    faults = [
        f"layer '{node.name}' (BatchNorm): {said}"
        for node in net.graph
        if node.type == "BatchNorm" and (said := _variance_fault(node.layer, weights.get(node.name, ())))
    ]
    if faults:
        raise WeightsError(f"{path}: " + "; ".join(faults) + "; train or copy it again")


def _variance_fault(layer: caffe_pb2.LayerParameter, blobs: Sequence[NDArray[np.float32]]) -> str:
    """Which variance has no square root once eps is added, in float32 as in Caffe, or is infinite once it is divided by
    the factor, as the mean may be; "" if all are numbers.

    A factor of 0 counts as 1: Intel Caffe takes it so where it folds the layer into a convolution.
    """
    if len(blobs) < 2 or not uses_global_stats(layer):
        return ""
    factor = np.float32(np.reshape(blobs[2], -1)[0]) if len(blobs) > 2 and np.size(blobs[2]) else np.float32(1.0)
    eps = np.float32(layer.batch_norm_param.eps)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, variance = (np.reshape(blob, -1).astype(np.float32) / (factor or np.float32(1.0)) for blob in blobs[:2])
        bad = np.flatnonzero(~(variance + eps > 0.0))
    if not (np.isfinite(variance).all() and np.isfinite(mean).all()):
        return f"mean or variance divided by the factor of {factor:g} is infinite"
    if not len(bad):
        return ""
    channels = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return f"variance + eps is not above 0 in channel {channels} ({variance[bad[0]]:g} with eps {eps:g})"


def not_finite(net: caffe_pb2.NetParameter) -> list[str]:
    """A sentence for each parameter of the layers that is NaN or infinite, or an eps below 0; those that only training
    reads are not."""
    return [
        f"layer '{layer.name}' ({layer.type}): {name} is {value:g}; give a number{' from 0 on' if is_eps else ''}"
        for layer in net.layer
        for name, value in _floats(layer, "")
        for is_eps in (name.endswith(".eps"),)
        if not math.isfinite(value) or (is_eps and value < 0.0)
    ]


def _floats(message: Message, path: str) -> Iterator[tuple[str, float]]:
    """The floats that are set in a message, each with the path to it."""
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.name in _OF_TRAINING:
            continue
        is_list = not isinstance(value, (str, bytes, float, int, Message))
        for one in value if is_list else [value]:
            if isinstance(one, Message):
                yield from _floats(one, f"{name}.")
            elif isinstance(one, float):
                yield name, one


def check_iterations(n_iterations: int, flag: str = "-i") -> None:
    """Raise OptionError for less than one iteration, and for more than can be kept in memory."""
    if n_iterations < 1:
        raise OptionError(f"{flag} {n_iterations}: must be at least 1")
    if n_iterations > MOST_ITERATIONS:
        raise OptionError(
            f"{flag} {n_iterations}: is more than {MOST_ITERATIONS}; give images / batch size, and raise batch_size"
        )


def fork_warnings(net: Net) -> list[str]:
    """The sentence for a net that Intel Caffe cannot read, because of what other forks have alone."""
    names = of_other_forks(in_test(net.full, net.state))
    if not names:
        return []
    return [
        f"{net.name}: has {', '.join(names)}, of other forks: it is measured here and can be exported, and Intel Caffe "
        "cannot run it"
    ]


def data_warnings(net: Net) -> list[str]:
    """A sentence for everything in data and recurrent layers that Intel Caffe does otherwise than one would expect."""
    warnings = fork_warnings(net)
    for layer in net.test.layer:
        where = f"{net.name}: layer '{layer.name}' ({layer.type})"
        if _keeps_state(layer):
            warnings.append(
                f"{where}: Caffe begins an iteration with the state at the end of the one before, here it is zeros, "
                "which is the same where `cont` is 0 at the first step"
            )
        transform = layer.transform_param
        if layer.type in TRANSFORMING and transform.pad:
            warnings.append(
                f"{where}: transform_param.pad frames encoded images with pixels of 0, to which neither mean nor scale "
                "is applied, and leaves raw records without a frame; let the first convolution pad"
            )
        if layer.type in TRANSFORMING and transform.crop_size and transform.HasField("resize_param"):
            warnings.append(
                f"{where}: Intel Caffe cuts the crop out of the image before resize_param, which has no other effect "
                "than to move it; take resize_param or crop_size out"
            )
    return warnings


def _keeps_state(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether Caffe carries the layer's state from one iteration to the next."""
    if layer.type == "Lstm":
        return len(layer.bottom) > 1
    return layer.type in ("LSTM", "RNN") and not layer.recurrent_param.expose_hidden


def said_by(check: Callable[[], object]) -> list[str]:
    """What `check` has to say."""
    try:
        check()
    except DistcalibError as error:
        return [str(error)]
    return []
