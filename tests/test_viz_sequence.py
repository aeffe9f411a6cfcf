"""The X-ray of sequence models: what is drawn equals what an independent computation says; what cannot be drawn is refused."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, data, nn, ops, viz
from cnnlib.errors import DataError, DtypeError, NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.viz.cell_text import layout
from cnnlib.viz.sequence import read
from tests.test_viz import draw, texts

T, D, H, K = 7, 3, 4, 5
TEXT = list("ab c\nde")
KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def sequence(steps=T, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 1, D)) * 2.0


def in_float64(model):
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    return model


class Tagger(nn.Module):
    """Scores at every step, (T, 1, K), or only at the last, (1, K), or as (1, K, T), from any recurrent layer or a cell."""

    def __init__(self, recurrent, size=H, shape="steps"):
        super().__init__()
        self.recurrent, self.head, self.shape = recurrent, nn.Linear(size, K), shape

    def forward(self, x):
        if isinstance(self.recurrent, nn.LSTMCell):
            state, ys = None, []
            for x_t in x:
                state = self.recurrent(x_t, state)
                ys.append(state[0])
            y = ops.stack(ys)
        else:
            y = self.recurrent(x)[0]
        if self.shape == "last":
            return self.head(y[-1])
        scores = self.head(y)
        return ops.transpose(scores, (1, 2, 0)) if self.shape == "classes first" else (scores, None)


def tagger(kind="lstm", **settings):
    cl.manual_seed(0)
    net = KINDS[kind](D, H, **settings)
    return in_float64(Tagger(net, net.output_size))


class Reader(nn.Module):
    """A character model: reads texts by its alphabet."""

    def __init__(self):
        super().__init__()
        self.alphabet = data.text.Alphabet("".join(TEXT))
        self.embedding, self.rnn = nn.Embedding(len(self.alphabet), D), nn.LSTM(D, H)
        self.head = nn.Linear(H, len(self.alphabet))

    def forward(self, x):
        y, state = self.rnn(self.embedding(x))
        return self.head(y), state


def images(figure):
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.get_images()]


# ---- finding the layers


def test_layers_and_directions_have_their_names_in_the_order_in_which_they_run():
    names = [layer.name for layer in read("gates", tagger(num_layers=2, bidirectional=True), sequence())]
    assert names == ["recurrent.l0", "recurrent.l0_reverse", "recurrent.l1", "recurrent.l1_reverse"]
    assert [layer.name for layer in read("gates", nn.GRU(D, H), sequence().astype(np.float32))] == ["l0"]


def test_a_cell_in_a_loop_is_one_layer_and_holds_what_the_whole_layer_holds():
    whole = tagger("lstm")
    cell = in_float64(Tagger(nn.LSTMCell(D, H)))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell.recurrent, name).data = getattr(whole.recurrent, f"{name}_l0").data
    (a,), (b,) = read("gates", whole, sequence()), read("gates", cell, sequence())
    assert b.name == "recurrent" and b.steps == T
    for name in "ifgoch":
        np.testing.assert_allclose(b.values[name], a.values[name], atol=1e-15)


def test_the_values_are_those_of_the_equations():
    model, x = tagger("lstm"), sequence()
    (layer,) = read("gates", model, x)
    w_ih, w_hh, b_ih, b_hh = (
        getattr(model.recurrent, f"{n}_l0").data for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = np.zeros(H)
    for t in range(T):
        i, f, g, o = np.split(w_ih @ x[t, 0] + w_hh @ h + b_ih + b_hh, 4)
        i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        for name, value in {"i": i, "f": f, "g": np.tanh(g), "o": o, "c": c, "h": h}.items():
            np.testing.assert_allclose(layer.values[name][t], value, atol=1e-12)


def test_padding_is_not_shown():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(D, H)

        def forward(self, x):
            return self.rnn(x, lengths=np.array([4]))[0]

    model = in_float64(Padded())
    (layer,) = read("gates", model, sequence())
    assert layer.steps == 4 and viz.sensitivity_map(model, sequence()).shape == (4, 4)


# ---- gates and saturation


def test_gates_draw_a_row_per_unit_and_a_column_per_step():
    model, x = tagger("lstm"), sequence()
    (layer,) = read("gates", model, x)
    figure = viz.gates(model, x, text=TEXT, which="fc", units=[3, 1])
    f, c = images(figure)[:2]
    np.testing.assert_array_equal(f, layer.values["f"][:, [3, 1]].T)
    np.testing.assert_array_equal(c, np.tanh(layer.values["c"])[:, [3, 1]].T)
    assert {"a", "␣", "↵", "forget gate f", "cell, tanh(c)", "unit of recurrent.l0"} <= set(texts(figure))
    draw(figure)


@pytest.mark.parametrize("kind, names", [("rnn", "h"), ("gru", "rznh"), ("lstm", "ifgoch")])
def test_all_gates_and_states_of_a_layer_are_drawn_by_default(kind, names):
    figure = viz.gates(tagger(kind), sequence())
    assert len([a for a in images(figure) if a.shape == (H, T)]) == len(names)


def test_a_state_without_bound_is_scaled_to_its_largest_value():
    model = nn.RNN(D, H, nonlinearity="relu")
    shown = images(viz.gates(model, 50 * sequence().astype(np.float32)))[0]
    assert shown.max() == 1.0


@pytest.mark.parametrize("kind, gates", [("lstm", "ifo"), ("gru", "rz")])
def test_saturation_counts_the_steps_below_and_above(kind, gates):
    model, x = tagger(kind, num_layers=2), 6 * sequence(40)
    shares = viz.saturation_shares(model, x)
    assert list(shares) == ["recurrent.l0", "recurrent.l1"]
    for layer in read("gates", model, x):
        assert list(shares[layer.name]) == list(gates)
        for gate, (left, right) in shares[layer.name].items():
            for unit in range(H):
                values = layer.values[gate][:, unit].tolist()
                assert left[unit] == sum(v < 0.1 for v in values) / 40
                assert right[unit] == sum(v > 0.9 for v in values) / 40
    assert shares["recurrent.l0"][gates[0]].max() > 0.2  # there is something to count


def test_saturation_draws_a_point_per_unit_at_its_shares():
    model, x = tagger("lstm", num_layers=2), 6 * sequence(40)
    figure, shares = viz.saturation(model, x), viz.saturation_shares(model, x)
    for ax, gate in zip(figure.axes, "ifo", strict=True):
        for points, layer in zip(ax.collections, shares.values(), strict=True):
            np.testing.assert_allclose(points.get_offsets(), layer[gate].T)
    draw(figure)


# ---- text


def test_the_background_is_the_cell_of_the_unit():
    model, x = tagger("lstm"), sequence()
    (layer,) = read("gates", model, x)
    figure = viz.cell_text(model, x, units=2, text=TEXT)
    (boxes,) = figure.axes[0].collections
    np.testing.assert_allclose(boxes.get_array(), np.tanh(layer.values["c"][:, 2]))
    assert boxes.get_clim() == (-1, 1)
    draw(figure)
    (boxes,) = viz.cell_text(tagger("gru"), x, units=2, text=TEXT, which="z").axes[0].collections
    np.testing.assert_allclose(boxes.get_array(), read("gates", tagger("gru"), x)[0].values["z"][:, 2])


def test_by_default_the_units_that_vary_most_come_first():
    model, x = tagger("lstm"), sequence()
    variances = np.tanh(read("gates", model, x)[0].values["c"]).var(axis=0)
    titles = [ax.get_title(loc="left") for ax in viz.cell_text(model, x).axes[:-1]]
    assert [int(title.split()[1]) for title in titles] == sorted(range(H), key=lambda u: -variances[u])


def test_lines_end_at_line_ends_and_at_the_width_and_words_stand_apart():
    assert layout(TEXT) == ([(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)], 2)
    assert layout(["a"] * 73)[0][-1] == (1, 0)
    assert layout(["the", "end"]) == ([(0, 0), (0, 4)], 1)


# ---- sensitivity


def jacobian_by_differences(model, x, of="h", eps=1e-6):
    """(T, H, T, D): ∂(state)_t / ∂x_s."""
    index = 0 if of == "h" else "c"
    run = lambda x: read("gates", model, x)[0].values["h" if index == 0 else "c"]  # noqa: E731
    J = np.zeros((T, H, T, D))
    for s, d in np.ndindex(T, D):
        step = np.zeros_like(x)
        step[s, 0, d] = eps
        J[:, :, s, d] = (run(x + step) - run(x - step)) / (2 * eps)
    return J


@pytest.mark.parametrize("kind, of", [("rnn", "h"), ("gru", "h"), ("lstm", "h"), ("lstm", "c")])
def test_sensitivities_are_the_norms_of_the_jacobians_by_differences(kind, of):
    model, x = tagger(kind), sequence()
    S = viz.sensitivity_map(model, x, of=of)
    np.testing.assert_allclose(S, np.sqrt((jacobian_by_differences(model, x, of) ** 2).sum(axis=(1, 3))), atol=1e-8)
    assert (np.triu(S, 1) == 0).all() and (np.diag(S) > 0).all()


def test_a_layer_that_reads_backwards_depends_on_what_comes_later():
    model, x = tagger("lstm", bidirectional=True), sequence()
    S = viz.sensitivity_map(model, x, layer="recurrent.l0_reverse")
    forward = in_float64(nn.LSTM(D, H))
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        getattr(forward, name).data = getattr(model.recurrent, f"{name}_reverse").data
    np.testing.assert_allclose(S, viz.sensitivity_map(forward, x[::-1].copy())[::-1, ::-1], atol=1e-14)


def test_a_linear_recurrence_forgets_by_a_power_of_its_weight():
    net = in_float64(nn.RNN(1, 1, nonlinearity="identity", bias=False))
    net.weight_ih_l0.data[:], net.weight_hh_l0.data[:] = 2.0, 0.5
    figure = viz.sensitivity(net, np.ones((6, 1, 1)))
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 2.0 * 0.5 ** np.arange(6))
    drawn = np.ma.filled(images(figure)[0], np.nan)
    np.testing.assert_allclose(drawn[5], 2.0 * 0.5 ** np.arange(5, -1, -1))
    draw(figure)


def test_gates_by_hand_keep_the_cell_and_switch_the_output():
    """Graves' figure 4.4: one input let in, kept as long as f is open, shown where o is open."""
    model, x = viz.hand_gated(i="O------", f="-OOOOO-", o="---O-O-")
    c, h = viz.sensitivity_map(model, x, of="c")[:, 0], viz.sensitivity_map(model, x, of="h")[:, 0]
    kept = 0.5 * (1 - np.tanh(0.5) ** 2)
    np.testing.assert_allclose(c, [kept] * 6 + [0], atol=1e-6)
    shown = kept * (1 - np.tanh(np.tanh(0.5)) ** 2)
    np.testing.assert_allclose(h, [0, 0, 0, shown, 0, shown, 0], atol=1e-6)
    figure = viz.unrolled(model, x)
    written = texts(figure)
    assert written.count("O") == 1 + 5 + 2 and written.count("—") == 21 - 8
    assert written.count(f"{kept:.2f}") == 6 and written.count(f"{shown:.2f}") == 2
    assert [name for name in written if name.startswith("$x")] == [f"$x_{{{t}}}$" for t in range(7)]  # inputs, no numbers
    draw(figure)


