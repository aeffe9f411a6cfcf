"""The page with the stepping window: its numbers are the operation's, it needs nothing else, and a browser shows every sum."""

import json
import re

import numpy as np
import pytest

from cnnlib import Tensor, ops, viz
from cnnlib.errors import ShapeError, ValueRangeError
from tests.test_worked_examples import OUTPUT, W0, W1, X, matrices


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


LECTURE = (matrices(X)[:, 1:-1, 1:-1], np.stack([matrices(W0), matrices(W1)]), [1, 0]), {"stride": 2, "padding": 1}
CASES = {
    "the lecture's 7×7×3": LECTURE,
    "stride ≠ padding, no square, no bias": (
        (normal(2, 4, 7), normal(2, 2, 3, 2), None),
        {"stride": (1, 3), "padding": (2, 0)},
    ),
    "same": ((normal(1, 1, 5, 4), normal(1, 1, 4, 3), normal(1)), {"padding": "same"}),
    "one pixel": ((normal(1, 1, 1), normal(2, 1, 1, 1), normal(2)), {}),
}
each_case = pytest.mark.parametrize("arguments, settings", CASES.values(), ids=CASES)


def numbers(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


@each_case
def test_the_numbers_are_the_operations(arguments, settings):
    x, w, b = (None if a is None else np.asarray(a, np.float64) for a in arguments)
    shown = numbers(viz.convolution_demo(*arguments, **settings))
    x = x if x.ndim == 4 else x[None]
    np.testing.assert_array_equal(shown["y"], ops.conv2d(x, w, b, **settings).numpy()[0])
    np.testing.assert_array_equal(shown["w"], w)
    np.testing.assert_array_equal(shown["b"], [] if b is None else b)
    top, bottom, left, right = shown["pads"]
    np.testing.assert_array_equal(shown["x"], np.pad(x[0], ((0, 0), (top, bottom), (left, right))))


@each_case
def test_windows_of_the_shown_numbers_add_up_to_the_output(arguments, settings):
    shown = numbers(viz.convolution_demo(*arguments, **settings))
    x, w, y, (SH, SW) = *(np.array(shown[name]) for name in "xwy"), shown["stride"]
    b = shown["b"] or [0] * len(w)
    for f, i, j in np.ndindex(y.shape):
        window = x[:, SH * i : SH * i + w.shape[2], SW * j : SW * j + w.shape[3]]
        assert (window * w[f]).sum() + b[f] == pytest.approx(y[f, i, j], abs=1e-12)


def test_the_lectures_example_to_the_digit():
    np.testing.assert_array_equal(numbers(viz.convolution_demo(*LECTURE[0], **LECTURE[1]))["y"], matrices(OUTPUT))


def test_the_page_refers_to_nothing_outside():
    page = viz.convolution_demo(*LECTURE[0], **LECTURE[1])
    assert not re.search(
        r"https?:|//[a-z]|\bsrc\s*=|\bhref\s*=|@import|url\(|<link|fetch\(|XMLHttp|import\s*\(", page, re.IGNORECASE
    )
    assert page.startswith("<!DOCTYPE html>") and "@DATA@" not in page


def test_tensors_and_lists_make_the_same_page():
    x, w = normal(1, 3, 3).astype(np.float32), normal(1, 1, 2, 2).astype(np.float32)
    assert viz.convolution_demo(Tensor(x), Tensor(w)) == viz.convolution_demo(x.tolist(), w.tolist())


@pytest.mark.parametrize(
    "x, w, error, message",
    [
        (normal(2, 1, 4, 4), normal(1, 1, 2, 2), ShapeError, r"x must be one image, .* got shape \(2, 1, 4, 4\)"),
        (normal(4, 4), normal(1, 1, 2, 2), ShapeError, r"x must be one image, .* got shape \(4, 4\)"),
        (normal(3, 4, 4), normal(1, 2, 2, 2), ShapeError, "conv2d: x has 3 channels"),
        (normal(9, 4, 4), normal(1, 9, 2, 2), ShapeError, "9 channels do not fit on a page, at most 8 do"),
        (normal(1, 4, 4), normal(9, 1, 2, 2), ShapeError, "9 filters do not fit"),
        (normal(1, 25, 4), normal(1, 1, 2, 2), ShapeError, "25 rows do not fit on a page, at most 24 do"),
        (normal(1, 4, 25), normal(1, 1, 2, 2), ShapeError, "25 columns do not fit"),
        (normal(1, 9, 9), normal(1, 1, 8, 2), ShapeError, "8 rows of a kernel do not fit on a page, at most 7 do"),
        (np.full((1, 3, 3), np.nan), normal(1, 1, 2, 2), ValueRangeError, "convolution_demo: x has NaN or infinity"),
        (normal(1, 3, 3), np.full((1, 1, 2, 2), np.inf), ValueRangeError, "convolution_demo: w has NaN or infinity"),
    ],
)
def test_what_cannot_be_shown_is_refused(x, w, error, message):
    with pytest.raises(error, match=message):
        viz.convolution_demo(x, w)


# ---- in a browser


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; when the test is over, nothing was requested but the page and nothing was written to the console."""
    heard, page = [], browser.new_page(reduced_motion="reduce")
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    file = tmp_path / "demo.html"

    def open_(arguments, settings):
        text = viz.convolution_demo(*arguments, **settings)
        file.write_text(text, encoding="utf-8")
        page.goto(file.as_uri())
        return page, numbers(text)

    yield open_
    page.close()
    assert heard == [file.as_uri()]


def read(text):
    return float(text.replace("−", "-").strip("()"))


def products(page):
    """The products as printed: one list per channel."""
    return [
        [tuple(map(read, term.split("·"))) for term in row.locator("b").all_inner_texts()]
        for row in page.locator(".terms").all()
    ]


@each_case
def test_every_step_shows_its_window_its_products_and_their_sum(opened, arguments, settings):
    page, shown = opened(arguments, settings)
    x, w, y, (SH, SW) = *(np.array(shown[name]) for name in "xwy"), shown["stride"]
    for k, (f, i, j) in enumerate(np.ndindex(y.shape)):
        if k:
            page.click("#step")
        window = x[:, SH * i : SH * i + w.shape[2], SW * j : SW * j + w.shape[3]]
        lit = [read(t) for t in page.locator(".x td.on").all_inner_texts()]
        np.testing.assert_allclose(lit, window.ravel(), rtol=1e-3)  # four digits are shown
        np.testing.assert_allclose(
            np.array(products(page)).reshape(-1, 2), np.stack([window, w[f]], -1).reshape(-1, 2), rtol=1e-3
        )
        assert float(page.get_attribute("#total", "data-value")) == pytest.approx(y[f, i, j], abs=1e-12)
        assert read(page.inner_text("#total")[1:]) == pytest.approx(y[f, i, j], rel=1e-3)
        assert read(page.inner_text(".o button.on")) == pytest.approx(y[f, i, j], rel=1e-3)
        assert page.inner_text("#what") == f"o[{f}, {i}, {j}]" and page.locator(".w.on").count() == w.shape[1]
    page.click("#step")
    assert page.inner_text("#place") == f"output 1 of {y.size}", "after the last comes the first"


def test_pointer_and_keys_choose_an_output_and_play_goes_on(opened):
    page, _ = opened(*LECTURE)
    page.hover(".o button >> nth=13")
    assert page.inner_text("#what") == "o[1, 1, 1]" and page.get_attribute("#total", "data-value") == "-3"
    page.focus(".o button >> nth=13")
    for key, where in [("ArrowRight", "o[1, 1, 2]"), ("ArrowUp", "o[1, 0, 2]"), ("Home", "o[0, 0, 0]"), ("End", "o[1, 2, 2]")]:
        page.keyboard.press(key)
        assert page.inner_text("#what") == where
    page.click("#back")
    assert page.inner_text("#what") == "o[1, 2, 1]"
    page.fill("#speed", "5")
    page.click("#play")
    page.wait_for_function("document.getElementById('what').textContent === 'o[0, 0, 1]'")
    assert page.inner_text("#play") == "Pause"
    page.click("#play")
    assert page.inner_text("#play") == "Play"


def test_pointing_at_a_product_lights_its_two_factors(opened):
    page, shown = opened(*LECTURE)
    page.hover(".terms b >> nth=4")
    lit = page.locator("td.pair").all_inner_texts()
    assert [read(t) for t in lit] == [shown["x"][0][1][1], shown["w"][0][0][1][1]]


def test_padding_is_told_apart_and_all_outputs_have_names(opened):
    page, _ = opened(*LECTURE)
    assert page.locator(".x td.pad").count() == 3 * (49 - 25)
    assert page.locator(".o button >> nth=4").get_attribute("aria-label") == "o[0, 1, 1] = 8"
    assert page.locator(".o button[tabindex='0']").count() == 1
