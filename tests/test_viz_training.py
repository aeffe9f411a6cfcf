"""Pictures of training: what is drawn equals what an independent computation gives, and wrong input is refused."""

import itertools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops, viz
from cnnlib.errors import GraphError, ShapeError, ValueRangeError
from tests.test_viz import draw, texts

pytest.importorskip("matplotlib")
rng = np.random.default_rng(0)


def traced(net, x, y):
    with cl.trace() as t:
        ops.cross_entropy(net(x), y).backward()
    return t


def test_gradient_norms_are_those_of_the_gradients():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).to("float64")
    x, y = rng.normal(size=(5, 1, 8, 8)), np.array([0, 1, 2, 3, 0])
    rows = viz.gradient_norms(traced(net, x, y))
    assert [name for name, _, _ in rows] == ["0", "4"]
    for (_, dw, _), layer in zip(rows, (net[0], net[4]), strict=True):
        assert dw == pytest.approx(np.linalg.norm(layer.weight.grad.ravel()))
    p = ops.softmax(net(x)).numpy()
    assert rows[1][2] == pytest.approx(np.linalg.norm((p - np.eye(4)[y]) / 5))  # ∂J/∂logits


def test_gradient_flow_draws_a_bar_for_each_norm():
    net = models.LeNet5(activation="tanh")
    t = traced(net, rng.uniform(size=(4, 1, 32, 32)).astype(np.float32), np.array([1, 2, 3, 4]))
    figure = viz.gradient_flow(t, title="first step")
    draw(figure)
    rows = viz.gradient_norms(t)
    for ax, column in zip(figure.axes, (1, 2), strict=True):
        ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
        np.testing.assert_allclose(ends, [row[column] for row in rows], rtol=1e-6)
        assert ax.get_xscale() == "log" and ax.get_xlim()[0] < min(ends)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["c1", "c3", "c5", "f6", "output"]
    assert figure.axes[0].yaxis_inverted() and "first step" in texts(figure)


def test_gradient_flow_says_zero_where_nothing_arrives():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    net[0].bias.set(-100.0)
    figure = viz.gradient_flow(traced(net, np.ones((2, 3), np.float32), np.array([0, 1])))
    assert texts(figure).count(" 0") == 3  # no weight of both layers gets a gradient, and no adjoint reaches the first
    draw(figure)


def test_gradient_flow_wants_a_backward_pass():
    net = nn.Sequential(nn.Linear(3, 2))
    with cl.trace() as t:
        net(np.ones((2, 3), np.float32))
    with pytest.raises(GraphError, match=r"with cl.trace\(\) as t: loss\(net\(x\), y\).backward\(\)"):
        viz.gradient_flow(t)


def test_percentiles_are_drawn_as_they_are():
    runs = {"without": np.sort(rng.normal(size=(7, 3)), axis=1), "with": np.sort(rng.normal(size=(7, 3)), axis=1).tolist()}
    figure = viz.percentiles(runs, steps=range(0, 70, 10), label="input of the last sigmoid")
    draw(figure)
    for ax, (name, rows) in zip(figure.axes, runs.items(), strict=True):
        assert ax.get_title() == name and ax.get_ylim() == figure.axes[0].get_ylim()
        for line, values in zip(ax.get_lines(), np.asarray(rows).T, strict=True):
            assert line.get_xdata().tolist() == list(range(0, 70, 10))
            np.testing.assert_array_equal(line.get_ydata(), values)
    assert {"15%", "50%", "85%", "input of the last sigmoid", "training step"} <= set(texts(figure))


def test_percentiles_refuse_what_are_none():
    with pytest.raises(ValueRangeError, match="no run"):
        viz.percentiles({})
    with pytest.raises(ShapeError, match=r"run 'a' must be \(T, 3\), .* got \(4,\)"):
        viz.percentiles({"a": np.zeros(4)})
    with pytest.raises(ShapeError, match="'a' has 2 rows, but there are 3 steps"):
        viz.percentiles({"a": np.zeros((2, 3))}, steps=[1, 2, 3])
    with pytest.raises(ValueRangeError, match="must not fall"):
        viz.percentiles({"a": [[1.0, 0.0, 2.0]]})


