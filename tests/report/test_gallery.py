"""The gallery page: every text escaped, every link relative, pictures in place."""

from html.parser import HTMLParser

from pipeline.report.gallery import ClassRow, Gallery, GallerySample, Picture, write_gallery


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]


def test_page(tmp_path) -> None:
    picture = Picture("image", "pictures/0.png", "../sequences/00/image_2/000000.png", 64, 32)
    gallery = Gallery(
        title="<script>alert(1)</script>",
        subtitle="six samples & no more",
        facts=[("seed", "0")],
        class_note="shares",
        class_heads=["here", "real"],
        class_rows=[ClassRow("car", (100, 150, 245), ("1 %", "2 %"))],
        sample_note="the first ones",
        samples=[GallerySample("00/000000", (picture,), ())],
    )
    write_gallery(tmp_path / "index.html", gallery)
    text = (tmp_path / "index.html").read_text()
    page = Links()
    page.feed(text)
    assert "script" not in page.tags
    assert "six samples &amp; no more" in text
    assert page.alts == ["image of 00/000000"]
    assert {"pictures/0.png", "../sequences/00/image_2/000000.png"} <= set(page.links)
    assert not [link for link in page.links if "//" in link]
