"""Parts of a page: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ssm_core.specs import Picture
from ssm_core.train.report.style import STYLE

#: what the page can hold, and its media type
IMAGES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
#: matplotlib's pictures have 160 pixels per inch, a browser's inch has 96
PIXELS_PER_PIXEL = 96 / 160
#: keeps the promise that nothing is loaded or run, whatever a name or a picture holds
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; `title` is escaped, the parts of `body` are HTML and empty ones left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def table(label: str, header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself; the cells of `rows` are HTML."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class=table role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def warnings(texts: Iterable[str]) -> str:
    """A paragraph that stands out for each text."""
    return "".join(f"<p class=warning>{escape(text)}</p>" for text in texts)


def pictures(shown: Sequence[Picture], about: str) -> str:
    """Figures with captions; `about` completes the words for those who cannot see them."""
    figures = "\n".join(_figure(picture, about) for picture in shown)
    return f"<div class=pictures>\n{figures}\n</div>" if figures else ""


def _figure(picture: Picture, about: str) -> str:
    title = picture.title or picture.path.stem
    caption = f"<figcaption>{escape(picture.text)}</figcaption>" if picture.text else ""
    return (
        f"<figure><h3>{escape(title)}</h3>{_image(picture.path, f'{title}: {about}')}"
        f"{caption}</figure>"
    )


def _image(path: Path, alt: str) -> str:
    """The file inside the page; of what is no picture only the name."""
    kind = IMAGES.get(path.suffix.lower())
    if kind is None:
        return f"<p>{escape(path.name)}</p>"
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"<p class=warning>{escape(f'{path}: {error.strerror}')}</p>"
    code = base64.b64encode(content).decode("ascii")
    return f'<img src="data:{kind};base64,{code}" alt="{escape(alt)}"{_width(content)}>'


def _width(content: bytes) -> str:
    """The width to show a PNG with; other pictures have their own."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 24:
        return ""
    width = struct.unpack(">I", content[16:20])[0]
    return f' width="{round(width * PIXELS_PER_PIXEL)}"'
