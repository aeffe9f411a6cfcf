"""The character model and its training: what it computes, carries, keeps and refuses."""

import itertools
import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, ops, optim
from cnnlib.data import Streams, numbered, read_text
from cnnlib.errors import CheckpointError, DataError, NonFiniteError, UnknownNameError, ValueRangeError
from cnnlib.models.char_rnn import CharRNN, sample
from cnnlib.tensor import Tensor
from cnnlib.train import Callback, Checkpoint, NaNStop, Samples, SequenceTrainer, load

CELLS = ("rnn", "lstm", "gru")
PERIODIC = "abcabd" * 60


def net_of(text=PERIODIC, cell="lstm", **options):
    cl.manual_seed(0)
    return CharRNN(text, cell, **({"hidden": 16, "embedding": 8} | options))


def trainer_of(net, *callbacks, lr=0.02, **options):
    return SequenceTrainer(net, optim.Adam(net.parameters(), lr=lr), callbacks, progress=False, **options)


def streams_of(text=PERIODIC, batch_size=4, length=10):
    return Streams(numbered([text]).numbers, batch_size, length)


# ---- the model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("embedding", [0, 5])
def test_a_text_read_in_parts_gives_the_scores_of_the_whole(cell, embedding):
    net = net_of("abcd", cell, layers=2, embedding=embedding)
    x = np.random.default_rng(0).integers(0, 4, (12, 3))
    whole, last = net(Tensor(x))
    first, state = net(Tensor(x[:5]))
    rest, state = net(Tensor(x[5:]), state)
    assert whole.shape == (12, 3, 4)
    np.testing.assert_allclose(np.concatenate([first.numpy(), rest.numpy()]), whole.numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(state if cell == "lstm" else [state], last if cell == "lstm" else [last], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_one_hot_vectors_pick_columns_and_are_not_learnt():
    net = net_of("abc", "rnn", embedding=0)
    x = Tensor(np.array([[2]]))
    w_ih, b = net.rnn.weight_ih_l0.numpy(), net.rnn.bias_ih_l0.numpy() + net.rnn.bias_hh_l0.numpy()
    np.testing.assert_allclose(net(x)[1].numpy()[0, 0], np.tanh(w_ih[:, 2] + b), rtol=1e-5)
    before = net.embedding.weight.numpy().copy()
    trainer_of(net).fit(streams_of("abc" * 40), iterations=3)
    assert np.array_equal(net.embedding.weight.numpy(), before)
    assert not net.embedding.weight.requires_grad and np.array_equal(before, np.eye(3))


def test_parameters_are_those_of_the_table():
    net = CharRNN()
    V = len(net.alphabet)
    sizes = {name: sum(p.size for p in part.parameters()) for name, part in net._modules.items()}
    assert sizes == {"embedding": V * 64, "rnn": 99_328, "linear": V * 129}


@pytest.mark.parametrize("cell", CELLS)
def test_it_equals_pytorch_with_the_same_weights(cell):
    torch = pytest.importorskip("torch")
    net = net_of("abcdefg", cell, layers=2)
    rnn = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](8, 16, 2)
    rnn.load_state_dict({k.removeprefix("rnn."): torch.tensor(v) for k, v in net.state_dict().items() if k.startswith("rnn.")})
    x = np.random.default_rng(0).integers(0, 7, (9, 2))
    y, _ = rnn(torch.tensor(net.embedding.weight.numpy())[torch.tensor(x)])
    scores = torch.nn.functional.linear(y, torch.tensor(net.linear.weight.numpy()), torch.tensor(net.linear.bias.numpy()))
    np.testing.assert_allclose(net(Tensor(x))[0].numpy(), scores.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_makes_no_model_is_refused():
    with pytest.raises(UnknownNameError, match="unknown cell 'lsmt': did you mean 'lstm'"):
        CharRNN("abc", cell="lsmt")
    with pytest.raises(ValueRangeError, match="CharRNN: embedding must be a whole number >= 0, got -1"):
        CharRNN("abc", embedding=-1)
    with pytest.raises(DataError, match="at least one character"):
        CharRNN("")


# ---- bits per character


def test_a_model_that_knows_nothing_needs_log2_of_the_characters():
    net = net_of(PERIODIC)
    for p in net.parameters():
        p.set(np.zeros_like(p.data))
    measured = trainer_of(net).evaluate(streams_of())
    assert measured["bits"] == pytest.approx(math.log2(4)) and measured["loss"] == pytest.approx(math.log(4))


def test_evaluation_reads_each_stream_from_its_beginning_with_the_state_carried():
    net = net_of()
    trainer, streams = trainer_of(net), streams_of(length=7)
    trainer.fit(streams, iterations=3)
    before = [a.copy() for a in trainer.carried.state]
    measured = trainer.evaluate(streams)["loss"]
    assert all(np.array_equal(a, b) for a, b in zip(before, trainer.carried.state, strict=True))
    x, y = (np.concatenate(parts) for parts in zip(*streams.iterate(0), strict=True))  # all batches as one
    scores, _ = net(Tensor(x))
    assert measured == pytest.approx(ops.cross_entropy(ops.reshape(scores, (-1, 4)), y.reshape(-1)).item(), rel=1e-5)


@pytest.mark.parametrize("cell, layers", [("rnn", 1), ("lstm", 2), ("gru", 1)])
def test_a_periodic_text_is_learnt_to_less_than_a_tenth_of_a_bit(cell, layers):
    net = net_of(PERIODIC, cell, layers=layers)
    history = trainer_of(net).fit(streams_of(), streams_of("abcabd" * 20), iterations=150, every=50)
    assert [row["iteration"] for row in history] == [50, 100, 150]
    assert history[-1]["bits"] < 0.1 and history[-1]["validation_bits"] < 0.1
    assert history[-1]["bits"] == history[-1]["loss"] / math.log(2)
    assert sample(net, "abc", 12, temperature=0.1) == "abdabcabdabc"


def test_the_state_is_carried_within_a_pass_and_not_into_the_next():
    text = "ababacac" * 30
    net = net_of(text, "lstm", hidden=24)
    carried, seen = [], []

    class Look(Callback):
        def on_step_start(self, trainer, step):
            carried.append([a.copy() for a in trainer.carried.state])
            seen.append(step.x.data.copy())

        def on_step(self, trainer, step):
            carried[-1] = (carried[-1], [a.copy() for a in trainer.carried.state])

    streams = streams_of(text, 3, 6)
    trainer_of(net, Look()).fit(streams, iterations=len(streams) + 3)
    for k, ((_, after), (before, _)) in enumerate(itertools.pairwise(carried), 1):
        if k == len(streams):
            assert before == [] and np.array_equal(seen[k], seen[0])
        else:
            assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True)) and len(after) == 2
    assert carried[0][0] == []


