"""A report in a real browser: no console message, no request, every figure drawn, nothing hostile run.

usage: report_in_browser.py [REPORT.html]     (without one, a small study with hostile prompts is run first)
"""

import html.parser
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
)
SIZES = {"wide": "1280,1000", "narrow": "500,900"}


def hostile_report(folder: Path) -> Path:
    """A report whose title and prompts try to break out of the page."""
    sys.path.insert(0, str(TESTS))
    from small_study import study_mapping

    import layerprobe as lp

    return lp.run_study(study_mapping(folder, hostile=True), out=folder / "out", progress=False).report


def visit(report: Path, folder: Path, size: str) -> tuple[str, list[str], list[str]]:
    """The page after its scripts have run, what it said to the console, and what it asked of the network."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium found: install Debian's package 'chromium'")
    log = folder / "net.json"
    command = [browser, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command += [
        f"--window-size={size}",
        "--enable-logging=stderr",
        "--virtual-time-budget=15000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, report.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console, requests(log)


def requests(log: Path) -> list[str]:
    """Addresses beyond this machine that the page asked for (the browser's own have no origin)."""
    text = log.read_text(encoding="utf-8", errors="replace").rstrip().rstrip(",")
    events = json.loads(text if text.endswith("}") and text.count("]}") else text + "]}")["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # a page from a file has the opaque origin "null" or "file://"; the browser's own errands have others
    mine = [p for p in asked if p["initiator"] in ("null", "file://") or p["initiator"].startswith("file:")]
    return sorted({p["url"] for p in mine if re.match(r"(https?|wss?|ftp):", str(p.get("url", "")))})


class Figures(html.parser.HTMLParser):
    """How many figures the page announces and how many of them hold a drawing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.announced, self.drawn, self.images = 0, 0, 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        classes = str(dict(attrs).get("class", "")).split()
        self.announced += "plot" in classes and tag == "div" and dict(attrs).get("role") == "img"
        self.drawn += tag == "svg" and "marks" in classes
        self.images += tag == "img"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = Path(sys.argv[1]).resolve() if sys.argv[1:] else hostile_report(folder)
        for width, size in SIZES.items():
            page, console, asked = visit(report, folder, size)
            figures = Figures(page)
            problems = [*console, *(f"asked for {url}" for url in asked)]
            if not figures.announced or figures.drawn != figures.announced:
                problems.append(f"{figures.drawn} of {figures.announced} figures drawn")
            if figures.images:
                problems.append(f"{figures.images} images: a prompt became an element")
            if problems:
                sys.exit(f"{report}, {width}:\n" + "\n".join(problems))
            print(f"{width}: {figures.drawn} figures drawn, console silent, no request")


if __name__ == "__main__":
    main()
