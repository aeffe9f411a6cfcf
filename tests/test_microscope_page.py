"""The microscope's page: it needs nothing else, its size is bounded, and in a browser the terms one clicks add up."""

import base64
import json
import re

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.microscope.rules import FUNCTIONS

TEXT = "the quick brown"


def lenet(n=2, width=1.0):
    train, _ = cl.data.load("digits", size=32)
    cl.manual_seed(0)
    return cl.explain(cl.models.LeNet5(activation="tanh", width=width), train.x[:n], train.y[:n])


def reader(cell="lstm"):
    cl.manual_seed(0)
    net = cl.models.CharRNN(TEXT, cell=cell, hidden=6, embedding=4)
    ids = net.alphabet.encode(TEXT)
    return cl.explain(net, ids[:-1, None], ids[1:, None])


class Mixed(nn.Module):
    """Groups, dilation, both poolings, batch normalisation, a shortcut, concatenation, dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2, stride=2)
        self.bn, self.drop, self.out = nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Linear(72, 3)

    def forward(self, x):
        h = ops.relu(self.bn(self.conv(x)))
        h = h + ops.sigmoid(h) * h
        h = ops.concat([ops.max_pool2d(h, 2, padding=1, stride=2), ops.avg_pool2d(h, 2, stride=1)[:, :, ::-1]], axis=1)
        return self.out(self.drop(h.reshape((h.shape[0], -1))))


def mixed():
    cl.manual_seed(1)
    x = np.random.default_rng(1).standard_normal((2, 2, 8, 8)).astype(np.float32)
    return cl.explain(Mixed(), x, np.array([0, 2]))


class Padded(nn.Module):
    """Two sequences, the second one shorter, read in both directions with peepholes."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, peepholes="full", bidirectional=True), nn.Linear(8, 2)

    def forward(self, x):
        y, _ = self.rnn(x, lengths=np.array([5, 2]))
        return self.out(y).mean(axis=0)


def padded():
    cl.manual_seed(2)
    return cl.explain(Padded(), np.random.default_rng(2).standard_normal((5, 2, 3)).astype(np.float32), np.array([0, 1]))


STORIES = {"padded": padded, "lenet5": lambda: lenet(1, 0.5), "lstm": reader, "gru": lambda: reader("gru"), "mixed": mixed}


def numbers(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_refers_to_nothing_outside_and_names_cannot_end_its_data():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, "</script>", nn.Linear(2, 2))

        def forward(self, x):
            return getattr(self, "</script>")(x)

    page = cl.explain(Named(), np.ones((1, 2), np.float32), np.array([0])).html()
    assert not re.search(r"https?:|\bsrc\s*=|\bhref\s*=|@import|url\(|<link|fetch\(|XMLHttp|import\s*\(", page, re.IGNORECASE)
    assert page.startswith("<!DOCTYPE html>") and "@DATA@" not in page and page.count("</script>") == 2
    assert numbers(page)["steps"][0]["name"] == "</script>.linear"


def test_arrays_travel_once_as_float32():
    story = lenet()
    data = numbers(story.html())
    nodes = {node["label"]: node for node in data["nodes"]}
    y = np.frombuffer(base64.b64decode(data["pool"][nodes["c1.conv2d y"]["data"]]), np.float32)
    np.testing.assert_array_equal(y, story.node("c1.conv2d", "y").array.reshape(-1))
    assert nodes["flatten.reshape y"]["data"] == nodes["s4.max_pool2d y"]["data"]
    assert len(story.html()) < 2e6


def test_what_does_not_fit_is_left_out_the_largest_first_and_said():
    story = lenet()
    page = story.html(megabytes=0.2)
    data = numbers(page)
    left_out = [node for node in data["nodes"] if node["data"] is None]
    kept = [node for node in data["nodes"] if node["data"] is not None]
    smallest = min(np.prod(node["shape"]) for node in left_out)
    assert {"c5.weight"} <= {node["label"] for node in left_out}
    assert all(np.prod(node["shape"]) <= smallest for node in kept)
    assert sum(map(len, data["pool"])) <= 2e5 and len(page) < 4e5


# ---- in a browser


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; when the test is over, nothing was requested but the page and nothing was written to the console."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")  # a click may miss what scrolls
    heard, file = [], tmp_path / "microscope.html"
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))

    def open_(story, **settings):
        file.write_text(story.html(**settings), encoding="utf-8")
        page.goto(file.as_uri())
        return page

    yield open_
    page.close()
    assert [text for text in heard if not text.startswith(f"{file.as_uri()}#")] == [file.as_uri()]


