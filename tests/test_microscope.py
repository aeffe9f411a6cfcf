"""The microscope: the terms of every rule add up to what the operation stored, for every operation and its cases."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.microscope.nodes import graph
from cnnlib.microscope.rules import Rule, arrays, equal, made_of, places, rule, terms, total
from tests.cases import Draw
from tests.op_cases import CASES

# Of these only the numbers are shown, and the story says so.
NUMBERS_ONLY = {
    "clip", "cross_entropy_of_probabilities", "gaussian_noise", "hinge_loss", "local_contrast_norm",
    "lp_pool2d", "maximum", "min", "multi_margin_loss", "nll_loss", "noisy_relu",
    "salt_and_pepper_noise", "where",
}  # fmt: skip


def traced(case, rng):
    """The case as a graph: all its outputs go into one number, with random weights."""
    constant = {"weight", "pos_weight"}
    names = list(case.function.__code__.co_varnames)
    inputs = [
        None if a is None else cl.Tensor(a, a.dtype.kind == "f" and name not in constant)
        for a, name in zip(case.inputs(Draw()), names, strict=False)
    ]
    with cl.trace() as t:
        outputs = case.function(*inputs, **case.settings)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        weighted = [(y * cl.Tensor(rng.standard_normal(y.shape))).sum() for y in outputs if y.requires_grad]
        whole = weighted[0]
        for more in weighted[1:]:
            whole = whole + more
        whole.backward()
    return graph(list(t))


def some_elements(node, rng, most=12, enough=4000):
    """Indices of elements that a rule makes, fewer where they have many terms."""
    terms_read = 0
    for _ in range(most if node.rule is not None else 0):
        index = tuple(int(rng.integers(n)) for n in node.array.shape)
        yield index
        terms_read += len(node.terms(index))
        if terms_read > enough:
            return


@pytest.mark.parametrize("case", CASES, ids=str)
def test_terms_make_the_stored_value(case):
    rng = np.random.default_rng(0)
    try:
        operations = traced(case, rng)
    except IndexError:
        pytest.skip("nothing to differentiate")
    for operation in operations:
        for name, node in operation.nodes.items():
            for index in some_elements(node, rng):
                made = node.made_of(index)
                np.testing.assert_allclose(
                    made, node.array[index], rtol=1e-9, atol=1e-11, err_msg=f"{name}{index}: {node.rule}"
                )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_output_and_adjoint_has_a_rule_or_a_note(case):
    try:
        operations = traced(case, np.random.default_rng(0))
    except IndexError:
        pytest.skip("nothing to differentiate")
    for operation in operations:
        kind, about = operation.entry.op.name(), operation.anatomy
        if about.note:
            continue
        assert kind not in NUMBERS_ONLY
        for name in (*about.outputs, *(f"d{n}" for n in operation.entry.grads)):
            assert operation.nodes[name].rule is not None or (kind, name) == ("batch_norm", "var"), (kind, name)


# ---- whole models: the graph between the operations


def digits(n=2):
    train, _ = cl.data.load("digits", size=32)
    return train.x[:n], train.y[:n]


def small_digits():
    x, y = digits()
    return x[:, :, 2:26:2, 2:26:2], y


def told(model, *batch, seed=0):
    cl.manual_seed(seed)
    return cl.explain(model(), *batch)


class Twice(nn.Module):
    """x is read twice, and so is the weight."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        h = ops.tanh(self.linear(x))
        return h + self.linear(h)


MODELS = {
    "lenet5": (lambda: cl.models.LeNet5(activation="tanh"), digits),
    "resnet20": (lambda: cl.models.create("resnet20", num_classes=10, in_channels=1, input_size=12, width=2), small_digits),
    "googlenet's concatenation": (lambda: Branches(), digits),
    "twice": (Twice, lambda: (np.ones((2, 3), np.float32), np.array([0, 2]))),
    "char_rnn": (lambda: cl.models.CharRNN("abcd", cell="gru", hidden=5, layers=2, embedding=3), lambda: reading()),
    "dropout": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(1024, 6), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 10)
        ),
        lambda: digits(4),
    ),
}


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(1, 2, 5, stride=4), nn.Conv2d(1, 3, 5, stride=4), nn.Linear(5, 10)

    def forward(self, x):
        return self.out(ops.global_avg_pool2d(ops.concat([self.one(x), self.two(x)], axis=1)))