def test_unrolled_shades_a_node_by_its_sensitivity():
    from matplotlib.patches import Circle

    model, x = tagger("rnn"), sequence()
    S = viz.sensitivity_map(model, x)[:, 1]
    figure = viz.unrolled(model, x, text=TEXT, source=1)
    states = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle) and patch.center[1] == 1]
    np.testing.assert_allclose([1 - patch.get_facecolor()[0] for patch in states], S / S.max(), atol=1e-6)
    draw(figure)


# ---- influence


@pytest.mark.parametrize("kind, settings", [("rnn", {}), ("gru", {"num_layers": 2}), ("lstm", {"bidirectional": True})])
def test_influence_is_the_gradient_of_the_score_by_differences(kind, settings):
    model, x, eps = tagger(kind, **settings), sequence(), 1e-6
    scores = lambda x: model(Tensor(x))[0].numpy()[:, 0]  # noqa: E731
    targets = scores(x).argmax(axis=1)
    G = np.zeros((T, T, D))
    for s, d in np.ndindex(T, D):
        step = np.zeros_like(x)
        step[s, 0, d] = eps
        G[:, s, d] = ((scores(x + step) - scores(x - step)) / (2 * eps))[np.arange(T), targets]
    I, given = viz.influence_map(model, x)
    np.testing.assert_allclose(given, scores(x))
    np.testing.assert_allclose(I, np.sqrt((G**2).sum(axis=2)), atol=1e-8)
    I, _ = viz.influence_map(model, x, how="gradient x input")
    np.testing.assert_allclose(I, (G * x[None, :, 0]).sum(axis=2), atol=1e-8)


