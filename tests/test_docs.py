"""The docs say what the code does: made pages are as the code makes them, links lead somewhere."""

import re
from pathlib import Path

import pytest

import distcalib
from scripts.tools.make_flags import FILE, page

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").glob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(file: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_page_of_flags_is_that_of_the_parsers() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "python -m scripts.tools.make_flags"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for path, anchor in _LINK.findall(text):
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{path}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path}#{anchor}"


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in distcalib.__all__ if name != "__version__" and not re.search(rf"\.{name}$", text, re.M)]
    assert missing == []


def test_every_page_of_the_docs_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [file.name for file in (ROOT / "docs").glob("*.md") if file.name not in menu] == []
