"""Drill: the page in a real Chromium, by its own buttons, with every request and every console message watched.

`python tests/evidence/browser_drill.py [PICTURE.png]`; Debian's chromium.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evidence.many_home import make_many
from evidence.small_home import make_home
from websockets.sync.client import ClientConnection, connect

from fangxin.reports import browser


class Page:
    """A tab, driven over the DevTools protocol; `events` keeps everything that it reported."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._last, self.events = socket, 0, []  # type: ignore[var-annotated]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=60))
            if told.get("id") == self._last:
                assert "error" not in told, told
                return dict(told["result"])
            self.events.append(told)

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def choose(self, selector: str, files: list[Path]) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(one) for one in files])


def run(page: Page, url: str, package: Path, trust: list[Path]) -> tuple[int, str]:
    page.call("Page.navigate", url=url)
    while page.value("document.readyState") != "complete":
        time.sleep(0.1)
    page.choose("#package", [package])
    page.choose("#trust", trust)
    page.value("document.querySelector('#form button').click()")
    for _ in range(300):
        code = page.value("document.getElementById('answer').dataset.code")
        if code is not None:
            return int(code), str(page.value("document.getElementById('rows').innerText"))
        time.sleep(0.1)
    raise SystemExit("the page never answered")


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "verify.html").write_bytes(browser.page())
        (folder / "small").mkdir()
        home, other = make_home(folder / "small"), make_many(folder / "many", people=2)
        raw = home.zip.read_bytes()
        (folder / "changed.zip").write_bytes(raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:])
        words = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        words += [f"--user-data-dir={folder / 'profile'}", "--window-size=1100,1400", "about:blank"]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = folder / "profile" / "DevToolsActivePort"
            for _ in range(600):
                if port.exists() and port.read_text().count("\n"):
                    break
                time.sleep(0.1)
            listed = json.load(
                urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json", timeout=30)
            )
            (target,) = [one for one in listed if one["type"] == "page"]
            with connect(target["webSocketDebuggerUrl"], max_size=2**26) as socket:
                page = Page(socket)
                for domain in ("Page", "DOM", "Runtime", "Network", "Log"):
                    page.call(f"{domain}.enable")
                url = (folder / "verify.html").as_uri()
                own = sorted(home.trust.glob("*"))
                strange = [other / "keys" / one for one in ("log.vkey", "evidence.pub.pem")]
                for what, package, trust, expected in (
                    ("a true package with outside keys", home.zip, own, 0),
                    ("the same without keys", home.zip, [], 2),
                    ("the same with another's keys", home.zip, strange, 1),
                    ("one byte changed", folder / "changed.zip", own, 1),
                ):
                    code, rows = run(page, url, package, trust)
                    print(f"{what}: {code}")
                    if code != expected:
                        raise SystemExit(f"expected {expected}:\n{rows}")
                    if expected == 0 and len(sys.argv) > 1:
                        shot = page.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                        Path(sys.argv[1]).write_bytes(base64.b64decode(shot))
                # a script that is not the page's own is not run, and nothing can be sent
                page.value("fetch('http://127.0.0.1:9/').then(() => (window.sent = 'yes'), () => (window.sent = 'no'))")
                time.sleep(1)
                assert page.value("window.sent") == "no"
                asked = [
                    one["params"]["request"]["url"]
                    for one in page.events
                    if one.get("method") == "Network.requestWillBeSent"
                ]
                assert {one for one in asked if not one.startswith("http://127.0.0.1:9/")} == {url}, asked
                thrown = [one for one in page.events if one.get("method") == "Runtime.exceptionThrown"]
                assert thrown == [], thrown
                print(f"requests: {len(asked)}, each for the page itself or refused by its policy; no exception thrown")
        finally:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    main()
