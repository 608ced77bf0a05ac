"""In a process of its own each time: pinning the test runner would slow down everything after it."""

import os
import subprocess
import sys
from pathlib import Path

from distcalib.actors.affinity import pinned_by_others

ALLOWED = "import os, threading; cpu = min(os.sched_getaffinity(0)); "


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", ALLOWED + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pin_process_pins_threads_old_and_new() -> None:
    assert (
        run("""
from distcalib.actors.affinity import pin_process, stray_threads
stop = threading.Event()
for _ in range(3):
    threading.Thread(target=stop.wait).start()
pin_process([cpu])
threading.Thread(target=stop.wait).start()
print({tuple(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")} == {(cpu,)}, stray_threads([cpu]))
stop.set()
""")
        == "True ()"
    )


def test_pin_process_says_what_the_kernel_refuses() -> None:
    assert run("""
from distcalib.errors import MeasureError
from distcalib.actors.affinity import pin_process
try:
    pin_process([1023])
except MeasureError as error:
    print(error)
""").startswith("pinning: the kernel refuses CPUs 1023 (")


def test_pin_process_does_not_believe_a_kernel_that_only_says_yes() -> None:
    assert "thread(s) run outside CPUs 1023 although" in run("""
from distcalib.errors import MeasureError
from distcalib.actors.affinity import pin_process
os.sched_setaffinity = lambda thread, cpus: None
try:
    pin_process([1023])
except MeasureError as error:
    print(error)
""")


def test_stray_threads_names_those_elsewhere() -> None:
    assert (
        run("""
from distcalib.actors.affinity import stray_threads
print(threading.get_native_id() in stray_threads([1023]))
""")
        == "True"
    )


def test_take_parents_priority_undoes_what_ray_adds() -> None:
    """As far as the kernel lets a process: without CAP_SYS_NICE nothing changes."""
    assert (
        run("""
from distcalib.actors.affinity import take_parents_priority
parent = os.getpriority(os.PRIO_PROCESS, os.getppid())
threading.Thread(target=(stop := threading.Event()).wait).start()
os.nice(3)
nicer = os.nice(0)
take_parents_priority()
print(os.nice(0) in (parent, nicer), os.nice(0) == (parent if os.geteuid() == 0 else os.nice(0)))
stop.set()
""")
        == "True True"
    )


def test_pinned_by_others_finds_actors_that_are_pinned_in_this_network(tmp_path: Path) -> None:
    mine = sorted(os.sched_getaffinity(0))
    everything = ",".join(map(str, mine))
    processes = {
        "10": ("ray::ActorProce", str(mine[0]), "net:[1]"),
        "11": ("ray::ActorProce", everything, "net:[1]"),  # not pinned yet
        "12": ("python", str(mine[-1]), "net:[1]"),
        "13": ("ray::ActorProce", str(mine[-1]), "net:[2]"),  # a container of its own
    }
    for pid, (comm, cpus, network) in {"self": ("python", everything, "net:[1]"), **processes}.items():
        folder = tmp_path / "proc" / pid
        (folder / "ns").mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "status").write_text(f"Name:\t{comm}\nCpus_allowed_list:\t{cpus}\n")
        (folder / "ns" / "net").symlink_to(network)
    assert pinned_by_others(tmp_path) == ((mine[0],) if len(mine) > 1 else ())