def go(page, step, node, index):
    page.evaluate("([k, id, at]) => { location.hash = `${k}/${id}/${at.join(',')}`; }", [step, node, list(index)])
    page.wait_for_function("at => String(index) === at && location.hash", arg=",".join(map(str, index)))
    page.wait_for_function("id => chosen === nodes[id]", arg=node)


def number(page, selector):
    return float(page.get_attribute(selector, "data-value"))


def read_terms(page):
    """[(value, [(label, index, value)])] as the page lists them, all of them."""
    if page.locator("#all").count():
        page.click("#all")
    return page.eval_on_selector_all(
        ".terms li",
        """items => items.map(li => [+li.dataset.value,
             [...li.querySelectorAll(".chip")].map(c => [nodes[c.dataset.node].label, c.dataset.index, +c.dataset.value])])""",
    )


@pytest.mark.parametrize("name", STORIES)
def test_the_displayed_terms_add_up_to_the_stored_value(opened, name):
    """For an element of every array of every operation: the list sums to what the array holds, and is Python's list."""
    story, rng = STORIES[name](), np.random.default_rng(0)
    page = opened(story)
    labels = page.evaluate("nodes.map(node => node.label)")
    shown = 0
    for k, step in enumerate(story):
        for node in step.operation.nodes.values():
            if node.rule is None or node.step != k:
                continue
            index = tuple(int(rng.integers(n)) for n in node.array.shape)
            go(page, k, labels.index(node.label), index)
            listed, python = read_terms(page), node.terms(index)
            assert len(listed) == len(python), node.label
            for (value, factors), term in zip(listed, python, strict=True):
                np.testing.assert_allclose(value, term.value, rtol=1e-5, atol=1e-12)
                expected = [(node.names[a].label, ",".join(map(str, i)), v) for a, i, _, v in term.factors]
                assert [f[:2] for f in factors] == [list(e[:2]) for e in expected]
            values = [value for value, _ in listed]
            stored = float(node.array[index])
            assert number(page, "#stored") == pytest.approx(stored, rel=1e-6)
            made = number(page, "#made" if node.rule.function else "#sum")
            scale = max(map(abs, values), default=0.0)
            if not node.rule.function:
                assert made == pytest.approx(sum(values), rel=1e-9, abs=1e-12)
            assert made == pytest.approx(stored, rel=2e-4, abs=1e-5 * scale + 1e-9), f"{node.label}{index}"
            assert page.inner_text(".ok") == "✓ they agree" or abs(stored) < 1e-6 * scale
            shown += 1
    assert shown > 20


def test_functions_are_those_of_python(opened):
    page = opened(reader())
    for name, function in FUNCTIONS.items():
        for v in (-2.5, -0.3, 0.4, 1.7):
            if name in ("ln v", "√v") and v < 0:
                continue
            got = page.evaluate("([f, v]) => FUNCTIONS[f](v)", [name, v])
            assert got == pytest.approx(function(v), rel=1e-12), name


def test_a_click_on_a_picture_chooses_the_element_under_it(opened):
    story = lenet()
    page = opened(story)
    labels = page.evaluate("nodes.map(node => node.label)")
    for array, index in (("y", (0, 3, 10, 20)), ("w", (4, 0, 2, 1)), ("x", (0, 0, 5, 30)), ("dw", (5, 0, 4, 4)), ("db", (2,))):
        node = labels.index(story.node("c1.conv2d", array).label)
        x, y = page.evaluate("([id, at]) => planes.find(p => p.id === id).place.corner(at)", [node, list(index)])
        half = page.evaluate("id => planes.find(p => p.id === id).place.cell / 2", node)
        page.locator(f"canvas[data-node='{node}']").click(position={"x": x + half, "y": y + half})
        page.wait_for_function("at => String(index) === at", arg=",".join(map(str, index)))
        assert page.evaluate("chosen.label") == labels[node]
        assert number(page, "#stored") == pytest.approx(float(story.node("c1.conv2d", array).array[index]), rel=1e-6)


def test_arrow_keys_step_through_a_picture_and_over_the_gap_to_the_next_map(opened):
    page = opened(lenet())
    node = page.evaluate("nodes.findIndex(node => node.label === 'c1.conv2d y')")
    go(page, 0, node, (0, 0, 9, 26))
    page.focus(f"canvas[data-node='{node}']")
    for expected in ("0,0,9,27", "0,1,9,0"):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("at => String(index) === at", arg=expected)


