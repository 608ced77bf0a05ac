"""Every command and every snippet of Python in the docs is one that the program takes; what the examples suffice for is
run as it stands."""

import argparse
import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import distcalib
from distcalib.cli.exit_codes import OK
from distcalib.cli.main import main, make_parser, parsed
from distcalib.errors import DistcalibError
from scripts.tools.make_readme import output, sample
from tests.doc_commands import PAGES, ROOT, commands, inline, pythons

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
# What a page needs beside the examples: caffemodels of others, a cluster, Intel Caffe.
NOT_RUN = {
    "cluster/README.md",
    "docs/calibrator.md",
    "docs/decisions",
    "docs/forks.md",
    "docs/intel-caffe-engine.md",
    "docs/isa.md",
    "docs/plugins.md",
    "docs/recover.md",
}
RUN = [
    page
    for page, name in zip(PAGES, IDS, strict=True)
    if name not in NOT_RUN and not name.startswith("docs/decisions") and [*commands(page.read_text(encoding="utf-8"))]
]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_parser_takes_every_command(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTCALIB_LARGEST_MB", "1024")  # a flag sets it
    for words in commands(page.read_text(encoding="utf-8")):
        given = ["-m", "net.prototxt", "-w", "net.caffemodel"] if "..." in words else []
        asked = [*(word for word in words[1:] if word != "..."), *given]
        try:
            parsed(make_parser(), asked)
        except DistcalibError as error:
            pytest.fail(f"{' '.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_parser_has_every_flag_that_a_sentence_names(page: Path) -> None:
    [parsers] = [one.choices for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    for words in inline(page.read_text(encoding="utf-8")):
        if words[1] == "COMMAND":
            continue
        assert words[1] in parsers, " ".join(words)
        flags = [word.partition("=")[0] for word in words[2:] if re.match(r"--?[A-Za-z0-9]", word)]
        known = parsers[words[1]]._option_string_actions
        assert [flag for flag in flags if flag not in known] == [], " ".join(words)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_names_what_there_is(page: Path) -> None:
    """It compiles; what it takes from distcalib is public; options have the fields that are given."""
    text = page.read_text(encoding="utf-8")
    for source in (*pythons(text), *re.findall(r"^distcalib\.\w+\(.*\)$", text, re.MULTILINE)):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distcalib":
                assert node.attr in distcalib.__all__, node.attr
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("distcalib."):
                signature = inspect.signature(getattr(distcalib, ast.unparse(node.func).split(".")[1]))
                given = {keyword.arg for keyword in node.keywords}
                assert given <= set(signature.parameters), ast.unparse(node)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader would stand: the examples, and nets of his own under the names of the docs."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, example in (("net", "digits"), ("ssd", "digit_scenes")):
        for ending in ("prototxt", "caffemodel"):
            shutil.copy(ROOT / "examples" / example / f"{example}.{ending}", tmp_path / f"{name}.{ending}")
        shutil.copytree(ROOT / "examples" / example / f"{example}_test_lmdb", tmp_path / f"{example}_test_lmdb")
    shutil.copy(ROOT / "examples" / "digit_scenes" / "labelmap.prototxt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_run_one_after_the_other(page: Path, folder: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        if "..." in words or "--address" in words:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "distcalib", *words[1:]], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "api.md"], ids=["README", "api"])
def test_python_of_a_page_runs(page: Path, folder: Path) -> None:
    for source in pythons(page.read_text(encoding="utf-8")):
        done = subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Tolerance 0.01 met" in done.stdout


def kinds(text: str) -> set[str]:
    """The lines with what differs from run to run taken out: numbers, and which candidates a round had."""
    found = set()
    for line in text.splitlines():
        line = re.sub(r"^\d+ layers? in FP32: .*?: ", "N layers in FP32: ", line)
        line = re.sub(r"\bcandidates?\b", "candidate", line)
        line = re.sub(r", about [\d.]+", "", line)
        line = re.sub(r", \d+ \w+ left$", "", line)
        line = line if "Tolerance" in line or line.startswith("FP32: ") else re.sub(r"\d+(?:[.,]\d+)*", "N", line)
        found.add(line.strip())
    return found


def test_the_sample_of_init_is_what_it_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    [told] = re.findall(r"^\$ distcalib init net.prototxt\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (folder / "ssd.caffemodel").unlink()
    assert main(["init", "net.prototxt"]) == OK
    assert capsys.readouterr().out == told


@pytest.mark.slow
def test_the_sample_of_the_readme_is_what_make_demo_prints() -> None:
    command, told = sample((ROOT / "README.md").read_text(encoding="utf-8"))
    [demo] = re.findall(r"^DEMO := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    demo = demo.replace("$(DIGITS)", "examples/digits").replace("$(BUILD)", "build")
    assert command.split() == ["distcalib", "calibrate", *demo.split()]
    assert kinds(output(command)) == kinds(told)


def test_kinds_are_the_lines_less_what_differs() -> None:
    assert kinds("round 1, 2 candidates: 36/36 iterations, 14,340 images/s") == {
        "round N, N candidate: N/N iterations, N images/s"
    }
    assert kinds("FP32: accuracy = 0.99") != kinds("FP32: accuracy = 0.98")
    one, two = "1 layer in FP32: a: loses too much (after 17% of the data)", "no layer in FP32: meets the tolerance"
    assert kinds(one) != kinds(two)
