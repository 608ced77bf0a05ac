"""A build of Intel Caffe, and `caffe test` as a child process.

A child is begun by a small Python process that becomes it: the kernel is to kill the child with its actor, which is
killed itself on Ctrl-C, and only the child can ask for that (PR_SET_PDEATHSIG). `preexec_fn` would do it in a fork of
the actor, whose dozens of threads may hold locks then."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from distcalib.errors import OptionError

# Arguments: the parent's id, then the command. Python ignores SIGPIPE, and what is ignored stays so; no core dumps.
_BECOME = """
import ctypes, os, resource, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
parent, *command = sys.argv[1:]
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""

# How long a build may take to tell its version: a library on a slow network share is loaded in that time.
_START_SECONDS = 60.0
# What a shell and ld.so end with where a program cannot begin.
_OF_THE_LOADER = (126, 127)
# What would hide or change the log, or move threads to other cores than the actor's, to which the child is bound.
_DROPPED = ("GLOG_", "GOOGLE_LOG", "GOOGLE_ALSOLOG", "OMP_", "KMP_AFFINITY", "KMP_HW_SUBSET", "GOMP_CPU_AFFINITY")


def find_caffe(root: Path) -> Path:
    """ROOT/tools/caffe.  Raises OptionError unless it is there and can be run."""
    executable = Path("tools", "caffe")
    path = (root / executable).absolute()
    if not path.is_file():
        if (root / "build" / executable).is_file():
            raise OptionError(f"-r {root}: has no {executable}, but its folder build has; give -r {root / 'build'}")
        raise OptionError(f"-r {root}: has no {executable}; give the build folder of Intel Caffe")
    if not os.access(path, os.X_OK):
        raise OptionError(f"-r {root}: {executable} is not executable; build Caffe again, or give another build folder")
    return path


def check_caffe(root: Path, executable: Path) -> None:
    """Start it once, for its version.  Raises OptionError where it does not come that far: a shared library is missing,
    or it is for another CPU.

    What it says is not looked at, nor a code of its own: a build need not know --version.
    """
    try:
        ended = subprocess.run(
            [str(executable), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_START_SECONDS,
            check=False,
        )
    except OSError as error:
        reason = f"cannot be started ({error.strerror})"
    except subprocess.TimeoutExpired:
        reason = f"did not tell its version within {_START_SECONDS:g} s"
    else:
        if ended.returncode >= 0 and ended.returncode not in _OF_THE_LOADER:
            return
        said = [line.strip().removeprefix(f"{executable}: ") for line in ended.stderr.splitlines() if line.strip()]
        reason = describe_exit(ended.returncode) + "".join(f" ({line})" for line in said[-1:])
    raise OptionError(
        f"-r {root}: tools/caffe {reason}; install what it lacks, name the folder of its libraries in LD_LIBRARY_PATH, "
        "or give a build for this machine"
    )


def caffe_version(executable: Path) -> str:
    """What tells one build from another: the first 12 digits of the SHA-256 of the file and of libcaffe, where there is
    one: in lib of the build folder, as make and CMake have it, or on LD_LIBRARY_PATH.

    Which of several the loader takes is not known without running it, so all count.
    """
    root = executable.parent.parent
    listed = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    libraries = (file.resolve() for folder in (root / "lib", *listed) for file in sorted(folder.glob("libcaffe.so*")))
    digest = hashlib.sha256()
    for path in dict.fromkeys([executable, *filter(Path.is_file, libraries)]):  # a library has several names
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def run_caffe(
    executable: Path,
    model: Path,
    weights: Path,
    n_iterations: int,
    n_threads: int,
    feed: Callable[[str], None],
    detection: bool = False,
) -> int:
    """`caffe test` in the folder of `model`, its log to `feed` line by line; the exit code, or minus a signal.

    `detection`: it prints mAP.  OSError if no process can be started.
    """
    command = [str(executable), "test", "-model", str(model), "-weights", str(weights)]
    command += ["-iterations", str(n_iterations), "-engine", "MKLDNN"]
    if detection:
        command.append("-detection")
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command],
        cwd=model.parent,
        env=_environment(os.environ, n_threads, model.parent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    with child:
        try:
            assert child.stderr is not None
            for line in child.stderr:
                feed(line)
            return child.wait()
        except BaseException:
            child.kill()
            raise


def describe_exit(code: int) -> str:
    """An exit code of run_caffe in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _environment(inherited: Mapping[str, str], n_threads: int, folder: Path) -> dict[str, str]:
    """With OMP_NUM_THREADS set Intel Caffe leaves its threads where they are, on the cores of the actor."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_DROPPED)}
    return {
        **kept,
        "OMP_NUM_THREADS": str(n_threads),
        "GLOG_logtostderr": "1",  # and into no files, which would pile up in /tmp
        "GLOG_log_dir": str(folder),
        "GLOG_minloglevel": "0",
        "GLOG_log_prefix": "1",
    }
