"""What a report weighs and how soon it is open: `python benchmarks/report.py [REPORT.html] [--repeats 9]`.

Without a REPORT it renders the page of a run of 2,000 evaluations and 2,000 measured rows (tests/report/large_run.py).
Chromium itself times the opening, headless and without a network, each time in a context of its own: from the start of
the navigation to the load event, to the first contentful paint, and `click` from a click on a mark to its open card.
Medians, with the least and the most. Where playwright or Chromium is missing, that is said and the rest is printed.

`--screenshots FOLDER` takes pictures of the page instead, at 1280 and 390 px, light and dark; `--section front` of one
section of it, `--height 1400` of its top. They are stored with a palette where Pillow is installed: about a third of
the size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "report"))

from browser import Scheme, chromium, visit, what_is_missing
from large_run import large_story

from toolchain.onboard.machine import describe
from toolchain.report import render_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTHS = (1280, 390)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
TIMES = """() => {
  const [start] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  return {"load event": start.loadEventEnd, "first paint": paint ? paint.startTime : null};
}"""
CLICK = """() => new Promise(resolve => {
  const mark = document.querySelector("g.marks[data-chart=front] [data-id], g.marks[data-chart=front] > *");
  if (!mark) return resolve(null);
  const start = performance.now();
  mark.dispatchEvent(new MouseEvent("click", {bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""


def opening(browser: Browser, path: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds to each event, once per repeat."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        with visit(browser, path) as seen:
            times = seen.ask(TIMES)
            if times["first paint"] is None:
                seen.page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
                times = seen.ask(TIMES)
            times["click"] = seen.ask(CLICK)
        for name, milliseconds in times.items():
            if milliseconds is not None:
                found.setdefault(name, []).append(milliseconds / 1000)
    return found


def rendering(repeats: int) -> tuple[str, list[float]]:
    story, seconds, html = large_story(), [], ""
    for _ in range(repeats):
        start = time.perf_counter()
        html = render_report(story)
        seconds.append(time.perf_counter() - start)
    return html, seconds


def tell(name: str, seconds: list[float]) -> None:
    middle = statistics.median(seconds)
    print(f"{name:<14}{middle:>8.3f} s   median of {len(seconds)}, {min(seconds):.3f} to {max(seconds):.3f}")


def photograph(path: Path, folder: Path, section: str | None, height: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                out = folder / f"{section or 'report'}-{width}-{scheme}.png"
                with visit(browser, path, width=width, height=height or 900, scheme=scheme) as seen:
                    if section:
                        seen.page.locator(f"#{section}").screenshot(path=out)
                    else:
                        seen.page.screenshot(path=out, full_page=height is None)
                shrink(out)
                print(f"{out}  {out.stat().st_size:,} bytes")


def shrink(path: Path) -> None:
    """Store a picture with a palette, where Pillow is there: flat colours and text lose next to nothing by it."""
    try:
        from PIL import Image  # noqa: PLC0415 # optional
    except ImportError:
        return
    with Image.open(path) as picture:
        flat = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, help="a page that is already written")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    parser.add_argument("--section", help="of the screenshots: the anchor of a section, such as front")
    parser.add_argument("--height", type=int, help="of the screenshots: as many pixels from the top. [the whole page]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    missing = what_is_missing()
    with tempfile.TemporaryDirectory() as scratch:
        path, rendered = arguments.report, []
        if path is None:
            path = Path(scratch) / "report.html"
            html, rendered = rendering(1 if arguments.screenshots else arguments.repeats)
            path.write_text(html, encoding="utf-8")
        if arguments.screenshots:
            if missing:
                raise SystemExit(f"screenshots need {missing}")
            photograph(path.resolve(), arguments.screenshots, arguments.section, arguments.height)
            return
        figures = measure(path.resolve(), rendered, arguments.repeats, missing)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(path: Path, rendered: list[float], repeats: int, missing: str) -> dict[str, Any]:
    machine = describe()
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {"bytes": path.stat().st_size, "cpu": machine["cpu"], "load": load, "render": rendered}
    print(f"{'page':<14}{figures['bytes']:>10,} bytes")
    if rendered:
        tell("render", rendered)
    if missing:
        print(f"opening is not timed: {missing} is missing")
    else:
        with chromium() as browser:
            figures["browser"] = f"Chromium {browser.version}, headless, without a GPU"
            times = opening(browser, path, repeats)
        for name, seconds in times.items():
            tell(name, seconds)
        figures.update(times)
        print(figures["browser"])
    print(f"{machine['cores']} cores of {machine['cpu']}, load {load:.1f}")
    return figures


if __name__ == "__main__":
    main()
