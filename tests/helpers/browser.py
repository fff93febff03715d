"""A page in headless Chromium, with a proxy that notes every request."""

import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions")
SERVICES = re.compile(
    r"(CONNECT |:\/\/)(update.googleapis|clients\d.google|accounts.google|optimizationguide-pa.googleapis|edgedl.me.gvt1).com"
)
"""Chromium itself asks these hosts, whatever page is open. The page names none of them."""


class Proxy(socketserver.ThreadingTCPServer):
    """Notes the first line of every request that a browser sends anywhere."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        self.server.requests.append(self.rfile.readline(500).decode("latin-1").strip())


@contextmanager
def noting_proxy() -> Iterator[Proxy]:
    """A proxy that runs meanwhile."""
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def browse(profile: Path, proxy: Proxy, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page with every request sent to the proxy, and the console on standard error."""
    assert CHROMIUM is not None
    route = f"--proxy-server=http://127.0.0.1:{proxy.server_address[1]}"
    base = (CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr")
    return subprocess.run([*base, *QUIET, route, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)


def console(told: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in told.stderr.splitlines() if "CONSOLE" in line]


def asked(proxy: Proxy) -> list[str]:
    """The requests of the page, without those of Chromium itself."""
    return [line for line in proxy.requests if not SERVICES.search(line)]


def widths(folder: Path, proxy: Proxy, page: Path, width: int) -> tuple[int, int]:
    """(width of the content, width of the window) of a page in a window of that width.

    Only tables in their scrolling regions are wider. The copy without a policy runs the script that measures.
    """
    measure = "document.title = document.documentElement.scrollWidth + ' of ' + document.documentElement.clientWidth"
    text = page.read_text(encoding="utf-8").replace("default-src 'none'", "default-src 'unsafe-inline'")
    script = f"<script>{measure}; parent.postMessage(document.title, '*')</script>"
    (folder / "inner.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    answer = "<script>onmessage = event => document.body.dataset.width = event.data</script>"
    frame = f"<iframe src='inner.html' style='width:{width}px;height:900px;border:0'></iframe>"
    (folder / "outer.html").write_text(f"<!doctype html><body>{answer}{frame}")
    told = browse(folder / "profile", proxy, folder / "outer.html", "--virtual-time-budget=2000", "--dump-dom")
    found = re.search(r'data-width="(\d+) of (\d+)"', told.stdout)
    assert found, told.stderr[-2000:]
    return int(found[1]), int(found[2])


def paper(folder: Path, proxy: Proxy, page: Path) -> set[tuple[int, int]]:
    """(width, height) in points of the sheets of a printed page."""
    pdf = folder / "page.pdf"
    browse(folder / "profile", proxy, page, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", pdf.read_bytes())
    assert boxes
    return {(round(float(wide)), round(float(high))) for wide, high in boxes}