def test_influence_of_a_cell_and_of_other_layouts_is_that_of_the_whole_layer():
    whole, x = tagger("lstm"), sequence()
    I, _ = viz.influence_map(whole, x, targets=2)
    whole.shape = "classes first"
    np.testing.assert_allclose(viz.influence_map(whole, x, targets=2)[0], I, atol=1e-14)
    whole.shape = "last"
    last, one = viz.influence_map(whole, x, targets=2)
    assert last.shape == (1, T) and one.shape == (1, K)
    np.testing.assert_allclose(last[0], I[-1], atol=1e-14)
    cell = in_float64(Tagger(nn.LSTMCell(D, H)))
    cell.head = whole.head
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell.recurrent, name).data = getattr(whole.recurrent, f"{name}_l0").data
    for how in ("gradient", "gradient x input"):
        whole.shape = "steps"
        np.testing.assert_allclose(
            viz.influence_map(cell, x, targets=2, how=how)[0], viz.influence_map(whole, x, targets=2, how=how)[0], atol=1e-14
        )


def test_influence_draws_the_row_of_the_prediction_and_names_the_class():
    model = Reader()
    text = "ab c\nde"
    I, scores = viz.influence_map(model, text)
    figure = viz.influence(model, text, at=[2, -1])
    for ax, r in zip(figure.axes, (2, 6)):
        np.testing.assert_allclose(ax.collections[0].get_array(), I[r] / I[r].max())
        k = scores[r].argmax()
        p = np.exp(scores[r, k]) / np.exp(scores[r]).sum()
        character = {" ": "␣", "\n": "↵"}.get(model.alphabet.characters[k], model.alphabet.characters[k])
        assert ax.get_title(loc="left") == f"after step {r}: '{character}', p = {p:.2f}"
    draw(figure)
    assert viz.influence_map(model, text, at=[3])[0].any(axis=1).tolist() == [False] * 3 + [True] + [False] * 3


