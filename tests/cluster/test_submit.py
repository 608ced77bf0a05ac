"""`ray up` and `ray submit` as the how-to has them, from a desk by ssh to a cluster of two hosts.

The file is cluster/onprem.yaml with addresses filled in, and without the installing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, Network, wait_for
from tests.cluster.ssh import ROOT, onprem, start_sshd, why_no_ssh

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DIGITS = ROOT / "examples/digits"
DEMO = f"-m {DIGITS}/digits.prototxt -w {DIGITS}/digits.caffemodel -i 18 -n accuracy-top1 -l 0.01"


@pytest.fixture
def desk(network: Network) -> Iterator[Host]:
    """A machine that is not in the cluster and has the token where `ray get-auth-token --generate` puts it."""
    if reason := why_no_ssh():
        pytest.skip(reason)
    at = network.hosts[3]
    at.run("mkdir -m 700 ~/.ray && cp $RAY_AUTH_TOKEN_PATH ~/.ray/auth_token && chmod 600 ~/.ray/auth_token")
    for host in network.hosts:
        del host.env["RAY_AUTH_TOKEN_PATH"]  # nodes know the token by what `ray up` copies
    yield at
    shutil.rmtree(network.ssh_sockets, ignore_errors=True)


def test_ray_submit_calibrates_on_the_cluster(desk: Host, network: Network, tmp_path: Path) -> None:
    head, worker, outsider = network.hosts[:3]
    key = start_sshd([head, worker], tmp_path / "ssh")
    config = onprem(head, [worker], key, tmp_path / "onprem.yaml")
    desk.run(f"ray up -y --no-config-cache {config}")
    wait_for(lambda: bool(worker.processes("raylet")), "the head to start Ray on the worker")
    doctor = f"ray exec --no-config-cache {config} 'distcalib doctor --address auto'"
    wait_for(lambda: "2 node(s)" in desk.run(doctor), "the worker to join")
    submit = f"ray submit --no-config-cache {config} {ROOT}/scripts/calibrate.py --"
    said = desk.run(f"{submit} {DEMO} --out {tmp_path}/cluster")
    assert "Tolerance 0.01 met" in said
    assert "2 nodes, 2 actors" in said

    outsider.run(f"distcalib calibrate {DEMO} --out {tmp_path}/alone")
    name = "digits_quantized.prototxt"
    assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()

    failed = desk.run(f"{submit} -m none.prototxt -w none; echo exit code $?")
    assert "distcalib: none.prototxt: " in failed
    assert failed.rstrip().endswith("exit code 1")
    for mode in (head.run("stat -c %a ~/.ray/auth_token"), worker.run("stat -c %a ~/.ray/auth_token")):
        assert mode.strip() == "600"
