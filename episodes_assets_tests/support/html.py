"""A page as a test reads it: its elements with their texts, and whether it is well-formed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Element:
    """An element, its attributes, and what is in it."""

    tag: str
    attributes: dict[str, str | None]
    children: list["Element"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, white space folded."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """The elements in it of a kind with these attributes."""
        return [
            each
            for each in self.walk()
            if each.tag == tag and all(each.attributes.get(key) == value for key, value in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> "Element":
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    def walk(self) -> Iterator["Element"]:
        """Everything in it."""
        for child in self.children:
            yield child
            yield from child.walk()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self.stack:
            element.texts.append(data)


def read(text: str) -> Element:
    """A page or a part of one.

    Raises:
        AssertionError: If an element is not closed, or an id stands twice.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    (root,) = reader.stack
    ids = [each.attributes["id"] for each in root.walk() if "id" in each.attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    return root


def breaks_the_policy(page: Element) -> list[str]:
    """What the strict Content-Security-Policy would not let run: inline scripts, styles and handlers."""
    return [
        each.tag
        for each in page.walk()
        if each.tag == "style"
        or (each.tag == "script" and ("src" not in each.attributes or each.text))
        or any(name == "style" or name.startswith("on") for name in each.attributes)
    ]
