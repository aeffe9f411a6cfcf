"""The X-ray's page: its numbers are those of the figures, it needs nothing else, and a browser shows what one points at."""

import base64
import json
import re

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import data, models, nn, viz
from cnnlib.errors import ShapeError
from cnnlib.viz.sequence import read

TEXT = "the </script> end\nof a day"
T = len(TEXT)


def model(cell="lstm", layers=2, seed=0):
    cl.manual_seed(seed)
    return models.CharRNN(data.text.Alphabet(TEXT).characters, cell=cell, hidden=6, layers=layers, embedding=4)


def numbers(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def decoded(text, columns, signed):
    values = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, columns)
    return values / 127 - 1 if signed else values / 255


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gates_and_states_are_those_of_the_trace(cell):
    net = model(cell)
    shown = numbers(viz.sequence_xray(net, TEXT))
    layers = read("", net, TEXT)
    assert [layer["name"] for layer in shown["layers"]] == ["rnn.l0", "rnn.l1"] and shown["labels"] == list(TEXT)
    for there, layer in zip(shown["layers"], layers, strict=True):
        assert list(there["values"]) == list(layer.values)
        for name, values in there["values"].items():
            exact = np.tanh(layer.values[name]) if name == "c" else layer.values[name]
            np.testing.assert_allclose(decoded(values, 6, name not in "ifoqrz"), exact, atol=1 / 254 + 1e-6)


def test_influences_sensitivities_and_guesses_are_those_of_the_figures():
    net = model()
    shown = numbers(viz.sequence_xray(net, TEXT))
    gradient, scores = viz.influence_map(net, TEXT)
    np.testing.assert_allclose(
        decoded(shown["gradient"], T, False), gradient / gradient.max(axis=1, keepdims=True), atol=1 / 510 + 1e-6
    )
    product, _ = viz.influence_map(net, TEXT, how="gradient x input")
    np.testing.assert_allclose(
        decoded(shown["product"], T, True), product / abs(product).max(axis=1, keepdims=True), atol=1 / 254 + 1e-6
    )
    S = viz.sensitivity_map(net, TEXT, layer="rnn.l1")
    decades = decoded(shown["layers"][1]["sensitivity"], T, False) * 8 - 8
    np.testing.assert_allclose(decades, np.log10(np.maximum(S / S.max(), 1e-8)), atol=8 / 510 + 1e-6)
    for row, guesses in zip(scores, shown["guesses"], strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        names = [{" ": "␣", "\n": "↵"}.get(c, c) for c in (net.alphabet.characters[k] for k in order)]
        assert [name for name, _ in guesses] == names
        np.testing.assert_allclose([share for _, share in guesses], p[order], atol=6e-4)


def test_the_page_refers_to_nothing_outside_and_the_text_cannot_end_its_data():
    page = viz.sequence_xray(model(), TEXT, title="<b>")
    assert not re.search(r"https?:|\bsrc\s*=|\bhref\s*=|@import|url\(|<link|fetch\(|XMLHttp|import\s*\(", page, re.IGNORECASE)
    assert page.startswith("<!DOCTYPE html>") and "@DATA@" not in page and page.count("</script>") == 2
    assert numbers(page)["labels"] == list(TEXT)


def test_a_model_without_scores_per_step_has_no_influences():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4)

        def forward(self, x):
            return self.rnn(x)[0][:2]  # two predictions for five steps

    shown = numbers(viz.sequence_xray(Halves(), np.ones((5, 1, 3), np.float32)))
    assert shown["gradient"] is None and shown["guesses"] == [] and shown["labels"] == list("01234")


