"""Write the output of `make demo` into README.md, as a pipe gets it; wants an idle machine, for its images/s.

python -m scripts.tools.make_readme
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from distcalib.caffe import write_atomically

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
_SAMPLE = re.compile(r"(```\n\$ (distcalib calibrate .*?[^\\])\n)(.*?)(```\n)", re.DOTALL)


def sample(text: str) -> tuple[str, str]:
    """The command of the sample in README.md, and its output there."""
    match = _SAMPLE.search(text)
    assert match is not None, "README.md has a block that begins with $ distcalib calibrate"
    return match[2].replace("\\\n", ""), match[3]


def output(command: str) -> str:
    """What the command prints in a folder of its own that has the examples."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        words = [sys.executable, "-m", "distcalib", *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def main() -> None:
    text = README.read_text(encoding="utf-8")
    told = output(sample(text)[0])
    write_atomically(README, _SAMPLE.sub(lambda match: match[1] + told + match[4], text, count=1))


if __name__ == "__main__":
    main()
