"""Check a learner's answer: draw the cases, have the judge call it, compare, and say what is wrong.

>>> from cnnlib.learn.checker import check_source
>>> verdict = check_source(find("softmax_cross_entropy"), b"def softmax_cross_entropy(dl, x, t): ...")
>>> verdict.key
'none'
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cnnlib.learn import derivative
from cnnlib.learn.closeness import as_array, close, same
from cnnlib.learn.diagnosis import diagnose
from cnnlib.learn.evidence import Evidence
from cnnlib.learn.exercise import Case, Exercise, Explanation, find, given_text, load, reference, solution_text
from cnnlib.learn.judge import SECONDS, Call, Result, Run, Worker
from cnnlib.learn.localiser import first_wrong_step
from cnnlib.learn.rules_of_form import misshapen, not_finite
from cnnlib.learn.trouble import Trouble
from cnnlib.learn.verdict import Verdict
from cnnlib.learn.wire import Given, Other

STRIDED = "read-only arrays that are not contiguous"
AGAIN = "the shapes of an earlier call (does it remember that one?)"


def draw(exercise: Exercise, seed: str = "") -> list[Case]:
    """The cases of a seed: any text, such as a student's number; always the same for the same text."""
    words = np.frombuffer(hashlib.sha256(f"{exercise.name} {seed}".encode()).digest(), dtype=np.uint32)
    return exercise.cases_of(np.random.default_rng(words))


@dataclass(eq=False)
class Prepared:
    """What a check needs besides the answer; kept, because `verify` checks hundreds of answers to the same cases."""

    exercise: Exercise
    seed: str

    @cached_property
    def cases(self) -> list[Case]:
        """The cases of the seed; then, the last function first, one of each again with other numbers, and that as STRIDED."""
        cases, others = draw(self.exercise, self.seed), draw(self.exercise, f"{self.seed} again")
        for name in reversed(self.exercise.function_names):
            again = next(c for c in others if c.function == name)
            cases += [replace(again, features=(*again.features, AGAIN, *more)) for more in ((), (STRIDED,))]
        return cases

    @cached_property
    def calls(self) -> list[Call]:
        return [Call(c.function, c.args, "strided" if STRIDED in c.features else "") for c in self.cases]

    @cached_property
    def expected(self) -> list[list[Any]]:
        return [expected_outputs(self.exercise, c) for c in self.cases]

    def of(self, function: str) -> tuple[list[int], list[Case], list[list[Any]]]:
        """Positions, cases and expected outputs of one function."""
        mine = [i for i, c in enumerate(self.cases) if c.function == function]
        return mine, [self.cases[i] for i in mine], [self.expected[i] for i in mine]

    @cached_property
    def mistakes(self) -> dict[str, list[Mistake]]:
        """Per function, what somebody who made a known mistake would have returned."""
        return {name: list(_mistakes(self, name)) for name in self.exercise.function_names}


@dataclass(frozen=True)
class Mistake:
    """An explanation with the numbers that belong to it; ``source`` is the mutant's text, "" for ``wrong``."""

    explanation: Explanation
    outputs: list[list[Any] | None]  # None in a case that the mistake is not about
    source: str


@functools.lru_cache(maxsize=8)
def prepare(exercise: Exercise, seed: str = "") -> Prepared:
    return Prepared(exercise, seed)


def check_source(
    exercise: Exercise,
    source: bytes,
    *,
    filename: str = "exercise.py",
    seed: str = "",
    seconds: float = SECONDS,
    worker: Worker | None = None,
    keep: bool = False,
) -> Verdict:
    """The verdict on a file. ``worker``: one that was started before; ``keep`` it only for texts of ours."""
    prepared = prepare(exercise, seed)
    worker = worker or Worker()
    run = worker.run(
        source,
        exercise.function_names,
        prepared.calls,
        filename=filename,
        given=given_text(exercise),
        seconds=seconds,
        keep=keep,
    )
    verdict = verdict_of(prepared, run)
    if verdict.passed and exercise.refuse and (why := exercise.refuse(source.decode("utf-8-sig"))):
        verdict = _failed(exercise, "unasked", why)
    if verdict.passed and exercise.afterwards:
        verdict = replace(verdict, sentence=f"{verdict.sentence} {exercise.afterwards(source.decode('utf-8-sig'))}")
    return replace(
        verdict,
        file_hash=hashlib.sha256(source).hexdigest(),
        seed=seed,
        printed=run.printed,
        seconds=round(run.seconds, 3),
    )


