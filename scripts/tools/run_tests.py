"""Run the tests in processes side by side, which fill two cores; `make test` does.

    python -m scripts.tools.run_tests [ARGUMENTS OF PYTEST]

The parts take about the same time: one has the tests that start Rays and wait for them, another most of those that
compile nets, and all else is the third. Processes, not pytest-xdist: some tests raise signals in their own process, and
its workers do not survive that. What the other parts print follows what the first does. The exit code is 0 if all
passed, else 1; Ctrl-C ends all.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack

FOLDERS = (("tests/session", "tests/actors", "tests/cli"), ("tests/calibration", "tests/engine"))
_NO_CACHE = ("-p", "no:cacheprovider")
"""One alone keeps the cache of the last failures."""
PARTS = (
    FOLDERS[0],
    (*FOLDERS[1], *_NO_CACHE),
    ("tests", *(f"--ignore={folder}" for part in FOLDERS for folder in part), *_NO_CACHE),
)
"""What each process is given beside the arguments."""


def run(arguments: Sequence[str], parts: Sequence[Sequence[str]] = PARTS) -> int:
    """Run the parts; returns the exit code."""
    begin = time.perf_counter()
    first, *others = ([sys.executable, "-m", "pytest", *arguments, *part] for part in parts)
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in others]
        started = [
            subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            for command, output in zip(others, outputs, strict=True)
        ]
        processes = [subprocess.Popen(first), *started]
        try:
            codes = [process.wait() for process in processes]
        except KeyboardInterrupt:
            for process in processes:  # the terminal has interrupted them, too
                process.wait()
            return 130
        for output in outputs:
            output.seek(0)
            sys.stdout.writelines(output)
    passed = not any(codes)
    ended = "" if passed else f" (exit codes {', '.join(map(str, codes))})"
    word, seconds = "passed" if passed else "FAILED", time.perf_counter() - begin
    print(f"tests {word} in {len(codes)} processes, {seconds:.0f} s{ended}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
