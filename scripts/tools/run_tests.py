"""Run the tests in two processes side by side, which fill two cores; `make test` does.

    python -m scripts.tools.run_tests [ARGUMENTS OF PYTEST]

Half of the time goes into a few folders whose tests start actors: they are one part, all else is the other. A process
each, not pytest-xdist: some tests raise signals in their own process, and its workers do not survive that. What the
second part prints follows what the first does. The exit code is 0 if both passed, else 1; Ctrl-C ends both.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

WITH_ACTORS = ("tests/calibration", "tests/session")
PARTS = (WITH_ACTORS, ("tests", *(f"--ignore={folder}" for folder in WITH_ACTORS), "-p", "no:cacheprovider"))
"""What each process is given beside the arguments; one alone keeps the cache of the last failures."""


def run(arguments: Sequence[str], parts: Sequence[Sequence[str]] = PARTS) -> int:
    """Run the parts; returns the exit code."""
    begin = time.perf_counter()
    first, second = ([sys.executable, "-m", "pytest", *arguments, *part] for part in parts)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        processes = [subprocess.Popen(second, stdout=output, stderr=subprocess.STDOUT), subprocess.Popen(first)]
        try:
            codes = [process.wait() for process in reversed(processes)]
        except KeyboardInterrupt:
            for process in processes:  # the terminal has interrupted them, too
                process.wait()
            return 130
        output.seek(0)
        for line in output:
            sys.stdout.write(line)
    passed = codes == [0, 0]
    ended = "" if passed else f" (exit codes {codes[0]} and {codes[1]})"
    print(f"tests {'passed' if passed else 'FAILED'} in two processes, {time.perf_counter() - begin:.0f} s{ended}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
