"""One cause behind many findings: what a text is instead of a prototxt, or what was done to all of it.

lint.py names each place that is wrong. Where a solver was given, an editor put typographic quotes, or the old `layers`
has types of the new `layer`, that is dozens of findings, none of which says what happened."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distcalib.caffe.control import stray_characters
from distcalib.caffe.lint import NEW_TYPE, OLD_TYPE, Finding, tokens

_LAYER = re.compile(r"(?m)^\s*layers?\s*[:{]")
_SOLVER = re.compile(
    r"(?m)^[^#\"'\n]*?\b(net|train_net|test_net|net_param|train_net_param|base_lr|lr_policy|max_iter|iter_size|test_iter|"
    r"test_interval|momentum|weight_decay|stepsize|solver_mode|solver_type|snapshot|snapshot_prefix)\s*[:{]"
)
"""Fields of a SolverParameter that no net has."""
_ITS_NET = re.compile(r"""(?m)^[^#"'\n]*?\b(?:net|train_net|test_net)\s*:\s*["']([^"'\n]+)""")
_DARKNET = re.compile(r"\A(?:\s|[#;][^\n]*\n)*\[\s*(net|network|convolutional)\s*\]")
_C_COMMENT = re.compile(r"(?m)^[^\"'#\n]*?(//|/\*)")
_ITEM = re.compile(r"(?m)^\s*item\s*\{")
_NESTED = re.compile(r"unknown field 'layers?' in ")
_HALF = re.compile(r"'\d[\w.]*' where the name of a field is expected")
_STRAY = re.compile(r"'([{}<>])' where the name of a field is expected")


def one_cause(text: str, findings: Sequence[Finding]) -> str | None:
    """The cause of all findings, as a sentence without the file's name; None where there is none to be seen."""
    if _DARKNET.match(text):
        return "is a Darknet file, not a prototxt; convert it to Caffe, and give the prototxt"
    if text.lstrip().startswith(("{", "[")):
        return "is JSON, not a prototxt; give the prototxt of the net"
    if not _LAYER.search(text):
        if _SOLVER.search(text):
            net = _ITS_NET.search(text)
            return f"is a solver, not a net; give the net that it names{f': {net[1]}' if net else ''}"
        if _ITEM.search(text):
            return "is a label map, not a net; give the prototxt of the net"
    if comments := _C_COMMENT.search(text):
        line = text.count("\n", 0, comments.start(1)) + 1
        if any(finding.line == line for finding in findings):
            return f"line {line}: a comment begins with #, not with {comments[1]}"
    if strange := stray_characters(text) or _decimal_commas(text, findings):
        return strange
    nested = [finding.line for finding in findings if _NESTED.match(finding.text)]
    if nested and min(finding.line for finding in findings) == nested[0]:
        return f"line {nested[0]}: a layer begins inside another message; a '}}' is missing before it"
    first = min(findings, key=lambda finding: finding.line, default=None)
    if first is not None and findings[1:] and (stray := _STRAY.match(first.text)):
        return f"line {first.line}: '{stray[1]}' is one too many, or one is missing before it; make the braces match"
    for advice, fault in (
        (NEW_TYPE, "`layers` with types of the new format, in quotes; write `layer` in place of `layers`"),
        (OLD_TYPE, "`layer` with types of the old format, without quotes; write `layers` in place of `layer`"),
    ):
        of_it = [finding.line for finding in findings if advice in finding.text]
        if len(of_it) > 1:
            return f"line {of_it[0]} and {len(of_it) - 1} more: {fault}"
    return None


def _decimal_commas(text: str, findings: Sequence[Finding]) -> str | None:
    """What is said of numbers such as 0,01, of which lint.py finds the second half."""
    halves = {finding.line for finding in findings if _HALF.match(finding.text)}
    found: list[tuple[int, str]] = []
    last = list(tokens(text)) if halves else []
    for whole, comma, part in zip(last, last[1:], last[2:], strict=False):
        kinds = (whole.kind, comma.text, part.kind)
        if kinds == ("number", ",", "number") and whole.line == part.line and part.line in halves:
            found.append((part.line, f"{whole.text},{part.text}"))
    if not found:
        return None
    lines = dict.fromkeys(line for line, _ in found)
    more = f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else ""
    line, number = found[0]
    return f"line {line}{more} has a comma in a number, {number}; write {number.replace(',', '.')}"
