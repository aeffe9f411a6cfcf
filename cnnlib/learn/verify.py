"""Are the exercises and their checker right? ``python -m cnnlib.learn.verify [NAME ...]``"""

from __future__ import annotations

import copy
import sys
import traceback

import numpy as np

from cnnlib.learn.exercise import Exercise, exercises, find, given_text, load, reference, solution_text


def same(a, b, tolerance) -> bool:
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return a is b or a == b
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k], tolerance) for k in a)
    try:
        x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    except (TypeError, ValueError):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(same(i, j, tolerance) for i, j in zip(a, b))
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=tolerance, atol=tolerance * 0.01 * np.abs(x).max(initial=0.0)))


def arguments(exercise, value):
    from cnnlib.learn.exercise import Given

    if isinstance(value, Given):
        return next(f for f in exercise.given if f.__name__ == value.name)
    if isinstance(value, tuple | list):
        return type(value)(arguments(exercise, v) for v in value)
    return {k: arguments(exercise, v) for k, v in value.items()} if isinstance(value, dict) else copy.deepcopy(value)


def passes(exercise: Exercise, text: str, seed: int = 0) -> str:
    """'' when the text is right, else what is wrong."""
    try:
        functions = dict(zip(exercise.function_names, load(text, exercise.function_names, "<text>", given_text(exercise))))
        for i, case in enumerate(exercise.cases_of(np.random.default_rng(seed))):
            with np.errstate(all="ignore"):
                expected = reference(exercise)[case.function](*arguments(exercise, case.args))
                got = functions[case.function](*arguments(exercise, case.args))
            names = exercise.outputs_of(case.function)
            if len(names) == 1:
                expected, got = (expected,), (got,)
            if not isinstance(got, tuple | list) or len(got) < len(names):
                return f"case {i} {case.features}: returned {type(got).__name__}"
            for name, e, g in zip(names, expected, got):
                if not same(e, g, exercise.tolerance):
                    return f"case {i} {case.features}: {name} differs"
    except Exception as e:
        return f"{type(e).__name__}: {e} ({traceback.extract_tb(e.__traceback__)[-1]})"
    return ""


def verify(exercise: Exercise) -> list[str]:
    """What is wrong with an exercise, a line each."""
    wrong = []
    text = solution_text(exercise)
    if not passes(exercise, exercise.starter):
        wrong.append("the stub passes")
    for kind, good in [("solution", text), *((f"alternative {i}", a) for i, a in enumerate(exercise.alternatives))]:
        for seed in range(3):
            if why := passes(exercise, good, seed):
                wrong.append(f"{kind} fails with seed {seed}: {why}")
    for m in exercise.mutants:
        if text.count(m.old) != 1:
            wrong.append(f"{m.old!r} occurs {text.count(m.old)} times in the solution")
        elif not passes(exercise, text.replace(m.old, m.new)):
            wrong.append(f"mutant survives: {m.old!r} -> {m.new!r}")
    return wrong


def main(names: list[str]) -> int:
    chosen = [find(n) for n in names] if names else exercises()
    bad = 0
    for exercise in chosen:
        wrong = verify(exercise)
        bad += bool(wrong)
        print(
            f"{exercise.number:2} {exercise.name}: {len(exercise.mutants)} mutants, {len(exercise.alternatives)} alternatives:",
            "WRONG" if wrong else "ok",
        )
        for line in wrong:
            print("   ", line)
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
