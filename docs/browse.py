"""Open every page of the built site in Chromium, as a reader would, without a network.

Each page is opened at the width of a desk and of a phone, light and dark. Checked are:
no console message, no failed request, none to another host, nothing wider than the
screen, every picture drawn, and that the search finds the right page first. Screenshots
of all pages go into a folder, to be looked at.

Usage: python docs/browse.py SITE FOLDER [PAGE ...]

It needs `pip install playwright` and a Chromium on the path; the gate does not run it.
"""

import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

WIDTHS = {"desk": 1280, "phone": 390}
THEMES = ("light", "dark")

# The page that a search must find first.
SEARCHES = {
    "learning rate": "learning-rate",
    "dataframe": "dataframes",
    "bounds": "bounds",
    "BatchNorm": "model-state",
}

# The browser draws pages and asks for nothing else; its profile is a new one.
ALONE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# What sticks out of the window, and pictures that did not load.
FAULTS = """() => {
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  const faults = wide > 0 ? [`${wide} px wider than the window`] : [];
  for (const img of document.images)
    if (!img.complete || !img.naturalWidth) faults.push(`no picture ${img.src}`);
  return faults;
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


def browse(site: Path, folder: Path, pages: list[str]) -> list[str]:
    """Return what is wrong, a line each, and leave the screenshots in a folder."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    pages = pages or sorted(str(p.relative_to(site)) for p in site.rglob("*.html"))
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ALONE
        )
        for name, width in WIDTHS.items():
            for theme in THEMES:
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=theme
                )
                page.set_default_timeout(120_000)  # a busy machine is slow
                where = ""

                def note(fault: str) -> None:
                    faults.append(f"{where}: {fault}")  # noqa: B023

                page.on("console", lambda message: note(message.text))
                page.on("pageerror", lambda error: note(str(error)))
                page.on("requestfailed", lambda request: note(request.url))
                page.on(
                    "request",
                    lambda request: (
                        None
                        if request.url.startswith((address, "data:"))
                        else note(f"asks for {request.url}")
                    ),
                )
                for path in pages:
                    where = f"{path} {name} {theme}"
                    page.goto(f"{address}/{path}", wait_until="load")
                    for fault in page.evaluate(FAULTS):
                        note(fault)
                    shot = f"{path.removesuffix('.html').replace('/', '-')}-{name}"
                    page.screenshot(path=folder / f"{shot}-{theme}.png", full_page=True)
                if name == "desk" and theme == "light":
                    for words, target in SEARCHES.items():
                        where = f"search for {words}"
                        page.goto(f"{address}/search.html?q={quote_plus(words)}")
                        page.wait_for_selector("#search-results li a", timeout=20_000)
                        page.locator(".search-summary", has_text="found").wait_for()
                        first = page.locator("#search-results li a").first
                        found = first.get_attribute("href") or ""
                        if not found.startswith(target):
                            note(f"finds {found} first, not {target}")
                page.close()
        browser.close()
    server.shutdown()
    return faults


def main() -> None:
    site, folder = map(Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    faults = browse(site, folder, sys.argv[3:])
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults; the screenshots are in {folder}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
