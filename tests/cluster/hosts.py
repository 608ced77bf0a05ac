"""Three machines in this one: Linux namespaces that share nothing but the kernel, the file system and a bridge.

A host has a network, a host name, processes, /dev/shm, /tmp/ray and a home folder of its own, and one CPU, so that Ray
and ssh behave as between machines: `ray stop` on one does not see the others, and a cable can be pulled. Folders
elsewhere are the same on all, as on a cluster with a common file system. Needs root and iproute2.
"""

import contextlib
import hashlib
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

BIN = Path(sys.executable).parent
PORT = 6379
_NEEDED = ("ip", "unshare", "nsenter", "mount", "taskset", "setpriv")
# The first process of a host: bash, because it reaps what is orphaned there. All ends with it.
_BOOT = """
set -e
hostname {name}
ip link set lo up
mount -t tmpfs -o size=512m shm /dev/shm
mount -t tmpfs run /run && mkdir /run/sshd
mkdir -p /tmp/ray {folder}/ray && mount --bind {folder}/ray /tmp/ray
mkdir -p {folder}/layer && mount -t tmpfs -o size=512m layer {folder}/layer
mkdir {folder}/layer/upper {folder}/layer/work
mount -t overlay -o lowerdir=$HOME,upperdir={folder}/layer/upper,workdir={folder}/layer/work home $HOME
rm -rf $HOME/.ssh $HOME/.ray
touch {folder}/up
while :; do sleep 3600 & wait; done
"""