def dropping():
    return nn.Sequential(
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(9, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 14), nn.Tanh(),
        nn.Dropout(0.5), nn.Linear(14, 3),
    )  # fmt: skip


def test_the_thinned_network_is_that_of_the_next_training_step():
    cl.manual_seed(4)
    net = dropping()
    seen = []
    for i in (1, 4, 7):
        net[i].register_forward_hook(lambda _, xs, y: seen.append((xs[0].numpy().ravel(), y.numpy().ravel())))
    x = rng.uniform(0.5, 1, size=(3, 3)).astype(np.float32)
    kept = viz.kept_units(net, (3, 3))
    streams = cl.random.get_state()
    seen.clear()
    net(x[None])
    for row, (before, after) in zip(kept, seen, strict=False):
        alive = before != 0  # a unit that ReLU has silenced is 0 either way
        np.testing.assert_array_equal(row[alive], after[alive] != 0)
    assert cl.random.get_state() != streams  # the step drew; the picture had not
    assert [len(row) for row in kept] == [9, 12, 14, 3] and kept[3].all()
    assert all(0 < row.sum() < len(row) for row in kept[:3])


def test_the_thinned_network_is_drawn_without_what_is_dropped():
    cl.manual_seed(4)
    net = dropping().eval()
    figure = viz.thinned_network(net, (9,), most=50)
    draw(figure)
    assert not net.training
    kept = viz.kept_units(net, (9,))
    whole, thinned = figure.axes
    count = lambda ax, marker: sum(line.get_marker() == marker for line in ax.get_lines())  # noqa: E731
    units, alive = [len(row) for row in kept], [int(row.sum()) for row in kept]
    assert count(whole, "o") == count(thinned, "o") == sum(units)
    assert count(whole, "x") == 0 and count(thinned, "x") == sum(units) - sum(alive)
    assert count(whole, "None") == sum(a * b for a, b in itertools.pairwise(units))
    assert count(thinned, "None") == sum(a * b for a, b in itertools.pairwise(alive))
    assert f"{alive[1]} of 12" in texts(figure)
    few = viz.thinned_network(net, (9,), most=5)
    assert count(few.axes[0], "o") == 5 + 5 + 5 + 3 and texts(few).count("⋮") == 6


def test_only_perceptrons_with_dropout_are_thinned():
    with pytest.raises(ValueRangeError, match="no active Dropout layer"):
        viz.thinned_network(models.MLP(4), (4,))
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 2))
    with pytest.raises(ShapeError, match=r"linear layers in a row, as an MLP is, but has 0.conv2d"):
        viz.thinned_network(net, (1, 4, 4))
    net = nn.Sequential(nn.DropConnect(4, 3, 0.5), nn.Linear(3, 2))
    with pytest.raises(ShapeError, match=r"0\.dropout, which drops weights"):
        viz.thinned_network(net, (4,))


def test_filters_of_a_model_have_a_row_per_convolution():
    net = nn.Sequential(nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 5, 3))
    figure = viz.filters(net)
    draw(figure)
    assert {"0: 20 of 1×3×3", "2: 5 of 20×3×3"} <= set(texts(figure))
    drawn = [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes if ax.get_images()]
    assert len(drawn) == 16 + 5
    np.testing.assert_array_equal(drawn[0], net[0].weight.numpy()[0, 0])
    for picture, kernel in zip(drawn[16:], net[2].weight.numpy(), strict=True):
        assert np.abs(picture).max() == np.abs(kernel).max() and any((picture == channel).all() for channel in kernel)
    with pytest.raises(ShapeError, match="this model has no convolution"):
        viz.filters(models.MLP(4))


def test_a_decision_boundary_names_its_classes():
    points = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    figure = viz.decision_boundary(lambda p: (p[:, 0] > 0.5).astype(int), points, np.array([0, 1, 0]))
    assert {"class 0", "class 1"} <= set(texts(figure))
