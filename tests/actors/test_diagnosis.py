"""What is found wrong with made-up machines."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.actors.diagnosis import GB, Diagnosis, diagnose, targets_of
from distcalib.actors.isa import Isa
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.topology import Core, Topology
from tests.actors.machines import read_machine

VERSIONS = {"distcalib": "1.0", "openvino": "2026.0", "opencv-python-headless": "4.9", "numpy": "2.1", "ray": "2.60.0"}
SKYLAKE = ("AVX512_CORE", "AVX2")
CASCADE = ("AVX512_CORE_VNNI", *SKYLAKE)


def node(host: str = "host1", topology: Topology | None = None, **fields: object) -> NodeInfo:
    """A server with four cores and nothing wrong."""
    cores = tuple(Core((i, i + 4), package=0, numa_node=0, n_threads=2) for i in range(4))
    good = NodeInfo(
        host, host, topology or Topology(cores, None, 4), SKYLAKE, 192 * GB, VERSIONS,
        free_bytes=180 * GB, shm_bytes=96 * GB, machine=host,
    )  # fmt: skip
    return replace(good, **fields)  # type: ignore[arg-type]


def said(found: Diagnosis) -> list[str]:
    return [f"{', '.join(finding.nodes)}: {finding.what}; {finding.remedy}" for finding in found.findings]


def test_diagnose_finds_nothing_on_good_machines() -> None:
    found = diagnose([node("host1"), node("host2")])
    assert said(found) == []
    assert not found.refused
    assert (found.isa, found.actors) == (Isa("skylake", False, "avx512_core"), {"host1": 4, "host2": 4})


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (node(isas=("AVX2",)), "cascadelake is emulated in FP32 kernels, for this CPU cannot compute it natively"),
        (node(load=2.4), "other work keeps about 2.4 of the machine's 4 core(s) busy"),
        (node(free_bytes=GB // 2), "0.5 GB of memory are free for 4 actor(s), which want 1.0 GB"),
        (node(shm_bytes=64 * 2**20), "/dev/shm has 0.06 GB"),
    ],
    ids=["no AVX-512", "busy", "short of memory", "docker's /dev/shm"],
)
def test_diagnose_warns_of_a_machine(bad: NodeInfo, what: str) -> None:
    found = diagnose([bad])
    assert [what in sentence and sentence.startswith("host1: ") for sentence in said(found)] == [True]
    assert not found.refused


@pytest.mark.parametrize(
    ("name", "quota", "what"),
    [
        ("container-quota-1.5", 1.5, "the CPU quota of 1.5 CPUs leaves 0.5 of a core unused"),
        ("container-quota-1.5", 0.5, "the CPU quota is 0.5 CPUs, less than a core"),
        ("container-quota-1.5", 2.0, None),
        ("container-cpus-3-7-9", None, "of 4 core(s) another container or process may use the other hyper-thread"),
        ("skylake-2x28-hyper-threads", None, None),
        ("offline-cpus", None, None),
    ],
)
def test_diagnose_warns_of_what_a_container_may_use(
    tmp_path: Path, name: str, quota: float | None, what: str | None
) -> None:
    topology = replace(read_machine(name).topology(tmp_path), quota=quota)
    sentences = said(diagnose([node(topology=topology)]))
    assert len(sentences) == (what is not None)
    assert what is None or what in sentences[0]


def test_diagnose_of_a_cpu_without_avx2_emulates() -> None:
    found = diagnose([node(isas=())])
    slow, emulated = said(found)
    assert slow.startswith("host1: the CPU has no AVX2")
    assert emulated.startswith("host1: cascadelake is emulated in FP32 kernels")
    assert not found.refused


@pytest.mark.parametrize(
    ("isas", "targets"),
    [
        (CASCADE, {"skylake": "native", "cascadelake": "native", "sapphirerapids": "native"}),
        (SKYLAKE, {"skylake": "native", "cascadelake": "emulated", "sapphirerapids": "emulated"}),
        (("AVX2",), {"skylake": "native", "cascadelake": "emulated", "sapphirerapids": "emulated"}),
        ((), {"skylake": "impossible", "cascadelake": "emulated", "sapphirerapids": "emulated"}),
    ],
    ids=["VNNI", "AVX-512", "AVX2", "older"],
)
def test_targets_of_a_node(isas: tuple[str, ...], targets: dict[str, str]) -> None:
    assert targets_of(node(isas=isas)) == targets


def test_diagnose_names_all_nodes_with_the_same_trouble_once() -> None:
    found = diagnose([node(f"host{i}", shm_bytes=0) for i in range(3)])
    assert len(found.findings) == 1
    assert found.findings[0].nodes == ("host0", "host1", "host2")


def test_diagnose_tells_what_a_run_is_refused_for_first() -> None:
    nodes = [node("host1", isas=(), shm_bytes=0), node("host2", isas=(), versions={**VERSIONS, "openvino": "2025.4"})]
    found = diagnose(nodes, {"host3 (10.0.0.3)": "does not answer within 60 s; see to it"}, isa="skylake")
    assert found.refused
    assert [finding.refused for finding in found.findings] == [True, True, True, False, False]
    silent, versions, isa, *_ = said(found)
    assert silent.startswith("host3 (10.0.0.3): does not answer within 60 s; see to it")
    assert versions.startswith(": openvino is 2025.4 on host2 and 2026.0 on host1; install")
    assert isa.startswith(": --isa skylake: pairs of products that saturate as there need kernels of AVX-512 or AVX2")
    assert isa.endswith("; choose cascadelake")


def test_diagnose_without_an_answer_refuses() -> None:
    found = diagnose([], {"host1": "does not answer"})
    assert found.refused
    assert (found.isa, found.actors) == (None, {})


def test_diagnose_warns_of_nodes_that_hold_the_others_back() -> None:
    found = diagnose([node("host1", isas=CASCADE), node("host2"), node("host3", isas=CASCADE)])
    [sentence] = said(found)
    assert sentence.startswith("host2: avx512_core is the widest here, so all nodes are held to it, though 2")
    assert (found.isa, found.refused) == (Isa("skylake", False, "avx512_core"), False)
    assert said(diagnose([node(isas=CASCADE), node("host2", isas=CASCADE)], isa="skylake")) == []


def test_diagnose_warns_of_nodes_that_share_cores_of_one_machine() -> None:
    low, high = (Topology(tuple(Core((i,), 0, 0) for i in cpus), None, 4) for cpus in ((0, 1), (1, 2)))
    found = diagnose([node("host1", low, machine="m"), node("host2", high, machine="m"), node("host3", low)])
    [sentence] = said(found)
    assert sentence.startswith("host1, host2: run on one machine and share CPU 1: ")


def test_diagnosis_to_dict_is_json() -> None:
    found = diagnose([node("host1"), node("host2", shm_bytes=0)])
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["ready"], told["isa"], told["way"], told["kernels"]) == (True, "skylake", "native", "avx512_core")
    assert told["nodes"][0]["targets"]["cascadelake"] == "emulated"
    assert [(each["host"], each["actors"]) for each in told["nodes"]] == [("host1", 4), ("host2", 4)]
    assert told["nodes"][0]["topology"]["cores"][0] == {"cpus": [0, 4], "package": 0, "numa_node": 0, "n_threads": 2}
    assert [finding["nodes"] for finding in told["findings"]] == [["host2"]]
