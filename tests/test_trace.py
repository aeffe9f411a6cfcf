"""trace(): names, what a row shows, what is kept, and the pictures made from it."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Op, Parameter, Tensor, nn, ops
from cnnlib.errors import GraphError, UnknownNameError
from tests.toys import Polar, Square, leaf


def step(net, x):
    with cl.trace() as t:
        y = net(x)
        (y * y).sum().backward()
    return t


@pytest.fixture
def net():
    cl.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 3)))
    assert len(list(net.parameters())) == 6  # also tells them their paths
    return net


@pytest.fixture
def x():
    return Tensor(np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32))


# ---- names


def test_names_are_paths_of_modules_and_operations(net, x):
    assert [e.name for e in step(net, x)] == ["0.conv2d", "1.reshape", "2.0.linear", "2.1.linear", "multiply", "sum"]


def test_repeated_names_are_counted():
    with cl.trace() as t:
        Square.apply(Square.apply(Square.apply(Tensor([1.0]))))
    assert [e.name for e in t] == ["square", "square_2", "square_3"]
    assert t["square_3"].sources == {"x": "square_2"}


def test_attribute_names_lead_to_the_operation():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(self.layer(x)) * 2.0

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = Twice()

        def forward(self, x):
            return self.twice(x)

    assert [e.name for e in step(Outer(), Tensor([[1.0, 2.0]]))][:3] == [
        "twice.layer.linear",
        "twice.layer.linear_2",
        "twice.multiply",
    ]


def test_looking_at_a_slice_of_a_net_does_not_rename_its_layers(net, x):
    net[1:]
    assert [e.name for e in step(net, x)][:3] == ["0.conv2d", "1.reshape", "2.0.linear"]


def test_an_unknown_name_suggests_the_nearest(net, x):
    t = step(net, x)
    with pytest.raises(
        UnknownNameError, match=r"unknown operation in this trace '0\.conv': did you mean '0\.conv2d'\? \(known: 0\.conv2d, "
    ):
        t["0.conv"]
    with pytest.raises(KeyError):
        t["nothing like it"]


def test_a_trace_that_recorded_nothing_says_so():
    with pytest.raises(UnknownNameError, match="this trace recorded no operation: only what runs inside"):
        cl.trace()["0.conv2d"]


# ---- what an entry holds


def test_an_entry_holds_both_passes_by_name(net, x):
    t = step(net, x)
    conv, last = t["0.conv2d"], t["2.1.linear"]
    assert list(conv.inputs) == ["x", "w", "b"] and np.array_equal(conv.inputs["x"], x.data)
    assert conv.sources == {"x": "input", "w": "0.weight", "b": "0.bias"}
    assert last.sources["x"] == "2.0.linear"
    assert set(conv.saved) == {"x", "w", "geometry"}
    assert conv.settings["padding"] == 0 and conv.outputs[0].shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(conv.grads["w"], net[0].weight.grad)
    assert set(last.grads) == {"x", "w", "b"} and "x" not in conv.grads
    y = last.outputs[0]
    np.testing.assert_allclose(last.dys[0], 2 * y, rtol=1e-6)
    np.testing.assert_allclose(last.activation, np.sqrt((y.astype(float) ** 2).mean()), rtol=1e-6)
    np.testing.assert_allclose(last.adjoint, 2 * last.activation, rtol=1e-6)


def test_adjoints_of_several_outputs_with_none_where_none_came():
    with cl.trace() as t:
        Polar.apply(leaf([3.0]), leaf([4.0]))[1].sum().backward()
    entry = t["polar"]
    assert len(entry.outputs) == 2 and entry.dys[0] is None and entry.dys[1] is not None
    assert entry.adjoint is None and set(entry.grads) == {"a", "b"}
    assert "polar" in str(t)


def test_operations_that_need_no_gradient_are_shown_too():
    with cl.no_grad(), cl.trace() as t:
        Square.apply(leaf([2.0]))
    assert t["square"].adjoint is None and t["square"].grads == {}


def test_a_variable_number_of_inputs_has_distinct_names():
    a, b = leaf([1.0]), leaf([2.0])
    with cl.trace() as t:
        ops.concat([a, b]).backward(np.array([5.0, 6.0], np.float32))
    grads = t["concat"].grads
    assert len(grads) == 2
    np.testing.assert_array_equal(np.concatenate(list(grads.values())), [5.0, 6.0])


# ---- copies of what may change


def test_a_step_after_the_trace_does_not_change_it(net, x):
    t = step(net, x)
    arrays = [a for e in t for part in (e.inputs, e.saved, e.grads) for a in part.values() if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    for p in net.parameters():
        p.set(np.zeros(p.shape))
        p.grad[:] = 77.0
    for old, new in zip(before, arrays, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "view", [lambda p: p.reshape(4), lambda p: p.T, lambda p: p[0], lambda p: p.detach()], ids=["reshape", "T", "[0]", "detach"]
)
def test_a_step_does_not_change_the_trace_through_a_view_of_a_parameter(view):
    p = Parameter(np.arange(4.0, dtype=np.float32).reshape(2, 2))
    with cl.trace() as t:
        Square.apply(view(p))
    arrays = [a for e in t for a in (*e.inputs.values(), *e.outputs, *e.saved.values()) if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    p.set(np.full((2, 2), 77.0))
    for old, new in zip(before, arrays, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_step_does_not_change_saved_views_of_a_parameter():
    class Transposed(Op):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save(wt=w.T, parts=[w])
            return x @ w.T

    p = Parameter(np.eye(2, dtype=np.float32))
    with cl.trace() as t:
        Transposed.apply(Tensor([[1.0, 2.0]]), p)
    p.set(np.zeros((2, 2)))
    np.testing.assert_array_equal(t["transposed"].saved["wt"], np.eye(2))
    np.testing.assert_array_equal(t["transposed"].saved["parts"][0], np.eye(2))


def test_whatever_forward_saves_can_be_shown():
    """Not only arrays: dtypes, shapes, named tuples such as random keys, None, lists of arrays."""
    key = cl.random.next_key("dropout")

    class Saving(Op):
        @staticmethod
        def forward(ctx, x):
            ctx.save(dtype=x.dtype, key=key, nothing=None, parts=[x[0], (x, 3)], box={"x": x}, scalar=x[0, 0], kind=np.float32)
            return x * 1.0

    with cl.trace() as t:
        Saving.apply(Tensor([[1.0, 2.0]]))
        ops.split(Tensor([1.0, 2.0]), 1)
    saved = t["saving"].saved
    assert saved["key"] == key and type(saved["key"]) is type(key) and saved["dtype"] == np.float32
    np.testing.assert_array_equal(saved["parts"][1][0], [[1.0, 2.0]])


def test_tracing_does_not_change_results(net, x):
    (net(x) ** 2).sum().backward()
    plain = {p.name: p.grad for p in net.parameters()}
    net.zero_grad()
    step(net, x)
    for p in net.parameters():
        np.testing.assert_array_equal(p.grad, plain[p.name])


def test_a_traced_graph_is_freed_for_backward_all_the_same():
    x = leaf([1.0])
    with cl.trace() as t:
        y = (x * x).sum()
        y.backward()
    with pytest.raises(GraphError, match="retain"):
        y.backward()
    np.testing.assert_array_equal(t["multiply"].saved["a"], [1.0])


# ---- when it records


def test_backward_after_the_block_is_recorded():
    x = leaf([3.0])
    with cl.trace() as t:
        y = Square.apply(x).sum()
    y.backward()
    np.testing.assert_array_equal(t["square"].grads["x"], [6.0])
    assert t["square"].backward_ms is not None


def test_a_graph_made_before_the_block_is_not_recorded():
    y = Square.apply(leaf([3.0])).sum()
    with cl.trace() as t:
        y.backward()
    assert len(t) == 0 and str(t) == "trace: no operation ran" and "no operation ran" in t._repr_html_()


def test_the_innermost_trace_records():
    x = leaf([2.0])
    with cl.trace() as outer:
        y = Square.apply(x)
        with cl.trace() as inner:
            z = y * 3.0
        z.sum().backward()
    assert [e.name for e in outer] == ["square", "sum"] and [e.name for e in inner] == ["multiply"]
    np.testing.assert_array_equal(inner["multiply"].grads["a"], [3.0])
    np.testing.assert_array_equal(outer["square"].grads["x"], [12.0])


def test_two_backward_calls_show_the_later_one():
    x = leaf([1.0])
    with cl.trace() as t:
        y = Square.apply(x)
    y.backward(np.array([1.0], np.float32), retain=True)
    y.backward(np.array([10.0], np.float32))
    np.testing.assert_array_equal(t["square"].grads["x"], [20.0])


# ---- looking at it


class Awkward(Op):
    formula = 'y = <b>x</b> & "x" if x > 0'

    @staticmethod
    def forward(ctx, x, *, label=""):
        ctx.save(mask=x > 0)
        return x * 1.0

    @staticmethod
    def backward(ctx, dy):
        return dy


def test_the_table_has_formula_shapes_sizes_saved_and_time(net, x):
    rows = step(net, x).rows()
    assert list(rows[0]) == ["operation", "formula", "shapes", "|activation|", "|adjoint|", "saved", "ms"]
    assert rows[0]["formula"] == ops.Conv2d.formula
    assert rows[0]["shapes"] == "x (2·1·4·4), w (2·1·3·3), b (2) → (2·2·2·2)"
    assert rows[0]["saved"] == "x, w, geometry"
    assert all(r["|adjoint|"] for r in rows)
    assert all(" + " in r["ms"] for r in rows)


def test_the_printed_table_is_aligned(net, x):
    lines = str(step(net, x)).splitlines()
    assert len(lines) == 7
    start = lines[0].index("formula")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)


def test_html_is_escaped():
    with cl.trace() as t:
        Awkward.apply(Tensor([1.0]), label="<script>")
    text = t._repr_html_()
    assert "<b>" not in text and "&lt;b&gt;x&lt;/b&gt; &amp; " in text
    assert ET.fromstring(text).tag == "table"


def test_svg_is_well_formed_and_shows_every_operation(net, x):
    with cl.trace() as t:
        Awkward.apply(net(x), label="<&\"'>").sum().backward()
        Square.apply(Tensor(2.0))
    root = ET.fromstring(t.to_svg())
    texts = ["".join(g.itertext()) for g in root.iter("{http://www.w3.org/2000/svg}g")]
    assert len(texts) == len(t)
    for entry in t:
        assert any(entry.name in text and entry.formula in text for text in texts), entry.name


def test_svg_boxes_do_not_overlap_and_lie_inside_the_picture():
    x = leaf([1.0])
    with cl.trace() as t:
        parts = [Square.apply(x) for _ in range(3)]
        (parts[0] * parts[1] + parts[2]).sum()
    root = ET.fromstring(t.to_svg())
    boxes = [
        tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    width, height = float(root.get("width")), float(root.get("height"))
    for i, (x0, y0, w0, h0) in enumerate(boxes):
        assert x0 >= 0 and y0 >= 0 and x0 + w0 <= width and y0 + h0 <= height
        for x1, y1, w1, h1 in boxes[i + 1 :]:
            assert x0 + w0 <= x1 or x1 + w1 <= x0 or y0 + h0 <= y1 or y1 + h1 <= y0


def test_svg_of_an_empty_trace_is_well_formed():
    with cl.trace() as t:
        pass
    ET.fromstring(t.to_svg())


def test_an_entry_knows_which_output_of_its_source_it_read():
    x = cl.Tensor(np.ones((1, 4), np.float32), requires_grad=True)
    with cl.trace() as t:
        left, right = cl.ops.split(x, 2, axis=1)
        (right * left).sum().backward()
    assert t["multiply"].sources == {"a": "split", "b": "split"} and t["multiply"].which == {"a": 1, "b": 0}
    assert t["split"].sources == {"x": "input"} and t["split"].which == {} and t["split"].op is cl.ops.Split
