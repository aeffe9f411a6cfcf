"""The first exercises beyond what ``cnnlib.learn.verify`` proves: the stories' worked numbers, and that their short solutions
are the library's own models, optimisers, tape and initialisers."""

import re

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.learn.checker import check_source
from cnnlib.learn.exercise import find, given_text, load, reference, solution_text
from cnnlib.learn.exercises.conv_counts import ALEXNET
from cnnlib.learn.exercises.initial_weights import initial_weights
from cnnlib.learn.exercises.tape_backward import random_tape, shuffled
from cnnlib.learn.training import Training
from cnnlib.tape import unbroadcast

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def solution(name):
    """The right answer as the checker runs it: from its own text."""
    functions = reference(find(name))
    return functions[name] if name in functions else next(iter(functions.values()))


def check(name, *functions):
    return cl.learn.check(name, *functions)


# ---- neurons


@pytest.mark.parametrize(("gate", "y"), [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1])])
def test_threshold_gates_are_the_models(gate, y):
    model = cl.models.McCullochPitts(gate)
    fires, nand, xor = solution("threshold_gates")(CORNERS, model.weight.numpy()[0].astype(float), model.threshold)
    assert fires.tolist() == y == model(CORNERS.astype(np.float32)).numpy().tolist()
    assert nand.tolist() == [1, 1, 1, 0]
    assert xor.tolist() == [0, 1, 1, 0]


def test_perceptron_epoch_repeated_is_the_models_training():
    targets = np.array([-1.0, 1.0, 1.0, 1.0])
    w, b, mistakes = np.zeros(2), 0.0, []
    while mistakes[-1:] != [0]:
        w, b, wrong = solution("perceptron_epoch")(CORNERS, targets, w, b)
        mistakes.append(wrong)
    model = cl.models.Perceptron(2)
    history = model.fit(CORNERS, targets > 0)
    assert mistakes == history.mistakes
    np.testing.assert_array_equal(model.weight.numpy()[0], w)
    assert model.bias.numpy()[0] == b


def test_perceptron_epoch_worked_step():
    w, b, mistakes = solution("perceptron_epoch")(np.array([[2.0, 1.0]]), np.array([-1.0]), np.zeros(2), 0.0)
    assert (w.tolist(), b, mistakes) == ([-2.0, -1.0], -1.0, 1)
    assert -(w @ [2.0, 1.0] + b) == 6.0  # t times the score, afterwards


def test_adaline_gradient_worked_number_and_the_models_step():
    x, t, w = np.array([[1.0, 2.0]]), np.array([1.0]), np.array([0.5, 0.0])
    loss, dw, db = solution("adaline_gradient")(x, t, w, 0.0)
    assert (loss, dw.tolist(), db) == (0.125, [-0.5, -1.0], -0.5)
    model = cl.models.Adaline(2)
    model.weight.set(w[None].astype(np.float32))
    model.fit(x, [1], lr=0.1, epochs=1)
    np.testing.assert_allclose(model.weight.numpy()[0], w - 0.1 * dw, rtol=1e-6)


def test_xor_mlp_is_the_bias_free_model():
    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((2, 2)), rng.standard_normal(2)
    model = cl.models.MLP(in_features=2, hidden=(2,), num_classes=1, activation="sigmoid", bias=False)
    for p, value in zip(model.parameters(), (w1, w2[None])):
        p.set(value.astype(np.float32))
    p, y = solution("xor_mlp")(CORNERS, w1, w2)
    np.testing.assert_allclose(ops.sigmoid(model(CORNERS.astype(np.float32))).numpy()[:, 0], p, rtol=1e-5)
    assert y.tolist() == [0, 1, 1, 0]


# ---- backpropagation


def test_matrix_gradient_is_what_the_tape_computes():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 6)), rng.random((2, 6))
    weights = [cl.Tensor(rng.standard_normal(s), requires_grad=True) for s in ((4, 3), (5, 4), (2, 5))]
    h = cl.Tensor(x)
    for w in weights:
        h = ops.sigmoid(w @ h)
    (0.5 * ops.mse_loss(h, cl.Tensor(y), "sum")).backward()
    for w, dw in zip(weights, solution("matrix_gradient")(x, y, *(w.numpy() for w in weights))):
        np.testing.assert_allclose(w.grad, dw, rtol=1e-12)


