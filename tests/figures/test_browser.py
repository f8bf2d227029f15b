"""The page as a reader has it: opened from a file, in a real browser, with its scripts run."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

_BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        _BROWSER is None,
        reason="no browser: to run this test, install Chromium from your distribution "
        "(apt-get install chromium) so that chromium, chromium-browser or google-chrome is on PATH",
    ),
]
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=30000",
    "--dump-dom",
)

#: How many marks each chart of the demonstration has: lines, bars, dots, bands, cells, labels.
_MARKS = {"spec-curves": 3 + 24 + 24 + 2, "spec-facets": 3, "spec-band": 2, "spec-hostile": 24}

#: Clicks the first legend entry and hovers over the first dot, once all charts are drawn.
_READER = """<script>
const wait = setInterval(() => {
  if (document.documentElement.dataset.drawn !== "true") return;
  clearInterval(wait);
  const chart = document.querySelector('[data-spec="spec-curves"]');
  const opacities = () => [...chart.querySelectorAll(".mark-line.role-mark path")]
    .map((path) => getComputedStyle(path).opacity).join(" ");
  const act = (target, type) => {
    const box = target.getBoundingClientRect();
    const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
    target.dispatchEvent(new PointerEvent(type, { bubbles: true, ...at }));
  };
  const found = { before: opacities() };
  act(chart.querySelector(".role-legend-symbol path"), "click");
  setTimeout(() => {
    found.after = opacities();
    const dot = chart.querySelector(".mark-symbol.role-mark path");
    act(dot, "pointerover");
    act(dot, "pointermove");
    setTimeout(() => {
      found.tooltip = document.getElementById("vg-tooltip-element")?.innerText ?? "";
      document.documentElement.dataset.reader = JSON.stringify(found);
    }, 200);
  }, 200);
}, 50);
</script>"""


class Dom(HTMLParser):
    """What the browser had made of the page when all was quiet."""

    def __init__(self, html):
        super().__init__()
        self.root, self.charts, self._in_mark = {}, [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        classes = (attributes.get("class") or "").split()
        if tag == "html":
            self.root = attributes
        elif "chart" in classes:
            self.charts.append({**attributes, "svg": 0, "marks": 0})
        elif tag == "svg" and self.charts:
            self.charts[-1]["svg"] += 1
        elif tag == "g":
            self._in_mark = "role-mark" in classes and "mark-group" not in classes
        elif tag in ("path", "rect", "line", "text") and self._in_mark and not classes:
            self.charts[-1]["marks"] += 1


def opened(path, profile):
    done = subprocess.run(
        [_BROWSER, *_FLAGS, f"--user-data-dir={profile}", path.resolve().as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return Dom(done.stdout.decode("utf-8"))


def _every_chart_draws_and_answers_the_reader(demo_page, demo, tmp_path):
    html = demo_page.read_text(encoding="utf-8")
    copy = tmp_path / "index.html"
    # Browsers take what stands behind </html> as part of the body.
    copy.write_text(html + _READER, encoding="utf-8")
    dom = opened(copy, tmp_path / "profile")
    assert json.loads(dom.root["data-errors"]) == []
    assert [chart["data-spec"] for chart in dom.charts] == [f"spec-{n}" for n in demo.names()]
    for chart in dom.charts:
        assert chart["data-rendered"] == "true", chart
        assert chart["svg"] == 1, chart
        assert chart["marks"] == _MARKS[chart["data-spec"]], chart
    reader = json.loads(dom.root["data-reader"])
    assert reader["before"] == "1 1 1"
    assert reader["after"] == "1 0.12 0.12"
    assert re.search(r"k:?\s*1\b", reader["tooltip"])


def _a_chart_that_cannot_be_drawn_is_noticed(demo_page, tmp_path):
    """Otherwise the check above could not fail."""
    html = demo_page.read_text(encoding="utf-8")
    copy = tmp_path / "index.html"
    broken = re.sub(
        r'(<script type="application/json" id="spec-band">).*?(</script>)',
        r'\1{"mark": "no such mark", "encoding": {}}\2',
        html,
    )
    copy.write_text(broken + "<img src=https://example.org/x>")
    dom = opened(copy, tmp_path / "profile")
    rendered = {chart["data-spec"]: chart["data-rendered"] for chart in dom.charts}
    assert rendered.pop("spec-band") == "false"
    assert set(rendered.values()) == {"true"}
    errors = " ".join(json.loads(dom.root["data-errors"]))
    assert "spec-band" in errors
    assert "blocked: https://example.org/x" in errors


def test_every_chart_draws_answers_the_reader_and_reports_errors(demo_page, demo, tmp_path):
    """One test, as it is the only one that may be skipped."""
    for check in ("good", "bad"):
        (tmp_path / check).mkdir()
    _every_chart_draws_and_answers_the_reader(demo_page, demo, tmp_path / "good")
    _a_chart_that_cannot_be_drawn_is_noticed(demo_page, tmp_path / "bad")
