"""How long formatting takes while an answer of 20,000 characters grows, in the browser.

``python -m tests.browser.formatting_time`` prints one line for each kind of answer: the time that
formatting took, in all and the longest at once, while its pieces of 4 characters came every
2 milliseconds; the time for the whole text at once; and what it takes to make everything again for
each piece.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import uvicorn

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool
from tests.browser.chromium import chromium
from tests.e2e.server import free_port

CHARACTERS = 20_000
SAMPLE = (Path(__file__).parent / "markdown_sample.md").read_text()
KINDS = {
    "mixed blocks": SAMPLE * (CHARACTERS // len(SAMPLE) + 1),
    "one code block": "```python\n" + "value = compute(1, 'two')  # three\n" * (CHARACTERS // 34),
    "one table": "| a | b |\n|---|---|\n" + "| `one` | **two** |\n" * (CHARACTERS // 20),
}
_MEASURE = """
const [text, done] = arguments;
const { FormattedText } = await import("./playground/formatted.js");
const whole = new FormattedText();
document.body.append(whole.element);
whole.show(text);
await new Promise((resolve) => setTimeout(resolve, 3000));  // libraries are loaded
const timed = (action) => {
  const begun = performance.now();
  action();
  return performance.now() - begun;
};
const atOnce = timed(() => whole.show(text));
let again = 0;
const steps = 40;
for (let step = 1; step <= steps; step++) {
  again += timed(() => whole.show(text.slice(0, (text.length * step) / steps)));
}
whole.element.remove();
const grown = new FormattedText();
document.body.append(grown.element);
const spent = [];
const later = window.setTimeout;
window.setTimeout = (action, pause) => later(() => spent.push(timed(action)), pause);
const begun = performance.now();
for (let end = 4; end <= text.length + 3; end += 4) {
  grown.grow(text.slice(0, end));
  await new Promise((resolve) => later(resolve, 2));
}
const seconds = performance.now() - begun;
window.setTimeout = later;
done([spent.reduce((sum, each) => sum + each, 0), Math.max(...spent), seconds, atOnce,
  (again / steps) * (text.length / 4)]);
"""


def main() -> None:
    """Measure and print."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(Settings(), FakePool()), port=port, log_level="critical")
    )
    thread = Thread(target=server.run)
    thread.start()
    try:
        with TemporaryDirectory() as downloads, chromium(Path(downloads)) as browser:
            browser.get(f"http://127.0.0.1:{port}")
            browser.set_script_timeout(300)
            for kind, text in KINDS.items():
                spent, longest, seconds, once, again = browser.execute_async_script(
                    _MEASURE, text[:CHARACTERS]
                )
                print(
                    f"{kind}: {spent:.0f} ms in all ({100 * spent / seconds:.0f} % of "
                    f"{seconds / 1000:.1f} s), {longest:.0f} ms at most; the whole at once "
                    f"{once:.0f} ms; anew for each piece it would be {again / 1000:.0f} s"
                )
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
