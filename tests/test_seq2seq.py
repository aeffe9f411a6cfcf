"""Sequence to sequence: the sums by hand, padding that changes nothing, teacher forcing against search, what is refused."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.data.words import END, PAD, START, UNKNOWN, pad
from cnnlib.errors import DataError, NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models import Seq2Seq
from cnnlib.models.seq2seq import exact_match

S, T = 6, 5
KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"cell": "lstm", "attention": True},
        {"cell": "lstm", "attention": False, "layers": 2},
        {"cell": "gru", "attention": True, "layers": 2},
        {"cell": "rnn", "attention": False},
    ],
    ids=lambda kind: f"{kind['cell']}-{'attention' if kind['attention'] else 'plain'}",
)


def network(source_length=S, target_length=T, **kind):
    cl.manual_seed(3)
    return Seq2Seq(12, 10, source_length, target_length, embedding=6, hidden=7, **kind)


def batch(sentences=((5, 9, 4, 11), (7,), (4, 4, 8, 6, 5, 10)), translations=((4, 9), (6, 5, 8, 7), (5,)), S=S, T=T):
    x = np.hstack([pad(sentences, S), pad([(START, *t) for t in translations], T)])
    return x, pad([(*t, END) for t in translations], T)


def loss_and_gradients(net, x, y):
    net.zero_grad()
    loss = net.criterion()(net(cl.Tensor(x)), y)
    loss.backward()
    return loss.item(), {name: p.grad.copy() for name, p in net.named_parameters()}


# ---- attention


def test_attention_is_its_formula():
    rng = np.random.default_rng(0)
    cl.manual_seed(0)
    attention = nn.AdditiveAttention(3, 4, 5)
    q, m = rng.normal(size=(2, 6, 3)).astype("f"), rng.normal(size=(2, 7, 4)).astype("f")
    real = np.arange(7) < np.array([[7], [4]])
    context, weights = (part.numpy() for part in attention(cl.Tensor(q), cl.Tensor(m), real))
    W, b, U = attention.query.weight.numpy(), attention.query.bias.numpy(), attention.memory.weight.numpy()
    v = attention.score.numpy()[0]
    for i in range(2):
        for t in range(6):
            e = np.array([np.exp(v @ np.tanh(W @ q[i, t] + b + U @ m[i, s])) for s in range(7) if real[i, s]])
            alpha = e / e.sum()
            np.testing.assert_allclose(weights[i, t, : len(alpha)], alpha, rtol=1e-5)
            np.testing.assert_array_equal(weights[i, t, len(alpha) :], 0)
            np.testing.assert_allclose(context[i, t], alpha @ m[i, : len(alpha)], atol=1e-6)


def test_attention_has_the_gradients_of_its_formula():
    cl.manual_seed(0)
    attention = nn.AdditiveAttention(3, 4, 5)
    parameters = list(attention.parameters())
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=s) for s in ((2, 2, 3), (2, 3, 4), *(p.shape for p in parameters))]
    real = np.array([[True, True, True], [True, False, False]])

    def function(q, m, v, w, b, u):
        attention.score, attention.query.weight, attention.query.bias, attention.memory.weight = v, w, b, u
        return attention(q, m, real)[0]

    cl.gradcheck(function, *(cl.Tensor(a) for a in arrays))


# ---- padding


@KINDS
def test_padding_never_changes_a_result(kind):
    """More columns on both sides: the same loss, and the same gradient of every weight."""
    net, wide = network(**kind), network(S + 3, T + 2, **kind)
    loss, gradients = loss_and_gradients(net, *batch())
    wide_loss, wide_gradients = loss_and_gradients(wide, *batch(S=S + 3, T=T + 2))
    assert wide_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(wide_gradients[name], gradient, atol=1e-6, err_msg=name)


@KINDS
def test_a_sentence_is_read_and_translated_the_same_beside_longer_ones_and_alone(kind):
    net = network(**kind)
    x, y = batch()
    codes, said = net.encode(x[:, :S]).numpy(), net.translate(x[:, :S], beam=3)
    logits = net(cl.Tensor(x)).numpy()
    for i, length in enumerate([4, 1, 6]):
        alone = x[i : i + 1, :length]
        np.testing.assert_allclose(net.encode(alone).numpy()[0], codes[i], atol=1e-6)
        np.testing.assert_array_equal(net.translate(alone, beam=3)[0], said[i])
        np.testing.assert_allclose(net(cl.Tensor(x[i : i + 1])).numpy()[0][y[i] != PAD], logits[i][y[i] != PAD], atol=1e-6)


# ---- the embedding


def test_encode_is_the_last_state_of_the_reader():
    net = network(layers=2)
    words = net.source_embedding(cl.Tensor([[5, 9, 4]]))
    _, (h, c) = net.reader(words)
    expected = np.concatenate([h.numpy()[0, 0], h.numpy()[1, 0], c.numpy()[0, 0], c.numpy()[1, 0]])
    np.testing.assert_array_equal(net.encode(np.array([[5, 9, 4]])).numpy(), expected[None])
    assert network(cell="gru").encode(np.array([[5], [9]])).shape == (2, 7)


def test_without_attention_the_writer_knows_nothing_but_the_embedding():
    """A change of the words that leaves the reader's last state alone changes nothing; with attention it does."""
    for attention in (False, True):
        net = network(cell="rnn", attention=attention)
        net.reader.weight_hh_l0.set(0)  # the last state depends on the last word only
        x, _ = batch(((5, 9, 4), (8, 6, 4)), ((7, 7), (7, 7)))
        codes, logits = net.encode(x[:, :S]).numpy(), net(cl.Tensor(x)).numpy()
        np.testing.assert_array_equal(codes[0], codes[1])
        assert np.array_equal(logits[0], logits[1]) is not attention


