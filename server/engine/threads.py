"""How many threads to decode with while other processes use the machine too.

llama.cpp's threads wait for each other by spinning. When another process takes one of the cores,
every barrier waits for a thread that is not running: two threads then decode several times slower
than one. So the step time is watched, and when steps become slow, or the threads do not get all the
processor time they want, a few steps are tried with fewer (or again with more) threads; the faster
count is kept. A long step that got far too little needs no trial: it tells how many cores it had.
"""

from __future__ import annotations

import math
from statistics import median

# So many steps are compared, or fewer once they took so many seconds: where a thread waits for its
# core, steps take many times longer.
_TRIAL_STEPS = 6
_TRIAL_SECONDS = 0.25
# A step time this many times the usual one calls for a trial at once.
_SUSPICIOUS = 1.6
# A trial must win by this much, so that noise does not make the count flutter.
_CLEARLY_FASTER = 0.9
# One that wins by this much need not win again.
_FAR_FASTER = 0.5
_SECONDS_BETWEEN_TRIALS = 20.0
# Threads that have their cores to themselves get nearly all of the time.
_CROWDED_SHARE = 0.9
# With fewer threads than configured, more are tried again sooner, since the neighbour may be gone;
# each time in vain, the wait doubles.
_SECONDS_BEFORE_RETURN = 2.0
# In a step of so many seconds, threads that got less than this share of them lack cores.
_LONG_SECONDS = 0.15
_LACKING_SHARE = 0.7
# So many steps in a row that are clearly slower tell enough.
_SLOW_STEPS = 2
# A lost trial that was called for by a suspicion is not repeated at once.
_LEAST_SECONDS_BETWEEN_TRIALS = 1.0


class ThreadGovernor:
    """Chooses the thread count from the times of decode-only steps.

    Steps are only compared with steps of the same ``shape`` (their number of sequences). Owns no
    clock: ``now`` comes with every observation, in seconds of a monotonic clock.
    """

    def __init__(self, most: int, *, waits_elsewhere: bool = False) -> None:
        """``most``: the configured thread count, never exceeded.

        ``waits_elsewhere``: the threads wait for a GPU too, so that processor time they do not use
        says nothing about other processes.
        """
        self._most = most
        self._waits_elsewhere = waits_elsewhere
        self._current = most
        self._trial: int | None = None
        self._shape = 0
        self._times: list[float] = []
        self._shares: list[float] = []
        self._reference: float | None = None
        self._last_trial = -math.inf
        self._won_once = False
        self._skipped = 0
        self._patience = _SECONDS_BEFORE_RETURN
        self._returned = False

    @property
    def threads(self) -> int:
        """The thread count to use for the next step."""
        return self._current if self._trial is None else self._trial

    def observe(self, *, shape: int, seconds: float, cpu_seconds: float, now: float) -> None:
        """Learn from a decode-only step of ``shape`` sequences that took ``seconds``.

        ``cpu_seconds``: processor time that the process got meanwhile, all threads together.
        """
        if self._most == 1 or self._lacked_cores(seconds, cpu_seconds, now):
            return
        if shape != self._shape:
            self._shape = shape
            self._trial = None
            self._won_once = False
            self._reference = None
            self._forget()
        self._skipped = 0
        self._times.append(seconds)
        self._shares.append(cpu_seconds / (seconds * self.threads))
        slowed = self._slowed_down()
        if slowed:  # the steps before belong to another situation
            self._times, self._shares = self._times[-_SLOW_STEPS:], self._shares[-_SLOW_STEPS:]
        if not (slowed or self._enough):
            return
        typical, share = median(self._times), median(self._shares)
        self._forget()
        if self._trial is not None:
            self._judge(typical, now)
        else:
            self._consider(typical, share, now, suspicious=slowed)

    def skip(self, *, seconds: float, cpu_seconds: float, now: float) -> None:
        """A step that no other compares with, such as one with drafts or a part of a prompt.

        Several in a row end a trial, and in time all threads return: otherwise a long prompt would
        be read with the threads that a trial left it.
        """
        if self._lacked_cores(seconds, cpu_seconds, now):
            return
        self._skipped += 1
        if self._skipped < _TRIAL_STEPS:
            return
        self._trial = None
        self._won_once = False
        self._forget()
        if self._current < self._most and now - self._last_trial > self._patience:
            self._current = self._most
            self._returned = True
            self._reference = None
            self._last_trial = now

    def _lacked_cores(self, seconds: float, cpu_seconds: float, now: float) -> bool:
        """Whether a long step had far fewer cores than threads: go on with as many as it had."""
        cores = cpu_seconds / seconds
        if (
            self._waits_elsewhere
            or self._trial is not None
            or seconds < _LONG_SECONDS
            or cores > _LACKING_SHARE * self._current
        ):
            return False
        fewer = max(1, round(cores))
        if fewer == self._current:
            return False
        if self._returned:
            self._wait_longer()
        self._returned = False
        self._current = fewer
        self._reference = None
        self._won_once = False
        self._last_trial = now
        self._forget()
        return True

    def _wait_longer(self) -> None:
        self._patience = min(2 * self._patience, _SECONDS_BETWEEN_TRIALS)

    def _forget(self) -> None:
        self._times, self._shares = [], []

    @property
    def _enough(self) -> bool:
        return len(self._times) >= _TRIAL_STEPS or sum(self._times) >= _TRIAL_SECONDS

    def _slowed_down(self) -> bool:
        """Whether the last steps are clearly slower than those with the usual thread count.

        One that is far slower is enough to end a trial of more threads: it was only to find out
        whether a neighbour has gone.
        """
        before, last = self._times[:-_SLOW_STEPS], self._times[-_SLOW_STEPS:]
        if self._reference is None:
            return bool(before) and min(last) > _SUSPICIOUS * median(before)
        trying_more = self._trial is not None and self._trial > self._current
        if trying_more and _FAR_FASTER * last[-1] > self._reference:
            return True
        return len(last) == _SLOW_STEPS and min(last) > _SUSPICIOUS * self._reference

    def _judge(self, typical: float, now: float) -> None:
        """The trial is over: keep the faster count.

        Unless they are far faster, fewer threads must win twice, with the usual count in between:
        on a shared machine the speed itself changes from one moment to the next.
        """
        assert self._trial is not None
        assert self._reference is not None
        won = typical < _CLEARLY_FASTER * self._reference
        doubtful = typical > _FAR_FASTER * self._reference and not self._won_once
        if won and doubtful and self._trial < self._current:
            self._won_once = True
            self._trial = None
            return
        self._won_once = False
        if won:
            self._current = self._trial
            self._reference = typical
            self._patience = _SECONDS_BEFORE_RETURN
        elif self._trial > self._current:
            self._wait_longer()
        self._trial = None
        self._last_trial = now

    def _consider(self, typical: float, share: float, now: float, *, suspicious: bool) -> None:
        """Begin a trial when steps have become slow, or when it is time to look again."""
        waited = now - self._last_trial
        reduced = self._current < self._most
        patience = self._patience if reduced else _SECONDS_BETWEEN_TRIALS
        due = waited > patience and (reduced or share < _CROWDED_SHARE)
        self._reference = typical
        if self._won_once:
            self._trial = self._fewer()
        elif due or (suspicious and waited > _LEAST_SECONDS_BETWEEN_TRIALS):
            self._trial = self._more() if reduced and not suspicious else self._fewer()

    def _fewer(self) -> int | None:
        fewer = math.floor(self._current * 3 / 4)
        return fewer if fewer >= 1 else None

    def _more(self) -> int:
        return min(self._most, math.ceil(self._current * 4 / 3))
