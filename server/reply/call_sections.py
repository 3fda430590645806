"""Reading calls where one may open: the forms in turn, and sections of several calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from server.core.reply_format import Calls
from server.core.request import Tool
from server.reply import json_text
from server.reply.call import CALL_KEYS, NAME_KEYS, CallReader
from server.reply.forms import Form, call_forms, closing_marks
from server.reply.join import ParsedEvent
from server.reply.quoted_calls import QuotedCalls
from server.reply.sink import TextSink
from server.reply.source import EndOfReply, NotACall, Source, Steps
from server.reply.syntax import FENCE, marks

# The first key of an object, and its value if that is a string; either may just have begun.
_BEGUN_OBJECT = re.compile(r'\s*\{\s*(?:"([^"]*)(?:"\s*(?::\s*(?:"([^"]*))?.*)?)?)?', re.DOTALL)


class CallSections:
    """Reads calls of one reply.

    Text that does not turn out to be a call goes to the sink around it, and so does the rest of a
    section that goes wrong after a call of it was emitted.

    A call that is only quoted is text, too (`quoted_calls`).

    Args:
        calls: The family's call syntax.
        tools: The request's tools.
        source: The reply.
        emit: Takes the events of calls.
        answer: The answer's index, for the events.
        taken: Ids of calls that the conversation has already.
        tolerant: Whether calls in other forms than the family's own are read.
        ends: The texts that end the content.

    Attributes:
        marked: The texts that may open a call anywhere.
        bare: The texts that may open one at the start of a line.
        count: The calls so far.
    """

    def __init__(
        self,
        calls: Calls,
        tools: Sequence[Tool],
        *,
        source: Source,
        emit: Callable[[ParsedEvent], None],
        answer: int,
        taken: Iterable[str],
        tolerant: bool,
        ends: Sequence[str],
    ) -> None:
        self._calls = calls
        self._tools = tools
        self._source = source
        self._emit = emit
        self._answer = answer
        self._taken = set(taken)
        self._tolerant = tolerant and bool(tools)
        forms = call_forms(calls, tolerant=self._tolerant)
        self._forms = forms.bare | forms.marked
        self._ends_of_content = ends
        self._call: CallReader | None = None
        self._quoted = QuotedCalls(source, (*self._forms, FENCE), ends)
        self.own = next(iter(forms.marked | forms.bare))
        self.marked = tuple(forms.marked)
        self.bare = tuple(forms.bare)
        self.count = 0

    def texts(self) -> tuple[str, ...]:
        """The texts that may open a call in the middle of other text, line breaks included."""
        lines = (f"\n{text}" for text in self.bare) if self._tolerant else ()
        return (*self.marked, *lines)

    def opening(self, bare: str) -> Steps[str]:
        """The text that opens a call where ``bare`` comes next: a longer one if it comes too."""
        for text in self.marked:
            if text.startswith(bare) and (yield from self._source.comes(text)):
                return text
        return bare

    def read(self, trigger: str, around: TextSink) -> Steps[None]:
        """Read calls that open with ``trigger``, which comes next. Raises EndOfReply."""
        may_call = self._calls.several or self.count == 0
        if not may_call or (trigger == FENCE and around.code.in_block):
            around.write(self._source.take(len(trigger)))
        elif self._quoted.may_begin(trigger, around.code):
            yield from self._read_in_code(trigger, around)
        else:
            yield from self.read_forms(trigger, around)

    def read_forms(self, trigger: str, around: TextSink) -> Steps[None]:
        """As `read`, also where the calls may be quoted."""
        furthest = len(trigger)
        for form in self._forms.get(trigger, ()):
            before = self.count
            self._source.record()
            try:
                yield from self._section(form, around)
            except NotACall:
                if self.count > before:
                    break
                furthest = max(furthest, self._source.rewind())
            except EndOfReply:
                self._ended(form, around, calling=self.count > before)
                raise
            else:
                break
        else:
            around.write(self._source.take(furthest))
            return
        rest = self._source.recorded()
        if rest.isspace():
            # The next call may open behind its line break.
            self._source.give_back(rest)
        else:
            around.write(rest)

    def _read_in_code(self, trigger: str, around: TextSink) -> Steps[None]:
        trial = CallSections(
            self._calls,
            self._tools,
            source=self._source,
            emit=lambda _: None,
            answer=self._answer,
            taken=self._taken,
            tolerant=self._tolerant,
            ends=self._ends_of_content,
        )
        if text := (yield from self._quoted.content(trial, trigger, around.code)):
            around.write(text)
        else:
            yield from self.read_forms(trigger, around)

    def read_message(self, name: str, header: str, around: TextSink) -> Steps[None]:
        """Read the body of a message whose ``header`` says that it is a call to ``name``.

        Raises EndOfReply.
        """
        call = self._new_call(Form(self._calls, own=True))
        self._source.record()
        try:
            yield from self._read(call, call.read_arguments(self._source, name), around)
        except NotACall:
            around.write((not call.started) * header + self._source.recorded())
        except EndOfReply:
            self._drop_or_write((not call.started) * header, around, drop=self._source.cut)
            raise
        self._source.recorded()

    # --- sections ---

    def _section(self, form: Form, around: TextSink) -> Steps[None]:
        syntax = form.syntax
        yield from self._source.expect(*marks(syntax.begin))
        fenced = yield from json_text.opens_fence(self._source)
        if fenced and syntax.bare and (yield from self._marker_follows()):
            raise NotACall
        if syntax.begin[-1:] == ("[",) and not syntax.object:
            yield from self._source.skip_space()
            yield from self._source.accept("[")
        while True:
            if syntax.object:
                yield from self._objects(form, around)
            else:
                call = self._new_call(form)
                yield from self._read(call, call.read(self._source), around)
            yield from self._close(marks(syntax.close))
            if syntax.begin:
                if (yield from self._ends(marks(syntax.end))):
                    break
                yield from self._source.expect(*marks(syntax.separator))
            elif not (syntax.bare and self._calls.several and (yield from self._separates())):
                break
        yield from self._close(["```"] if fenced else [])
        if syntax.bare or self._tolerant:
            while (yield from self._close(closing_marks())):
                pass

    def _marker_follows(self) -> Steps[bool]:
        """Read white space; whether a text comes next that opens a call itself."""
        yield from self._source.skip_space()
        for text in self.marked:
            if (yield from self._source.comes(text)):
                return True
        return False

    def _objects(self, form: Form, around: TextSink) -> Steps[None]:
        """Read calls that are JSON objects: one, or an array of them."""
        source = self._source
        yield from source.expect(*marks(form.syntax.open))
        fenced = yield from json_text.opens_fence(source)
        if (yield from source.skip_space()) != "[":
            yield from self._one_object(form, around)
        else:
            source.take(1)
            while True:
                yield from self._one_object(form, around)
                yield from source.skip_comma(before="]")
                if (yield from source.skip_space()) == "]":
                    break
            source.take(1)
            source.record()
        yield from self._close(["```"] if fenced else [])

    def _one_object(self, form: Form, around: TextSink) -> Steps[None]:
        call = self._new_call(form)
        yield from self._read(call, call.read_object(self._source), around)

    def _ends(self, end: Sequence[str]) -> Steps[bool]:
        """Whether the section ends here; reads what ends it, or the comma before the next call."""
        source = self._source
        yield from source.skip_space()
        if (yield from source.accept(",")):
            return False
        closed = yield from source.accept("]")
        if closed:
            source.record()
            yield from source.skip_space()
        if end and (yield from source.accept(end[0])):
            source.record()
            yield from self._close(end[1:])
            return True
        return closed or not end

    def _separates(self) -> Steps[bool]:
        """Read what separates calls in a row without a marker; whether it came."""
        yield from self._source.skip_space()
        comma = yield from self._source.accept(",")
        return comma or (yield from self._source.accept(";"))

    def _close(self, texts: Sequence[str]) -> Steps[bool]:
        """Read those of ``texts`` that come next, if any: models leave out closing texts."""
        found = False
        for text in texts:
            yield from self._source.skip_space()
            if (yield from self._source.accept(text)):
                self._source.record()
                found = True
        return found

    # --- single calls ---

    def _new_call(self, form: Form) -> CallReader:
        self._call = CallReader(
            form.calls,
            self.count,
            self._emit,
            self._tools,
            self._answer,
            taken=self._taken,
            tolerant=self._tolerant,
            offered_only=not form.own or (form.syntax.bare and bool(self._tools)),
        )
        return self._call

    def _read(self, call: CallReader, steps: Steps[None], around: TextSink) -> Steps[None]:
        """Read one call by its ``steps``, then record only the text after it."""
        try:
            yield from steps
        except EndOfReply:
            with suppress(NotACall):
                call.start()
            raise
        finally:
            if call.started:
                self.count += 1
                around.boundary()
                self._source.record()

    def _ended(self, form: Form, around: TextSink, *, calling: bool) -> None:
        """The reply ended inside a section; if it was cut, what is there of a call is dropped."""
        is_call = not form.syntax.bare or bool(self._call and self._call.name)
        if form.own and not is_call:
            is_call = self._may_be_call(self._source.seen())
        self._drop_or_write("", around, drop=self._source.cut and (calling or is_call))

    def _may_be_call(self, text: str) -> bool:
        """Whether ``text``, the beginning of an object, can become a call of the family."""
        begun = _BEGUN_OBJECT.fullmatch(text)
        if begun is None:
            return False
        key, name = begun.groups()
        if key in NAME_KEYS and name is not None:
            return any(tool.name.startswith(name) for tool in self._tools)
        return any(known.startswith(key or "") for known in CALL_KEYS)

    def _drop_or_write(self, before: str, around: TextSink, *, drop: bool) -> None:
        text = before + self._source.recorded()
        if drop:
            around.boundary()
        else:
            around.write(text)
