import json
import re
from html.parser import HTMLParser

import pytest

from privlearn.figures import Registry, build, page

#: Elements that have no end tag.
_VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, texts of scripts, and what is visible."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.text, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def parsed(demo_page):
    return Page(demo_page.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_another_host(parsed):
    addresses = [
        value
        for _, attributes in parsed.tags
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses
    assert not [a for a in addresses if re.match(r"\w+:|//", a) and a != "data:,"]
    assert not parsed.all("iframe") + parsed.all("object") + parsed.all("embed")


def test_every_script_is_inline_and_the_library_is_there_once(demo_page, parsed):
    assert all("src" not in attributes for attributes in parsed.all("script"))
    assert [attributes for attributes in parsed.all("link") if attributes["rel"] != "icon"] == []
    html = demo_page.read_text(encoding="utf-8")
    assert html.count("window.vegaEmbed") == 1
    assert "@import" not in html.split("</style>")[0]
    assert "url(" not in html.split("</style>")[0]


def test_the_page_forbids_itself_the_network(parsed):
    (policy,) = (a["content"] for a in parsed.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_hostile_texts_are_shown_and_not_run(parsed, hostile):
    # Parsing alone shows that nothing opened or closed an element that is not ours.
    assert parsed.open == []
    text = "".join(parsed.text)
    for part in ("Title", "Caption", "Source"):
        assert f"{part} {hostile}" in text
    assert len(parsed.all("b")) == 2  # the number of figures, and their profile
    assert not [script for script in parsed.scripts if script.startswith("alert")]
    image = next(a for a in parsed.all("img") if a["src"].startswith("hostile/"))
    assert f"Caption {hostile}" in image["alt"]


def test_specifications_survive_their_escaping(demo_page, parsed, demo):
    found = {
        attributes["id"]: text
        for attributes, text in zip(parsed.all("script"), parsed.scripts, strict=True)
        if "id" in attributes
    }
    for name in demo.names():
        on_disk = json.loads(
            (demo_page.parent / name / f"{name}.vl.json").read_text(encoding="utf-8")
        )
        assert json.loads(found[f"spec-{name}"]) == on_disk
        assert "<" not in found[f"spec-{name}"]


def test_every_link_of_the_page_leads_somewhere(demo_page, parsed):
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = [a["href"] for a in parsed.all("a")] + [a["src"] for a in parsed.all("img")]
    assert len([link for link in links if link.endswith(".parquet")]) == 4
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (demo_page.parent / link).is_file(), (
            link
        )


def test_no_two_elements_share_an_id(parsed):
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_reader_without_scripts_or_eyes_finds_pictures_texts_and_headings(parsed):
    images = parsed.all("img")
    assert len(images) == 4
    assert all(image["alt"] and int(image["width"]) > 100 for image in images)
    headings = [tag for tag, _ in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings == ["h1", "h2", "h3", "h3", "h2", "h3", "h3"]
    assert parsed.all("html")[0]["lang"] == "en"
    assert len(parsed.all("main")) == len(parsed.all("nav")) == 1


def test_settings_seed_and_versions_are_stated(parsed):
    text = " ".join(" ".join(parsed.text).split())
    assert "n 8 seed 0 made with python 3." in text
    assert "privlearn figures curves --profile quick" in text


def test_the_same_records_give_the_same_page(demo_page, demo):
    before = demo_page.read_bytes()
    assert page.write(demo_page.parent, demo).read_bytes() == before


def test_a_page_without_figures_says_so(tmp_path):
    html = build(figures=Registry(), out=tmp_path, progress=False).page.read_text(encoding="utf-8")
    assert "No figures yet" in html


def test_sixty_figures_grow_the_page_by_their_own_data_only(tmp_path, make_figure):
    import dataclasses

    from privlearn.figures import export

    figures = Registry([make_figure(f"f-{i:02}", topic=f"t{i % 9}") for i in range(60)])
    build(["f-00"], figures=figures, out=tmp_path, progress=False)
    one = (tmp_path / "index.html").stat().st_size
    spec = (tmp_path / "f-00" / "f-00.vl.json").stat().st_size
    record = export.read_record(tmp_path / "f-00")
    for figure in list(figures)[1:]:  # copies, as drawing sixty figures would take a minute
        with export.replacing(tmp_path / figure.name) as folder:
            for name, _ in record.files.values():
                (folder / name).write_bytes((tmp_path / "f-00" / name).read_bytes())
            export.write_record(
                dataclasses.replace(record, name=figure.name, topic=figure.topic), folder
            )
    html = page.write(tmp_path, figures).read_text(encoding="utf-8")
    parsed = Page(html)
    assert len([a for a in parsed.all("div") if a.get("class") == "chart"]) == 60
    assert html.count("window.vegaEmbed") == 1
    assert len(html.encode()) < one + 59 * (1.5 * spec + 8000)
