"""The page at "/" in a headless Chromium: a chat with the bundled model by the keyboard alone, and the live view of the cluster."""
import os
import pathlib
import unittest
import urllib.parse

from browser import Browser
from cluster import Cluster, goldens

CASES = {g["name"]: g for g in goldens()}
CAPITAL = CASES["capital"]
# A folder for pictures of what the test sees; empty: none are taken.
PICTURES = os.environ.get("FATHOM_PICTURES", "")
# No text is cut off at the side, and nothing lies outside of the window.
FITS = "document.documentElement.scrollWidth <= innerWidth"
ANSWERED = "!document.querySelector('.waiting') && document.querySelectorAll('.turn.assistant').length"
FOCUS = "(document.activeElement.id || document.activeElement.textContent)"


class ThePage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().__enter__()
        cls.url = f"http://127.0.0.1:{cls.cluster.ready['http_port']}/"
        cls.browser = Browser().__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.browser.__exit__()
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def open(self, **options):
        page = self.browser.open(self.url, **options)
        page.wait("document.getElementById('state-dot').classList.contains('good')", "the page sees a ready cluster")
        return page

    def end(self, page, picture):
        self.assertTrue(page.value(FITS))
        self.assertEqual(page.errors(), [])
        hosts = {urllib.parse.urlsplit(url).netloc for url in page.requests() if not url.startswith("data:")}
        self.assertEqual(hosts, {urllib.parse.urlsplit(self.url).netloc})
        if PICTURES:
            page.screenshot(pathlib.Path(PICTURES) / f"{picture}.png")

    def ask(self, page, text):
        page.type(text)
        page.press("Enter")

    def test_a_chat_by_the_keyboard_alone(self):
        page = self.open()
        self.assertEqual(page.value(FOCUS), "prompt")
        page.value("document.getElementById('temperature').value = '0'")
        self.ask(page, CAPITAL["messages"][0]["content"])
        page.wait(ANSWERED, "the answer came")
        self.assertEqual(page.value("document.querySelector('.assistant .text:not(.thinking .text)').textContent"), CAPITAL["text"])
        self.assertIn("tokens", page.value("document.querySelector('.figures').textContent"))
        # The log is before the message: its answer, whose tokens the arrow keys walk.
        page.press("Tab", shift=True)
        for _ in range(8):
            if page.value("document.activeElement.classList.contains('text')"):
                break
            page.press("Tab", shift=True)
        self.assertTrue(page.value("document.activeElement.classList.contains('text')"))
        page.press("ArrowRight")
        page.press("ArrowRight")
        tip = page.wait("!document.getElementById('tip').hidden && document.getElementById('tip').innerText", "the probabilities are shown")
        self.assertIn("%", tip)
        self.assertEqual(page.value("document.querySelectorAll('#tip .row.chosen').length"), 1)
        self.assertGreaterEqual(page.value("document.querySelectorAll('#tip .row').length"), 5)
        if PICTURES:
            page.screenshot(pathlib.Path(PICTURES) / "tokens.png")
        page.press("Escape")
        self.assertTrue(page.value("document.getElementById('tip').hidden"))
        # Retry: the buttons follow the answer.
        page.press("Tab")
        self.assertEqual(page.value(FOCUS), "Retry")
        page.value("window.before = document.querySelector('.turn.assistant')")
        page.press("Enter")
        page.wait(f"{ANSWERED} && document.querySelector('.turn.assistant') !== window.before", "another answer came")
        self.assertEqual(page.value("document.querySelector('.assistant .text:not(.thinking .text)').textContent"), CAPITAL["text"])
        self.assertEqual(page.value("document.querySelectorAll('.turn').length"), 2)
        # To the other view by the arrow keys of the tabs.
        page.value("document.getElementById('tab-chat').focus()")
        page.press("ArrowRight")
        page.wait("!document.getElementById('cluster').hidden && document.querySelectorAll('#requests tr').length >= 2", "the last requests are shown")
        self.end(page, "keyboard")

    def test_thinking_stop_and_errors(self):
        page = self.open(dark=True)
        page.value("document.getElementById('temperature').value = '0'; document.getElementById('thinking').value = 'on'")
        self.ask(page, CASES["think"]["messages"][0]["content"])
        page.wait(ANSWERED, "the answer came")
        self.assertEqual(page.value("document.querySelector('.assistant > .text').textContent"), "5200")
        self.assertIn("carry", page.value("document.querySelector('.thinking .text').textContent"))
        self.assertFalse(page.value("document.querySelector('.thinking').open"))
        if PICTURES:
            page.value("document.querySelector('.thinking').open = true")
            page.screenshot(pathlib.Path(PICTURES) / "thinking-dark.png")
        # A long answer is stopped by Escape, and its place in the cluster is free again.
        page.value("document.getElementById('thinking').value = 'off'; document.getElementById('temperature').value = '1'")
        page.value("document.getElementById('prompt').focus()")
        self.ask(page, "Count from 100 to 220.")
        page.wait("document.querySelectorAll('.turn.assistant')[1].querySelectorAll('.token').length > 3", "tokens come")
        page.press("Escape")
        page.wait("document.querySelectorAll('.turn.assistant')[1].innerText.includes('stopped')", "the answer is stopped")
        self.cluster.wait_idle()
        # A refusal is shown with its way out.
        page.value("document.getElementById('temperature').value = '7'; document.getElementById('prompt').focus()")
        self.ask(page, "Hello")
        refusal = page.wait("document.querySelector('.failure') && document.querySelector('.failure').textContent", "the refusal is shown")
        self.assertIn("temperature is 7", refusal)
        self.end(page, "chat-dark")

    def test_the_cluster_live(self):
        page = self.open(dark=False)
        page.value("document.getElementById('tab-cluster').click()")
        self.assertEqual(page.wait("document.querySelectorAll('.group').length", "a group is shown"), 1)
        self.assertIn("Rank 0", page.value("document.getElementById('groups').innerText"))
        for i in range(6):
            self.cluster.generate(text="Once upon a time", max_tokens=60 + 20 * i, request_id=f"live-{i}", ignore_eos=True)
        page.wait("[...document.querySelectorAll('#requests button')].some((b) => b.dataset.request === 'live-5')", "the requests are shown")
        page.wait("Number(document.getElementById('rate').textContent.replaceAll(',', '')) >= 0 && document.querySelector('#rate-line polyline') !== null", "a rate is shown")
        page.value("[...document.querySelectorAll('#requests button')].find((b) => b.dataset.request === 'live-5').click()")
        detail = page.wait("document.querySelector('.detail') && document.querySelector('.detail').innerText", "the timeline is shown")
        for word in ("decode", "prefill", "first token after", "slot in group "):
            self.assertIn(word, detail)
        self.end(page, "cluster-light")

    def test_narrow_and_dark(self):
        page = self.open(width=380, height=760, dark=True)
        self.assertFalse(page.value("document.getElementById('settings').open"))
        page.value("document.getElementById('temperature').value = '0'; document.getElementById('prompt').focus()")
        self.ask(page, CASES["poem"]["messages"][0]["content"])
        page.wait(ANSWERED, "the answer came")
        self.assertEqual(page.value("document.querySelector('.assistant > .text').textContent"), CASES["poem"]["text"])
        self.end(page, "chat-narrow-dark")
        page.value("document.getElementById('tab-cluster').click()")
        page.wait("document.querySelectorAll('#requests tr').length", "the requests are shown")
        self.end(page, "cluster-narrow-dark")

    def test_a_refused_key(self):
        """The page asks for a key when the server wants one, and sends the one that is given."""
        page = self.open()
        page.value("""(() => { const real = fetch; window.sent = [];
            window.fetch = (path, options) => { window.sent.push((options.headers || {}).Authorization || "");
              return (options.headers || {}).Authorization === "Bearer right" ? real(path, options)
                : Promise.resolve(new Response(JSON.stringify({ error: { message: "this route needs a key" } }), { status: 401 })); }; })()""")
        page.wait("document.getElementById('key-dialog').open", "the page asks for a key")
        self.assertIn("needs a key", page.value("document.getElementById('key-dialog').innerText"))
        page.value("document.getElementById('key').focus()")
        page.type("right")
        page.press("Enter")
        page.wait("document.getElementById('state-dot').classList.contains('good') && window.sent.includes('Bearer right')", "the key is used")
        self.assertFalse(page.value("document.getElementById('key-dialog').open"))


if __name__ == "__main__":
    unittest.main()
