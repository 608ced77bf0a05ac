"""Hosts that can be reached with ssh, and a cluster file for them: cluster/onprem.yaml with what a user fills in."""

import shutil
from pathlib import Path

import yaml

from tests.cluster.hosts import BIN, Host, run, wait_for

ROOT = Path(__file__).resolve().parents[2]
_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
SetEnv LOGNAME={user}
"""


def why_no_ssh() -> str:
    """What keeps `ray up` from being tried here, or ""."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen", "rsync") if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(missing)} (openssh-server, openssh-client, rsync)" if missing else ""


_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def start_sshd(hosts: list[Host], folder: Path) -> Path:
    """Let all who have the key, which is returned, onto the hosts."""
    folder.mkdir()
    for name in ("key", "host_key"):
        run(f"ssh-keygen -q -t ed25519 -N '' -f {folder / name}")
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(folder=folder, user=hosts[0].env["USER"]))
    for host in hosts:
        host.run(f"{shutil.which('sshd', path=_PATH)} -f {config}")  # goes to the background
        wait_for(lambda host=host: bool(host.processes("sshd")), f"sshd of {host.name}")  # type: ignore[misc]
    return folder / "key"


def onprem(head: Host, workers: list[Host], key: Path, path: Path) -> Path:
    """cluster/onprem.yaml with addresses, user and key, written to `path`. What it installs is here already."""
    config = yaml.safe_load((ROOT / "cluster/onprem.yaml").read_text())
    config["provider"] |= {"head_ip": head.ip, "worker_ips": [worker.ip for worker in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    install = [command for command in config["setup_commands"] if "~/.distcalib" in command or "/.distcalib" in command]
    config["setup_commands"] = [
        command.replace("$HOME/.distcalib/bin", str(BIN)).replace("distcalib/bin", str(BIN))
        for command in config["setup_commands"]
        if command not in install or ".bashrc" in command
    ]
    assert len(install) == 3, "the venv, what is installed into it, and the way to it"
    path.write_text(yaml.safe_dump(config))
    return path
