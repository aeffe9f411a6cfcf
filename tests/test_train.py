"""The training loop: what it computes, in which mode, what it refuses and what it shows."""

import csv
import json
import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.data import Compose, DataLoader, Normalize, RandomCrop, RandomFlip, arrays
from cnnlib.errors import DataError, DtypeError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.train import History, Trainer, metrics, progress


def blobs(n=70, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.standard_normal((n, 4)) + 3 * np.eye(4)[y]
    return arrays(x.astype(np.float32), y, classes=["ash", "elm", "oak"][:classes])


def pictures(n=20):
    rng = np.random.default_rng(1)
    return arrays(rng.random((n, 1, 6, 6)).astype(np.float32), rng.integers(0, 2, n))


def mlp(outputs=3):
    cl.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))


def trainer(net=None, lr=0.05, **options):
    net = net or mlp()
    options = {"progress": False, "batch_size": 16, **options}
    return Trainer(net, options.pop("loss", nn.CrossEntropyLoss()), optim.SGD(net.parameters(), lr=lr), **options)


def weights(net):
    return {name: value.copy() for name, value in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


# ---- training


def test_it_learns():
    t = trainer(lr=0.3)
    history = t.fit(blobs(), blobs(seed=1), epochs=5)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["validation_accuracy"] > 0.85
    assert list(history[0]) == ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "lr", "seconds"]


def test_it_is_the_loop_one_would_write():
    data = blobs()
    t = trainer(seed=5)
    t.fit(data, epochs=2)
    net = mlp()
    optimizer = optim.SGD(net.parameters(), lr=0.05)
    for epoch in range(2):
        for x, y in DataLoader(data, 16, seed=5).iterate(epoch):
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(net(x), y).backward()
            optimizer.step()
    assert same(weights(t.model), weights(net))
    assert t.step == 10 and t.epoch == 2 and t.batch == 0


def test_a_second_fit_goes_on():
    data, whole, parts = blobs(), trainer(), trainer()
    whole.fit(data, epochs=3)
    parts.fit(data, epochs=1)
    history = parts.fit(data, epochs=2)
    assert same(weights(whole.model), weights(parts.model)) and [row["epoch"] for row in history] == [1, 2, 3]


def test_means_weigh_the_smaller_last_batch_by_its_size():
    data = blobs(70)
    t = trainer(lr=0.0, metrics=("accuracy", "error"))
    row = t.fit(data, data, epochs=1)[0]
    outputs = t.model(data.x)
    loss = float(ops.cross_entropy(outputs, data.y))
    right = float((outputs.data.argmax(1) == data.y).mean())
    for prefix in ("", "validation_"):
        assert row[f"{prefix}loss"] == pytest.approx(loss, rel=1e-6)
        assert row[f"{prefix}accuracy"] == pytest.approx(right) and row[f"{prefix}error"] == pytest.approx(1 - right)
    for batch_size in (1, 7, 70, 1000):
        assert trainer(t.model, batch_size=batch_size).evaluate(data)["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: (d.x, d.y), lambda d: DataLoader(d, 16)])
def test_datasets_pairs_and_loaders_give_the_same(wrap):
    t = trainer()
    t.fit(wrap(blobs()), wrap(blobs(seed=1)), epochs=1)
    other = trainer()
    other.fit(blobs(), epochs=1)
    assert same(weights(t.model), weights(other.model))


def test_gradients_are_clipped():
    net = mlp()
    data, before = blobs(16), weights(net)
    trainer(net, lr=1.0, clip_grad_norm=0.01).fit(data, epochs=1)
    moved = math.sqrt(sum(float(((weights(net)[k] - before[k]) ** 2).sum()) for k in before))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_a_failed_backward_reaches_no_parameter():
    def broken(ctx, dy):
        raise RuntimeError("mine")

    t = trainer()
    before = weights(t.model)
    with cl.override(ops.Tanh, backward=broken), pytest.raises(RuntimeError, match="mine"):
        t.fit(blobs(), epochs=1)
    assert same(weights(t.model), before) and t.step == 0 and t.history == []
    t.fit(blobs(), epochs=1)
    fresh = trainer()
    fresh.fit(blobs(), epochs=1)
    assert same(weights(t.model), weights(fresh.model))  # no gradient was left over


def test_missed_parameters_are_reported():
    net = mlp()
    t = Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net[0].parameters(), lr=0.1), progress=False)
    with pytest.warns(UserWarning, match=r"misses 2 trainable parameters.*2\.weight"):
        t.fit(blobs(), epochs=1)


