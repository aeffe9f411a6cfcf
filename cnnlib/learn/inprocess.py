"""Check functions in this process, as a notebook does: the same cases and the same verdict, without the judge's limits."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cnnlib.errors import ValueRangeError
from cnnlib.learn import wire
from cnnlib.learn.checker import given_functions, prepare, verdict_of
from cnnlib.learn.exercise import find
from cnnlib.learn.judge import Call, Result, Run
from cnnlib.learn.trouble import Trouble
from cnnlib.learn.verdict import Verdict


def check(name: str | int, *functions: Callable, seed: str = "") -> Verdict:
    """Check functions in this process, as in a notebook: ``check("softmax_cross_entropy", my_function)``.

    The functions get copies of the arguments, in float64, and the right answers are computed only after they have returned.
    In a notebook the verdict shows itself. An endless loop is yours to interrupt here; ``cnnlib learn check`` has limits.

    >>> from cnnlib.learn import check
    >>> check("softmax_cross_entropy", lambda dl, x, t: None).sentence
    'softmax_cross_entropy returns None: it is not written yet, or ends without a return.'

    Raises UnknownNameError for an exercise that does not exist, ValueRangeError for another number of functions.
    """
    exercise = find(name)
    wanted = exercise.function_names
    if len(functions) != len(wanted) or not all(callable(f) for f in functions):
        came = ", ".join(getattr(f, "__name__", type(f).__name__) for f in functions) or "none"
        raise ValueRangeError(
            f"learn.check: {exercise.name} needs {len(wanted)} function(s): {', '.join(wanted)}; got {len(functions)}: {came}."
        )
    prepared = prepare(exercise, seed)
    given = given_functions(exercise)
    by_name = dict(zip(wanted, functions))
    started = time.monotonic()
    called = [_call_here(by_name[c.function], c, given) for c in prepared.calls]
    run = Run(
        [result if _encoded(value) == blobs else Result(trouble=Trouble("overwritten")) for result, value, blobs in called]
    )
    return replace(verdict_of(prepared, run), seed=seed, seconds=round(time.monotonic() - started, 3))


def _call_here(function: Callable, call: Call, given: dict[str, Callable]) -> tuple[Result, Any, list[bytes]]:
    """The result, and what was returned: as it is, and as it was when it came."""
    blobs: list[bytes] = []
    trees = [wire.encode(a, blobs, call.layout) for a in call.args]
    args = [wire.decode(t, blobs, given) for t in trees]
    try:
        value = function(*args)
    except Exception as e:
        return Result(trouble=Trouble("raised", f"{type(e).__name__}: {e}".rstrip(": "), _line(e, function))), None, []
    changed = tuple(i for i, (a, b) in enumerate(zip(args, call.args)) if not isinstance(b, wire.Given) and not _equal(a, b))
    blobs = []
    return Result(wire.decode(wire.encode(value, blobs), blobs), mutated=changed), value, blobs


def _encoded(value: Any) -> list[bytes]:
    blobs: list[bytes] = []
    wire.encode(value, blobs)
    return blobs


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.shape == np.shape(b) and a.tobytes() == np.asarray(b).tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return callable(a) or a == b


def _line(error: BaseException, function: Any) -> int | None:
    try:
        filename = inspect.getsourcefile(inspect.unwrap(function)) or ""
    except TypeError:
        filename = ""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