def test_a_model_that_writes_another_sequence_has_a_prediction_per_step_of_that():
    model, x = tagger("gru"), sequence()
    I, scores = viz.influence_map(Ending(model.recurrent, (1, 2, 2)), x)  # two predictions of two classes
    assert I.shape == (2, T) and scores.shape == (2, 2)
    one, _ = viz.influence_map(Ending(model.recurrent, (1, 4)), x, targets=2 + scores[1].argmax())
    np.testing.assert_allclose(I[1], one[0], atol=1e-14)
    title = viz.influence(Ending(model.recurrent, (1, 2, 2)), x, at=1, classes="ab").axes[0].get_title(loc="left")
    assert title.startswith("prediction 1: ")
    assert viz.influence(Ending(model.recurrent, (1, 4)), x).axes[0].get_title(loc="left").startswith("at the end: class ")


def test_the_model_is_left_as_it_was():
    model = Reader()
    model.head.weight.requires_grad = False
    before = np.ones(model.head.bias.shape, np.float32)
    model.head.bias.grad = before
    for look in (viz.gates, viz.cell_text, viz.sensitivity, viz.influence, viz.saturation):
        look(model, "ab c\nde")
    assert model.training and not model.head.weight.requires_grad and model.rnn.weight_hh_l0.requires_grad
    assert model.head.bias.grad is before and (before == 1).all() and model.rnn.weight_hh_l0.grad is None


# ---- what is refused

FUNCTIONS = [viz.gates, viz.saturation, viz.cell_text, viz.sensitivity, viz.influence, viz.unrolled]


@pytest.mark.parametrize("look", FUNCTIONS)
def test_inputs_that_are_no_sequence_to_read_are_refused_in_a_sentence(look):
    name, x = look.__name__, np.zeros((T, 2, D))
    with pytest.raises(ShapeError, match=rf"{name}: x must be one sequence, but the recurrent layers got a batch of 2"):
        look(tagger(), x)
    with pytest.raises(ShapeError, match=rf"{name}: no RNN, LSTM or GRU ran in this model"):
        look(nn.Linear(3, 3), np.zeros((7, 3), np.float32))
    with pytest.raises(DtypeError, match=rf"{name}: Tagger has no alphabet to read a text with.*text=list"):
        look(tagger(), "some text")
    with pytest.raises(ValueRangeError, match=rf"{name}: the text is empty"):
        look(Reader(), "")
    with pytest.raises(DataError, match="'x' is not among the 7 characters"):
        look(Reader(), "abx")


@pytest.mark.parametrize("look", [*FUNCTIONS, viz.sequence_xray])
def test_a_network_whose_training_blew_up_is_refused_with_the_step_where_it_began(look):
    blew_up = f"{look.__name__}: the network's numbers are not finite: its training blew up. Use an earlier checkpoint. "
    model = Reader()
    model.embedding.weight.data[model.alphabet.encode("c")] = np.nan
    with pytest.raises(NonFiniteError) as refused:
        look(model, "ab c\nde")
    where = "It began in layer 'rnn.l0', at step t = 3 of 0 … 6, in the input gate i, the forget gate f, the candidate g and"
    assert str(refused.value).startswith(f"{blew_up}{where}")
    model = Reader()
    model.head.weight.data[1, 2] = np.inf  # the recurrent layer's numbers are finite
    with pytest.raises(NonFiniteError) as refused:
        look(model, "ab c\nde")
    assert str(refused.value) == f"{blew_up}Parameter 'head.weight' has NaN or infinity."


