"""What a person would read on a page or in a PDF: a program of its own, with little memory and no keys.

`python -m fusiontools.tools.page_text` reads jobs on stdin, each a line of JSON (`kind`, `url`, `charset`, `size`) and
so many bytes, and answers each with a line of JSON (`title`, `date`, `text`, or `failed`). A document that is too much
for it ends it; whoever asks starts another.
"""

from __future__ import annotations

import io
import json
import re
import resource
import sys
from typing import Any

_MEMORY_BYTES = 1 << 30
_CPU_S = 120
_MOST_CHARS = 2_000_000
#: How inline styles hide what a page wants read by machines only.
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:font-size|opacity)\s*:\s*0(?:\.0*)?(?![.\d])"
    r"|(?:left|top|text-indent)\s*:\s*-\d{3,}",
    re.IGNORECASE,
)
_NEVER_READ = {"template", "noscript", "script", "style", "svg", "iframe", "object"}
_SAID_CHARSET = re.compile(rb"<meta[^>]{1,200}charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
#: What XML says of its bytes is wrong of text.
_DECLARATION = re.compile(r"^\s*<\?xml[^>]{0,200}\?>")
#: Extracted Markdown protects its signs; whoever quotes it wants them as they were.
_PROTECTED = re.compile(r"\\([\\`*_{}\[\]<>()#+.!|~-])")


def read_html(data: bytes, url: str, charset: str) -> dict[str, Any]:
    """Return title, date and text of a page: the main part as Markdown, else all that its body says.

    `head_title` is what stands in its head, which for a gatekeeper's page is often not what it shows.
    """
    import trafilatura
    from lxml.etree import ParserError
    from lxml.html import document_fromstring

    try:
        tree = document_fromstring(_decoded(data, charset))
    except ParserError:  # nothing is in it
        return {"text": ""}
    _drop_hidden(tree)
    text = trafilatura.extract(tree, url=url, output_format="markdown", include_links=True, include_comments=False)
    meta = trafilatura.extract_metadata(tree, default_url=url)
    head_title = " ".join((tree.findtext(".//title") or "").split())
    return {
        "title": (meta and meta.title) or head_title,
        "head_title": head_title,
        "date": (meta and meta.date) or "",
        "text": _unprotected(text) if text else _words_of(tree),
    }


def read_pdf(data: bytes) -> dict[str, Any]:
    """Return title and text of a PDF, page by page."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        parts, size = [], 0
        for number, page in enumerate(reader.pages, start=1):
            parts.append(f"[page {number}]\n{page.extract_text()}")
            size += len(parts[-1])
            if size > _MOST_CHARS:
                break
        title = reader.metadata.title if reader.metadata else None
        return {"title": str(title or ""), "text": "\n\n".join(parts)}
    except PyPdfError as error:
        return {"failed": f"the PDF cannot be read: {error}"}


def _decoded(data: bytes, charset: str) -> str:
    """Return the page as text, read as its header says, else as UTF-8, as it says itself, or as old pages are."""
    said = _SAID_CHARSET.search(data[:4096])
    for encoding in (charset, "utf-8-sig", said[1].decode("ascii") if said else ""):
        try:
            return _DECLARATION.sub("", data.decode(encoding))
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("cp1252", "replace")


def _words_of(tree: Any) -> str:
    body = tree.find("body")
    return "" if body is None else "\n".join(" ".join(text.split()) for text in body.itertext() if text.strip())


def _drop_hidden(tree: Any) -> None:
    hidden = [element for element in tree.iter() if _is_hidden(element)]
    for element in hidden:
        if element.getparent() is not None:
            element.drop_tree()


def _is_hidden(element: Any) -> bool:
    if not isinstance(element.tag, str):
        return True  # a comment
    if element.tag in _NEVER_READ:
        # What describes the page in a form for programs stays: dates come from there.
        return str(element.get("type")) != "application/ld+json"
    said = element.attrib
    if "hidden" in said or said.get("aria-hidden") == "true":
        return True
    return bool(_HIDING.search(said.get("style", "")))


def _unprotected(markdown: str) -> str:
    lines, in_code = [], False
    for line in markdown.split("\n"):
        if line.startswith("```"):
            in_code = not in_code
        lines.append(line if in_code else _PROTECTED.sub(r"\1", line))
    return "\n".join(lines)


def main() -> None:
    """Do the jobs that come, until there are no more."""
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        data = sys.stdin.buffer.read(job["size"])
        read = read_pdf(data) if job["kind"] == "pdf" else read_html(data, job["url"], job["charset"])
        read["text"] = read.get("text", "")[:_MOST_CHARS]
        sys.stdout.buffer.write(json.dumps(read).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
