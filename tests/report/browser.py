"""A page in a real browser: Chromium, headless, without a network, and a record of all that the page asked for or said.

Chromium is the system's own (Debian: `apt-get install chromium`), driven through playwright. Playwright keeps an event
loop running in the thread that started it, so a browser is kept for one module of tests and no longer: other tests may
want a loop of their own.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, WebSocketRoute

Scheme = Literal["light", "dark"]

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--no-sandbox",  # it runs as root in CI; what it opens is our own page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
_LOOKS = Path(__file__).parent / "page_looks.js"
_WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) => {
  violations.push(`${violatedDirective}: ${blockedURI}`);
});
"""


def find_chromium() -> str | None:
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def what_is_missing() -> str:
    """What a browser needs and is not here, with the way to have it; empty where all is here."""
    missing = []
    if importlib.util.find_spec("playwright") is None:
        missing.append("playwright (pip install 'mostool[test]')")
    if find_chromium() is None:
        missing.append("Chromium (Debian: apt-get install chromium)")
    return " and ".join(missing)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, for as long as the block lasts."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 # so that tests without it can say so

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open.

    Attributes:
        page: what playwright drives.
        requests: every address it asked for, its own first.
        complaints: console messages of level error or warning, uncaught exceptions, dialogs.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, script: str, argument: object = None) -> Any:
        """The value of a JavaScript function, called in the page."""
        return self.page.evaluate(script, argument)

    def look(self, name: str, *arguments: object) -> Any:
        """One of the figures of page_looks.js."""
        script = _LOOKS.read_text(encoding="utf-8").rstrip().removesuffix(";")
        return self.ask(f"given => ({script}).{name}(...given)", list(arguments))

    def violations(self) -> list[str]:
        """What the page's own security policy had to forbid; only seen where JavaScript is on."""
        found: list[str] = self.ask("() => window.violations")
        return found


@contextmanager
def visit(
    browser: Browser,
    path: Path,
    *,
    width: int = 1280,
    height: int = 900,
    scheme: Scheme = "light",
    javascript: bool = True,
) -> Iterator[Visit]:
    """Open a file as a reader would who double-clicks it, in a context of its own: no cookies, no network."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        java_script_enabled=javascript,
        has_touch=width < 640,
        reduced_motion="reduce",
    )
    try:
        context.set_default_timeout(10_000)
        context.add_init_script(_WATCH)
        seen = Visit(context.new_page())
        _listen(seen)
        _without_network(context, seen)
        seen.page.goto(path.as_uri(), wait_until="load")
        yield seen
    finally:
        context.close()


def _without_network(context: BrowserContext, seen: Visit) -> None:
    """Nothing but files can be reached; what is tried shows among the requests all the same."""

    def refuse(route: Route) -> None:
        route.abort("blockedbyclient")

    def refuse_socket(socket: WebSocketRoute) -> None:
        seen.requests.append(socket.url)
        socket.close()

    context.set_offline(True)
    context.route("http://**", refuse)
    context.route("https://**", refuse)
    context.route_web_socket("**", refuse_socket)


def _listen(seen: Visit) -> None:
    def note_request(request: Request) -> None:
        seen.requests.append(request.url)

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.complaints.append(f"{message.type}: {message.text}")

    seen.page.on("request", note_request)
    seen.page.on("console", note_message)
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"uncaught: {error}"))
    seen.page.on("dialog", lambda dialog: (seen.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    seen.page.on("popup", lambda popup: seen.complaints.append(f"popup: {popup.url}"))