def test_regression_gradient_worked_number():
    loss, dw, dv = solution("regression_gradient")(np.array([[1.0, 2.0]]), np.array([1.0]), np.zeros((2, 1)), np.array([3.0]))
    assert (loss, dw.tolist(), dv.tolist()) == (0.5, [[-3.0], [-6.0]], [0.0])


def test_softmax_cross_entropy_worked_row():
    loss, dx = solution("softmax_cross_entropy")(np.ones(1), np.array([[2.0, 1.0, 0.0]]), np.array([1]))
    assert loss.round(3).tolist() == [1.408]
    assert dx.round(3).tolist() == [[0.665, -0.755, 0.090]]


def test_gradient_check_worked_number_and_a_right_claim():
    numeric, error = solution("gradient_check")(lambda x: float(x[0] ** 3), np.array([1.0]), np.array([3.0]), 0.1)
    assert numeric[0] == pytest.approx(3.01)
    assert error == pytest.approx(0.01 / 3.01)
    assert solution("gradient_check")(lambda x: float(x[0] ** 3), np.array([1.0]), np.array([3.0]), 1e-4)[1] < 1e-7


def test_tape_backward_worked_number():
    tape = (("add", 2, 1), ("leaf",), ("mul", 1, 1))
    values, adjoints = solution("tape_backward")(tape, np.array([0.0, 3.0, 0.0]), 0, 1.0)
    assert (values.tolist(), adjoints.tolist()) == ([12.0, 3.0, 9.0], [1.0, 7.0, 1.0])


@pytest.mark.parametrize("seed", range(5))
def test_tape_backward_is_the_engines_backward(seed):
    rng = np.random.default_rng(seed)
    tape, root = shuffled(rng, random_tape(rng, 3, 12), 14)
    leaves = np.array([rng.uniform(-1.5, 1.5) if node == ("leaf",) else 0.0 for node in tape])
    values, adjoints = solution("tape_backward")(tape, leaves, root, 0.7)
    made = {}

    def tensor(k):
        if k not in made:
            kind, *inputs = tape[k]
            a = [tensor(i) for i in inputs]
            rules = {"add": lambda: a[0] + a[1], "mul": lambda: a[0] * a[1], "tanh": lambda: ops.tanh(a[0])}
            made[k] = cl.Tensor(np.array([leaves[k]]), requires_grad=True) if kind == "leaf" else rules[kind]()
        return made[k]

    tensor(root).backward(np.array([0.7]))
    assert tensor(root).item() == pytest.approx(values[root])
    for k, node in enumerate(tape):
        if node == ("leaf",):
            reached = k in made and made[k].grad is not None
            assert adjoints[k] == pytest.approx(made[k].grad[0] if reached else 0.0)


@pytest.mark.parametrize(("large", "shape"), [((4, 3), (3,)), ((2, 4, 3), (1, 3)), ((2, 3), ()), ((5, 1), (1, 1))])
def test_unbroadcast_is_the_engines(large, shape):
    dy = np.random.default_rng(0).standard_normal(large)
    np.testing.assert_allclose(solution("unbroadcast")(dy, shape), unbroadcast(dy, shape), rtol=1e-12)


def test_unbroadcast_worked_number():
    dy = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    made = {shape: np.asarray(solution("unbroadcast")(dy, shape)).tolist() for shape in ((3,), (2, 1), ())}
    assert made == {(3,): [11.0, 22.0, 33.0], (2, 1): [[6.0], [60.0]], (): 66.0}


# ---- activations