def reading():
    ids = np.array([0, 1, 2, 1, 3, 3, 0])
    return ids[:-1, None], ids[1:, None]


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_a_step_is_made_of_its_terms(name):
    model, batch = MODELS[name]
    rng = np.random.default_rng(1)
    for step in told(model, *batch()):
        for array, node in step.operation.nodes.items():
            for index in some_elements(node, rng, most=3, enough=1000):
                found = node.terms(index)
                scale = max([abs(t.value) for t in found], default=0.0)
                where = f"{step.name} {array}{index}"
                np.testing.assert_allclose(
                    node.made_of(index), node.array[index], rtol=2e-4, atol=1e-5 * scale + 1e-9, err_msg=where
                )


@pytest.mark.parametrize("name", MODELS)
def test_from_the_loss_every_adjoint_is_reached_and_from_every_output_the_input(name):
    """Walking from term to term backward ends at ∂J/∂J, and forward at data and parameters: no link is missing."""
    model, batch = MODELS[name]
    story = told(model, *batch())
    for step in story:
        for node in step.operation.nodes.values():
            if node.rule is None and node.step is not None and node.kind == "adjoint":
                assert node.says.startswith("where backward begins")
            for other in node.names.values() if node.rule is not None else ():
                assert other.step is not None or other.kind in ("data", "parameter")
    first, last = story.steps[0], story.steps[-1]
    assert last.operation.nodes["y"].array == pytest.approx(story.loss)
    leaf = {node.label for node in first.operation.nodes.values() if node.step is None}
    assert leaf


def test_an_output_that_two_operations_read_has_the_sum_of_their_adjoints():
    story = told(Twice, *MODELS["twice"][1]())
    h = story.node("tanh", "y")
    assert h.adjoint is story.node("tanh", "dy")
    parts = story.terms("tanh", "dy", (1, 2))
    add, linear = story.node("add", "da").array[1, 2], story.node("linear.linear_2", "dx").array[1, 2]
    assert sorted(t.value for t in parts) == pytest.approx(sorted([float(add), float(linear)]))
    weight = story.node("linear.linear", "w")
    assert weight is story.node("linear.linear_2", "w") and weight.label == "linear.weight"
    both = story.node("linear.linear", "dw").array + story.node("linear.linear_2", "dw").array
    np.testing.assert_allclose(weight.adjoint.array, both, rtol=1e-6)


def test_equal_outputs_of_one_operation_are_told_apart():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 4, bias=False)
            self.linear.weight.set(np.ones((4, 2), np.float32))

        def forward(self, x):
            left, right = ops.split(self.linear(x), 2, axis=1)
            return left * 2.0 + right * 3.0

    story = cl.explain(Halves(), np.ones((1, 2), np.float32), np.array([1]))
    for output, name, factor in (("y0", "multiply", 2.0), ("y1", "multiply_2", 3.0)):
        node = story.node("split", output)
        assert node is story.node(name, "a") and node.adjoint is story.node(name, "da")
        np.testing.assert_allclose(node.adjoint.array, factor * story.node("add", "dy").array)


def test_the_terms_of_a_convolution_are_a_window_times_a_filter():
    x, w = np.arange(16.0, dtype=np.float32).reshape(1, 1, 4, 4), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    net = nn.Conv2d(1, 1, 2, stride=2, padding=1)
    net.weight.set(w[None, None])
    net.bias.set(np.array([0.5], np.float32))
    story = cl.explain(net, x, np.zeros((1, 1, 3, 3), np.float32))
    corner = story.terms("conv2d", "y", (0, 0, 0, 0))  # three of the window's four are padding
    assert [(t.value, [f[:2] for f in t.factors]) for t in corner] == [
        (0.0, [("x", (0, 0, 0, 0)), ("w", (0, 0, 1, 1))]),
        (0.5, [("b", (0,))]),
    ]
    inside = story.terms("conv2d", "y", (0, 0, 1, 1))
    assert [t.value for t in inside] == [5.0, 12.0, 27.0, 40.0, 0.5]
    assert [f[1] for t in inside[:4] for f in t.factors[:1]] == [(0, 0, 1, 1), (0, 0, 1, 2), (0, 0, 2, 1), (0, 0, 2, 2)]