def test_a_loss_that_is_not_finite_is_reported():
    t = trainer(nn.Linear(4, 1), loss=nn.MSELoss(), lr=1e30)
    with np.errstate(all="ignore"), pytest.warns(UserWarning, match="the loss is not finite any more: NaNStop"):
        t.fit(regression(), epochs=2)


# ---- modes


class Watch(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, x.requires_grad))
        return x


def test_training_and_evaluation_modes():
    watch = Watch()
    net = nn.Sequential(nn.Linear(4, 3), watch)
    t = trainer(net, batch_size=35)
    net.eval()
    t.fit(blobs(), blobs(), epochs=2)
    assert watch.seen == 2 * (2 * [(True, True)] + 2 * [(False, False)])
    assert not watch.training
    net.train()
    net[0].eval()
    t.evaluate(blobs())
    t.predict(blobs().x)
    assert net.training and watch.training and not net[0].training
    assert cl.op._sequence and net(blobs().x).requires_grad


def test_evaluation_changes_nothing():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    t = trainer(net)
    t.fit(blobs(), epochs=1)
    before, state = weights(net), cl.random.get_state()
    assert t.evaluate(blobs()) == t.evaluate(blobs())
    assert np.array_equal(t.predict(blobs().x), t.predict(blobs()))
    assert same(weights(net), before) and cl.random.get_state() == state


def test_predictions_are_the_models_outputs():
    t, x = trainer(), blobs().x
    assert t.predict(x).shape == (70, 3)
    np.testing.assert_allclose(t.predict(x), t.model(x).data, rtol=1e-5)
    assert np.array_equal(t.predict(cl.Tensor(x)), t.predict(x))
    for nothing in (x[:0], [1.0, 2.0], np.float32(1)):
        with pytest.raises(DataError, match="predict: x must be an array of at least one sample"):
            t.predict(nothing)


def test_the_model_may_return_several_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            y = self.layer(x)
            return y, y.sum(axis=1)

    net = Two()
    t = trainer(net, loss=lambda out, y: ops.cross_entropy(out[0], y), metrics=[lambda out, y: metrics.accuracy(out[0], y)])
    assert "<lambda>" in t.fit(blobs(), epochs=1)[0]
    first, second = t.predict(blobs().x)
    assert first.shape == (70, 3) and second.shape == (70,)


# ---- transforms


def test_evaluation_is_normalised_but_not_augmented():
    data = pictures()
    normalize = Normalize(0.5, 0.25)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    for options, train in (
        ({"transform": Compose([RandomCrop(6, 1), normalize, RandomFlip()])}, data),
        ({}, DataLoader(data, 16, transform=Compose([RandomFlip(), normalize]))),
    ):
        t = trainer(net, **options)
        t.fit(train, data, epochs=1)
        np.testing.assert_allclose(t.predict(data.x), net(normalize(data.x)).data, rtol=1e-5, atol=1e-6)
        loss = float(ops.cross_entropy(net(normalize(data.x)), data.y))
        assert t.history[0]["validation_loss"] == pytest.approx(loss, rel=1e-5)
    t = trainer(net, transform=RandomFlip(), eval_transform=lambda x, indices, seed, epoch: 0 * x)
    assert np.ptp(t.predict(data.x), axis=0).max() == 0


def test_a_transform_beside_a_loader_is_refused():
    with pytest.raises(ValueRangeError, match="give it to the loader only"):
        trainer(transform=RandomFlip()).fit(DataLoader(pictures()), epochs=1)


# ---- metrics


def regression():
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    return arrays(x, x[:, :1] * 2)