# ---- search


def by_hand(net, sentence):
    """Greedy search with nothing but the forward pass of training, from the start for every word."""
    said = []
    while len(said) < T - 1:
        logits = net(cl.Tensor(np.hstack([pad([sentence], S), pad([[START, *said]], T)]))).numpy()[0, len(said)]
        logits[[PAD, UNKNOWN, START]] = -np.inf
        said.append(int(logits.argmax()))
        if said[-1] == END:
            return said
    return [*said, END]


@KINDS
def test_beam_1_is_greedy_search_by_the_forward_pass(kind):
    net = network(**kind)
    sentences = [(5, 9, 4, 11), (7,), (4, 4, 8, 6, 5, 10), (11, 11)]
    found = net.translate(pad(sentences, S))
    assert [row[row != PAD].tolist() for row in found] == [by_hand(net, sentence) for sentence in sentences]


@KINDS
def test_scores_of_beam_search_are_those_of_the_forward_pass(kind):
    """The mean of ln p(y_t | …), computed by teacher forcing, of every sentence that was found."""
    net = network(**kind)
    source = pad([(5, 9, 4), (7, 8, 9, 10)], S)
    tokens, scores = net.search(source, beam=4)
    for b, (found, values) in enumerate(zip(tokens, scores, strict=True)):
        assert len({tuple(row) for row in found.tolist()}) == 4
        for row, score in zip(found, values, strict=True):
            n = int((row != PAD).sum())
            x = np.hstack([source[b], [START], row[:-1]])[None]
            log_p = ops.log_softmax(net(cl.Tensor(x))).numpy()[0]
            assert score == pytest.approx(log_p[np.arange(n), row[:n]].mean(), rel=1e-5)


def test_search_and_embedding_are_without_dropout_and_leave_the_mode_of_training():
    net = network(dropout=0.5)
    x, _ = batch()
    assert net.training
    np.testing.assert_array_equal(net.search(x[:, :S], 2)[1], net.search(x[:, :S], 2)[1])
    np.testing.assert_array_equal(net.encode(x[:, :S]).numpy(), net.encode(x[:, :S]).numpy())
    assert net.training and net.drop.training
    assert not np.array_equal(net(cl.Tensor(x)).numpy(), net(cl.Tensor(x)).numpy())  # in training there is dropout
    net.eval()
    net.translate(x[:, :S])
    assert not net.training


# ---- learning


def reversals(n, seed):
    """Sentences of 2 to 4 words out of 5, to be said backwards."""
    rng = np.random.default_rng(seed)
    sentences = [rng.integers(4, 9, rng.integers(2, 5)).tolist() for _ in range(n)]
    x = np.hstack([pad(sentences, 4), pad([[START, *s[::-1]] for s in sentences], 5)])
    return x, pad([[*s[::-1], END] for s in sentences], 5)