# ---- from results to a verdict


def verdict_of(prepared: Prepared, run: Run, without: str = "") -> Verdict:
    """Compare what came with the reference, function by function; the first wrong one is diagnosed.

    ``without``: a text whose own numbers must not serve as the explanation of itself (`verify` asks so).
    """
    exercise, cases = prepared.exercise, prepared.cases
    if run.trouble is not None:
        where = cases[len(run.results)].features if 0 < len(run.results) < len(cases) else ()
        return _failed(exercise, run.trouble.kind, run.trouble.sentence, line=run.trouble.line, features=where)
    for name in exercise.function_names:
        verdict = _verdict_of_function(prepared, name, run.results, without)
        if verdict is not None:
            return verdict
    return Verdict(exercise.name, True, "passed", f"right in all {len(cases)} cases.")


def _verdict_of_function(prepared: Prepared, name: str, results: list[Result], without: str) -> Verdict | None:
    exercise = prepared.exercise
    mine, cases, expected = prepared.of(name)
    results = [results[i] for i in mine]
    if (failed := _raised(exercise, name, cases, results)) or (failed := _miscounted(exercise, name, cases, expected, results)):
        return failed
    names = exercise.outputs_of(name)
    split = [_split(r.value, len(names)) for r in results]
    got = [outputs for outputs, _ in split if outputs is not None]
    wrong = [o for o in range(len(names)) if not all(same(e[o], g[o], exercise.tolerance) for e, g in zip(expected, got))]
    wrong += [o for o in range(len(names)) if o not in wrong and _wrong_dtype(expected, got, o)]
    mutated = sorted({i for r in results for i in r.mutated})
    if not wrong and not mutated:
        return None
    first = _evidence(exercise, name, cases, expected, got, min(wrong, default=0), mutated)
    if not wrong:
        return _failed(exercise, *diagnose(first), function=name)
    mistakes = [m for m in prepared.mistakes[name] if not without or m.source != without]
    key, sentence = explain(exercise, mistakes, expected, got, min(wrong)) or diagnose(first)
    steps = [s for _, s in split] if name == exercise.function_names[0] else []
    step = first_wrong_step(exercise, cases, steps)
    if step is not None and key in ("value", "feature", "edge"):  # the vague ones
        key, sentence = "step", step.sentence
    return _failed(
        exercise,
        key,
        sentence,
        function=name,
        right=tuple(n for o, n in enumerate(names) if o not in wrong),
        step=step.sentence if step is not None else "",
        **_worst(first, key),
    )


def _raised(exercise: Exercise, name: str, cases: list[Case], results: list[Result]) -> Verdict | None:
    troubles = [(c, r.trouble) for c, r in zip(cases, results) if r.trouble is not None]
    if not troubles:
        return None
    case, trouble = troubles[0]
    if "read-only" in trouble.what and STRIDED in case.features:
        return _failed(
            exercise, "mutated", "your function writes to its arguments: the caller still needs them, work on copies.",
            function=name, line=trouble.line,
        )  # fmt: skip
    fine = [set(c.features) for c, r in zip(cases, results) if r.trouble is None]
    sentence = _in_plain_words(exercise, name, trouble)
    always = set.intersection(*(set(c.features) for c, _ in troubles)) - set().union(*fine)
    if fine and always:
        sentence = f"{sentence.rstrip('.?')}; only with {' and '.join(sorted(always))}."
    return _failed(exercise, trouble.kind, sentence, function=name, line=trouble.line, features=case.features)


