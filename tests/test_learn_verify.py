"""verify finds what is wrong with an exercise, mutants are what they say, and what cannot matter is not counted."""

import ast
import itertools
from dataclasses import replace

import numpy as np
import pytest

from cnnlib.learn import mutation, verify
from cnnlib.learn.exercise import Case, Explanation, Intermediates, Mutant, Numerical, exercises, find, solution_text
from cnnlib.learn.mutation import mutants

COUNT = itertools.count()
SOFTMAX = find("softmax_cross_entropy")


def all_zeros(rng):
    return [Case((np.ones(1), np.zeros((1, 2)), np.zeros(1, dtype=int)))] * 4


def problems(**changes):
    report = verify.verify(replace(SOFTMAX, **changes), quick=True)
    return report, " | ".join(report.problems)


def test_a_good_exercise_has_no_problems():
    report, said = problems()
    assert said == "" and report.survivors == []
    assert report.written == report.rejected == report.right_sentence == len(SOFTMAX.mutants)
    assert 0 < report.generated == report.generated_rejected and 0 < report.largest_gap < 1e-7
    assert verify.failures([report]) == []


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"starter": solution_text(SOFTMAX)}, "the stub passes"),
        ({"alternatives": ("def softmax_cross_entropy(dl, x, t): return dl, x",)}, "alternative 1 refused with seed ''"),
        ({"mutants": (Mutant("shifted", "x", "sign"),) * 5}, "'shifted' occurs 3 times in the solution"),
        ({"mutants": SOFTMAX.mutants[:2]}, "2 written mutants; at least 5"),
        (
            {"mutants": (*SOFTMAX.mutants[:4], Mutant("x.max(axis=1,", "x.min(axis=1,", "value"))},
            "written mutant survives: 'x.max(axis=1,' -> 'x.min(axis=1,'",
        ),
        (
            {"mutants": (*SOFTMAX.mutants[1:5], replace(SOFTMAX.mutants[0], says="factor"))},
            "should get 'factor', got 'sign': your dx has the opposite sign",
        ),
        ({"tolerance": 1e-2}, "0.1 % more in l(0,) in the case with () is not seen"),
        (
            {"numerical": Numerical(lambda dl, x, t: x[:, 0], {"dx": 1})},
            "dx in the case with (): the reference and differences",
        ),
        ({"numerical": Numerical(lambda dl, x, t: abs(x)[:, 0], {"dx": 1}), "cases": all_zeros}, "a kink or a tie is too near"),
        ({"equivalent": {"nothing": "a reason"}}, "equivalent mutant 'nothing' is not generated"),
        ({"cases": lambda rng: SOFTMAX.cases(rng)[:3]}, "3 cases; at least 4"),
        ({"question": ""}, "no question"),
        ({"intermediates": Intermediates(lambda dl, x, t: {"p": 0 * x}, {"p": ""})}, "the wrong step p is not found"),
        ({"intermediates": Intermediates(lambda dl, x, t: {"p": x}, {})}, "the step p has no formula"),
        (
            {"intermediates": Intermediates(lambda dl, x, t: {"p": np.random.rand()}, {"p": ""})},
            "the right step p is called wrong",
        ),
        ({"alternatives": SOFTMAX.alternatives[:1]}, "1 alternatives; at least 2"),
        ({"cases": lambda rng: [Case((1,)) for _ in range(4)]}, "_good_texts: "),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_is_wrong_with_an_exercise_is_said(changes, said):
    assert said in problems(**changes)[1]


def test_cases_that_differ_too_little_let_mutants_survive():
    report, _ = problems(cases=all_zeros, equivalent={})
    assert report.survivors and report.generated_rejected < report.generated


def test_mutants_are_judged_with_the_cases_of_other_students_too():
    def sometimes_zeros(rng):
        return all_zeros(rng) if rng.random() < 0.5 else SOFTMAX.cases(rng)  # with seed "4", but not without one

    report = verify.Report(8, "softmax_cross_entropy")
    said = list(verify._written_mutants(replace(SOFTMAX, cases=sometimes_zeros), report, quick=False))
    assert report.rejected == report.written and any("survives with seed '4'" in problem for problem in said)


