import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from server.core.errors import ConversationError
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.probe import probe
from server.prompt.template import limits
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.limits import TemplateLimitExceeded, run_limited

USER = {"role": "user", "content": "Hello"}

NESTED = (
    "{% set ns = namespace(s=['a'], t=['a']) %}{% for i in range(60) %}"
    "{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"
)
TUPLES = (
    "{% set ns = namespace(s=('a',)) %}{% for i in range(60) %}"
    "{% set ns.s = (ns.s, ns.s) %}{% endfor %}"
)
SIXTY_TIMES = "{% for i in range(60) %}"
LONG = "{% set s = 'a' * 100000 %}"
DOUBLING = "{% set ns = namespace(s='aaaa') %}" + SIXTY_TIMES

TOO_LARGE = {
    "repetition": "{{ 'a' * 10**10 }}",
    "constant repetition": "{{ 'a' * 10000000000 }}",
    "reversed repetition": "{{ 10000000000 * 'a' }}",
    "list repetition": "{{ ([1] * 10000000000) | length }}",
    "power": "{{ 10 ** 10000000000 }}",
    "power tower": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=10) %}"
    + SIXTY_TIMES
    + "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "center filter": "{{ 'a' | center(10000000000) }}",
    "center": "{{ 'a'.center(10000000000) }}",
    "ljust": "{{ 'a'.ljust(10000000000) }}",
    "zfill": "{{ 'a'.zfill(10000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(10000000000) }}",
    "bytes": "{{ 'a'.encode().center(10000000000) }}",
    "printf width": "{{ '%10000000000d' % 1 }}",
    "printf star": "{{ '%*d' % (10000000000, 1) }}",
    "printf precision": "{{ '%.10000000000f' % 1.0 }}",
    "printf repeats": LONG + "{{ ('%(a)s' * 1000) % {'a': s} }}",
    "format filter": "{{ '%10000000000d' | format(1) }}",
    "format": "{{ '{:>10000000000}'.format('a') }}",
    "format nested": "{{ '{:>{w}}'.format('a', w=10000000000) }}",
    "format_map": "{{ '{a:>10000000000}'.format_map({'a': 1}) }}",
    "format repeats": LONG + "{{ ('{0}' * 1000).format(s) }}",
    "join filter": LONG + "{{ range(100000) | join(s) }}",
    "join": LONG + "{{ s.join(range(1000) | map('string')) }}",
    "indent": "{{ 'a\nb' | indent(10000000000) }}",
    "json indent": "{{ [[1]] | tojson(indent=10000000000) }}",
    "batch": "{{ [1] | batch(10000000000, 0) | list }}",
    "slice": "{{ [1] | slice(10000000000) | list }}",
    "replace": LONG + "{{ s.replace('a', s) }}",
    "replace filter": LONG + "{{ s | replace('a', s) }}",
    "translate": LONG + "{{ s.translate({97: s}) }}",
    "doubling by ~": DOUBLING + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling by +": DOUBLING + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by a block": DOUBLING
    + "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
    "doubling a list": "{% set l = [1] %}" + SIXTY_TIMES + "{% set _ = l.extend(l) %}{% endfor %}",
    "nested text": NESTED + "{{ ns.s | string }}",
    "nested output": NESTED + "{{ ns.s }}",
    "nested json": NESTED + "{{ ns.s | tojson }}",
    "nested printf": NESTED + "{{ '%s' % [ns.s] }}",
    "nested filter": NESTED + "{{ ns.s | upper }}",
    "nested equality": NESTED + "{{ ns.s == ns.t }}",
    "nested membership": NESTED + "{{ ns.s in [ns.t] }}",
    "nested test": NESTED + "{{ ns.s is eq(ns.t) }}",
    "nested index": NESTED + "{{ [ns.s].index(ns.t) }}",
    "nested hash": TUPLES + "{{ {ns.s: 1} | length }}",
    "itself": "{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}",
    "sum of lists": "{{ [[1], [2]] | sum(start=[]) }}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "output": "{% for i in range(100000) %}0123456789{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "parentheses": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
}
TOO_LONG = {
    "loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "calls": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}"
    "{{ m(99) }}",
}

pytestmark = pytest.mark.process  # for the seconds until a template is stopped