def test_the_gradient_stops_at_the_first_step_of_a_batch():
    """As if the state that was carried were a constant, whatever made it."""
    net, compared = net_of(), []

    class Compare(Callback):
        def on_gradients(self, trainer, step):
            gradients = [p.grad.copy() for p in net.parameters()]
            net.zero_grad()
            state = tuple(Tensor(a.copy()) for a in trainer.carried.state) or None
            scores, _ = net(step.x, state)
            ops.cross_entropy(ops.reshape(scores, (-1, 4)), step.y.reshape(-1)).backward()
            compared.append([np.array_equal(p.grad, g) for p, g in zip(net.parameters(), gradients, strict=True)])

    trainer_of(net, Compare()).fit(streams_of(), iterations=3)
    assert len(compared) == 3 and all(all(equal) for equal in compared)


# ---- sampling


def test_the_seed_decides_what_is_drawn_and_nothing_else():
    net = net_of("abcdef")
    one = sample(net, "ab", 50, seed=3)
    cl.manual_seed(99)
    state = cl.random.get_state()
    assert sample(net, "ab", 50, seed=3) == one and len(one) == 50
    assert sample(net, "ab", 20, seed=3) == one[:20]
    assert sample(net, "ab", 50, seed=4) != one
    assert cl.random.get_state() == state


