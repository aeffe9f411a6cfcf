"""Pictures: that they can be drawn, say what they should, and refuse what they cannot show."""

import io
import sys

import numpy as np
import pytest

from cnnlib import models, nn, viz
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.viz.figure import VizError

figure_module = pytest.importorskip("matplotlib.figure")


def texts(figure):
    """All that is written in a figure."""
    import matplotlib.text

    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def draw(figure):
    """PNG bytes: drawing for real finds what building does not."""
    assert isinstance(figure, figure_module.Figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=40)
    return png.getvalue()


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (16, 6, 5, 5), (8, 3, 7, 7), (100, 1, 3, 3), (1, 1, 1, 1)])
def test_filters(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert draw(viz.filters(weight)).startswith(b"\x89PNG")


def test_filters_share_a_scale_that_is_symmetric_around_zero():
    figure = viz.filters(np.array([[[[0.5, -2.0]]], [[[1.0, 0.0]]]], np.float32))
    images = [image for ax in figure.axes for image in ax.get_images()]
    assert images and all(image.get_clim() == (-2.0, 2.0) for image in images)


def test_filters_takes_a_parameter_and_refuses_a_matrix():
    draw(viz.filters(models.LeNet5().c3.weight, title="c3"))
    with pytest.raises(ShapeError, match=r"must be \(F, C, KH, KW\), got shape \(84, 120\)"):
        viz.filters(models.LeNet5().f6.weight)


def test_feature_maps_show_each_layer_once():
    net = models.LeNet5()
    figure = viz.feature_maps(net, np.ones((1, 32, 32), np.float32))
    draw(figure)
    assert "c1: 6 × 28 × 28" in texts(figure) and "s4: 16 × 5 × 5" in texts(figure)
    assert not any(t.startswith("c5") for t in texts(figure))
    assert all(m.training and not m._forward_hooks for m in net.modules())


def test_feature_maps_of_chosen_layers_and_a_colour_picture():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    figure = viz.feature_maps(net, np.zeros((1, 3, 8, 8), np.float32), layers=["1"])
    draw(figure)
    assert "1: 4 × 6 × 6" in texts(figure) and not any(t.startswith("0:") for t in texts(figure))
    with pytest.raises(UnknownNameError, match="unknown layer 'conv'"):
        viz.feature_maps(net, np.zeros((3, 8, 8), np.float32), layers=["conv"])
    with pytest.raises(ShapeError, match="'2' is not a stack of maps"):
        viz.feature_maps(net, np.zeros((3, 8, 8), np.float32), layers=["2"])


def test_feature_maps_refuse_batches_and_flat_networks():
    with pytest.raises(ShapeError, match="one picture"):
        viz.feature_maps(models.LeNet5(), np.zeros((2, 1, 32, 32), np.float32))
    with pytest.raises(ShapeError, match="no layer of this model makes maps"):
        viz.feature_maps(models.MLP(64), np.zeros((1, 8, 8), np.float32))


def test_confusion_matrix_counts_and_names():
    figure = viz.confusion_matrix([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], classes=["cat", "horse"])
    draw(figure)
    assert "60.0% of 5 right" in texts(figure)
    assert {"cat", "horse", "true", "predicted"} <= set(texts(figure))
    assert sorted(t for t in texts(figure) if t in ("1", "2")) == ["1", "1", "1", "2"]


def test_confusion_matrix_refuses_nonsense():
    with pytest.raises(ShapeError, match="must be"):
        viz.confusion_matrix([0, 1], [0])
    with pytest.raises(ValueRangeError, match="argmax"):
        viz.confusion_matrix([0, 1], [0.2, 0.8])
    with pytest.raises(ValueRangeError, match="0 … 1"):
        viz.confusion_matrix([0, 1], [0, 2], classes=["a", "b"])


def test_decision_boundary():
    points = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    figure = viz.decision_boundary(lambda p: (p[:, 0] > 0.5).astype(int), points, np.array([0, 1, 0]), title="step")
    draw(figure)
    assert "step" in texts(figure)
    with pytest.raises(ShapeError, match=r"a class number for each of the 57600 points, .* got shape \(57600, 2\)"):
        viz.decision_boundary(lambda p: p, np.eye(2), [0, 1])
    with pytest.raises(ShapeError, match="points in the plane"):
        viz.decision_boundary(lambda p: p, np.zeros((3, 3)), np.zeros(3, int))


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(VizError, match=r'pip install "cnnlib\[viz\]"'):
        viz.filters(np.zeros((1, 1, 3, 3)))


def test_learning_curve_takes_rows_or_columns():
    rows = [{"epoch": 1, "loss": 2.0, "test_accuracy": 0.5}, {"epoch": 2, "loss": 1.0, "test_accuracy": 0.9}]
    columns = {"epoch": [1, 2], "loss": [2.0, 1.0], "test_accuracy": [0.5, 0.9]}
    for history in (rows, columns):
        figure = viz.learning_curve(history, title="run")
        draw(figure)
        drawn = [line.get_ydata().tolist() for ax in figure.axes for line in ax.get_lines()]
        assert drawn == [[2.0, 1.0], [0.5, 0.9]]
        assert {"loss", "accuracy", "epoch", "run"} <= set(texts(figure))
    with pytest.raises(ValueRangeError, match="no loss and no accuracy"):
        viz.learning_curve([])
