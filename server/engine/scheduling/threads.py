"""Chooses the number of decoding threads while other processes use the machine too.

llama.cpp's threads wait for each other by spinning. When another process, a *neighbour*, takes one
of the cores, every barrier waits for a thread that is not running: two threads then decode several
times slower than one. This module watches step times. When steps become slow, or the threads get
less processor time than they want, it tries a few steps with fewer threads, or later again with
more, and keeps the faster count. A long step that got far too little processor time needs no trial:
it shows how many cores it had.

With one busy neighbour on two cores, two threads decoded 4 to 27 tokens/s instead of 92 and one
thread 57 (SmolLM2-135M, llama.cpp as it comes). The constants below are choices that fit this
measurement; what each trades off is said beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

# A comparison takes this many steps, or fewer once they took this many seconds: where a thread
# waits for its core, steps take many times longer. Fewer steps decide on noise; more keep a slow
# count.
_TRIAL_STEPS = 6
_TRIAL_SECONDS = 0.25
# Steps this many times as long as usual call for a trial, once they took this many seconds in a
# row: a neighbour stays, while every machine has slow moments. One thread of two takes 92/57 = 1.6
# times as long as both do undisturbed, so at less there is nothing to gain.
_SLOW = 1.6
_SLOW_SECONDS = 0.15
# A trial must win by this much; otherwise noise would make the count alternate.
_CLEARLY_FASTER = 0.9
# A trial that wins by this much needs no second look.
_FAR_FASTER = 0.35
# A trial that wins by less than this shows no neighbour: steps of one or a few tokens, which wait
# for memory, gain from fewer threads, while prompts, which compute, would lose.
_NEIGHBOUR = 0.6
# A trial that only crowded cores call for costs a few slow steps at most once in this time.
_SECONDS_BETWEEN_TRIALS = 20.0
# Cores are crowded if threads get less than this share of the time; undisturbed they get nearly
# all.
_CROWDED_SHARE = 0.9
# In a step of at least this many seconds, threads that got less than this share of it lack cores:
# on two cores with one neighbour they get half.
_LONG_SECONDS = 0.15
_LACKING_SHARE = 0.6
# With fewer threads than configured, more are tried again after this time, since the neighbour may
# have gone. Every time in vain, the wait doubles.
_SECONDS_BEFORE_RETURN = 2.0
# Where the system tells how long cores were idle, more threads are tried only if cores for them
# were idle for this share of this many seconds: with a neighbour, one step on all threads takes as
# long as ten on fewer.
_IDLE_SHARE = 0.6
_WATCH_SECONDS = 0.25
# Without steps all cores are idle, so steps must fill at least this share of a watch.
_BUSY_SHARE = 0.7
# Slow steps call for another trial only after this time.
_LEAST_SECONDS_BETWEEN_TRIALS = 1.0


class ThreadGovernor:
    """Chooses the thread count from the times of decode-only steps.

    Steps are only compared with steps of the same ``shape`` (their number of sequences). Owns no
    clock: ``now`` comes with every observation, in seconds of a monotonic clock.
    """

    def __init__(
        self,
        most: int,
        *,
        waits_elsewhere: bool = False,
        idle_core_seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        """``most`` is the configured number of threads, never exceeded.

        ``waits_elsewhere``: the threads also wait for a GPU, so unused processor time does not show
        a neighbour. ``idle_core_seconds``: see `processors`.
        """
        self._most = most
        self._waits_elsewhere = waits_elsewhere
        self._idle_core_seconds = idle_core_seconds
        self._current = most
        self._usual = most
        self._shape = 0
        self._times: list[float] = []
        self._shares: list[float] = []
        self._slow: list[float] = []  # steps in a row
        self._reference: float | None = None
        self._trial: int | None = None
        self._rival: float | None = None  # step time of a trial that won and awaits a second look
        self._last_trial = -math.inf
        self._patience = _SECONDS_BEFORE_RETURN
        self._skipped = 0
        self._returned = False
        # When a watch for idle cores began and the idle seconds then; seconds of steps since.
        self._watch: tuple[float, float] | None = None
        self._watched = 0.0

    @property
    def threads(self) -> int:
        """The number of threads for the next step if it is decode-only; a trial may be running."""
        return self._current if self._trial is None else self._trial

    @property
    def usual_threads(self) -> int:
        """The number of threads for any other step, from which a trial would learn nothing."""
        return self._usual

    def observe(self, *, shape: int, seconds: float, cpu_seconds: float, now: float) -> None:
        """Learn from a decode-only step of ``shape`` sequences that took ``seconds``.

        ``cpu_seconds`` is the processor time that all threads of the process got meanwhile.
        """
        if self._most == 1:
            return
        self._watched += seconds
        if self._trial is None and self._lacked_cores(self._current, seconds, cpu_seconds, now):
            return
        if shape != self._shape:
            self._shape = shape
            self._reference = None
            self._begin_anew()
        self._skipped = 0
        self._times.append(seconds)
        self._shares.append(cpu_seconds / (seconds * self.threads))
        if self._trial is not None:
            if self._is_decided:
                self._judge(self._trial, now)
        elif self._is_slow(seconds):
            if now - self._last_trial > _LEAST_SECONDS_BETWEEN_TRIALS:
                self._times = self._slow
                self._compare(now, slow=True)
        elif self._enough and not self._slow:
            self._compare(now, slow=False)

    def skip(self, *, seconds: float, cpu_seconds: float, now: float) -> None:
        """Note a step of the `usual_threads` that is not comparable: with drafts or a prompt.

        Several in a row end a trial, since the steps it compares with are too long ago. When it is
        time to see whether a neighbour has gone, all threads return: the next long step shows it.
        """
        self._watched += seconds
        if self._lacked_cores(self._usual, seconds, cpu_seconds, now):
            return
        self._skipped += 1
        if self._skipped == _TRIAL_STEPS:
            self._begin_anew()
        if self._may_return(now):
            self._current = self._usual = self._most
            self._returned = True
            self._reference = None
            self._begin_anew()
            self._last_trial = now

    def _lacked_cores(self, threads: int, seconds: float, cpu_seconds: float, now: float) -> bool:
        """Whether a long step of ``threads`` had far fewer cores; if so, use as many as it had."""
        if self._waits_elsewhere or seconds < _LONG_SECONDS:
            return False
        cores = cpu_seconds / seconds
        if cores > _LACKING_SHARE * threads:
            if threads == self._most:  # if there was a neighbour, it has gone
                self._returned = False
                self._patience = _SECONDS_BEFORE_RETURN
            return False
        fewer = max(1, round(cores))
        if fewer == threads:
            return False
        if self._returned:
            self._wait_longer()
        self._returned = False
        self._current = self._usual = fewer
        self._reference = None
        self._begin_anew()
        self._last_trial = now
        return True

    def _wait_longer(self) -> None:
        self._patience = min(2 * self._patience, _SECONDS_BETWEEN_TRIALS)

    def _begin_anew(self) -> None:
        """Discard the measurements, which belong to another situation."""
        self._trial = self._rival = None
        self._times, self._shares, self._slow = [], [], []

    @property
    def _enough(self) -> bool:
        return len(self._times) >= _TRIAL_STEPS or sum(self._times) >= _TRIAL_SECONDS

    def _is_slow(self, seconds: float) -> bool:
        """Whether steps have been slow for long enough, up to the last one of ``seconds``."""
        usual = min(self._times) if self._reference is None else self._reference
        if seconds <= _SLOW * usual:
            self._slow = []
            return False
        self._slow.append(seconds)
        return sum(self._slow) >= _SLOW_SECONDS

    @property
    def _is_decided(self) -> bool:
        """Whether the trial has lasted long enough or is far slower.

        With more threads a single far slower step decides: the neighbour has not gone.
        """
        assert self._trial is not None
        assert self._reference is not None
        if self._trial > self._current:
            lost = _FAR_FASTER * self._times[-1] > self._reference
        else:
            lost = len(self._times) > 1 and min(self._times[-2:]) > _SLOW * self._reference
        return lost or self._enough

    def _judge(self, trial: int, now: float) -> None:
        """End the trial and keep the faster count.

        Fewer threads, unless far faster, must also beat the steps after the trial: on a shared
        machine the speed itself changes from one moment to the next.
        """
        assert self._reference is not None
        typical = median(self._times)
        self._begin_anew()
        self._last_trial = now
        if typical >= _CLEARLY_FASTER * self._reference:
            if trial > self._current:
                self._wait_longer()
        elif trial > self._current or typical < _FAR_FASTER * self._reference:
            self._adopt(trial, typical, usual=trial)
        else:
            self._rival = typical

    def _adopt(self, threads: int, typical: float, *, usual: int) -> None:
        self._current, self._usual = threads, usual
        self._reference = typical
        self._patience = _SECONDS_BEFORE_RETURN

    def _compare(self, now: float, *, slow: bool) -> None:
        """Compare with a trial that won, or begin one if steps are slow or one is due."""
        typical, share = median(self._times), median(self._shares)
        rival, fewer = self._rival, self._fewer()
        self._begin_anew()
        self._reference = typical
        waited = now - self._last_trial > _SECONDS_BETWEEN_TRIALS
        if rival is not None:
            if fewer is not None and rival < _CLEARLY_FASTER * typical:
                alone = rival > _NEIGHBOUR * typical
                self._adopt(fewer, rival, usual=self._usual if alone else fewer)
        elif slow:
            self._trial = fewer
        elif self._may_return(now):
            self._trial = self._more()
        elif self._current == self._most and waited and share < _CROWDED_SHARE:
            self._trial = fewer

    def _may_return(self, now: float) -> bool:
        """Whether it is time to try more threads again."""
        if self._current == self._most or now - self._last_trial <= self._patience:
            return False
        idle = self._idle_core_seconds()
        return idle is None or self._found_idle_cores(idle, now)

    def _found_idle_cores(self, idle: float, now: float) -> bool:
        """Whether cores for more threads were idle during a watch; ``idle`` is the counter now."""
        if self._watch is None:
            self._watch, self._watched = (now, idle), 0.0
            return False
        began, idle_then = self._watch
        elapsed = now - began
        if elapsed < _WATCH_SECONDS:
            return False
        self._watch = None
        if self._watched < _BUSY_SHARE * elapsed:
            return False
        wanted = _IDLE_SHARE * elapsed * (self._more() - self._current)
        found = idle - idle_then >= wanted
        if not found:
            self._last_trial = now
        return found

    def _fewer(self) -> int | None:
        fewer = math.floor(self._current * 3 / 4)
        return fewer if fewer >= 1 else None

    def _more(self) -> int:
        return min(self._most, math.ceil(self._current * 4 / 3))