def test_the_terms_of_a_pooled_maximum_are_its_window_and_backward_only_the_winner_gets_dy():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(4, 4, bias=False)
            self.scale.weight.set(np.eye(4, dtype=np.float32))

        def forward(self, x):
            return ops.max_pool2d(self.scale(x), 2).reshape((1, 4))

    x = np.array([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 1.0, 6.0], [0.0, 9.0, 3.0, 2.0], [8.0, 7.0, 1.0, 0.5]], np.float32)
    story = cl.explain(Pooled(), x[None, None], np.array([0]))
    assert [t.value for t in story.terms("max_pool2d", "y", (0, 0, 0, 0))] == [1.0, 5.0, 3.0, 4.0]
    (won,) = story.terms("max_pool2d", "dx", (0, 0, 0, 1))
    assert won.factors[0][:2] == ("dy", (0, 0, 0, 0)) and story.terms("max_pool2d", "dx", (0, 0, 0, 0)) == []


def test_a_gate_is_made_of_inputs_and_the_state_before_and_sends_back_through_time():
    cl.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((4, 1, 2)).astype(np.float32)
    story = cl.explain(nn.LSTM(2, 3), x, np.ones((4, 1, 3), np.float32))
    forget = story.terms("lstm", "f", (2, 0, 1))
    read = [(t.factors[0][:2], t.factors[1][:2]) for t in forget if len(t.factors) == 2]
    assert [first for first, _ in read] == [("x", (2, 0, i)) for i in range(2)] + [("h", (1, 0, j)) for j in range(3)]
    assert {w[1][0] for _, w in read} == {4}  # row H + 1 of the weights: gate f, unit 1
    cell = story.terms("lstm", "dc", (1, 0, 2))
    later = [t for t in cell if t.factors[0][:2] == ("dc", (2, 0, 2))]
    assert len(later) == 1 and later[0].factors[1][:2] == ("f", (2, 0, 2))
    at_the_end = {f[0] for t in story.terms("lstm", "dh", (3, 0, 0)) for f in t.factors}
    assert at_the_end == {"dy"}


# ---- the numbers that stand beside an operation


def test_a_step_has_the_norms_gradients_and_shares_of_the_trace():
    x, y = digits()
    cl.manual_seed(0)
    net = cl.models.LeNet5()
    story = cl.explain(net, x, y)
    cl.ops.cross_entropy(net(x), y).backward()
    rms = lambda a: float(np.sqrt((a.astype(np.float64) ** 2).mean()))  # noqa: E731
    conv = story["c1.conv2d"]
    assert conv.parameter_gradients["c1.weight"] == pytest.approx(rms(net.c1.weight.grad), rel=1e-4)
    assert conv.shapes == {"x": (2, 1, 32, 32), "w": (6, 1, 5, 5), "b": (6,), "y": (2, 6, 28, 28)}
    assert conv.saved["x"] == "float32 (2, 1, 32, 32)" and conv.saved_bytes == 2 * 32 * 32 * 4
    assert sum(s.time_share for s in story) == pytest.approx(1) and sum(s.memory_share for s in story) == pytest.approx(1)
    pool = story["s2.max_pool2d"]
    assert pool.norms["dx"] == pytest.approx(rms(story.node("act1.relu", "dy").array))
    assert story.as_dict()["steps"][0]["rules"]["db"] == "db[f] = Σ_n,oh,ow dy[n, f, oh, ow]"


def test_the_model_is_afterwards_as_before():
    net = MODELS["dropout"][0]()
    x, y = digits(4)
    net.eval()
    ops.cross_entropy(net(x), y).backward()
    state, grads, streams = net.state_dict(), [p.grad.copy() for p in net.parameters()], cl.random.get_state()
    cl.explain(net, x, y)
    assert not net.training and cl.random.get_state() == streams
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    for p, grad in zip(net.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, grad)


def test_what_only_has_numbers_says_so():
    net = nn.Sequential(nn.Conv2d(1, 2, 5), nn.LocalContrastNorm(5), nn.Flatten(), nn.Linear(2 * 28 * 28, 10))
    story = cl.explain(net, *digits())
    assert story["1.local_contrast_norm"].note == "local_contrast_norm: numbers and formula only."
    assert story["1.local_contrast_norm"].norms["dx"] > 0 and "numbers and formula only" in str(story)
    with pytest.raises(ValueRangeError, match=r"terms: no rule makes y of 1.local_contrast_norm: local_contrast_norm: numbers"):
        story.terms("1.local_contrast_norm", "y", (0, 0, 0, 0))


