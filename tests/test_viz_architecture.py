"""The drawn architecture is the graph that runs: layers, shapes, parameters, skips and branches, and nothing overlaps."""

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops, viz
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.viz.layers import layers_of

SVG = "{http://www.w3.org/2000/svg}"


class Residual(nn.Module):
    """As in ResNet: identity or projection around two convolutions."""

    def __init__(self, C, F, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(C, F, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(F)
        self.conv2, self.bn2 = nn.Conv2d(F, F, 3, padding=1, bias=False), nn.BatchNorm2d(F)
        self.shortcut = nn.Identity() if (C, stride) == (F, 1) else nn.Conv2d(C, F, 1, stride=stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x):
        shortcut = self.shortcut(x)
        return ops.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class Inception(nn.Module):
    """Four branches of one, two, two and two layers that meet in a concatenation."""

    def __init__(self, C):
        super().__init__()
        self.one = nn.Conv2d(C, 8, 1)
        self.three = nn.Sequential(nn.Conv2d(C, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.five = nn.Sequential(nn.Conv2d(C, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 5, padding=2), nn.ReLU())
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(C, 4, 1))

    def forward(self, x):
        return ops.concat([self.one(x), self.three(x), self.five(x), self.pool(x)], axis=1)


class Crossed(nn.Module):
    """Every layer sees all that came before: no branches that could stand beside each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        c = self.c(a + b)
        return x + a + b + c


def residual_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Residual(4, 4), Residual(4, 8, 2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 10),
    )  # fmt: skip


def branched_net():
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), Inception(6), nn.MaxPool2d(2))


NETS = {
    "mlp": (lambda: models.MLP((1, 8, 8), hidden=(32, 16)), (1, 8, 8)),
    "lenet": (models.LeNet5, (1, 32, 32)),
    "residual": (residual_net, (1, 12, 12)),
    "branched": (branched_net, (1, 12, 12)),
    "both": (lambda: nn.Sequential(branched_net(), nn.Conv2d(28, 4, 1), Residual(4, 8)), (1, 12, 12)),
    "crossed": (Crossed, (2, 6, 6)),
}


def parsed(name, **options):
    make, shape = NETS[name]
    net = make()
    return net, ET.fromstring(viz.architecture(net, shape, **options))


def drawn(svg):
    return [g.get("data-layer") for g in svg.iter(f"{SVG}g") if g.get("data-layer")]


def edges(svg):
    return {(p.get("data-from"), p.get("data-to")) for p in svg.iter(f"{SVG}path") if p.get("data-from")}


@pytest.mark.parametrize("name", NETS)
def test_each_layer_is_drawn_once(name):
    net, svg = parsed(name)
    inner = {p for p, m in net.named_modules() if not m._modules and not isinstance(m, nn.Identity)}
    found = drawn(svg)
    assert len(found) == len(set(found)) and inner <= set(found)
    assert all(n.split(".")[-1].split(" ")[0] in ("input", "add", "relu", "concat") for n in set(found) - inner)


@pytest.mark.parametrize("name", NETS)
def test_no_box_lies_on_another_and_no_line_runs_through_one(name):
    _, svg = parsed(name)
    number = lambda r, *names: [float(r.get(n)) for n in names]  # noqa: E731
    boxes = [number(r, "x", "y", "width", "height") for r in svg.iter(f"{SVG}rect")]
    left, top, width, height = map(float, svg.get("viewBox").split())
    for i, (x, y, w, h) in enumerate(boxes):
        assert left <= x and x + w <= left + width and top <= y and y + h <= top + height
        for u, v, p, q in boxes[:i]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y
    for path in svg.iter(f"{SVG}path"):
        if path.get("data-from"):
            for px, py in along(path.get("d")):
                assert left < px < left + width
                inside = [b for b in boxes if b[0] < px < b[0] + b[2] and b[1] + 0.6 < py < b[1] + b[3] - 0.6]
                assert not inside, (path.get("data-from"), path.get("data-to"), px, py)


def along(d):
    """Points on a path of M, C and V."""
    x = y = 0.0
    for command, numbers in re.findall(r"([MCV])([^MCV]*)", d):
        n = [float(v) for v in numbers.split()]
        if command == "M":
            x, y = n
        elif command == "V":
            yield from ((x, y + t * (n[0] - y)) for t in np.linspace(0, 1, 40))
            y = n[0]
        else:
            t = np.linspace(0, 1, 40)[:, None]
            a, b, c, e = np.array([[x, y], n[:2], n[2:4], n[4:]])
            yield from (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * e
            x, y = n[4:]


def test_a_chain_is_a_chain():
    _, svg = parsed("lenet")
    order = ["input", "c1", "s2", "c3", "s4", "flatten", "c5", "f6", "output"]
    assert edges(svg) == set(itertools.pairwise(order))
    texts = [t.text for t in svg.iter(f"{SVG}text")]
    assert "→ 6×28×28 · 156 parameters" in texts and "Conv2d(1, 6, 5×5)" in texts and "act1 ReLU" in texts


def test_skips_go_around_from_the_block_s_input_to_its_sum():
    _, svg = parsed("residual")
    assert edges(svg) == {
        ("input", "0"), ("0", "3.conv1"), ("3.conv1", "3.conv2"), ("3.conv2", "3.add"), ("0", "3.add"),
        ("3.add", "4.conv1"), ("4.conv1", "4.conv2"), ("4.conv2", "4.add"), ("3.add", "4.shortcut"), ("4.shortcut", "4.add"),
        ("4.add", "5"), ("5", "7"),
    }  # fmt: skip
    assert "6" in drawn(svg)  # dropout, which does nothing in evaluation


def test_branches_begin_and_end_together_beside_each_other():
    _, svg = parsed("branched")
    heads, tails = ("2.one", "2.three.0", "2.five.0", "2.pool.0"), ("2.one", "2.three.2", "2.five.2", "2.pool.1")
    assert {("0", h) for h in heads} | {(t, "2.concat") for t in tails} <= edges(svg)
    corner = {g.get("data-layer"): next(g.iter(f"{SVG}rect")) for g in svg.iter(f"{SVG}g")}
    assert len({corner[h].get("y") for h in heads}) == 1
    assert [float(corner[h].get("x")) for h in heads] == sorted(float(corner[h].get("x")) for h in heads)


def test_parameters_and_shapes_are_those_of_the_summary():
    for name in ("lenet", "residual", "branched"):
        make, shape = NETS[name]
        net = make()
        rows = {r.name: r for r in cl.summary(net, shape).rows}
        layers = layers_of(net, shape)
        assert sum(layer.parameters for layer in layers) == sum(p.size for p in net.parameters())
        for layer in layers:
            if layer.name in rows:
                row = rows[layer.name]
                assert (layer.shape, layer.parameters) == (row.output_shape, row.weights + row.biases)


def test_the_systems_have_the_skips_and_branches_of_their_papers():
    net = models.create("resnet20", width=2)
    layers = {layer.name: layer for layer in layers_of(net, net.input_shape)}
    sums = [layer for layer in layers.values() if layer.kind == "add"]
    assert len(sums) == 9 and all(len(layer.sources) == 2 for layer in sums)
    net = models.create("googlenet", width=0.125, input_size=64)
    layers = {layer.name: layer for layer in layers_of(net, net.input_shape)}
    joins = [layer for layer in layers.values() if layer.kind == "concat"]
    assert len(joins) == 9 and all(len(layer.sources) == 4 for layer in joins)
    heads = sum(p.size for n, p in net.named_parameters() if n.startswith("aux"))  # not used in evaluation
    assert sum(layer.parameters for layer in layers.values()) == sum(p.size for p in net.parameters()) - heads


def test_depth_draws_blocks_as_one():
    net, svg = parsed("residual", depth=1)
    assert drawn(svg) == ["input", *map(str, range(8))]
    assert edges(svg) == {("input", "0"), ("0", "3"), ("3", "4"), ("4", "5"), ("5", "7")}
    block = sum(p.size for p in net[4].parameters())
    assert f"→ 8×6×6 · {block:,} parameters" in [t.text for t in svg.iter(f"{SVG}text")]


def test_a_layer_used_twice_is_two_calls_with_one_set_of_parameters():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x) * 0.5)

    layers = layers_of(Twice(), (3,))
    assert [(layer.name, layer.parameters) for layer in layers] == [
        ("input", 0), ("layer", 12), ("multiply", 0), ("layer (2)", 0)
    ]  # fmt: skip
    assert [[s.name for s in layer.sources] for layer in layers] == [[], ["input"], ["layer"], ["multiply"]]


def test_an_activation_that_two_blocks_share_is_drawn_in_both():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 4), relu), nn.Sequential(nn.Linear(4, 5), relu))
    assert [layer.name for layer in layers_of(net, (3,))] == ["input", "0.0", "0.1", "1.0", "1.1"]


def test_layers_of_operations_on_token_numbers():
    layers = layers_of(nn.Sequential(nn.Embedding(7, 4), nn.Flatten()), (5,), dtype="int64")
    assert [layer.shape for layer in layers] == [(5,), (5, 4), (20,)]


def test_names_are_escaped():
    class Odd(nn.Module):
        def extra_repr(self):
            return "a < b & c"

        def forward(self, x):
            return ops.relu(x)

    svg = ET.fromstring(viz.architecture(nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(3, 2), Odd()), (2,)))
    assert any("a < b & c" in (t.text or "") for t in svg.iter(f"{SVG}text"))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueRangeError, match="depth must be a whole number of at least 1, got 0"):
        viz.architecture(models.LeNet5(), (1, 32, 32), depth=0)
    with pytest.raises(ShapeError, match=r"input_shape must be the sizes of one sample, .* got 32"):
        viz.architecture(models.LeNet5(), 32)
    with pytest.raises(ShapeError, match=r"LeNet5: x must be \(N, 1, 32, 32\)"):
        viz.architecture(models.LeNet5(), (1, 28, 28))
    net = residual_net()
    with pytest.raises(ShapeError):
        viz.architecture(net, (3, 12, 12))
    assert not any(m._forward_hooks for m in net.modules()) and net.training


def test_drawing_keeps_no_array_of_the_network():
    """A trace copies parameters; the drawing must not, or a large model would not fit twice."""
    import tracemalloc

    net = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 1000))
    tracemalloc.start()
    viz.architecture(net, (1000,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < net[0].weight.data.nbytes / 2, f"{peak:,} bytes"