def test_it_learns_to_say_sentences_backwards():
    cl.manual_seed(0)
    net = Seq2Seq(9, 9, 4, 5, cell="gru", embedding=16, hidden=32)
    trainer = cl.Trainer(
        net, net.criterion(), cl.optim.Adam(net.parameters(), lr=1e-2), metrics=exact_match, batch_size=32, progress=False
    )
    (x, y), (held_out, right) = reversals(512, 0), reversals(100, 1)
    before = trainer.evaluate((held_out, right))["exact_match"]
    trainer.fit((x, y), epochs=12)
    after = trainer.evaluate((held_out, right))["exact_match"]
    assert before < 0.05 and after > 0.9
    greedy = (net.translate(held_out[:, :4]) == right).all(axis=1).mean()
    assert greedy == pytest.approx(after)  # exact match by teacher forcing is that of greedy search


def test_exact_match_counts_whole_sentences_and_no_padding():
    target = np.array([[4, END, PAD], [5, 4, END], [5, END, PAD]])
    said = np.array([[4, END, 7], [5, 5, END], [5, END, END]])
    assert exact_match(np.eye(8)[said], target) == pytest.approx(2 / 3)


@KINDS
def test_a_training_step_leaves_no_float64_on_the_tape(kind):
    net, (x, y) = network(**kind), batch()
    with cl.trace() as t:
        net.criterion()(net(x), y).backward()
    for entry in t:
        arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
        assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name
    assert all(p.grad is not None and p.grad.dtype == np.float32 for p in net.parameters())


# ---- what is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net: net(cl.Tensor(np.ones((2, 7), int))), ShapeError, r"\(B, 6 \+ 5\).*got \(2, 7\)"),
        (lambda net: net.translate(np.ones((1, 7), int)), ShapeError, r"at most 6 tokens"),
        (lambda net: net.encode(np.ones(3, int)), ShapeError, r"\(B, source_length or fewer\), got \(3,\)"),
        (lambda net: net.encode(np.array([[4, 0], [0, 0]])), DataError, "sentence 1 of the batch is empty"),
        (lambda net: net.encode(np.array([[4, 5], [0, 5]])), DataError, "sentence 1 of the batch has <pad>"),
        (lambda net: net.encode(np.array([[12]])), ValueRangeError, "index 12 .* is outside 0 … 11"),
        (lambda net: net.translate(np.array([[4]]), beam=0), ValueRangeError, "beam must be a whole number >= 1, got 0"),
        (lambda net: net.translate(np.array([[4]]), beam=-1), ValueRangeError, "beam must be a whole number >= 1, got -1"),
        (lambda net: net.search(np.array([[4]]), 1.5), ValueRangeError, "beam must be a whole number >= 1, got 1.5"),
        (lambda net: network(0), ValueRangeError, "source_length must be a whole number >= 1, got 0"),
        (lambda net: network(S, 0), ValueRangeError, "target_length must be a whole number >= 1, got 0"),
        (lambda net: network(cell="lstn"), UnknownNameError, "unknown cell of Seq2Seq 'lstn': did you mean 'lstm'"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(network())


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("number", [np.nan, np.inf])
@KINDS
def test_a_network_whose_training_blew_up_translates_nothing(kind, number, beam):
    source = np.array([[5, 9, 4], [7, 0, 0]])
    for spoilt in ("output.bias", None):
        net = network(**kind)
        for name, p in net.named_parameters():
            if name == spoilt:
                p.data[6] = number
            elif spoilt is None:
                p.data[:] = number
        for search in (net.translate, net.search):
            with pytest.raises(NonFiniteError, match="the network's scores are not finite: its training blew up"):
                search(source, beam)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_bias_of_minus_infinity_forbids_a_word(beam):
    net, source = network(), np.array([[5, 9, 4], [7, 0, 0]])
    word = net.translate(source, beam)[0, 0]
    net.output.bias.data[word] = -np.inf
    tokens, scores = net.search(source, beam)
    assert word not in tokens and np.isfinite(scores).all()
