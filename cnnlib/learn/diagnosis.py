"""What is wrong, from the numbers alone: one rule per kind of mistake, tried in order; the first that fits exactly speaks.

The exercise's own explanations come before these rules (checker.py).
"""

from __future__ import annotations

from collections.abc import Callable

from cnnlib.learn import rules_of_form as form
from cnnlib.learn import rules_of_value as value
from cnnlib.learn.evidence import Evidence

# What a mutant may name in ``says``: these, the kinds of trouble.py, and the keys of the exercise's explanations.
KEYS = {
    "raised": "an exception",
    "none": "returned None: not written yet",
    "count": "another number of outputs",
    "swapped": "equal to another output",
    "transpose": "equal to the transpose",
    "permuted": "equal with the axes in another order",
    "shape": "wrong shape",
    "type": "not numbers",
    "dtype": "float32 or integers",
    "nan": "NaN or infinity",
    "mutated": "wrote to an argument",
    "sign": "equal with the opposite sign",
    "factor": "equal times a number, a size or an argument",
    "flipped": "equal when turned around along an axis",
    "upstream": "equal to the result for an upstream gradient of ones",
    "constant": "equal plus a constant",
    "term": "equal plus or minus an argument or another output",
    "precision": "right to single precision only",
    "feature": "right except in cases with one feature",
    "edge": "right except at one end of an axis",
    "step": "a named intermediate is the first that is wrong",
    "value": "the largest difference",
    "unasked": "right, but not by what the exercise is about",
}

RULES: dict[str, Callable[[Evidence], str | None]] = {
    "none": form.none,
    "swapped": form.swapped,
    "transpose": form.transpose,
    "permuted": form.permuted,
    "shape": form.shape,
    "type": form.not_numbers,
    "dtype": form.dtype,
    "nan": form.nan,
    "mutated": form.mutated,
    "sign": value.sign,
    "factor": value.factor,
    "flipped": value.flipped,
    "upstream": value.upstream,
    "constant": value.constant,
    "term": value.term,
    "precision": value.precision,
    "edge": value.edge,
}


def diagnose(evidence: Evidence) -> tuple[str, str]:
    """(key, sentence) of the first rule that fits; else of one that fits the failing cases; else the largest difference."""
    for key, rule in RULES.items():
        if sentence := rule(evidence):
            return key, sentence
    only = _feature(evidence)
    if any(evidence.right):
        failing = evidence.only_failing()
        where = only[:-1] + "; there" if only and " except " in only else only[:-1] + "; in the others" if only else ""
        where = where or f"{sum(evidence.right)} of {len(evidence.right)} cases are right; in the others"
        for key, rule in RULES.items():
            if sentence := rule(failing):
                return key, f"{where} {sentence}"
    return ("feature", only) if only else ("value", _value(evidence))


def _feature(ev: Evidence) -> str | None:
    """Right in some cases: what do exactly the failing ones have in common?"""
    failing = [set(c.features) for c, ok in zip(ev.cases, ev.right) if not ok]
    passing = [set(c.features) for c, ok in zip(ev.cases, ev.right) if ok]
    return only_with(f"your {ev.output} is right", failing, passing)


def only_with(subject: str, failing: list[set[str]], passing: list[set[str]]) -> str | None:
    """ "your dx is right except in the cases with stride": a feature of all the failing and of none of the passing cases."""
    if not passing or not failing:
        return None
    common = set.intersection(*failing) - set().union(*passing)
    if common:
        return f"{subject} except in the case{'s' * (len(failing) > 1)} with {' and '.join(sorted(common))}."
    always = set.intersection(*passing) - set().union(*failing)
    if always:
        return f"{subject} only in the case{'s' * (len(passing) > 1)} with {' and '.join(sorted(always))}."
    return None


def _value(ev: Evidence) -> str:
    if not ev.numeric:
        return f"your {ev.output} differs from the right one."
    return f"your {ev.output} is wrong in {sum(not r for r in ev.right)} of {len(ev.right)} cases."
