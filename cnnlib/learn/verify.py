"""Are the exercises and their checker right? ``python -m cnnlib.learn.verify [NAME ...] [--quick]``.

For every exercise: the stub fails; the solution and every alternative pass with several seeds; the reference agrees with
derivatives by differences; an error of 0.1 % in any element is seen; every written mutant is rejected, and with the sentence
that it names; of the generated mutants at least 95 % are rejected. Generated mutants that raise or return something of
another form are not counted, nor are those in places on which no output depends (settings of a textbook function that the
exercise leaves alone, results that it does not use), nor those that the exercise lists as ``equivalent``, with a reason.

"Right sentence" counts a mutant's own numbers as a known mistake, because a learner who makes this mistake gets the sentence.
"Unaided" leaves them out: what the rules and the other explanations see by themselves.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

from cnnlib.learn import checker, derivative, mutation
from cnnlib.learn.closeness import as_array, same
from cnnlib.learn.exercise import Exercise, exercises, find, given_text, solution_text
from cnnlib.learn.judge import Run, Worker
from cnnlib.learn.localiser import first_wrong_step

SECONDS = 2.0  # for one text of ours
MOST_IMPORTANT = {8, 10, 14, 16, 17, 21, 24, 26, 29, 33}  # judged in at least three styles
REJECTED = 0.95  # of the generated mutants
RIGHT_SENTENCE = 0.90  # of the written mutants
FORM = {
    "raised",
    "exit",
    "timeout",
    "memory",
    "ended",
    "output",
    "syntax",
    "missing",
    "none",
    "count",
    "type",
    "shape",
    "mutated",
}


@dataclass
class Report:
    """What verify found about one exercise; ``problems`` is empty when all is well."""

    number: int
    name: str
    problems: list[str] = field(default_factory=list)
    written: int = 0
    rejected: int = 0
    right_sentence: int = 0
    unaided: int = 0
    generated: int = 0
    generated_rejected: int = 0
    survivors: list[str] = field(default_factory=list)
    alternatives: int = 0
    largest_gap: float = 0.0
    seconds: float = 0.0


def verify(exercise: Exercise, quick: bool = False) -> Report:
    """Judge one exercise with this process's warm worker."""
    started = time.monotonic()
    report = Report(exercise.number, exercise.name, alternatives=len(exercise.alternatives))
    for step in (_contract, _intermediates, _good_texts, _derivatives, _planted_errors, _written_mutants, _generated_mutants):
        try:
            report.problems += step(exercise, report, quick)
        except Exception as e:
            report.problems.append(f"{step.__name__}: {type(e).__name__}: {e}")
    report.seconds = time.monotonic() - started
    return report


