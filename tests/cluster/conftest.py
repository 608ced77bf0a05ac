"""Hosts for the tests here. Where they cannot be made, the tests are skipped, and say why."""

from collections.abc import Iterator

import pytest

from tests.cluster.hosts import Host, Network, why_not

# Ray takes a node for dead after a minute without an answer; here it does so after some 10 seconds.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Four hosts at one bridge, with a token that all know; nothing runs on them yet."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("network")
    token = folder / "token"
    token.write_text("a token that only these hosts know")
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **QUICK}
    made = Network(folder, 4, env)
    yield made
    made.close()


@pytest.fixture
def three(network: Network) -> list[Host]:
    """A Ray cluster of the first three hosts, the first its head; what the test before broke is mended."""
    head, *others = hosts = network.hosts[:3]
    if not head.processes("raylet"):
        for host in others:
            host.stop_ray()
        head.start_ray()
    for host in others:
        if host.was_cut_off or not host.processes("raylet"):  # Ray does not take back a node that it took for dead
            host.stop_ray()
            host.start_ray(head)
    network.hosts[3].stop_ray()
    return hosts