def why_not() -> str:
    """What keeps hosts from being made here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in _NEEDED if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    name = f"dcprobe{os.getpid()}"
    probe = f"ip netns add {name} && ip netns exec {name} unshare --uts --mount --pid --fork --mount-proc true"
    done = subprocess.run(["sh", "-c", f"{probe}; code=$?; ip netns del {name}; exit $code"], capture_output=True)
    return f"namespaces do not work here: {done.stderr.decode().strip()}" if done.returncode else ""


class Host:
    """One machine. `env` is that of all its commands."""

    def __init__(self, network: "Network", number: int) -> None:
        self.name = f"host{number}"
        self.ip = f"10.77.0.{number}"
        self.folder = network.folder / self.name
        self.env: dict[str, str] = dict(network.env)
        self._space = f"{network.prefix}-{number}"
        self._switch = network.switch
        self.was_cut_off = False
        self.folder.mkdir()
        run(f"ip netns add {self._space}")
        run(f"ip link add {self.name} netns {self._switch} type veth peer name eth0 netns {self._space}")
        run(f"ip -n {self._switch} link set {self.name} master bridge up")
        run(f"ip -n {self._space} addr add {self.ip}/24 dev eth0")
        run(f"ip -n {self._space} link set eth0 up")
        run(f"ip -n {self._space} route add default dev eth0")  # leads nowhere, but Ray takes its address from it
        cpus = sorted(os.sched_getaffinity(0))
        self.cpu = cpus[number % len(cpus)]
        boot = _BOOT.format(name=self.name, folder=self.folder)
        self._first = subprocess.Popen(
            f"exec setpriv --pdeathsig KILL ip netns exec {self._space} unshare --uts --ipc --mount --pid "
            f"--fork --kill-child --mount-proc bash -c {shlex.quote(boot)}",
            shell=True, env=network.env, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: (self.folder / "up").exists() or self._first.poll() is not None, f"{self.name} to boot")
        assert self._first.poll() is None, f"{self.name} did not boot"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
        self._pid = int(children[0])

    def popen(
        self, command: str, env: Mapping[str, str] | None = None, output: Path | None = None
    ) -> "subprocess.Popen[str]":
        """Start a shell command on this host, in a session of its own; it prints to a pipe, or into `output`."""
        words = ["taskset", "-c", str(self.cpu), "nsenter", f"--target={self._pid}", "--all", f"--wd={os.getcwd()}"]
        with contextlib.ExitStack() as stack:
            to = subprocess.PIPE if output is None else stack.enter_context(output.open("w"))
            return subprocess.Popen(
                # Bash must not make way for the command: nsenter stops with a child that is stopped, and stays so.
                [*words, "bash", "-c", f"{command}\nexit $?"],
                env={**self.env, **(env or {})}, text=True, stdin=subprocess.DEVNULL, start_new_session=True,
                stdout=to, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def run(self, command: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run a shell command on this host; what it printed, stderr included."""
        process = self.popen(command, env)
        said, _ = process.communicate(timeout=600)
        assert not check or process.returncode == 0, f"{self.name}: {command}: {process.returncode}\n{said}"
        return said

    def start_ray(self, head: "Host | None" = None, env: Mapping[str, str] | None = None) -> None:
        """Start Ray's node of this host: the head of a cluster, or one that joins that of `head`."""
        role = f"--head --port={PORT} --include-dashboard=false" if head is None else f"--address={head.ip}:{PORT}"
        log = self.folder / "ray-start.log"  # a file: Ray's processes would hold a pipe open for ever
        command = f"ray start {role} --node-ip-address={self.ip} --num-cpus=1 --object-store-memory=200000000"
        self.run(f"{command} --disable-usage-stats >{log} 2>&1 || {{ cat {log}; false; }}", env=env)

    def stop_ray(self) -> None:
        """Kill all of Ray here, forget it was there, and see that the cable is in."""
        self.plug_in()
        self.was_cut_off = False
        for name in ("raylet", "gcs_server", "python", "ray::"):
            for pid in self.processes(name):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes("raylet") and not self.processes("ray::"), f"{self.name}'s Ray to end")
        self.run("rm -rf /tmp/ray/* /dev/shm/*")

    def processes(self, name: str) -> list[int]:
        """The processes of this host that are called so, by their ids outside."""
        mine = os.readlink(f"/proc/{self._pid}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "comm").read_text().strip().startswith(name) and os.readlink(folder / "ns/pid") == mine:
                    found.append(int(folder.name))
            except OSError:  # it has just ended
                continue
        return found

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """kill -9 what is called so here, or send it another signal."""
        victims = self.processes(name)
        assert victims, f"{self.name}: no {name} to kill"
        for pid in victims:
            os.kill(pid, how)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """What is called so here stands still meanwhile, so that it does not get on with something too soon."""
        self.kill(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.kill(name, signal.SIGCONT)

    def cut_off(self) -> None:
        """Pull the cable."""
        self.was_cut_off = True
        run(f"ip -n {self._switch} link set {self.name} down")

    def plug_in(self) -> None:
        """Put it back."""
        run(f"ip -n {self._switch} link set {self.name} up")

    def close(self) -> None:
        """End all processes of the host and remove its network; what it mounted goes with it."""
        self._first.kill()
        self._first.wait()
        wait_for(lambda: not Path(f"/proc/{self._pid}").exists(), f"{self.name} to end")
        run(f"ip netns del {self._space}")


class Network:
    """A bridge without a way out, and the hosts at it."""

    def __init__(self, folder: Path, n_hosts: int, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.prefix = f"dc{os.getpid()}"
        self.switch = f"{self.prefix}-net"
        path = f"{BIN}:{os.environ.get('PATH', '')}"
        home = pwd.getpwuid(os.getuid()).pw_dir  # where ssh lands, too
        self.env = {"PATH": path, "HOME": home, "USER": self.prefix, "LANG": "C.UTF-8", **env}
        # Where Ray's launcher puts the sockets of its ssh connections: one folder a user, whatever the host.
        self.ssh_sockets = Path(f"/tmp/ray_ssh_{hashlib.sha256(self.prefix.encode()).hexdigest()[:10]}")
        self.hosts: list[Host] = []
        _sweep()
        run(f"ip netns add {self.switch}")
        try:
            run(f"ip -n {self.switch} link add bridge type bridge")
            run(f"ip -n {self.switch} link set bridge up")
            for number in range(1, n_hosts + 1):
                self.hosts.append(Host(self, number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all hosts and remove the bridge."""
        for host in self.hosts:
            host.close()
        run(f"ip netns del {self.switch}")


def _sweep() -> None:
    """Remove what tests that were killed left; their processes ended with them."""
    for space in Path("/run/netns").glob("dc[0-9]*-*"):
        if not Path(f"/proc/{space.name[2:].split('-')[0]}").exists():
            run(f"ip netns del {space.name}")


def run(command: str) -> None:
    """Run a command of this machine."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def wait_for(true: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    """Wait until it is; a failure after some time, for what never comes should not stop all tests."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
