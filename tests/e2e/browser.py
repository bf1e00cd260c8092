"""tests/e2e/browser.py: a headless Chromium, driven over its DevTools protocol through a pipe: no driver program, no package.

    with Browser() as browser:
        page = browser.open("http://127.0.0.1:8000/", width=1200, height=800)
        page.wait("document.title === 'Fathom'", "the page is there")
"""
import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from cluster import SLOW

PROGRAM = next((path for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
                if (path := shutil.which(name))), None)
# What a key sends: DevTools' names and, where the key makes text, the text.
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowRight": (39, ""), "ArrowLeft": (37, ""), " ": (32, " ")}


class Browser:
    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_child, self.write = os.pipe()
        self.read, from_child = os.pipe()
        # The pipe is descriptors 3 and 4 of the browser; a shell moves them there.
        command = f"exec 3<&{to_child} 4>&{from_child}; exec \"$@\""
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--remote-debugging-pipe", f"--user-data-dir={self.home.name}", "about:blank"],
            pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.rest, self.number, self.messages = b"", 0, []
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)
        self.home.cleanup()

    def receive(self):
        while b"\0" not in self.rest:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self.rest += data
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **params):
        """The result of a DevTools command; events that come meanwhile are kept in `messages`."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.messages.append(answer)

    def open(self, url, width=1200, height=820, dark=False):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        page.call("Page.navigate", url=url)
        page.wait("document.readyState === 'complete' && location.href !== 'about:blank'", "the page is loaded")
        return page


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, what, timeout=60):
        """Waits until the expression is true, and returns its value."""
        end = time.monotonic() + timeout * SLOW
        while not (value := self.value(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{what}; the page shows: {self.value('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, shift=False):
        code, text = KEYS[key]
        event = dict(key=key, code="Space" if key == " " else key, windowsVirtualKeyCode=code, modifiers=8 if shift else 0)
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def point(self, selector):
        """Moves the mouse to the middle of the element."""
        x, y = self.value(f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getClientRects()[0];"
                          " return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path):
        pathlib.Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def requests(self):
        """The URLs that the page has asked for so far."""
        self.value("0")  # Takes the events that wait.
        return [m["params"]["request"]["url"] for m in self.browser.messages
                if m.get("sessionId") == self.session and m["method"] == "Network.requestWillBeSent"]

    def errors(self):
        """Errors of the page's scripts and of its policy."""
        self.value("0")
        mine = [m for m in self.browser.messages if m.get("sessionId") == self.session]
        return [m["params"] for m in mine if m["method"] == "Runtime.exceptionThrown" or
                (m["method"] == "Log.entryAdded" and m["params"]["entry"]["level"] == "error" and m["params"]["entry"]["source"] != "network")]
