"""The files in cluster/: what Ray's own schema says of them, and what a schema cannot know."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from distcalib.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster"
LAUNCHED = ("onprem.yaml", "aws.yaml", "gcp.yaml")


def load(name: str) -> dict[str, Any]:
    config = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_file_passes_rays_schema(name: str) -> None:
    prepared = prepare_config(load(name))
    validate_config(prepared)
    broken = {**prepared, "worker_ip": []}
    with pytest.raises(Exception, match="worker_ip"):
        validate_config(broken)


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_file_keeps_token_authentication_on(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        assert "RAY_AUTH_MODE=token " in command
        assert ("ray start" in command) == ("RAY_worker_niceness=0 ray start" in command)
    assert any("RAY_AUTH_MODE=token' >> ~/.bashrc" in command for command in config["setup_commands"])


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_file_does_not_copy_what_is_made_here(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/distcalib"] == "."
    assert {".git", ".venv*", "build"} <= set(config["rsync_exclude"])


def test_cluster_files_install_the_same_versions() -> None:
    pin = re.compile(r"\b(ray|openvino)(?:\[default\])?(?:==|:)([\d.]+\d)")
    pins = {name: sorted(set(pin.findall((FOLDER / name).read_text()))) for name in (*LAUNCHED, "Dockerfile")}
    assert len({tuple(found) for found in pins.values()}) == 1, pins
    assert [package for package, _ in pins["Dockerfile"]] == ["openvino", "ray"]
    assert load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == dict(pins["Dockerfile"])["ray"]


def test_aws_instances_have_avx512() -> None:
    for node_type in load("aws.yaml")["available_node_types"].values():
        family = node_type["node_config"]["InstanceType"].split(".")[0]
        assert re.fullmatch(r"[cmr](5|5n|6i|6in|7i)", family), "Intel since Skylake: no a (AMD), no g (Arm)"


def test_gcp_instances_have_avx512() -> None:
    for node_type in load("gcp.yaml")["available_node_types"].values():
        machine = node_type["node_config"]
        assert machine["minCpuPlatform"] in ("Intel Skylake", "Intel Cascade Lake", "Intel Ice Lake")
        assert machine["machineType"].split("-")[0] in ("n1", "n2"), "Intel only, and a type that takes a minimum"
        threads = machine["advancedMachineFeatures"]["threadsPerCore"]
        n_vcpus = int(machine["machineType"].rsplit("-", 1)[1])
        assert node_type["resources"] == {"CPU": n_vcpus // 2 * threads}


def test_rayjob_has_pods_of_whole_cpus_with_avx512() -> None:
    job = load("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) > 1
    for group in groups:
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert re.fullmatch(r"\d+", container["resources"]["limits"]["cpu"]), "the static CPU manager wants whole CPUs"
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert mounts.keys() == volumes.keys()
        assert mounts["shm"] == "/dev/shm"
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        [term] = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        labels = {expression["key"]: expression["values"] for expression in term["matchExpressions"]}
        assert labels["feature.node.kubernetes.io/cpu-cpuid.AVX512BW"] == ["true"]
        assert {group.get("minReplicas"), group.get("maxReplicas")} == {group.get("replicas")}


def commands() -> list[str]:
    """Every command line that runs scripts/calibrate.py: in the how-to, in the files, and in the script itself."""
    rayjob = load("kuberay-rayjob.yaml")["spec"]["entrypoint"]
    texts = [path.read_text() for path in (FOLDER / "README.md", FOLDER / "onprem.yaml", ROOT / "scripts/calibrate.py")]
    lines = [line.strip("# ") for text in texts for line in text.splitlines()]
    return [rayjob, *(line for line in lines if "scripts/calibrate.py" in line and "-m " in line)]


def test_commands_are_found() -> None:
    assert len(commands()) == 5


@pytest.mark.parametrize("command", commands())
def test_command_of_the_how_to_is_understood(command: str) -> None:
    words = shlex.split(command)
    script = next(i for i, word in enumerate(words) if word.endswith("scripts/calibrate.py"))
    arguments = [word for word in words[script + 1 :] if word != "--"]
    args = make_parser().parse_args(["calibrate", *arguments])
    assert args.model.suffix == ".prototxt"
    assert args.weights.suffix == ".caffemodel"