@pytest.mark.parametrize("at_zero", [0.0, 1.0])
def test_both_slopes_of_relu_at_zero_are_accepted(at_zero):
    right = solution("activation_backward")

    def mine(kind, dy, x):
        dx, silent = right(kind, dy, x)
        return (np.where(x == 0.0, dy * at_zero, dx) if kind == "relu" else dx), silent

    assert check("activation_backward", mine).passed
    zeros = np.zeros(3)
    assert mine("relu", np.ones(3), zeros)[0].tolist() == [at_zero] * 3


def test_activation_backward_worked_slope():
    dx, silent = solution("activation_backward")("sigmoid", np.ones(2), np.array([7.0, 0.0]))
    assert dx.round(4).tolist() == [0.0009, 0.25]
    assert silent == 0.5


# ---- counting


def test_conv_counts_are_the_lectures_picture():
    counts = solution("conv_counts")(3, 200, 200, 3, 3, 1, 1, 1, False)
    table = cl.models.parameter_table((3, 200, 200), hidden=120_000, field=3, maps=3)
    assert counts == (200, 200, 14_400_000_000, 3_240_000, 3 * 27)
    assert counts[2:] == (table.fully_connected, table.locally_connected, table.convolutional)


def test_conv_counts_are_alexnets_table():
    convolutional = [solution("conv_counts")(*layer, True)[-1] for layer in ALEXNET.values()]
    assert convolutional == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert sum(convolutional) == 60_965_224
    assert [solution("conv_counts")(*layer, True)[0] for layer in list(ALEXNET.values())[:5]] == [55, 27, 13, 13, 13]


# ---- optimisation


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_momentum_steps_are_the_optimisers(momentum, nesterov):
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((2, 3)), np.zeros((2, 3))
    p = cl.Parameter(w.copy())
    sgd = cl.optim.SGD([p], lr=0.1, momentum=momentum, nesterov=nesterov)
    for g in rng.standard_normal((4, 2, 3)):
        p.grad = g
        sgd.step()
        w, v = solution("momentum_step")(w, g, v, 0.1, momentum, nesterov)
        np.testing.assert_allclose(p.data, w, rtol=1e-12)


def test_momentum_step_worked_number():
    one = np.ones(1)
    assert solution("momentum_step")(one, 2 * one, one, 0.1, 0.9, False)[0] == pytest.approx(0.71)
    assert solution("momentum_step")(one, 2 * one, one, 0.1, 0.9, True)[0] == pytest.approx(0.539)


@pytest.mark.parametrize(
    ("optimizer", "step"),
    [
        (lambda p: cl.optim.Adagrad([p], lr=0.1, eps=1e-3), lambda f, w, g, s, t: f["adagrad"](w, g, *s, 0.1, 1e-3)),
        (
            lambda p: cl.optim.RMSprop([p], lr=0.1, alpha=0.9, eps=1e-3),
            lambda f, w, g, s, t: f["rmsprop"](w, g, *s, 0.1, 0.9, 1e-3),
        ),
        (
            lambda p: cl.optim.Adam([p], lr=0.1, betas=(0.8, 0.9), eps=1e-3),
            lambda f, w, g, s, t: f["adam"](w, g, *s, t, 0.1, 0.8, 0.9, 1e-3),
        ),
    ],
)
def test_adaptive_steps_are_the_optimisers(optimizer, step):
    functions = reference(find("adaptive_steps"))
    rng = np.random.default_rng(0)
    w = rng.standard_normal(5)
    p = cl.Parameter(w.copy())
    theirs = optimizer(p)
    state = [np.zeros(5)] * (2 if isinstance(theirs, cl.optim.Adam) else 1)
    for t, g in enumerate(rng.standard_normal((4, 5)), 1):
        p.grad = g
        theirs.step()
        w, *state = step(functions, w, g, state, t)
        np.testing.assert_allclose(p.data, w, rtol=1e-12)


@pytest.mark.parametrize("g", [0.01, 1000.0])
def test_adams_first_step_is_the_learning_rate(g):
    adam = reference(find("adaptive_steps"))["adam"]
    assert adam(np.ones(1), np.full(1, g), *np.zeros((2, 1)), 1, 0.1, 0.9, 0.999, 0.0)[0] == pytest.approx(0.9)


