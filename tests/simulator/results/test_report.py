"""The HTML report: what is in it, and how it behaves in a real browser."""

import html
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner.files import save
from simulator.cli.reporting import collect
from simulator.engine import build_system, simulate
from simulator.results import summary
from simulator.results.hover import attach, to_svg
from simulator.results.report import Part, Report, report_html, table
from simulator.results.style import figure_of, new_axes

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


EXECUTED_TABLES = {
    "comparison": pd.DataFrame({"quantity": ["p50"], "predicted": [8.0], "measured": [11.0]}),
    "latencies": pd.DataFrame(
        {
            "share": [0.5, 0.99, 1.0],
            "predicted_ms": [8.0, 9.0, 9.0],
            "measured_ms": [11.0, 12.0, np.nan],
            "slo_ms": 20.0,
        }
    ),
    "slices": pd.DataFrame({"slice": ["0/0/0"], "busy": [0.5]}),
    "incidents": pd.DataFrame({"what": []}),
}


@pytest.fixture(scope="module")
def report(two_stages):
    problem, plan = two_stages
    records = {
        dnn: simulate(build_system(problem, plan, dnn), np.arange(200, dtype=np.int64) * 5_000)
        for dnn in ("first", "second")
    }
    runs = pd.DataFrame(
        {"plan": "plan.json", "scheduler": scheduler, "dnn": dnn, "trace": "t", "policy": "reservation", "seed": 0}
        | {"load_factor": load, "rate_rps": 100.0 * load, "stopped": False, "requests": 1000, "dropped": 5, "late": 0}
        | {"attainment": 1 - lost * load}
        for scheduler, lost in (("pipelines", 0.01), ("np", 0.3))
        for dnn in ("first", "second")
        for load in (0.5, 0.75, 1.0)
    )
    return Report(
        title="A <report> & its title",
        parts=[Part("site", problem, {"pipelines": plan}, records)],
        runs=runs,
        largest=pd.DataFrame({"dnn": ["first", "second"], "largest_load_factor": [0.95, 0.5]}),
        summary=pd.DataFrame([{"dnn": dnn} | summary(one) for dnn, one in records.items()]),
        executions={"first": EXECUTED_TABLES},
        facts={"poolpipe": "0.1.0"},
    )


@pytest.fixture(scope="module")
def page(report):
    return report_html(report)