def _in_plain_words(exercise: Exercise, name: str, trouble: Trouble) -> str:
    """An exception's sentence; two that beginners meet are translated."""
    if trouble.line is None and "positional argument" in trouble.what:
        wanted = ", ".join(inspect.signature(reference(exercise)[name]).parameters)
        return f"{name} is called with ({wanted}), as in the starter, and yours takes others: {trouble.what}."
    if sizes := re.search(r"matmul: .*\(size (\d+) is different from (\d+)\)", trouble.what):
        return (
            f"line {trouble.line} multiplies matrices that do not fit: the left one ends in an axis of {sizes[2]}, "
            f"the right one begins with {sizes[1]}; is a transpose missing, or the order wrong?"
        )
    return trouble.sentence


def _miscounted(
    exercise: Exercise, name: str, cases: list[Case], expected: list[list[Any]], results: list[Result]
) -> Verdict | None:
    """None, or another number of outputs."""
    names = exercise.outputs_of(name)
    for case, e, r in zip(cases, expected, results):
        if r.value is None and not (len(e) == 1 and e[0] is None):
            why = "returns None: it is not written yet, or ends without a return."
            if any(other.value is not None for other in results):
                where = ", ".join(case.features) or "no feature"
                why = f"returns None in the case with {where}: is there a path without return?"
            return _failed(exercise, "none", f"{name} {why}", function=name)
        if _split(r.value, len(names))[0] is None:
            came = f"{len(r.value)} values" if isinstance(r.value, tuple | list) else _kind(r.value)
            what = f"{len(names)} values in this order: {', '.join(names)}" if len(names) > 1 else names[0]
            return _failed(exercise, "count", f"{name} must return {what}; got {came}.", function=name)
    return None


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"one array of shape {value.shape}"
    return value.kind if isinstance(value, Other) else f"one {type(value).__name__}"


def _split(value: Any, count: int) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """The outputs (None when their number is wrong), and the dict of intermediates that may follow them."""
    steps = None
    if isinstance(value, tuple | list) and len(value) == count + 1 and isinstance(value[-1], dict):
        *value, steps = value
        steps = {name: array for name, step in steps.items() if (array := as_array(step)) is not None}
    elif count == 1:
        return [value], None
    elif isinstance(value, np.ndarray) and value.ndim == 1:  # several numbers
        value = value.tolist()
    if isinstance(value, tuple | list) and len(value) == count:
        return list(value), steps
    return None, steps


def expected_outputs(exercise: Exercise, case: Case) -> list[Any]:
    """The reference's outputs, one by one."""
    with np.errstate(all="ignore"):
        value = reference(exercise)[case.function](*arguments(exercise, case))
    return [value] if len(exercise.outputs_of(case.function)) == 1 else list(value)


@functools.cache
def given_functions(exercise: Exercise) -> dict[str, Callable]:
    names = [f.__name__ for f in exercise.given]
    return dict(zip(names, load(given_text(exercise), names)))


def arguments(exercise: Exercise, case: Case) -> list[Any]:
    """A copy of a case's arguments, with ``Given`` turned into functions."""
    given = given_functions(exercise)

    def real(value: Any) -> Any:
        if isinstance(value, Given):
            return given[value.name]
        if isinstance(value, tuple | list):
            return type(value)(real(v) for v in value)
        return {k: real(v) for k, v in value.items()} if isinstance(value, dict) else copy.deepcopy(value)

    return [real(a) for a in case.args]


def _wrong_dtype(expected: list[list[Any]], got: list[list[Any]], o: int) -> bool:
    """Single precision where everything else was double, or complex: right by chance, wrong by habit."""
    pairs = [(as_array(e[o]), as_array(g[o])) for e, g in zip(expected, got)]
    return any(
        e is not None
        and g is not None
        and e.dtype == np.float64
        and (g.dtype in (np.float16, np.float32) or g.dtype.kind == "c")
        for e, g in pairs
    )


def _evidence(
    exercise: Exercise,
    name: str,
    cases: list[Case],
    expected: list[list[Any]],
    got: list[list[Any]],
    o: int,
    mutated: list[int],
) -> Evidence:
    names = exercise.outputs_of(name)
    evidence = Evidence(
        exercise,
        name,
        names[o],
        cases,
        [e[o] for e in expected],
        [g[o] for g in got],
        {n: [e[p] for e in expected] for p, n in enumerate(names) if p != o},
    )
    evidence.mutated = tuple(evidence.parameters[i] for i in mutated)
    return evidence