def test_a_cell_in_a_loop_has_no_sensitivities():
    class Stepping(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = None
            for x_t in x:
                h = self.cell(x_t, h)
            return h

    shown = numbers(viz.sequence_xray(Stepping(), np.ones((5, 1, 3), np.float32)))
    assert "sensitivity" not in shown["layers"][0] and len(shown["guesses"]) == 1


def test_what_does_not_fit_on_a_page_is_refused():
    with pytest.raises(ShapeError, match="sequence_xray: at most 120 steps fit beside each other, got 121"):
        viz.sequence_xray(model(), "a" * 121)
    with pytest.raises(
        ShapeError, match=r"sequence_xray: 576,000 values of gates and states do not fit on a page, at most 400,000"
    ):
        viz.sequence_xray(nn.LSTM(1, 800), np.ones((120, 1, 1), np.float32))


# ---- in a browser


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; when the test is over, nothing was requested but the page and nothing was written to the console."""
    heard, page, file = [], browser.new_page(viewport={"width": 1200, "height": 1500}), tmp_path / "xray.html"
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))

    def open_(*arguments, **settings):
        file.write_text(viz.sequence_xray(*arguments, **settings), encoding="utf-8")
        page.goto(file.as_uri())
        return page

    yield open_
    page.close()
    assert heard == [file.as_uri()]


def coloured(page, box):
    return [float(span.get_attribute("data-value")) for span in page.locator(f"#{box} span").all()]


def test_layer_gate_and_unit_choose_the_colours_of_the_text(opened):
    net = model()
    page, layers = opened(net, TEXT), read("", net, TEXT)
    np.testing.assert_allclose(coloured(page, "above"), np.tanh(layers[0].values["c"][:, 0]), atol=5e-3)
    page.select_option("#layer", index=1)
    page.select_option("#gate", "f")
    page.fill("#unit", "4")
    np.testing.assert_allclose(coloured(page, "above"), layers[1].values["f"][:, 4], atol=5e-3)
    assert page.inner_text("#held") == "forget gate f of unit 4, after each character"
    assert page.locator("#above span").all_text_contents()[:4] == list("the ")


def test_pointing_at_a_character_shows_its_influences_values_and_guesses(opened):
    net = model()
    page = opened(net, TEXT)
    gradient, scores = viz.influence_map(net, TEXT)
    for t in (3, 11):
        page.hover(f"#above span >> nth={t}")
        np.testing.assert_allclose(coloured(page, "below"), gradient[t] / gradient[t].max(), atol=3e-3)
        assert page.locator("#below span.on").count() == 1
        values = [float(v.replace("−", "-")) for v in page.locator("#values td").all_inner_texts()]
        layer = read("", net, TEXT)[0]
        exact = [np.tanh(v[t, 0]) if name == "c" else v[t, 0] for name, v in layer.values.items()]
        np.testing.assert_allclose(values, exact, atol=1e-2)
        best = net.alphabet.characters[scores[t].argmax()]
        assert page.locator("#guesses b >> nth=0").inner_text() == {" ": "␣", "\n": "↵"}.get(best, best)
    page.select_option("#map", "product")
    product, _ = viz.influence_map(net, TEXT, how="gradient x input")
    np.testing.assert_allclose(coloured(page, "below"), product[11] / abs(product[11]).max(), atol=5e-3)
    page.select_option("#map", "sensitivity")
    S = viz.sensitivity_map(net, TEXT)
    np.testing.assert_allclose(coloured(page, "below"), np.log10(np.maximum(S[11] / S.max(), 1e-8)) / 8 + 1, atol=3e-3)


def test_keys_heat_map_and_scatter_plot_choose_character_and_unit(opened):
    net = model()
    page = opened(net, TEXT)
    page.focus("#above")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):  # from the last character on to the first, and the second
        page.keyboard.press(key)
    assert page.input_value("#unit") == "1" and page.inner_text("#where") == "After “th”"
    box = page.locator("#map_of_units").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 4.5 / T, box["y"] + box["height"] * 3.5 / 6)
    assert page.input_value("#unit") == "3" and page.inner_text("#where") == "After “the␣<”"
    page.locator("svg[data-gate=f] circle[data-unit='5']").dispatch_event("click")
    assert page.input_value("#unit") == "5" and page.locator("circle.on").count() == 3


def test_the_scatter_plot_counts_as_the_figure_does(opened):
    net = model()
    for p in net.rnn.parameters():
        p.set(p.data * 8)
    page, shares = opened(net, TEXT), viz.saturation_shares(net, TEXT)["rnn.l0"]
    for gate, (left, right) in shares.items():
        points = page.locator(f"svg[data-gate={gate}] circle").all()
        np.testing.assert_allclose([float(p.get_attribute("data-closed")) for p in points], left, atol=1.01 / T)
        np.testing.assert_allclose([float(p.get_attribute("data-open")) for p in points], right, atol=1.01 / T)
    assert max(shares["f"][0]) > 0.2


def test_a_plain_rnn_has_no_saturation_and_words_stand_apart(opened):
    page = opened(nn.RNN(3, 4), np.ones((3, 1, 3), np.float32), text=["three", "small", "words"])
    assert not page.is_visible("#saturated") and page.locator("#above.words span").count() == 3
    page.hover("#above span >> nth=1")
    assert page.inner_text("#where") == "After “three small”"