@pytest.mark.parametrize("shape", [(40, 30), (12, 8, 3, 5)])
@pytest.mark.parametrize("rule", ["lecun", "xavier", "he"])
def test_initial_weights_have_the_librarys_variance(rule, shape):
    rng = np.random.default_rng(0)
    cl.manual_seed(0)
    uniform, normal = getattr(nn.init, f"{rule}_uniform")(shape), getattr(nn.init, f"{rule}_normal")(shape)
    mine = initial_weights(rule, "uniform", rng.uniform(-1.0, 1.0, shape))
    assert abs(uniform).max() == pytest.approx(abs(mine).max(), rel=0.02)
    assert normal.std() == pytest.approx(initial_weights(rule, "normal", rng.standard_normal(shape)).std(), rel=0.1)


def test_initial_weights_worked_bound():
    assert initial_weights("he", "uniform", np.ones((8, 3, 3, 3))).max() == pytest.approx(0.471, abs=5e-4)


# ---- the lecture's errata, and networks


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("matrix_gradient", "sigmoid_backward(f - y, f)", "f - y", "as one slide prints it"),
        ("regression_gradient", "-(e @ h)", "e @ h", "one slide drops it"),
        ("activation_backward", "x > 0.0, dy, slope * dy", "x > 0.0, slope * dy, dy", "as on one slide"),
        ("adaptive_steps", "(np.sqrt(square_sum) + eps)", "np.sqrt(square_sum + eps)", "as the lecture has it"),
    ],
)
def test_an_erratum_copied_from_a_slide_is_recognised(name, old, new, sentence):
    exercise = find(name)
    text = solution_text(exercise).replace(old, new)
    verdict = check(name, *load(text, exercise.function_names, given=given_text(exercise)))
    assert not verdict.passed
    assert sentence in verdict.sentence