def walk(page, chip):
    """Clicks the first such chip of the largest term, again and again: the steps on the way."""
    page.evaluate("order = 'largest first'; drawLens()")
    steps = [page.evaluate("steps[step].name")]
    for _ in range(60):
        chips = page.locator(f".terms li >> nth=0 >> {chip}")
        if not chips.count():
            return list(dict.fromkeys(steps))
        before = page.evaluate("location.hash")
        chips.first.click()
        page.wait_for_function("before => location.hash !== before", arg=before)
        page.wait_for_function("location.hash === `#${step}/${nodes.indexOf(chosen)}/${index}`")
        steps.append(page.evaluate("steps[step].name"))
    raise AssertionError(f"the walk does not end: {steps}")


def test_clicking_terms_walks_from_the_loss_back_to_the_picture_and_the_browser_walks_back(opened):
    story = lenet(1)
    page = opened(story)
    page.click("nav button[data-step='12']")
    page.wait_for_function("step === 12")
    assert walk(page, ".chip.value") == [step.name for step in reversed(story.steps)]
    assert page.evaluate("chosen.label") == "input"
    here = page.evaluate("location.hash")
    page.go_back()
    page.wait_for_function("here => location.hash !== here && chosen.label === 'c1.conv2d y'", arg=here)


def test_clicking_adjoints_walks_from_the_first_weights_forward_to_the_loss(opened):
    story = lenet(1)
    page = opened(story)
    go(page, 0, page.evaluate("nodes.findIndex(node => node.label === 'c1.conv2d dw')"), (3, 0, 2, 2))
    assert walk(page, ".chip.adjoint") == [step.name for step in story]
    assert page.evaluate("chosen.says").startswith("where backward begins") and number(page, "#stored") == 1


def test_value_and_adjoint_of_an_element_lead_to_each_other(opened):
    story = reader()
    page = opened(story)
    labels = page.evaluate("nodes.map(node => node.label)")
    go(page, 1, labels.index("rnn.lstm f"), (4, 0, 2))
    assert page.locator(f"canvas[data-node='{labels.index('rnn.lstm da_f')}']").count() == 1  # a gate's adjoint beside it
    go(page, 1, labels.index("rnn.lstm dc"), (4, 0, 2))
    chip = page.locator(f".chip[data-node='{labels.index('rnn.lstm dc')}']")
    assert chip.get_attribute("data-index") == "5,0,2"  # the cell's adjoint comes from the step after it
    chip.click()
    page.wait_for_function("String(index) === '5,0,2'")
    assert page.input_value(".where input >> nth=0") == "5"
    page.fill(".where input >> nth=0", "13")
    page.keyboard.press("Enter")
    page.wait_for_function("String(index) === '13,0,2'")
    assert not page.locator(f".chip[data-node='{labels.index('rnn.lstm dc')}']").count()  # nothing comes after the last


def test_samples_keys_and_what_is_left_out(opened):
    story = lenet()
    page = opened(story, megabytes=0.2)
    assert page.locator("#sample option").count() == 2
    page.select_option("#sample", "1")
    page.wait_for_function("index[0] === 1")
    page.keyboard.press("]")
    page.wait_for_function("step === 1")
    assert page.inner_text("main h2") == "act1.tanh"
    page.click("nav button[data-step='7']")
    page.wait_for_function("step === 7")
    assert "w: 48,000 numbers, left out of this page" in page.inner_text("main")
    assert "Its products need c5.weight (48,000 numbers), left out of this page" in page.inner_text("#lens")


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(browser, tmp_path, width):
    page, file = browser.new_page(viewport={"width": width, "height": 800}), tmp_path / "page.html"
    file.write_text(mixed().html(), encoding="utf-8")
    page.goto(file.as_uri())
    for k in range(page.evaluate("steps.length")):
        page.evaluate("k => enter(k)", k)
        page.wait_for_function("k => step === k", arg=k)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_step_with_nan_is_shown(opened):
    net = nn.Linear(2, 2)
    net.weight.set([[np.nan, 1.0], [3.0, 1.0]])
    page = opened(cl.explain(net, np.ones((1, 2), np.float32), np.array([0])))
    node = page.evaluate("nodes.findIndex(node => node.label === 'linear y')")
    go(page, 0, node, (0, 0))
    assert page.inner_text("#stored") == "= NaN" and page.inner_text(".ok") == "✓ they agree"
