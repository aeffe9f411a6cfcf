"""The diagnosis: every kind of mistake gets its own sentence, from the numbers alone."""

import numpy as np
import pytest

from cnnlib.learn import checker, diagnosis
from cnnlib.learn.checker import verdict_of
from cnnlib.learn.exercise import Case, Exercise, Explanation, Intermediates, Numerical
from cnnlib.learn.judge import Result, Run
from cnnlib.learn.verdict import Verdict
from cnnlib.learn.wire import Other


def layer(dy, x, w, lr, stride):
    """y = x w · lr, of every stride-th row, backward."""
    dx = np.zeros_like(x)
    dx[::stride] = lr * dy @ w.T
    return dx, lr * x[::stride].T @ dy


def cases(rng):
    def case(N, C, F, lr, stride, *features):
        rows = -(-N // stride)
        return Case((rng.normal(size=(rows, F)), rng.normal(size=(N, C)), rng.normal(size=(C, F)), lr, stride), features)

    return [
        case(4, 3, 2, 0.5, 1),
        case(5, 3, 3, 0.3, 2, "stride"),
        case(1, 2, 4, 0.2, 1, "N = 1"),
        case(6, 4, 3, 0.7, 3, "stride"),
        case(3, 2, 3, 0.1, 1),
    ]


LAYER = Exercise(
    number=1, name="layer", topic="", function=layer, outputs=("dx", "dw"), starter="", cases=cases,
    hints=("", "", ""), question="", answer="", link="",
    numerical=Numerical(lambda dy, x, w, lr, stride: lr * x[::stride] @ w, {"dx": 1, "dw": 2}),
)  # fmt: skip


def verdict(function, of=LAYER) -> Verdict:
    """What is said of a function that gets the right outputs and the arguments, and returns what a learner might have."""
    prepared = checker.prepare(of)
    results = []
    for case, expected in zip(prepared.cases, prepared.expected):
        results.append(Result(function(*(np.copy(e) for e in expected), *checker.arguments(of, case))))
    return verdict_of(prepared, Run(results))


MISTAKES = [
    ("none", lambda dx, dw, dy, x, w, lr, stride: None, "layer returns None: it is not written yet, or ends without a return."),
    (
        "none",
        lambda dx, dw, dy, x, w, lr, stride: (dx, None),
        "your dw is None: it is not computed yet, or by a function without a return.",
    ),
    ("none", lambda dx, dw, dy, x, w, lr, stride: (dx, dw) if stride == 1 else None, "in the case with stride"),
    ("none", lambda dx, dw, dy, x, w, lr, stride: (dx, Other("ellipsis")), "your dw is still ...: it is not written yet."),
    ("count", lambda dx, dw, dy, x, w, lr, stride: dx, "layer must return 2 values in this order: dx, dw; got one array"),
    ("count", lambda dx, dw, dy, x, w, lr, stride: (dx, dw, dy), "got 3 values"),
    ("swapped", lambda dx, dw, dy, x, w, lr, stride: (dw, dx), "your dx is what dw should be"),
    ("transpose", lambda dx, dw, dy, x, w, lr, stride: (dx, dw.T), "your dw is the transpose of the right one"),
    ("shape", lambda dx, dw, dy, x, w, lr, stride: (dx, dw.sum(axis=0)), "you summed over axis 0, which must stay."),
    (
        "shape",
        lambda dx, dw, dy, x, w, lr, stride: (dx, dw[None]),
        "must have shape (4, 3), got (1, 4, 3): the numbers are right, reshape them.",
    ),
    (
        "shape",
        lambda dx, dw, dy, x, w, lr, stride: (dx, lr * np.einsum("nc,nf->ncf", x[::stride], dy)),
        "must have shape (3, 3), got (3, 3, 3): axis 0 must be summed over, too.",
    ),
    ("shape", lambda dx, dw, dy, x, w, lr, stride: (dx, dw.ravel()), "the numbers are right, reshape them."),
    ("shape", lambda dx, dw, dy, x, w, lr, stride: (dx[1:], dw), "your dx must have shape (6, 4), got (5, 4)."),
    ("shape", lambda dx, dw, dy, x, w, lr, stride: (dx[1:-0], dw), "got (0, 3): it is empty, as a slice a:-0 is"),
    (
        "shape",
        lambda dx, dw, dy, x, w, lr, stride: (np.pad(dx, (1, 0)), dw),
        "must have shape (6, 4), got (7, 5): the right numbers stand within it",
    ),
    ("type", lambda dx, dw, dy, x, w, lr, stride: ("dx", dw), "your dx is no array of numbers but 'dx'."),
    ("type", lambda dx, dw, dy, x, w, lr, stride: ({}, dw), "your dx is no array of numbers but a dict."),
    ("dtype", lambda dx, dw, dy, x, w, lr, stride: (dx.astype("float32"), dw), "your dx is float32, the arguments are float64"),
    ("dtype", lambda dx, dw, dy, x, w, lr, stride: (dx, dw.astype(int)), "everything after the decimal point got lost"),
    ("nan", lambda dx, dw, dy, x, w, lr, stride: (dx, dw / 0), "infinite in 6 of 6 elements"),
    ("nan", lambda dx, dw, dy, x, w, lr, stride: (dx * np.nan, dw), "your dx is NaN in 12 of 12 elements"),
    ("sign", lambda dx, dw, dy, x, w, lr, stride: (-dx, dw), "your dx has the opposite sign everywhere."),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (dx, 2 * dw),
        "your dw is the right one times 2: a constant factor is too much",
    ),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (dx / 3, dw),
        "your dx is the right one times 1/3: a constant factor is missing",
    ),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (dx, dw / len(x)),
        "divided by the length of x's axis 0: this factor is missing.",
    ),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (dx, dw * len(dy)),
        "times the length of dy's axis 0: this factor is too much.",
    ),
    ("factor", lambda dx, dw, dy, x, w, lr, stride: (dx, dw / x.size), "divided by the number of elements of x"),
    ("factor", lambda dx, dw, dy, x, w, lr, stride: (dx, dw / lr), "your dw is the right one divided by lr"),
    ("factor", lambda dx, dw, dy, x, w, lr, stride: (dx * (1 - lr), dw), "your dx is the right one times (1 − lr)"),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (0.7 * dx, dw),
        "the right one times 0.7: a constant factor is missing",
    ),
    (
        "factor",
        lambda dx, dw, dy, x, w, lr, stride: (dx, -0.5 * dw / len(x)),
        "times -1/2, divided by the length of x's axis 0.",
    ),
    ("factor", lambda dx, dw, dy, x, w, lr, stride: (-lr * dx, dw), "your dx is the right one times -1, times lr."),
    ("factor", lambda dx, dw, dy, x, w, lr, stride: (0 * dx, dw), "your dx is zero everywhere."),
    ("shape", lambda dx, dw, dy, x, w, lr, stride: (dx.mean(), dw), "got (): you averaged over axes (0, 1), which must stay."),
    ("flipped", lambda dx, dw, dy, x, w, lr, stride: (dx, dw[::-1]), "your dw is turned around along axis 0"),
    ("flipped", lambda dx, dw, dy, x, w, lr, stride: (dx[::-1, ::-1], dw), "your dx is turned around along axes (0, 1)"),
    (
        "upstream",
        lambda dx, dw, dy, x, w, lr, stride: (dx, layer(np.ones_like(dy), x, w, lr, stride)[1]),
        "your dw ignores the upstream gradient dy",
    ),
    ("constant", lambda dx, dw, dy, x, w, lr, stride: (dx + 3, dw), "your dx is the right one plus 3 everywhere."),
    ("constant", lambda dx, dw, dy, x, w, lr, stride: (dx, dw + dy.sum()), "off by one constant per case"),
    ("term", lambda dx, dw, dy, x, w, lr, stride: (dx, dw + w), "your dw is the right one plus w: this term is too much."),
    ("term", lambda dx, dw, dy, x, w, lr, stride: (dx - x, dw), "your dx is the right one minus x: this term is missing."),
    ("term", lambda dx, dw, dy, x, w, lr, stride: (x, dw), "your dx is just the argument x."),
    ("precision", lambda dx, dw, dy, x, w, lr, stride: (dx * (1 + 1e-6 * np.cos(x)), dw), "not to double precision"),
    ("precision", lambda dx, dw, dy, x, w, lr, stride: (dx / (1 + 1e-6), dw), "not to double precision"),
    (
        "edge",
        lambda dx, dw, dy, x, w, lr, stride: (dx, np.r_[dw[:-1], x[:1, :1] + w[-1:]]),
        "except at the last index of axis 0",
    ),
    (
        "feature",
        lambda dx, dw, dy, x, w, lr, stride: (dx if stride == 1 else dx + x * x, dw),
        "except in the cases with stride.",
    ),
    ("feature", lambda dx, dw, dy, x, w, lr, stride: (dx if stride > 1 else dx + x * x, dw), "only in the cases with stride."),
    (
        "sign",
        lambda dx, dw, dy, x, w, lr, stride: (dx if stride == 1 else -dx, dw),
        "right except in the cases with stride; there your dx has the opposite sign everywhere.",
    ),
    ("value", lambda dx, dw, dy, x, w, lr, stride: (dx + x * x, dw), "your dx is wrong in 7 of 7 cases."),
]


