"""Read a page as a browser would, as far as the tests need it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}
#: attributes that make a browser fetch something
FETCHED = {"src", "href", "data", "poster", "srcset", "action", "background"}


class Page(HTMLParser):
    """The elements of a page; fails on tags that are not closed in order.

    Attributes:
        elements: (tag, attributes) in order.
        text: everything between the tags but style.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such element."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def references(self) -> list[str]:
        """What a browser would fetch or follow, apart from places in the page itself."""
        found = [
            value or ""
            for _, attributes in self.elements
            for name, value in attributes.items()
            if name in FETCHED
        ]
        return [value for value in found if not value.startswith(("data:", "#"))]