def test_near_temperature_0_the_likeliest_is_taken():
    net = net_of("abcdef")
    text, state, x = "", None, net.alphabet.encode("ab")
    for _ in range(30):
        scores, state = net(Tensor(x[:, None]), state)
        x = scores.numpy()[-1, 0].argmax(keepdims=True)
        text += net.alphabet.decode(x)
    assert sample(net, "ab", 30, temperature=1e-9) == text


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_characters_come_as_often_as_the_softmax_says(temperature):
    net = net_of("abc")
    for p in net.parameters():
        p.set(np.zeros_like(p.data))
    net.linear.bias.set(np.log(np.array([0.6, 0.3, 0.1], np.float32)))
    text = sample(net, "a", 3000, temperature)
    p = np.array([0.6, 0.3, 0.1]) ** (1 / temperature)
    for share, c in zip(p / p.sum(), "abc", strict=True):
        assert text.count(c) / 3000 == pytest.approx(share, abs=0.03)  # more than three deviations


def test_without_a_prime_it_begins_after_a_line_break():
    net = net_of("ab\n")
    assert sample(net, "", 20) == sample(net, "\n", 20)
    net = net_of("ab")
    assert sample(net, "", 20) == sample(net, "a", 20)


def test_what_cannot_be_drawn_is_refused():
    net = net_of("abc")
    with pytest.raises(
        DataError, match=r"'ß', 'é' are not among the 3 characters .* at position 1 .* Leave out .* it has 'abc'"
    ):
        sample(net, "aéß")
    for temperature in (0, -1.0, math.nan, math.inf, None):
        with pytest.raises(ValueRangeError, match="sample: temperature must be a finite number above 0"):
            sample(net, "a", 5, temperature)
    with pytest.raises(ValueRangeError, match="sample: length must be a whole number >= 1, got 0"):
        sample(net, "a", 0)
    net.linear.bias.set(np.full(3, np.nan, np.float32))
    with pytest.raises(NonFiniteError, match="its training blew up"):
        sample(net, "a")


def test_samples_come_when_asked_for_and_change_nothing():
    shown = []
    plain, watched = net_of(), net_of()
    trainer_of(plain).fit(streams_of(), iterations=7)
    cl.manual_seed(0)
    trainer_of(watched, Samples((2, 5), "ab", 20, show=lambda *s: shown.append(s))).fit(streams_of(), iterations=7)
    assert [iteration for iteration, _ in shown] == [2, 5, 7]
    assert all(text.startswith("ab") and len(text) == 22 for _, text in shown)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


# ---- interrupted and resumed


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, at):
        self.at = at

    def on_step(self, trainer, step):
        if trainer.step == self.at:
            raise Killed


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("at", [9, 13, 26])  # within the first pass of 8, at a report, within the fourth pass
def test_killed_and_resumed_it_ends_the_same(tmp_path, cell, at):
    def run(folder, *more, resume=False):
        net = net_of(cell=cell)
        trainer = trainer_of(net, Checkpoint(folder, save_every=4), *more)
        trainer.fit(streams_of(), streams_of("abd" * 30), iterations=30, every=12, resume=resume)
        return net, trainer

    whole, first = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", Kill(at))
    resumed, second = run(tmp_path / "killed", resume=True)
    assert [row | {"seconds": 0} for row in first.history] == [row | {"seconds": 0} for row in second.history]
    assert [row["iteration"] for row in second.history] == [12, 24, 30]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert np.array_equal(a.data, b.data)
    a, b = (load(tmp_path / name) for name in ("whole", "killed"))
    assert a.training["position"] | {"seconds": 0} == b.training["position"] | {"seconds": 0}
    assert all(np.array_equal(x, y) for x, y in zip(first.carried.state, second.carried.state, strict=True))


def test_killed_while_measuring_the_report_is_made_after_the_resume(tmp_path):
    class Deadly(Streams):
        def iterate(self, epoch, start_batch=0):
            raise Killed

    def run(streams, resume):
        trainer = trainer_of(net_of(), Checkpoint(tmp_path, save_every=4))
        return trainer.fit(streams_of(), streams, iterations=8, every=8, resume=resume)

    with pytest.raises(Killed):
        run(Deadly(np.arange(30), 1, 5), False)
    assert load(tmp_path).training["position"]["step"] == 8
    assert [row["iteration"] for row in run(streams_of("abd" * 30), True)] == [8]


def test_a_run_that_was_resumed_for_less_than_it_had_done_still_reports(tmp_path):
    with pytest.raises(Killed):
        trainer_of(net_of(), Checkpoint(tmp_path, save_every=4), Kill(9)).fit(streams_of(), iterations=30, every=30)
    history = trainer_of(net_of(), Checkpoint(tmp_path)).fit(streams_of(), iterations=5, resume=tmp_path)
    assert [row["iteration"] for row in history] == [8] and history[0]["bits"] > 0