@pytest.fixture(autouse=True)
def swallowed_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python swallow the exception that stops a template without pytest noting it.

    It is sent several times, since one that arrives inside a finaliser or a weak reference's
    callback is swallowed there. pytest 9.2 formats the traceback of each swallowed exception in
    the thread that swallowed it, and fails the test if the next one arrives meanwhile.
    """
    noted = sys.unraisablehook

    def note(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not limits._Abort:
            noted(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", note)


@pytest.mark.parametrize("case", TOO_LARGE)
def test_no_operation_makes_a_huge_value(case: str) -> None:
    started = time.process_time()
    with pytest.raises(ConversationError):
        ChatTemplate(TOO_LARGE[case]).render([USER])
    assert time.process_time() - started < 1.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**21  # KiB


@pytest.mark.parametrize("case", TOO_LONG)
def test_a_template_that_does_not_end_is_stopped(case: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateLimitExceeded, match="did not finish within 2 seconds"):
        ChatTemplate(TOO_LONG[case]).render([USER])
    assert time.process_time() - started < 3


def test_a_template_that_gathers_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    if not limits._private_memory():
        pytest.skip("this system does not tell how much memory a process takes")
    # A virtual machine may take seconds over memory that it touches for the first time.
    monkeypatch.setattr(limits, "TIME_LIMIT", 30)
    gathering = ChatTemplate(
        "{% set l = [] %}{% for i in range(100000) %}"
        "{% set _ = l.append(range(100000) | list) %}{% endfor %}"
    )
    with pytest.raises(TemplateLimitExceeded, match="256 MiB of memory"):
        gathering.render([USER])


def test_a_template_whose_compilation_does_not_end_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.3)
    started = time.process_time()
    with pytest.raises(TemplateLimitExceeded):
        ChatTemplate("{% set x = [" + "1," * 200_000 + "] %}")
    assert time.process_time() - started < 1.5


def test_a_looping_template_is_probed_once_only() -> None:
    started = time.process_time()
    assert probe(ChatTemplate(TOO_LONG["loops"])) == Capabilities()
    assert time.process_time() - started < 3


def test_text_may_be_eight_times_the_input_and_a_quarter_of_a_mebibyte() -> None:
    repeating = ChatTemplate("{% for i in range(n) %}{{ messages[0].content }}{% endfor %}")
    message = {"role": "user", "content": "x" * 1_000_000}
    assert len(repeating.render([message], variables={"n": 8})) == 8_000_000
    with pytest.raises(TemplateLimitExceeded):
        repeating.render([message], variables={"n": 9})


def test_results_and_errors_come_back_from_limited_work() -> None:
    assert run_limited(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        run_limited(lambda: 1 // 0)


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.05)
    monkeypatch.setattr(limits, "BLOCKED_LIMIT", 0.2)
    monkeypatch.setattr(limits, "GRACE", 0.1)


@pytest.fixture
def stuck() -> Iterator[list[float]]:
    calls: list[float] = []
    limits.on_stuck(lambda: calls.append(time.monotonic()))
    yield calls
    limits.on_stuck(lambda: None)


def _endless(release: threading.Event) -> Callable[[], None]:
    def work() -> None:
        while not release.is_set():
            try:
                while not release.is_set():
                    release.wait(0.01)
            except BaseException:
                continue

    return work


@pytest.mark.usefixtures("short_limits")
def test_work_that_does_not_stop_is_reported_as_stuck(stuck: list[float]) -> None:
    release = threading.Event()
    with pytest.raises(TemplateLimitExceeded):
        run_limited(_endless(release))
    assert len(stuck) == 1
    release.set()


def test_waiting_for_a_processor_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.05)

    def work() -> str:
        time.sleep(0.3)
        return "done"

    assert run_limited(work) == "done"


@pytest.mark.usefixtures("short_limits")
def test_work_that_stops_is_not_stuck(stuck: list[float]) -> None:
    def work() -> None:
        while True:
            pass

    with pytest.raises(TemplateLimitExceeded):
        run_limited(work)
    assert stuck == []


def test_an_abort_just_when_the_work_ends_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch, stuck: list[float]
) -> None:
    """Work that takes about as long as the limit, so that many aborts arrive as it ends."""
    monkeypatch.setattr(limits, "_POLL", 0.0005)
    monkeypatch.setattr(limits, "GRACE", 0.01)
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.002)
    escaped: list[object] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    outcomes = set()
    try:
        for attempt in range(300):
            end = time.monotonic() + 0.0015 + attempt % 30 * 0.00005

            def work(end: float = end) -> bool:
                while time.monotonic() < end:
                    pass
                return True

            try:
                outcomes.add(run_limited(work))
            except TemplateLimitExceeded:
                outcomes.add(False)
    finally:
        sys.setswitchinterval(interval)
    assert escaped == []
    assert outcomes == {True, False}
