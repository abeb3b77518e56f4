"""Pages as tests read them, and words that would do harm in one."""

from html.parser import HTMLParser

HOSTILE = """<script>document.title='in'</script><img src=x onerror="document.title='in'">&'"ü→"""
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Parsed(HTMLParser):
    """Elements of a page, and that each that is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
