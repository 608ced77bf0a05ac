"""What travels between hosts: records that only the head can open, and weights and programs, once a node."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, write_weights
from tests.cluster.hosts import Host, Network
from tests.cluster.ssh import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DIGITS = ROOT / "examples/digits"
ARGS = f"-m {DIGITS}/digits.prototxt -w {DIGITS}/digits.caffemodel -i 18 -l 0.005"
NAME = "digits_quantized.prototxt"


@contextmanager
def without(host: Host, folder: Path) -> Iterator[None]:
    """The host sees an empty folder there."""
    host.run(f"mount -t tmpfs none {folder}")
    try:
        yield
    finally:
        host.run(f"umount {folder}")


def test_run_sends_records_to_hosts_that_see_neither_net_nor_data(
    three: list[Host], network: Network, tmp_path: Path
) -> None:
    head, *others = three
    network.hosts[3].run(f"distcalib calibrate {ARGS} --out {tmp_path}/alone")
    with ExitStack() as stack:
        for host in others:
            stack.enter_context(without(host, DIGITS))
        said = head.run(f"distcalib calibrate {ARGS} --address auto --out {tmp_path}/opened; echo exit code $?")
        assert said.rstrip().endswith("exit code 1")
        assert "digits_test_lmdb: does not exist" in said
        said = head.run(f"distcalib calibrate {ARGS} --address auto --ship-data --out {tmp_path}/sent")
    assert "of records to 3 nodes" in said
    assert "3 nodes, 3 actors" in said
    assert (tmp_path / "sent" / NAME).read_bytes() == (tmp_path / "alone" / NAME).read_bytes()


def test_weights_and_programs_travel_once_a_node(three: list[Host], tmp_path: Path) -> None:
    """With two actors a host is sent what one actor was, and less than half of the weights beside."""
    n_bytes = write_net(tmp_path, 2_000)
    received = {}
    for n_actors in (3, 6):
        before = received_bytes(three[2])
        said = three[0].run(
            f"distcalib evaluate {tmp_path}/net.prototxt -w {tmp_path}/net.caffemodel -i 60 --address auto "
            f"--actors {n_actors}"
        )
        assert f"on {n_actors} actors" in said
        received[n_actors] = received_bytes(three[2]) - before
    print(f"weights {n_bytes / 1e6:.1f} MB, received {received[3] / 1e6:.1f}, {received[6] / 1e6:.1f} MB")  # with -s
    assert received[3] > n_bytes, "or weights do not come this way"
    assert received[6] < received[3] + n_bytes / 2


def received_bytes(host: Host) -> int:
    """What has reached the host's network card."""
    return int(host.run("cat /sys/class/net/eth0/statistics/rx_bytes"))


def write_net(folder: Path, n_outputs: int) -> int:
    """Write a net with one inner product of 3,072 inputs on random images; bytes of its weights."""
    text = f"""
      layer {{ name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param {{ shape {{ dim: 2 dim: 3072 }} shape {{ dim: 2 }} }} }}
      layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param {{ num_output: {n_outputs} bias_term: false }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}"""
    weight = np.random.RandomState(0).standard_normal((n_outputs, 3072)).astype(np.float32)
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    (folder / "net.prototxt").write_text(text)
    write_weights(folder / "net.caffemodel", "net", net.layer, {"fc": (weight,)})
    return weight.nbytes