@pytest.mark.parametrize("number", [3, 5, 6, 7, 8, 11, 28, 29, 30])
def test_a_right_function_trains_the_network_as_the_library_does(number):
    exercise = find(number)
    functions = tuple(reference(exercise).values())
    kernels = dict(exercise.train.kernels(functions if len(functions) > 1 else functions[0]))
    losses = []
    for replaced in (kernels, dict.fromkeys(kernels)):
        training = Training(exercise.train.model, 16, replaced)
        losses.append([training.step() for _ in range(12)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("number", [3, 5, 6, 8, 28, 30])
def test_a_wrong_function_trains_another_network(number):
    exercise = find(number)
    functions = tuple(reference(exercise).values())
    wrong = tuple(lambda *a, f=f: tuple(-1.0 * np.asarray(v) for v in f(*a)) for f in functions)
    kernels = dict(exercise.train.kernels(wrong if len(wrong) > 1 else wrong[0]))
    training, library = (Training(exercise.train.model, 16, k) for k in (kernels, dict.fromkeys(kernels)))
    assert max(abs(training.step() - library.step()) for _ in range(5)) > 1e-3


# ---- what learners get to read


def test_two_wrong_activations_at_once_are_told_one_by_one():
    def mine(kind, dy, x):
        dx, silent = solution("activation_backward")(kind, dy, x)
        if kind == "elu":
            slope = np.where(x > 0.0, 1.0, np.exp(np.minimum(x, 0.0)) - 1.0)
        elif kind == "softplus":
            slope = 1.0 / (1.0 + np.exp(x))
        else:
            return dx, silent
        return dy * slope, (slope < 0.001).mean()

    assert check("activation_backward", mine).key == "elu's value"


def test_an_output_that_is_not_written_yet_is_called_so():
    verdict = check("threshold_gates", lambda x, w, threshold: ((x @ w >= threshold) * 1.0, ..., ...))
    assert (verdict.key, verdict.sentence) == ("none", "your nand is still ...: it is not written yet.")


def test_gates_of_true_and_false_are_accepted():
    def mine(x, w, threshold):
        a, b = x.T > 0
        return x @ w >= threshold, ~(a & b), a ^ b

    assert check("threshold_gates", mine).passed


def test_the_tapes_named_steps_say_where_to_look():
    """A square where no square belongs is no known mistake, so the steps speak."""

    def mine(tape, leaves, root, dy):
        values, adjoints = solution("tape_backward")(tape, leaves, root, dy)
        first, second = (np.zeros(len(tape)) for _ in range(2))
        for k, (kind, *inputs) in enumerate(tape):
            if kind == "tanh":
                first[k] = 1.0 - values[k] ** 2
            elif kind == "mul":
                first[k], second[k] = values[inputs[1]], values[inputs[0]] ** 2
            elif kind == "add":
                first[k] = second[k] = 1.0
        return values, adjoints + second, {"first": first, "second": second}

    verdict = check("tape_backward", mine)
    assert verdict.key == "step"
    assert verdict.sentence.startswith("first is right; second is the first step that is wrong: ∂node/∂its second input")


def shifted_by(largest):
    """Softmax with cross-entropy in two steps, ``largest(x)`` taken off before exp."""

    def softmax_cross_entropy(dl, x, t):
        p = np.exp(x - largest(x))
        p /= p.sum(axis=1, keepdims=True)
        losses = -np.log(p[np.arange(len(t)), t])
        p[np.arange(len(t)), t] -= 1.0
        return losses, dl[:, None] * p

    return softmax_cross_entropy


def test_softmax_of_rows_far_apart_needs_a_maximum_for_each():
    with np.errstate(all="ignore"):
        found = check("softmax_cross_entropy", shifted_by(np.max))
    assert found.key == "one maximum for all rows" and found.features == ("rows far apart",)
    assert check("softmax_cross_entropy", shifted_by(lambda x: x.max(axis=1, keepdims=True))).passed


def test_the_element_that_is_shown_belongs_to_the_sentence():
    """Wrong numbers in an earlier case, NaN in a later one: what is shown is the NaN that the sentence is about."""

    def pool2d_backward(dy, x, kind, kernel_size, stride, pads):
        return np.zeros_like(x) if kind != "L2" else np.full_like(x, np.nan)

    found = check("pooling_backward", pool2d_backward)
    assert found.key == "nan" and found.features[0] == "L2" and np.isnan(found.got)


def test_a_softmax_without_a_kernel_is_no_solution_of_the_cuda_exercise():
    text = "import numpy as np\ndef softmax(x):\n    e = np.exp(x - x.max(1)[:, None])\n    return e / e.sum(1)[:, None]\n"
    found = check_source(find("cuda_kernel"), text.encode())
    assert found.key == "unasked" and not found.passed
    assert found.sentence.startswith("your numbers are right, but no kernel of yours made them")


def test_another_signature_is_told_with_the_starters():
    found = check("adaline_gradient", lambda x, t, w: (0.0, w, 0.0))
    assert found.sentence.startswith(
        "adaline_gradient is called with (x, t, w, b), as in the starter, and yours takes others: "
    )


def test_several_numbers_may_come_in_one_array():
    rightly = reference(find("conv_counts"))["conv_counts"]
    assert check("conv_counts", lambda *a: np.array(rightly(*a))).passed
    assert check("conv_counts", lambda *a: np.array(rightly(*a))[:4]).sentence.endswith("got one array of shape (4,).")


def test_matrices_that_do_not_fit_are_told_in_plain_words():
    found = check("matrix_gradient", lambda x, y, w1, w2, w3: (w1 @ x, w2 @ w1.T, w3 @ x))
    assert re.search(
        r"multiplies matrices that do not fit: the left one ends in an axis of \d+, the right one begins", found.sentence
    )


def test_the_case_that_is_shown_has_the_shape_that_the_sentence_is_about():
    """Wrong numbers of the right shape in an earlier case, another shape in a later one."""

    def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
        return np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:])), w, dy.sum((0, 2, 3))

    found = check("conv2d_backward", conv2d_backward)
    assert found.key == "shape" and "padding" in found.features and found.index is None