def test_regression_has_no_accuracy():
    history = trainer(mlp(1), loss=nn.MSELoss()).fit(regression(), regression(), epochs=2)
    assert list(history[0]) == ["epoch", "loss", "validation_loss", "lr", "seconds"]
    t = trainer(mlp(1), loss=nn.MSELoss(), metrics=["mean_absolute_error"])
    difference = np.abs(t.predict(regression().x) - regression().y).mean()
    assert t.evaluate(regression())["mean_absolute_error"] == pytest.approx(float(difference), rel=1e-5)
    with pytest.raises(DtypeError, match=r"labels must be integers, got float32: for regression pass metrics=\(\)"):
        trainer(mlp(1), loss=lambda f, y: ((f - y[:, 0]) ** 2).mean(), metrics="accuracy").evaluate(
            arrays(regression().x, regression().y[:, [0, 0]])
        )


def test_no_metrics_and_own_metrics():
    assert list(trainer(metrics=()).evaluate(blobs())) == ["loss"]

    def largest(outputs, labels):
        return outputs.max()

    result = trainer(metrics=[largest, "top_2", metrics.top_k(3)]).evaluate(blobs())
    assert list(result) == ["loss", "largest", "top_2", "top_3"] and result["top_3"] == 1.0 and type(result["largest"]) is float
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        trainer(metrics=["acuracy"])
    with pytest.raises(ValueRangeError, match="'loss' is taken"):
        trainer(metrics=[_named_loss])


def _named_loss(outputs, labels):
    return 0.0


_named_loss.__name__ = "loss"


def test_accuracy_knows_the_layouts():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], np.float32)
    assert metrics.accuracy(scores, np.array([1, 1, 0])) == pytest.approx(2 / 3)
    assert metrics.accuracy(scores[:, 0] - 0.5, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    maps = np.stack([scores] * 4, axis=2)  # (N, C, L)
    assert metrics.accuracy(maps, np.array([[1] * 4, [0] * 4, [1] * 4])) == pytest.approx(2 / 3)
    assert metrics.accuracy(maps.transpose(0, 2, 1), np.array([[1] * 4, [0] * 4, [1] * 4])) == pytest.approx(2 / 3)
    with pytest.raises(ShapeError, match=r"outputs \(3, 2\) do not fit labels \(2,\)"):
        metrics.accuracy(scores, np.array([0, 1]))


def test_top_k_and_confusion():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [2, 2, 2]])
    labels = np.array([1, 0, 2])
    assert metrics.top_k(1)(scores, labels) == pytest.approx(1 / 3)  # of equal scores none is larger
    assert metrics.top_k(2)(scores, labels) == pytest.approx(2 / 3)
    assert metrics.confusion_matrix(scores, labels).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert metrics.confusion_matrix(np.array([0, 1]), np.array([0, 0]), 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueRangeError, match="class 5 needs num_classes of at least 6, got 3"):
        metrics.confusion_matrix(np.array([5]), np.array([0]), 3)
    with pytest.raises(ValueRangeError, match="k must be a whole number"):
        metrics.top_k(0)


# ---- misuse


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3"])
def test_epochs_must_be_a_count(epochs):
    with pytest.raises(ValueRangeError, match="fit: epochs must be a whole number of at least 1, got"):
        trainer().fit(blobs(), epochs=epochs)


def test_data_that_cannot_be_trained_on():
    t, data = trainer(), blobs()
    with pytest.raises(DataError, match="is empty"):
        t.fit(data[:0])
    with pytest.raises(DataError, match="is empty"):
        t.fit(data, data[:0])
    with pytest.raises(DataError, match="is empty"):
        t.evaluate(data[:0])
    with pytest.raises(DtypeError, match=r"validation: expected a Dataset.* without labels there is no loss"):
        t.fit(data, data.x)
    with pytest.raises(DtypeError, match=r"evaluate: expected .* got ndarray"):
        t.evaluate(data.x)
    with pytest.raises(DtypeError, match="train: got two data sets where one is expected"):
        t.fit((data, data))
    assert t.step == 0


def test_a_label_out_of_range_is_named():
    data = arrays(blobs().x, np.where(np.arange(70) == 3, 7, 0))
    with pytest.raises(ValueRangeError, match="label 7 at position"):
        trainer(batch_size=70).fit(data)