@pytest.mark.parametrize("key, function, said", MISTAKES, ids=[f"{i}-{m[0]}" for i, m in enumerate(MISTAKES)])
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_every_mistake_has_its_sentence(key, function, said):
    found = verdict(function)
    assert (found.key, said in found.sentence) == (key, True), found
    assert not found.passed and key in diagnosis.KEYS


def test_every_rule_is_tried_here():
    tried = {key for key, *_ in MISTAKES}
    assert set(diagnosis.RULES) - tried == {"permuted", "mutated"}


def permuted(x):
    return x * 2.0


def permuted_cases(rng):
    return [Case((rng.normal(size=shape),)) for shape in ((2, 3, 4), (3, 3, 3), (1, 2, 2), (5, 4, 3))]


AXES = Exercise(
    number=2, name="permuted", topic="", function=permuted, outputs=("y",), starter="", cases=permuted_cases,
    hints=("", "", ""), question="", answer="", link="",
)  # fmt: skip


def test_a_mistake_may_be_about_some_cases_only():
    """An explanation that returns None where it does not apply, and is right about every other case."""

    def about_tall(x):
        return None if len(x) < 3 else -3.0 * x

    explained = Exercise(**{**vars(AXES), "explanations": (Explanation("tall", "tall ones are wrong.", about_tall),)})
    assert verdict(lambda y, x: y if len(x) < 3 else -3.0 * x, explained).sentence == "tall ones are wrong."
    assert verdict(lambda y, x: y + 1, explained).key == "constant"