def _contract(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    cases = checker.draw(exercise)
    for name in exercise.function_names:
        if not any(c.function == name for c in cases):
            yield f"no case calls {name}"
    if not 4 <= len(cases):
        yield f"{len(cases)} cases; at least 4"
    if exercise.numerical and len(exercise.mutants) < 5:
        yield f"{len(exercise.mutants)} written mutants; at least 5 for a backward exercise"
    if exercise.number in MOST_IMPORTANT and len(exercise.alternatives) < 2:
        yield f"{len(exercise.alternatives)} alternatives; at least 2 for one of the most important exercises"
    for unit in ("title", "story", "question", "answer"):
        if not getattr(exercise, unit):
            yield f"no {unit}"
    if len(exercise.hints) != 3:
        yield "three hints are needed"
    if checker.check_source(exercise, exercise.starter.encode(), worker=_worker(), keep=True).passed:
        yield "the stub passes"


def _intermediates(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    """Right steps are called right, and each one that is a thousandth off is the one that is named."""
    if exercise.intermediates is None:
        return
    cases = checker.draw(exercise)
    right = [dict(exercise.intermediates.compute(*c.args)) for c in cases]
    if step := first_wrong_step(exercise, cases, list(right)):
        yield f"the right step {step.name} is called wrong"
    for name in right[0]:
        wrong = [{**steps, name: np.asarray(steps[name]) * 1.001} for steps in right]
        step = first_wrong_step(exercise, cases, list(wrong))
        if step is None or step.name != name:
            yield f"the wrong step {name} is not found"
        if name not in exercise.intermediates.formulas:
            yield f"the step {name} has no formula"


def _good_texts(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    texts = {"solution": solution_text(exercise)}
    texts |= {f"alternative {i}": text for i, text in enumerate(exercise.alternatives, 1)}
    for kind, text in texts.items():
        for seed in ("", "1") if quick else ("", "1", "2", "3", "4"):
            verdict = checker.check_source(exercise, text.encode(), seed=seed, seconds=SECONDS, worker=_worker(), keep=True)
            if not verdict.passed:
                yield f"{kind} refused with seed {seed!r}: {verdict}"


def _derivatives(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    """The reference against differences: some elements, and one random direction that all elements share."""
    rng = np.random.default_rng(0)
    for case in checker.draw(exercise):
        outputs = dict(zip(exercise.outputs_of(case.function), checker.expected_outputs(exercise, case)))
        for name, value in outputs.items():
            numerical = derivative.numerical_of(exercise, case, name)
            if numerical is None:
                continue
            value = np.asarray(value, dtype=np.float64)
            directions = [rng.normal(size=value.shape)]
            for flat in rng.choice(value.size, size=min(value.size, 3 if quick else 8), replace=False):
                directions.append(np.zeros(value.shape))
                directions[-1][np.unravel_index(flat, value.shape)] = 1.0
            for direction in directions:
                right = float(np.sum(value * direction))
                try:
                    gap = abs(derivative.along(numerical, case, name, direction) - right) / max(
                        1e-3, abs(right), np.abs(value).max()
                    )
                except derivative.Kink as kink:
                    yield f"{name} in the case with {case.features}: {kink}: a kink or a tie is too near"
                    break
                report.largest_gap = max(report.largest_gap, gap)
                if gap > 1e-6:
                    yield f"{name} in the case with {case.features}: the reference and differences are {gap:.1e} apart"
                    break


def _planted_errors(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    """An error of 0.1 % in a single element (of at least 1e-4 of the largest) must be seen."""
    for case in checker.draw(exercise):
        for name, value in zip(exercise.outputs_of(case.function), checker.expected_outputs(exercise, case)):
            array = as_array(value)
            if array is None or array.dtype.kind != "f":
                continue
            elements = np.argwhere(
                np.isfinite(array) & (np.abs(array) > 1e-4 * np.abs(array[np.isfinite(array)]).max(initial=0.0))
            )
            for index in elements[:: max(1, len(elements) // 20)]:
                planted = array.astype(np.float64)
                planted[tuple(index)] *= 1.001
                if same(value, planted, exercise.tolerance):
                    yield f"0.1 % more in {name}{tuple(int(i) for i in index)} in the case with {case.features} is not seen"
                    break


def _written_mutants(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    text = solution_text(exercise)
    for mutant in exercise.mutants:
        report.written += 1
        if text.count(mutant.old) != 1:
            yield f"{mutant.old!r} occurs {text.count(mutant.old)} times in the solution"
            continue
        changed = text.replace(mutant.old, mutant.new)
        run = _run(exercise, changed)
        verdict = checker.verdict_of(checker.prepare(exercise), run)
        if verdict.passed:
            yield f"written mutant survives: {mutant.old!r} -> {mutant.new!r}"
            continue
        report.rejected += 1
        if verdict.key == mutant.says:
            report.right_sentence += 1
        else:
            change = f"{mutant.old!r} -> {mutant.new!r}"
            yield f"sentence: {change} should get {mutant.says!r}, got {verdict.key!r}: {verdict.sentence}"
        alone = checker.verdict_of(checker.prepare(exercise), run, without=changed)
        report.unaided += alone.key == mutant.says
        for seed in () if quick else ("1", "2", "3", "4"):  # every student has cases of their own
            if checker.verdict_of(checker.prepare(exercise, seed), _run(exercise, changed, seed)).passed:
                yield f"written mutant survives with seed {seed!r}: {mutant.old!r} -> {mutant.new!r}"


def _generated_mutants(exercise: Exercise, report: Report, quick: bool) -> Iterator[str]:
    generated = mutation.mutants(solution_text(exercise))
    for change in set(exercise.equivalent) - {m.change for m in generated}:
        yield f"equivalent mutant {change!r} is not generated"
    generated = [m for m in generated if m.change not in exercise.equivalent]
    for mutant in mutation.spread(generated, 20) if quick else generated:
        verdict = checker.verdict_of(checker.prepare(exercise), _run(exercise, mutant.text))
        if verdict.key in FORM or (verdict.passed and _unused(exercise, mutant)):
            continue
        report.generated += 1
        report.generated_rejected += not verdict.passed
        if verdict.passed:
            report.survivors.append(mutant.change)
    if exercise.numerical and not quick and report.generated < 10:
        yield f"{report.generated} generated mutants count; at least 10 for a backward exercise"


def _unused(exercise: Exercise, mutant: mutation.Generated) -> bool:
    """Whether no output of the exercise depends on the mutated place."""
    return any(checker.verdict_of(checker.prepare(exercise), _run(exercise, probe)).passed for probe in mutant.probes())


def _run(exercise: Exercise, text: str, seed: str = "") -> Run:
    return _worker().run(
        text.encode(),
        exercise.function_names,
        checker.prepare(exercise, seed).calls,
        given=given_text(exercise),
        seconds=SECONDS,
        keep=True,
    )


_warm: list[Worker] = []


def _worker() -> Worker:
    """This process's worker, started again when a mutant has ended it."""
    while _warm and not _warm[0].alive:
        _warm.pop().close()
    if not _warm:
        _warm.append(Worker())
    return _warm[0]


@atexit.register
def _end() -> None:
    while _warm:
        _warm.pop().close()


# ---- all of them


def verify_all(names: Sequence[str] = (), quick: bool = False, processes: int = 0) -> Iterator[Report]:
    """Reports in the order of the exercises, from several processes at a time (spawned, as on every system)."""
    chosen = [find(n).name for n in names] if names else [e.name for e in exercises()]
    processes = min(processes or os.cpu_count() or 1, len(chosen))
    if processes <= 1:
        yield from (verify(find(n), quick) for n in chosen)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_verify_name, chosen, [quick] * len(chosen))


def _verify_name(name: str, quick: bool) -> Report:
    return verify(find(name), quick)


def scores(reports: Sequence[Report]) -> dict[str, float]:
    """What verify measures, over all exercises; a share of nothing is 1."""

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 1.0

    written = sum(r.written for r in reports)
    generated = sum(r.generated for r in reports)
    return {
        "written": written,
        "written rejected": share(sum(r.rejected for r in reports), written),
        "right sentence": share(sum(r.right_sentence for r in reports), written),
        "unaided": share(sum(r.unaided for r in reports), written),
        "generated": generated,
        "generated rejected": share(sum(r.generated_rejected for r in reports), generated),
    }


def failures(reports: Sequence[Report]) -> list[str]:
    """Why verify fails; empty when it passes. A wrong sentence counts in its share only."""
    found = [f"{r.name}: {p}" for r in reports for p in r.problems if not p.startswith("sentence:")]
    s = scores(reports)
    if s["right sentence"] < RIGHT_SENTENCE:
        found.append(f"right sentence for {s['right sentence']:.1%} of the written mutants; at least {RIGHT_SENTENCE:.0%}")
    if s["generated rejected"] < REJECTED:
        found.append(f"{s['generated rejected']:.1%} of the generated mutants are rejected; at least {REJECTED:.0%}")
    return found


def print_reports(reports: Sequence[Report]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    titles = ("alternatives", "written", "rejected", "right sentence", "unaided", "generated", "rejected", "differences", "s")
    for title in ("exercise", *titles):
        table.add_column(title, justify="left" if title == "exercise" else "right")
    for r in reports:
        table.add_row(
            f"{r.number:2} {r.name}",
            str(r.alternatives),
            *map(str, (r.written, r.rejected, r.right_sentence, r.unaided, r.generated, r.generated_rejected)),
            f"{r.largest_gap:.0e}" if r.largest_gap else "",
            f"{r.seconds:.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for r in reports:
        for problem in r.problems:
            console.print(f"{r.name}: {problem}", markup=False, highlight=False, style="red")
        for survivor in r.survivors:
            console.print(f"{r.name}: survivor: {survivor}", markup=False, highlight=False, style="yellow")
    s = scores(reports)
    console.print(
        f"{s['written']} written mutants: {s['written rejected']:.1%} rejected, {s['right sentence']:.1%} with the right "
        f"sentence ({s['unaided']:.1%} unaided). {s['generated']} generated: {s['generated rejected']:.1%} rejected.",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cnnlib.learn.verify", description="Are the exercises and their checker right?"
    )
    parser.add_argument("names", nargs="*", help="exercises; all by default")
    parser.add_argument("--quick", action="store_true", help="two seeds, a sample of the generated mutants")
    parser.add_argument("--processes", type=int, default=0, help="how many at a time; all cores by default")
    options = parser.parse_args(arguments)
    reports = list(verify_all(options.names, options.quick, options.processes))
    print_reports(reports)
    why = failures(reports)
    for line in why:
        print("FAILED", line, file=sys.stderr)
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
