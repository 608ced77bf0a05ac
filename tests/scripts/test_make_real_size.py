"""Nets of real size: their files open, run, and make about as many candidates as a trained net does."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, read_weights, test_net
from distcalib.caffe.graph import Blob, build_graph
from distcalib.data import open_source
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import open_net
from distcalib.engine.spec import Outputs
from scripts.bench import make_real_size
from scripts.bench.make_real_size import (
    HEIGHT,
    LOC_STD,
    LOGIT_STD,
    OBJECTNESS,
    WIDTH,
    assembled,
    draw_weights,
    scenes,
    tame,
)
from scripts.bench.real_nets import N_CLASSES, RealNet, conv
from tests.every import every

NAME = "ssd300_mobilenet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    make_real_size.main([str(folder), "--net", "ssd300-mobilenet", "--scenes", "3", "--batch", "2"])
    return folder


def values(folder: Path, *blobs: str) -> list[np.ndarray]:
    """What the net makes of its first batch."""
    path = folder / f"{NAME}.prototxt"
    net, wanted = open_net(path), tuple(Blob(name, 0) for name in blobs)
    here = InProcess(net, read_weights(folder / f"{NAME}.caffemodel"))
    [row] = here.rows(net.spec(outputs=Outputs(wanted)), [0])
    return [row.values[blob] for blob in wanted]


def test_scenes_are_jpegs_with_boxes_inside() -> None:
    for record in islice(scenes(5, seed=1), 5):
        assert record.datum.encoded
        assert record.datum.data[:2] == b"\xff\xd8"
        assert (record.datum.height, record.datum.width) == (HEIGHT, WIDTH)
        for group in record.annotation_group:
            assert 1 <= group.group_label < N_CLASSES
            for one in group.annotation:
                assert 0 <= one.bbox.xmin < one.bbox.xmax <= 1
                assert 0 <= one.bbox.ymin < one.bbox.ymax <= 1


def test_scenes_are_the_same_for_the_same_seed() -> None:
    one, same, other = (next(iter(scenes(1, seed))).SerializeToString() for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_make_writes_a_database_that_the_net_reads(folder: Path) -> None:
    path = folder / f"{NAME}.prototxt"
    source = open_source(test_net(read_net(path)).layer[0], path)
    batch = source.batch(1)  # wraps around: 3 scenes
    assert batch["data"].shape == (2, 3, 300, 300)
    assert batch["label"].shape[3] == 8
    assert np.abs(batch["data"]).max() <= 1.01  # mean 127.5, scale 1/127.5
    source.close()


def test_make_gives_every_layer_its_weights(folder: Path) -> None:
    net = test_net(read_net(folder / f"{NAME}.prototxt"))
    weights = read_weights(folder / f"{NAME}.caffemodel")
    wanted = {node.name for node in build_graph(net.layer, NAME) if node.type in ("Convolution", "BatchNorm", "Scale")}
    assert set(weights) == wanted
    assert every(np.isfinite(blob).all() for blobs in weights.values() for blob in blobs)


def test_make_leaves_as_many_candidates_as_a_trained_net_and_boxes_of_a_sane_size(folder: Path) -> None:
    conf, loc = values(folder, "mbox_conf_flatten", "mbox_loc")
    n_candidates = np.count_nonzero(conf.reshape(2, -1, N_CLASSES)[..., 1:] > 0.01) / 2
    assert 50 < n_candidates < 2000  # of 38,340
    assert loc.std() == pytest.approx(LOC_STD, rel=0.5)


def test_tame_lowers_the_objectness_of_yolo_and_leaves_its_logits_at_one() -> None:
    head = conv("conv23", "data", 5 * 25, 1)
    net = RealNet("head", 13, (), 1.0, (head,), 845, regions=("conv23",))
    images = np.random.default_rng(1).normal(0.0, 3.0, (2, 3, 13, 13)).astype(np.float32)
    graph = build_graph(assembled(net, 2).layer, net.name)
    weights = draw_weights(net, graph, seed=1)
    tame(net, graph, weights, images)
    weight, bias = weights["conv23"]
    logits = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], images)
    assert logits.std() == pytest.approx(LOGIT_STD, rel=0.01)
    assert np.flatnonzero(bias).tolist() == [4, 29, 54, 79, 104]
    assert set(bias[bias != 0]) == {OBJECTNESS}