def test_a_single_number_is_not_said_to_be_off_by_a_constant():
    ones = Exercise(**{**vars(AXES), "cases": lambda rng: [Case((rng.normal(size=(n, 1, 1)),)) for n in (1, 3, 4, 5)]})
    assert verdict(lambda y, x: y * 1.7 - 1 if len(x) == 1 else y, ones).key not in ("constant", "precision")


def silent(x):
    return 1.0 - x


def test_zeros_and_ones_that_add_up_by_chance_are_no_term():
    """Who always says 1 has not added x."""
    changes = {"function": silent, "cases": lambda rng: [Case((np.eye(n)[None],)) for n in (2, 3, 4, 5)]}
    of = Exercise(**{**vars(AXES), "name": "silent", **changes})
    assert verdict(lambda y, x: np.ones_like(y), of).key == "value"


def test_where_zero_is_right_nothing_else_is_nearly_right():
    zeros = Exercise(**{**vars(AXES), "cases": lambda rng: [Case((s * rng.normal(size=(2, 3, 4)),)) for s in (0, 1, 2, 3)]})
    assert verdict(lambda y, x: y if x.any() else np.arange(24.0).reshape(x.shape), zeros).key == "value"


def test_axes_in_another_order_are_named():
    found = verdict(lambda y, x: y.transpose(1, 2, 0), AXES)
    assert found.key == "permuted" and "y.transpose(2, 0, 1) is the right one" in found.sentence


