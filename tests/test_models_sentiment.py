"""The two text classifiers: their formulas, that padding changes nothing, that they learn, what they refuse."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.errors import DtypeError, ShapeError, UnknownNameError, ValueRangeError

CASES = [
    ("SentimentLSTM", {"hidden": 5, "pooling": "max"}),
    ("SentimentLSTM", {"hidden": 5, "pooling": "mean"}),
    ("SentimentLSTM", {"hidden": 5, "pooling": "last"}),
    ("TextCNN", {"filters": 4, "widths": (2, 3, 4)}),
]
TEXTS = np.array([[5, 7, 9, 0, 0], [3, 4, 5, 6, 8], [9, 0, 0, 0, 0]])


@pytest.fixture(params=CASES, ids=[f"{name} {options.get('pooling', '')}".strip() for name, options in CASES])
def net(request):
    cl.manual_seed(0)
    name, options = request.param
    net = getattr(models, name)(vocabulary_size=10, embedding=6, num_classes=3, dropout=0.0, **options)
    net.embedding.weight.set(10 * net.embedding.weight.numpy())  # so that differences would be seen
    return net.eval()


def test_scores_are_one_row_per_text(net):
    y = net(cl.Tensor(TEXTS))
    assert y.shape == (3, 3) and y.dtype == np.float32


def test_padding_changes_no_score(net):
    longer = np.pad(TEXTS, ((0, 0), (0, 4)))
    np.testing.assert_allclose(net(cl.Tensor(longer)).numpy(), net(cl.Tensor(TEXTS)).numpy(), atol=1e-5)
    alone = [net(cl.Tensor(row[None, row > 0])).numpy()[0] for row in TEXTS]
    np.testing.assert_allclose(net(cl.Tensor(TEXTS)).numpy(), alone, atol=1e-5)


def test_the_vector_of_the_padding_is_neither_used_nor_learnt(net):
    before = net(cl.Tensor(TEXTS)).numpy()
    changed = net.embedding.weight.numpy().copy()
    changed[0] = 1e3
    net.embedding.weight.set(changed)
    y = net(cl.Tensor(TEXTS))
    np.testing.assert_array_equal(y.numpy(), before)
    (y * y).sum().backward()
    assert not net.embedding.weight.grad[0].any() and net.embedding.weight.grad[9].any()


def test_the_order_of_words_matters_except_to_nothing_here(net):
    swapped = TEXTS[:, [1, 0, 2, 3, 4]][:2]
    assert not np.allclose(net(cl.Tensor(swapped)).numpy(), net(cl.Tensor(TEXTS[:2])).numpy(), atol=1e-4)


def test_text_cnn_is_kims_formula():
    cl.manual_seed(1)
    net = models.TextCNN(vocabulary_size=10, embedding=6, filters=4, widths=(3,)).eval()
    e = net.embedding.weight.numpy()[[5, 7, 9]]
    padded = np.concatenate([np.zeros((1, 6)), e, np.zeros((1, 6))])
    w, b = net.convs[0].weight.numpy(), net.convs[0].bias.numpy()
    h = [np.maximum(0, (w * padded[t : t + 3].T).sum(axis=(1, 2)) + b) for t in range(3)]
    expected = net.output.weight.numpy() @ np.max(h, axis=0) + net.output.bias.numpy()
    np.testing.assert_allclose(net(cl.Tensor(TEXTS[:1])).numpy()[0], expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
def test_sentiment_lstm_pools_what_the_lstm_gave(pooling):
    cl.manual_seed(1)
    net = models.SentimentLSTM(vocabulary_size=10, embedding=6, hidden=4, pooling=pooling).eval()
    h, (last, _) = net.lstm(cl.ops.reshape(net.embedding(cl.Tensor([5, 7, 9])), (3, 1, 6)))
    pooled = {
        "max": h.numpy().max(axis=0)[0],
        "mean": h.numpy().mean(axis=0)[0],
        "last": last.numpy().reshape(-1),
    }[pooling]
    expected = net.output.weight.numpy() @ pooled + net.output.bias.numpy()
    np.testing.assert_allclose(net(cl.Tensor(TEXTS[:1])).numpy()[0], expected, atol=1e-6)


def test_they_learn_whether_a_word_occurs(net):
    """Is there a 7 in the text? Texts of 1 to 6 words."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 10, (256, 6)) * (np.arange(6) < rng.integers(1, 7, (256, 1)))
    y = (x == 7).any(axis=1).astype(np.int64)
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=0.02), batch_size=32, progress=False)
    history = trainer.fit((x, y), epochs=12)
    assert history[-1]["accuracy"] > 0.97 > 0.75 > history[0]["accuracy"]


def test_parameters_are_those_of_the_table():
    for name, counts in (("SentimentLSTM", (1_280_000, 66_560, 258)), ("TextCNN", (1_280_000, 49_344, 386))):
        net = getattr(models, name)()
        by_layer = {}
        for path, p in net.named_parameters():
            layer = path.split(".")[0]
            by_layer[layer] = by_layer.get(layer, 0) + p.size
        assert sorted(by_layer.values()) == sorted(counts)


def test_bad_input_is_refused_in_a_sentence(net):
    name = type(net).__name__
    for wrong, came in ((cl.Tensor(TEXTS.astype(np.float32)), "float32"), (TEXTS.tolist(), "list")):
        with pytest.raises(DtypeError, match=rf"{name}: x must be an array of word numbers \(integers\), got {came}"):
            net(wrong)
    with pytest.raises(ShapeError, match=rf"{name}: x must have the shape \(N, T\).*got \(3, 0\)"):
        net(np.zeros((3, 0), int))
    with pytest.raises(ShapeError, match=rf"{name}: x must have the shape \(N, T\).*got \(5,\)"):
        net(cl.Tensor(TEXTS[0]))
    with pytest.raises(ValueRangeError, match=f"{name}: text 1 is empty"):
        net(cl.Tensor(np.array([[1, 2], [0, 0]])))
    with pytest.raises(ValueRangeError, match=f"{name}: text 0 has a word after padding, or begins with it"):
        net(cl.Tensor(np.array([[0, 2], [1, 0]])))
    with pytest.raises(ValueRangeError, match=r"index 10 at position \(0, 1\) is outside 0 … 9"):
        net(cl.Tensor(np.array([[1, 10]])))


def test_unknown_pooling():
    with pytest.raises(UnknownNameError, match="pooling of SentimentLSTM 'maks': did you mean 'max'"):
        models.SentimentLSTM(pooling="maks")