# ---- the exercise's own explanations


def explain(
    exercise: Exercise, mistakes: list[Mistake], expected: list[list[Any]], got: list[list[Any]], first: int
) -> tuple[str, str] | None:
    """The known mistake that gives exactly these numbers: in all outputs, or else in the first wrong one."""
    for chosen in (range(len(expected[0])), [first]):
        for m in mistakes:
            told = [(w, g, e) for w, g, e in zip(m.outputs, got, expected) if w is not None]
            fits = all(same(w[o], g[o], exercise.tolerance) for w, g, _ in told for o in chosen)
            if fits and not all(same(e[o], w[o], exercise.tolerance) for w, _, e in told for o in chosen):
                return m.explanation.key, m.explanation.sentence
    return None


def _mistakes(prepared: Prepared, name: str) -> Iterator[Mistake]:
    exercise = prepared.exercise
    _, cases, _ = prepared.of(name)
    text = solution_text(exercise)
    for explanation in exercise.explanations:
        if explanation.wrong is not None and (explanation.function or exercise.function_names[0]) == name:
            if (outputs := _outputs_of_mistake(exercise, name, explanation.wrong, cases)) is not None:
                yield Mistake(explanation, outputs, "")
        for mutant in exercise.mutants:
            if mutant.says == explanation.key:
                changed = text.replace(mutant.old, mutant.new)
                function = load(changed, [name], "<mutant>", given_text(exercise))[0]
                if (outputs := _outputs_of_mistake(exercise, name, function, cases)) is not None:
                    yield Mistake(explanation, outputs, changed)


def _outputs_of_mistake(exercise: Exercise, name: str, function: Callable, cases: list[Case]) -> list[list[Any] | None] | None:
    """Case by case, None in those that the mistake is not about; None when ``function`` cannot be called at all."""
    outputs: list[list[Any] | None] = []
    count = len(exercise.outputs_of(name))
    for case in cases:
        try:
            with np.errstate(all="ignore"):
                value = function(*arguments(exercise, case))
        except Exception:
            return None
        split = _split(value, count)[0] if value is not None else None
        if split is None and value is not None:
            return None
        outputs.append(split)
    return outputs


# ---- what a verdict shows


def _worst(evidence: Evidence, key: str) -> dict[str, Any]:
    """The worst element of the first wrong case that the sentence is about, with the derivative by differences."""
    told = {"nan": not_finite, "shape": misshapen}.get(key)
    wrong = told(evidence) if told else [k for k, right in enumerate(evidence.right) if not right]
    i = wrong[0] if wrong else 0
    shown: dict[str, Any] = {"output": evidence.output, "features": evidence.cases[i].features}
    e, g = as_array(evidence.expected[i]), as_array(evidence.got[i])
    if e is None or g is None or e.shape != g.shape or not e.size or "c" in e.dtype.kind + g.dtype.kind:
        return shown
    with np.errstate(all="ignore"):
        gap = np.abs(e.astype(np.float64) - g.astype(np.float64))
        gap = np.where(close(e.astype(np.float64), g.astype(np.float64), evidence.exercise.tolerance), -1.0, gap)
        index = tuple(int(k) for k in np.unravel_index(int(np.argmax(np.nan_to_num(gap, nan=np.inf))), e.shape))
    shown |= {"index": index, "expected": float(e[index]), "got": float(g[index])}
    numerical = derivative.numerical_of(evidence.exercise, evidence.cases[i], evidence.output)
    if numerical is not None:
        try:
            shown["numerical"] = derivative.element(numerical, evidence.cases[i], evidence.output, e.shape, index)
        except Exception:
            pass
    return shown


def _failed(exercise: Exercise, key: str, sentence: str, **facts: Any) -> Verdict:
    return Verdict(exercise.name, False, key, sentence, **facts)


def main(arguments: Sequence[str]) -> int:
    """``python -m cnnlib.learn.checker NAME FILE``: the verdict on a file."""
    name, path = arguments
    with open(path, "rb") as f:
        verdict = check_source(find(name), f.read(), filename=path.rpartition("/")[2])
    print(verdict)
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