def test_writing_to_an_argument_is_named():
    prepared = checker.prepare(LAYER)
    results = [Result(tuple(e), mutated=(1,)) for e in prepared.expected]
    found = verdict_of(prepared, Run(results))
    assert found.key == "mutated" and "writes to its argument x" in found.sentence


def test_a_size_that_is_the_same_in_all_cases_is_a_constant():
    """Where every batch has four rows, "times 4" is all that can be said."""
    same = Exercise(**{**vars(AXES), "cases": lambda rng: [Case((rng.normal(size=(4, 2)),)) for _ in range(4)]})
    assert "times 4" in verdict(lambda y, x: len(x) * y, same).sentence


@pytest.mark.parametrize(
    "failing, passing, sentence",
    [
        ([{"a"}, {"a", "b"}], [set(), {"b"}], "it is right except in the cases with a."),
        ([{"a"}], [{"b"}], "it is right except in the case with a."),
        ([set()], [{"b"}, {"b", "c"}], "it is right only in the cases with b."),
        ([{"a"}, {"b"}], [set()], None),
        ([{"a"}], [], None),
    ],
)
def test_features_tell_cases_apart(failing, passing, sentence):
    assert diagnosis.only_with("it is right", failing, passing) == sentence


def test_a_verdict_shows_the_worst_element_beside_the_derivative_by_differences():
    found = verdict(lambda dx, dw, dy, x, w, lr, stride: (dx, dw + np.eye(*dw.shape)[:, ::-1] * 0.5 * dw))
    assert found.output == "dw" and found.right == ("dx",)
    assert found.expected == pytest.approx(found.numerical) and found.got == pytest.approx(1.5 * found.expected)


# ---- whatever comes, there is a verdict

ANYTHING = [
    None, True, 3, -2.5, np.nan, "text", "x" * 10_000, [], (), {}, {"a": 1}, [None], [[1.0], [1.0, 2.0]], Other("generator"),
    [Other("set")], np.zeros(0), np.zeros((0, 3)), np.zeros((1,) * 30), np.zeros(()), np.ones((4, 3), dtype=bool),
    np.ones((4, 3), dtype=np.uint8), np.ones((4, 3), dtype=complex), np.full((4, 3), np.inf), np.ones((4, 3), dtype="float16"),
    np.ones((3, 4)), [1e400, "a"], [["a"]], [{"b": 2}], 10**30, np.ones(4), np.zeros((4, 3), dtype=np.longdouble),
]  # fmt: skip
EXPECTED = [np.ones((4, 3)) * 0.1, np.arange(4) > 1, np.arange(3), 7, 0.5, "left", [1, [2, 3]], {"a": np.ones(2)}, np.zeros(4)]


@pytest.mark.parametrize("right", EXPECTED, ids=lambda v: type(v).__name__)
def test_whatever_comes_there_is_a_verdict(right):
    of = Exercise(**{**vars(AXES), "outputs": ("y", "z"), "intermediates": Intermediates(lambda x: {"s": x}, {})})
    prepared = checker.prepare(of)
    prepared.expected = [[right, np.ones(2)] for _ in prepared.cases]
    for first in ANYTHING:
        for second in ANYTHING:
            for value in ((first, second), first, (first, np.ones(2)), (first, second, {"s": first, "t": second})):
                found = verdict_of(prepared, Run([Result(value)] * len(prepared.cases)))
                assert not found.passed and len(found.sentence) < 500
                str(found), found.to_dict(), found._repr_html_()