def test_resuming_with_another_text_or_cut_is_refused(tmp_path):
    trainer_of(net_of(), Checkpoint(tmp_path)).fit(streams_of(), iterations=5)
    with pytest.raises(CheckpointError, match=r"within an epoch.*length was 10, now 9"):
        trainer_of(net_of()).fit(streams_of(length=9), iterations=9, resume=tmp_path)
    with pytest.raises(CheckpointError, match=r"samples was 360, now 354"):
        trainer_of(net_of()).fit(streams_of(PERIODIC[6:]), iterations=9, resume=tmp_path)
    with pytest.raises(CheckpointError, match=r"was trained on classes a, b, c, d; these data have a, b, c, x"):
        trainer_of(net_of("abcx")).fit(streams_of(), iterations=9, resume=tmp_path)


def test_when_numbers_blow_up_it_stops_with_the_step_and_the_checkpoint_stays(tmp_path):
    class Spoil(Callback):
        def on_step_start(self, trainer, step):
            if trainer.step == 8:
                net.rnn.weight_hh_l0.set(np.full_like(net.rnn.weight_hh_l0.data, np.inf))

    net = net_of()
    trainer = trainer_of(net, Spoil(), Checkpoint(tmp_path, save_every=5), NaNStop())
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"(?s)step 9.*rnn.weight_hh_l0"):
        trainer.fit(streams_of(), iterations=20)
    saved = load(tmp_path)
    assert saved.training["position"]["step"] == 5
    assert all(np.isfinite(array).all() for array in saved.model.values())


def test_where_the_optimiser_itself_blows_up_the_checkpoint_before_it_stays(tmp_path):
    class Rush(Callback):
        def on_gradients(self, trainer, step):
            trainer.optimizer.lr = 3e38 if trainer.step == 6 else 0.01

    trainer = trainer_of(net_of(), Rush(), Checkpoint(tmp_path, save_every=1), NaNStop())
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"^parameter '.* after the optimiser's step .*step 7"):
        trainer.fit(streams_of(), iterations=20)
    saved = load(tmp_path)
    assert saved.training["position"]["step"] == 6
    assert all(np.isfinite(array).all() for array in saved.model.values())


def test_a_sample_that_cannot_be_drawn_leaves_it_to_the_next_batch_to_say_why():
    class Spoil(Callback):
        def on_step(self, trainer, step):
            if trainer.step == 4:
                trainer.model.linear.bias.set(np.full_like(trainer.model.linear.bias.data, np.inf))

    shown = []
    samples = Samples((4,), show=lambda *s: shown.append(s))
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"the loss is nan in epoch 1, batch 5 \(step 5\)"):
        trainer_of(net_of(), NaNStop(), Spoil(), samples).fit(streams_of(), iterations=20)
    assert shown == [(4, "(sample: the network's scores are not finite: its training blew up. Use an earlier checkpoint.)")]


def test_numbers_that_overflow_in_a_step_are_traced_to_the_operation(tmp_path):
    net = net_of()
    net.linear.weight.set(np.full_like(net.linear.weight.data, 3e38))
    net.embedding.weight.set(net.embedding.weight.data * 100)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"(?s)step 1\).*linear"):
        trainer_of(net, NaNStop()).fit(streams_of(), iterations=20)


# ---- at large


def test_the_sonnets_are_learnt_better_than_by_counting_characters():
    text = read_text("sonnets")
    train, held_out = text.split()
    counts = np.bincount(held_out)
    p = counts[counts > 0] / counts.sum()
    entropy = -(p * np.log2(p)).sum()  # of a model that knows how often each character is
    net = models.create("char_rnn", characters=text.alphabet.characters, cell="gru", hidden=32)
    history = trainer_of(net, lr=0.01).fit(Streams(train, 32, 32), Streams.fitting(held_out), iterations=60)
    assert history[-1]["validation_bits"] < entropy - 0.8


def test_no_float64_in_training():
    net = net_of(layers=2)
    x, y = next(streams_of().iterate(0))
    with cl.trace() as t:
        scores, _ = net(Tensor(x))
        ops.cross_entropy(ops.reshape(scores, (-1, 4)), y.reshape(-1)).backward()
    for entry in t:
        arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
        assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name