def test_scores_decide():
    good = verify.Report(1, "a", written=10, rejected=10, right_sentence=10, generated=100, generated_rejected=100)
    assert verify.failures([good]) == []
    assert "89.0%" in verify.failures([replace(good, written=100, right_sentence=89)])[0]
    assert "94.0%" in verify.failures([replace(good, generated_rejected=94)])[0]
    assert verify.failures([replace(good, problems=["sentence: x"])]) == []
    assert verify.failures([replace(good, problems=["the stub passes"])]) == ["a: the stub passes"]
    assert verify.scores([]) == {
        "written": 0, "written rejected": 1.0, "right sentence": 1.0, "unaided": 1.0, "generated": 0, "generated rejected": 1.0,
    }  # fmt: skip


def test_a_mutants_own_numbers_do_not_count_as_unaided():
    known = (Explanation("odd", "an odd one."),)
    odd = Mutant("return -log_p[rows, t]", "return log_p[rows, t] ** 2", says="odd")
    report, _ = problems(explanations=known, mutants=(odd,))
    assert (report.right_sentence, report.unaided) == (1, 0)


def test_reports_come_in_order_from_several_processes():
    names = ["softmax_cross_entropy", "8"]
    assert [r.name for r in verify.verify_all(names, quick=True, processes=2)] == ["softmax_cross_entropy"] * 2


def test_the_command_prints_scores_and_says_whether_all_is_well(capsys):
    assert verify.main(["8", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "8 softmax_cross_entropy" in out and "100.0% rejected, 100.0% with the right sentence" in out


@pytest.mark.parametrize("name", [e.name for e in exercises()])
def test_every_exercise_is_in_order(name):
    report = verify.verify(find(name), quick=True)
    assert [p for p in report.problems if not p.startswith("sentence:")] == []
    assert report.right_sentence >= verify.RIGHT_SENTENCE * report.written


# ---- generated mutants

TEXT = """
def f(x, w, axis=0):
    y = np.zeros((2, 3))
    for k in range(2):
        y[k] += -x[k, 1:] @ w.T
    if axis == 0:
        y = y.sum(axis=(0, 1), keepdims=True)
    return np.maximum(y, 0.5), x.swapaxes(0, 1)
"""


def test_every_operator_makes_its_mutants():
    changes = {m.change.removeprefix("f: ") for m in mutants(TEXT)}
    assert changes >= {
        "range(2) -> range(2 - 1)", "range(2) -> range(1, 2)",
        "y[k] += -x[k, 1:] @ w.T -> y[k] = -x[k, 1:] @ w.T", "y[k] += -x[k, 1:] @ w.T -> nothing",
        "y[k] += -x[k, 1:] @ w.T -> y[k] -= -x[k, 1:] @ w.T",
        "-x[k, 1:] -> x[k, 1:]", "1: -> 1 + 1:", "1: -> 1 - 1:", "w.T -> w", "x -> w", "y -> k",
        "axis == 0 -> axis != 0", "axis=(0, 1) -> axis=(1,)", "axis=(0, 1) -> axis=(0,)",
        "np.maximum(y, 0.5) -> np.minimum(y, 0.5)", "0.5 -> 1.0", "x.swapaxes(0, 1) -> x",
        "np.zeros((2, 3)) -> np.ones((2, 3))",
        "return (np.maximum(y, 0.5), x.swapaxes(0, 1)) -> return (x.swapaxes(0, 1), np.maximum(y, 0.5))",
    }  # fmt: skip


def test_mutants_are_programs_that_differ_in_one_place_and_have_names_of_their_own():
    made = mutants(TEXT)
    assert len(made) > 30 and len({m.change for m in made}) == len(made)
    original = ast.unparse(ast.parse(TEXT))
    for m in made:
        ast.parse(m.text)
        assert m.text != original
        for probe in m.probes():
            ast.parse(probe)
    assert ast.unparse(made[0].place.tree) == original, "the tree is put back"


def test_mutants_are_spread_evenly():
    made = mutants(TEXT)
    assert mutation.spread(made, 1000) == made
    few = mutation.spread(made, 5)
    assert len(few) == 5 and few[0] is made[0] and few[-1] is made[4 * len(made) // 5]


def unused(dl, x, t, scale=None):
    y = x.sum(axis=1)
    if scale is not None:
        y = y * scale
    z = dl + 3.0
    z[:] = 2.0
    return y


def test_places_on_which_nothing_depends_are_not_counted():
    changed = replace(
        SOFTMAX, name="unused", function=unused, uses=(), outputs=("y",), cases=SOFTMAX.cases,
        numerical=None, mutants=(), explanations=(), equivalent={}, alternatives=(),
    )  # fmt: skip
    report = verify.verify(changed)
    assert report.generated and report.survivors == []