def test_everything_is_in_the_page_and_nothing_is_fetched(page):
    for heading in (
        "Problem: site",
        "Plan: pipelines",
        "Largest load factor that holds",
        "Attainment over load",
        "Runs",
        "Run: first",
        "On devices: first",
        "Versions and hashes",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<title>A &lt;report&gt; &amp; its title</title>" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:)|url\((?!["']?#)|@import""", page)
    for text in (
        "NP at load 1.00: 70.00%",
        "4 devices sustain 400.0 requests/s, 83.3% used",
        "pipeline 0, stage 0, GPU #0: batch of 2",
        "measured: p50 11.00 ms, p99 12.00 ms",
    ):
        assert f'data-hover="{text}' in page, text


def test_ids_are_unique_and_tags_are_balanced(page):
    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.ids = [], []

        def handle_starttag(self, tag, attrs):
            self.ids += [value for name, value in attrs if name == "id"]
            if tag not in ("meta", "br"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attrs):
            self.ids += [value for name, value in attrs if name == "id"]

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(set(tags.ids)) == len(tags.ids)


def test_absent_parts_leave_their_sections_out(report):
    page = report_html(Report("empty", executions=report.executions))
    assert re.findall("<h2>(.*?)</h2>", page) == ["On devices: first"]
    assert re.findall("<h3>(.*?)</h3>", page) == ["Prediction against measurement", "Slices"]
    stopped = report_html(Report("stopped", runs=report.runs.assign(stopped=True)))
    assert "runs that certainly fail were stopped" in stopped
    assert "<svg" not in stopped


def test_what_all_rows_have_in_common_is_said_once(page):
    assert "In all rows: plan plan.json, trace t, policy reservation, seed 0." in page
    assert ">policy</button>" not in page
    assert ">scheduler</button>" in page


def test_traces_named_by_their_dnn_and_plans_by_their_scheduler_take_no_columns(report):
    runs = report.runs.assign(plan=report.runs["scheduler"], trace="t for " + report.runs["dnn"])
    page = report_html(Report("narrow", runs=runs))
    assert "In all rows: trace t for each DNN, policy reservation, seed 0." in page
    assert ">scheduler</button>" not in page
    assert ">plan</button>" in page


def test_worlds_are_told_apart(report):
    runs = pd.concat([report.runs.assign(world=name) for name in ("as planned", "rough.toml")])
    page = report_html(Report("worlds", runs=runs))
    assert ">world</" in page
    assert page.count("rough.toml") > len(report.runs)  # in the pictures, too


def test_equal_reports_are_equal_pages(report, page):
    assert report_html(replace(report)) == page


def test_hover_texts_reach_their_marks():
    ax = new_axes()
    (line,) = ax.plot([1, 2, 3], [1, 4, 9], marker="o")
    attach(line, ["one", "four", "nine"])
    (bar,) = ax.bar([5], [2])
    attach(bar, ['a "bar" < 3'])
    svg = to_svg(figure_of(ax), "example")
    marks = {element.get("data-hover"): element for element in ET.fromstring(svg).iter() if element.get("data-hover")}
    assert set(marks) == {"one", "four", "nine", 'a "bar" < 3'}
    left = [float(marks[text].get("x")) for text in ("one", "four", "nine")]
    assert left == sorted(left)


def test_plans_of_other_problems_and_files_of_other_kinds_are_left_out(two_stages, tmp_path):
    problem, plan = two_stages
    save(problem, tmp_path / "problem.json")
    save(plan, tmp_path / "ours.json")
    save(replace(plan, problem_sha256="0" * 64), tmp_path / "theirs.json")
    (tmp_path / "image.json").write_bytes(b"\xff\xfe\x00")
    found = collect(tmp_path, "site")
    assert list(found.parts[0].plans) == ["ours"]
    assert "Made for another problem, not shown: theirs.json." in report_html(found)


def test_long_tables_are_cut_and_say_so():
    text = table(pd.DataFrame({"number": range(1000), "name": "x" * 50}))
    assert text.count("<tr>") == 401
    assert "The first 400 of 1000 rows." in text
    assert 'class="long" title="xxx' in text


# Run at the end of the page. The page lies in a frame of the width wanted, for a browser's window cannot be as narrow
# as a telephone. As a document within its owner's it may write there what the probe finds, before either has loaded,
# which is what a dump waits for: neither messages nor a clock come into it.
FRAME = """<!doctype html><body style="margin:0">
<iframe srcdoc="PAGE" style="border:0;width:WIDTHpx;height:1500px"></iframe></body>"""
PROBE = """<script>{
const found = {width: window.innerWidth, overflow: document.documentElement.scrollWidth - window.innerWidth};
const outside = [...document.querySelectorAll("h1, h2, p, figure, figcaption, .scroll")].filter(
  (element) => element.getBoundingClientRect().right > window.innerWidth + 0.5);
found.outside = outside.map((element) => element.tagName + " " + element.className).join(";");
const head = [...document.querySelectorAll("th")].find((one) => one.textContent === "largest load factor that holds");
const first = () => head.closest("table").tBodies[0].rows[0].cells[0].textContent;
head.querySelector("button").click();
found.ascending = first();
head.querySelector("button").click();
found.descending = first();
const mark = document.querySelector("[data-hover]");
mark.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: window.innerWidth - 2, clientY: 5}));
const tip = document.getElementById("tip");
found.tip = tip.textContent === mark.dataset.hover && !tip.hidden &&
  tip.getBoundingClientRect().right <= window.innerWidth;
parent.document.body.dataset.found = JSON.stringify(found);
}</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_overflows_and_the_console_is_empty(page, tmp_path, width):
    path = tmp_path / "frame.html"
    probed = html.escape(page.replace("</body>", PROBE + "</body>"))
    path.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", probed))
    dumped, log = browse(path, tmp_path, width, "--dump-dom")
    assert "CONSOLE" not in log, log
    found = html.unescape(re.search(r'<body[^>]* data-found="([^"]*)"', dumped)[1])
    assert f'"width":{width}' in found
    assert '"overflow":0' in found
    assert '"outside":""' in found
    assert '"ascending":"second"' in found
    assert '"descending":"first"' in found
    assert '"tip":true' in found
    picture = tmp_path / "report.png"
    browse(path, tmp_path, width, f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000


def browse(path: Path, folder: Path, width: int, *options: str) -> tuple[str, str]:
    """Open a file in a headless browser without a network and return its output and its log."""
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'browser'}",
            f"--window-size={width},1500",
            *options,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr
