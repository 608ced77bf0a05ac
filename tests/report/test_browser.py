"""report.html in Chromium, where it is installed: nothing is run or fetched, and nothing sticks out."""

import html
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.report import CalibrationReport, page
from tests.report.test_page import LOST, OPENED, RAN, TIMED, report_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
OWNED = "document.title='owned'"
ATTACKS = {
    "element": f'</p></td></pre></style></svg><script>{OWNED}</script><img src=x onerror="{OWNED}">',
    "attribute": f"x\" onload=\"{OWNED}\" onerror='{OWNED}' autofocus onfocus={OWNED} '",
    "picture": f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload=\"{OWNED}\"/>",
    "template": "{{ ''.__class__ }}{% include 'page.html' %}",
}
ALL = replace(LOST, phases=RAN.phases, actor_spans=RAN.actor_spans, layer_details=OPENED.layer_details)
ALL = replace(ALL, core_images_per_second=TIMED.core_images_per_second)


def dom_of(text: str, folder: Path) -> str:
    """The document that Chromium has made of the page `text` once its scripts have run."""
    assert CHROMIUM is not None
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", file.as_uri()]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(folder)}
    )
    return found.stdout


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_hostile_name_is_shown_and_nothing_more(attack: str, tmp_path: Path) -> None:
    made = page(report_of(attack))
    # Without the policy, too: it is the second line of defence.
    dom = dom_of(POLICY.sub("", made), tmp_path)
    assert "<title>owned" not in dom
    assert not re.search(r"<(script|iframe|object|embed|link|base|form)\b", dom)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r"=\"[^\"]*\"", '=""', dom))
    assert "<img" not in dom
    shown = html.unescape(re.sub(r"<[^>]*>", "", dom))
    assert shown.count(attack) >= 30


def test_the_policy_lets_no_script_run_and_shows_pictures(tmp_path: Path) -> None:
    script = f"<script>{OWNED}</script>"
    made = page(LOST).replace("</body>", f"{script}</body>")
    assert "<title>owned" not in dom_of(made, tmp_path)
    assert "<title>owned" in dom_of(POLICY.sub("", made), tmp_path)  # else the test shows nothing


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("report", [ALL, report_of("a_long_name_without_a_blank_" * 8)], ids=["usual", "long"])
def test_a_page_fits_the_width_of_a_screen(report: CalibrationReport, width: int, tmp_path: Path) -> None:
    made = html.escape(POLICY.sub("", page(report)).replace("<details>", "<details open>"))
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{made}"></iframe>'
    script = "onload = () => { document.title = frames[0].document.documentElement.scrollWidth }"
    dom = dom_of(f"<!DOCTYPE html><html><body>{frame}<script>{script}</script></body></html>", tmp_path)
    found = re.search(r"<title>(\d+)</title>", dom)
    assert found is not None
    assert int(found[1]) <= width