@pytest.mark.parametrize("look", [*FUNCTIONS, viz.sequence_xray])
def test_an_input_that_is_not_finite_is_refused_as_such(look):
    x = sequence()
    x[4, 0, 1] = np.nan
    with pytest.raises(NonFiniteError, match=rf"{look.__name__}: .*all its parameters are: x must .* at step t = 4 of 0 … 6"):
        look(tagger("gru", reset_after=False), x)


def test_where_it_began_is_said_in_the_order_in_which_the_layer_read():
    x = sequence()
    x[[2, 4]] = np.nan
    for model, where in (
        (tagger("lstm", bidirectional=True), "'recurrent.l0', at step t = 2 of"),
        (in_float64(Tagger(nn.LSTMCell(D, H))), "'recurrent', at step t = 2 of 0 … 6"),
    ):
        with pytest.raises(NonFiniteError, match=where):
            viz.gates(model, x)
    model = tagger("rnn", bidirectional=True)
    model.recurrent.weight_ih_l0_reverse.data[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"'recurrent.l0_reverse', at step t = 6 of 0 … 6, in the state h: 1 of 4 values"):
        viz.gates(model, np.ones((T, 1, D)))


@pytest.mark.parametrize("look", [viz.gates, viz.cell_text, viz.sensitivity, viz.influence, viz.unrolled])
def test_labels_that_do_not_fit_are_refused(look):
    with pytest.raises(ShapeError, match=rf"{look.__name__}: text must have a label for each of the T = 7 steps.* got 3"):
        look(tagger(), sequence(), text="abc")


def test_layers_units_and_gates_that_do_not_exist_are_refused():
    model, x = tagger("gru"), sequence()
    with pytest.raises(UnknownNameError, match=r"recurrent layer 'recurrent.l1'.*recurrent.l0"):
        viz.gates(model, x, layer="recurrent.l1")
    with pytest.raises(UnknownNameError, match=r"gate or state of the gru layer 'recurrent.l0' 'f' .known: h, n, r, z"):
        viz.gates(model, x, which="f")
    with pytest.raises(ValueRangeError, match=r"cell_text: layer 'recurrent.l0' has the units 0 … 3, got 4"):
        viz.cell_text(model, x, units=4)
    with pytest.raises(UnknownNameError, match="state of the gru layer"):
        viz.sensitivity_map(model, x, of="c")
    with pytest.raises(ShapeError, match="plain RNNs: they have no gates"):
        viz.saturation(tagger("rnn"), x)
    with pytest.raises(ShapeError, match="gates: at most 160 steps fit beside each other, got 161"):
        viz.gates(model, sequence(161))
    with pytest.raises(ShapeError, match="sensitivity: at most 120 steps, got 121"):
        viz.sensitivity(model, sequence(121))
    with pytest.raises(ShapeError, match="layer 'recurrent' ran 7 times, as a cell does"):
        viz.sensitivity(in_float64(Tagger(nn.LSTMCell(D, H))), x)
    with pytest.raises(ValueRangeError, match=r"unrolled: source must be one of the steps 0 … 6, got 7"):
        viz.unrolled(model, x, source=7)


def test_predictions_that_do_not_exist_are_refused():
    model, x = tagger("gru"), sequence()
    with pytest.raises(ValueRangeError, match="influence: targets must be 0 … 4, got 5 … 5"):
        viz.influence(model, x, targets=5)
    with pytest.raises(ShapeError, match="influence: targets must be a class number or 7 of them"):
        viz.influence(model, x, targets=[1, 2])
    with pytest.raises(ValueRangeError, match="influence: at must be one of the predictions 0 … 6, got 7"):
        viz.influence(model, x, at=7)
    with pytest.raises(UnknownNameError, match="how of influence"):
        viz.influence(model, x, how="norm")
    with pytest.raises(ShapeError, match=r"influence: the model must give scores \(R, K\) .* got \(4,\)"):
        viz.influence(Ending(model.recurrent, (H,)), x)


class Ending(nn.Module):
    """The last state in another shape."""

    def __init__(self, recurrent, shape):
        super().__init__()
        self.recurrent, self.shape = recurrent, shape

    def forward(self, x):
        return ops.reshape(self.recurrent(x)[0][-1], self.shape)


def test_gates_by_hand_are_of_open_and_closed():
    with pytest.raises(ShapeError, match="a character for each step, got 2, 1 and 2"):
        viz.hand_gated("OO", "O", "--")
    with pytest.raises(ValueRangeError, match="f = 'Ox' must be of O"):
        viz.hand_gated("OO", "Ox", "--")
