"""MkDocs hooks: pages that lie outside docs/ are part of the site, and links to sources are plain names.

cluster/README.md becomes cluster.md, README.md the start page.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
_OUTSIDE = {"../cluster/README.md": "cluster.md", "../README.md": "index.md"}
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("](docs/", "](").replace("](cluster/README.md", "](cluster.md")
    readme = re.sub(r"\[([^\]]*)\]\(CONTRIBUTING\.md\)", r"\1", readme)
    cluster = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8").replace("](../docs/", "](")
    for name, text in (("index.md", readme), ("cluster.md", cluster)):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that lead out of docs/: to a page of the site where it has one, else no link."""

    def linked(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        return f"[{text}]({_OUTSIDE[path]}{anchor})" if path in _OUTSIDE else text

    depth = page.file.src_uri.count("/")
    if depth:
        return markdown.replace("](../../cluster/README.md", "](../cluster.md")
    return _LINK.sub(linked, markdown)