def test_what_cannot_be_asked_is_refused():
    story = told(Twice, *MODELS["twice"][1]())
    with pytest.raises(UnknownNameError, match="unknown operation in this story 'tanhh': did you mean 'tanh'"):
        story.terms("tanhh", "y", (0, 0))
    with pytest.raises(UnknownNameError, match="unknown array of tanh 'z'"):
        story.terms("tanh", "z", (0, 0))
    with pytest.raises(ShapeError, match=r"terms: y of tanh has shape \(2, 3\), there is no element \(0, 3\)"):
        story.terms("tanh", "y", (0, 3))
    with pytest.raises(
        ValueRangeError, match=r"terms: no rule makes w of linear.linear: it is a parameter or came from outside"
    ):
        story.terms("linear.linear", "w", (0, 0))
    with pytest.raises(ShapeError, match=r"explain: the loss must be one number, got shape \(2,\): average or sum it"):
        cl.explain(Twice(), *MODELS["twice"][1](), loss=nn.CrossEntropyLoss(reduction="none"))


def test_a_planted_error_is_seen():
    """The check of the terms could fail: a backward that forgets the last column of dw is noticed."""

    def wrong(ctx, dy):
        dx, dw, db = ops.Linear.backward(ctx, dy)
        dw[:, -1] = 0
        return dx, dw, db

    with cl.override(ops.Linear, backward=wrong):
        story = told(Twice, *MODELS["twice"][1]())
    node = story.node("linear.linear", "dw")
    assert abs(node.made_of((0, 2)) - node.array[0, 2]) > 1e-3


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_every_operation_within_its_width(width):
    from cnnlib.microscope.terminal import as_text

    story = told(MODELS["lenet5"][0], *digits())
    text = as_text(story, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for step in story:
        assert f"{step.name}  {step.formula}" in text
    assert "|∂J/∂ c1.weight|" in text and "saves     x, w, geometry" in text


def test_rules_read_as_formulas_and_vanish_outside():
    x, w = arrays("x w")
    n, i, o = places("n i o")
    how = rule(total(x[n, 2 * i - 1] * w[i], i=3)) - equal(n, o) * w[0]
    assert str(how) == "Σ_i x[n, 2 i − 1] · w[i] − [n = o] · w[0]"
    of = {"x": np.arange(8.0).reshape(2, 4), "w": np.array([1.0, 10.0, 100.0])}
    found = terms(Rule(how.sums[:1], axes=("n",)), of, (1,), (2,))
    assert [t.value for t in found] == [50.0, 700.0]  # 2 · 0 − 1 lies outside
    halves = rule(total(x[n, (i + 1) // 2], i=3))
    found = terms(Rule(halves.sums, axes=("n",)), of, (0,), (2,))
    assert [t.factors[0][1] for t in found] == [(0, 1)]  # only i = 1 gives a whole number
    assert made_of(Rule(halves.sums, axes=("n",)), of, (0,), (2,)) == 1.0
    gated = Rule(halves.sums, axes=("n",)).by("tanh v", after=w[n])
    assert made_of(gated, of, (1,), (2,)) == pytest.approx(10 * np.tanh(5.0)) and str(gated).endswith(") · w[n]")


def test_numbers_that_are_none_are_told_too():
    import json

    net = nn.Linear(2, 2)
    net.weight.set([[np.nan, 1.0], [np.inf, 1.0]])
    story = cl.explain(net, np.ones((1, 2), np.float32), np.array([0]))
    told = json.loads(story.json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["loss"] == "nan" and np.isnan(story.node("linear", "y").made_of((0, 0)))
    assert story.terms("linear", "y", (0, 1))[0].value == np.inf
    assert "loss nan" in str(story) and len(story.html()) > 1e4


def test_a_function_of_a_sum_is_written_with_brackets_and_one_of_an_element_without():
    (x, lse), (n, c) = arrays("x lse"), places("n c")
    assert str((x[n, c] - lse[n]).by("e^v")) == "e^(x[n, c] − lse[n])"
    assert str(rule(x[n - 1, c + 1]).by("e^v")) == "e^x[n − 1, c + 1]"
    assert str(rule(x[n, lse[n - 1]]).by("tanh v")) == "tanh x[n, lse[n − 1]]"