def test_the_parts_must_be_what_they_seem():
    net = mlp()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(DtypeError, match="model must be a Module, got function"):
        Trainer(lambda x: x, nn.MSELoss(), sgd)
    with pytest.raises(DtypeError, match=r"write CrossEntropyLoss\(\)"):
        Trainer(net, nn.CrossEntropyLoss, sgd)
    with pytest.raises(DtypeError, match="optimizer must be one such as"):
        Trainer(net, nn.MSELoss(), optim.SGD)
    with pytest.raises(DtypeError, match="callbacks must be Callback objects"):
        Trainer(net, nn.MSELoss(), sgd, callbacks=[print])
    with pytest.raises(ValueRangeError, match="batch_size must be a whole number of at least 1, got 0"):
        Trainer(net, nn.MSELoss(), sgd, batch_size=0)
    with pytest.raises(ValueRangeError, match="clip_grad_norm must be above 0, got 0"):
        Trainer(net, nn.MSELoss(), sgd, clip_grad_norm=0)
    with pytest.raises(ShapeError, match=r"the loss must be a Tensor of one number.*got \(16,\): use reduction='mean'"):
        trainer(net, loss=nn.CrossEntropyLoss(reduction="none")).fit(blobs())


def test_mixed_types_are_refused_by_name():
    x = blobs().x.astype(np.float64)
    with pytest.raises(DtypeError, match="float64"):
        trainer().fit(arrays(x, blobs().y, dtype=np.float64))


# ---- history and progress


def test_history_as_columns_csv_and_json(tmp_path):
    history = History([{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": math.nan, "extra": 2}])
    assert history["epoch"] == [1, 2] and history[0]["loss"] == 1 / 3 and history.as_dict()["extra"] == [None, 2]
    history.to_csv(tmp_path / "h.csv")
    rows = list(csv.DictReader((tmp_path / "h.csv").open()))
    assert float(rows[0]["loss"]) == 1 / 3 and rows[1]["extra"] == "2" and rows[0]["extra"] == ""
    history.to_json(tmp_path / "h.json")
    rows = json.loads((tmp_path / "h.json").read_text())
    assert rows == [{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": None, "extra": 2}]
    with pytest.raises(UnknownNameError, match="unknown column 'los': did you mean 'loss'"):
        history["los"]


def test_progress_is_silent_or_a_line_per_epoch(capsys):
    trainer().fit(blobs(), epochs=2)
    assert capsys.readouterr().out == ""
    trainer(progress=True).fit(blobs(), blobs(), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2  loss ")
    assert "validation_accuracy" in lines[1] and lines[1].endswith(" s")


def test_the_bar_shows_averages_speed_and_epochs(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "REDRAWN", 0.0)
    shown = progress.show(True)
    assert isinstance(shown, progress.Bar)
    shown.start_epoch(1, 2, 10, done=3)
    shown.step(16, lambda: {"loss": 0.5, "accuracy": 0.25})
    task = shown._bar.tasks[0]
    assert task.completed == 4 and task.total == 10
    assert "loss 0.5  accuracy 25.00 %" in task.fields["values"] and "samples/s" in task.fields["values"]
    shown.end_epoch({"epoch": 1, "loss": 0.5, "seconds": 0.1})
    shown.start_epoch(2, 2, 10, done=0)
    assert len(shown._bar.tasks) == 1
    shown.close()
    assert "epoch 1/2  loss 0.5" in capsys.readouterr().out


def test_the_averages_are_read_only_when_shown():
    read = []
    progress.Lines().step(16, lambda: read.append(1))
    progress.show(False).step(16, lambda: read.append(1))
    assert read == []


# ---- on the GPU


def test_on_the_gpu_as_on_the_cpu():
    from cnnlib.backends import cuda

    if reason := cuda.why_not():
        pytest.skip(reason)
    on_cpu, on_gpu = trainer(), trainer(device="cuda")
    a, b = on_cpu.fit(blobs(), blobs(), epochs=2), on_gpu.fit(blobs(), blobs(), epochs=2)
    assert on_gpu.model[0].weight.device == "cuda" and type(on_gpu.predict(blobs().x)) is np.ndarray
    for column in ("loss", "validation_loss"):
        assert b[column] == pytest.approx(a[column], rel=1e-4)
