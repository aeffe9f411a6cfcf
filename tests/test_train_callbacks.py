"""Callbacks: when they are called, when they stop a run, and what NaNStop finds."""

import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.data import arrays
from cnnlib.errors import CheckpointError, NonFiniteError, UnknownNameError, ValueRangeError
from cnnlib.train import Callback, Checkpoint, EarlyStopping, LRSchedule, NaNStop, Trainer, load


def blobs(n=40):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    return arrays((rng.standard_normal((n, 4)) + 3 * np.eye(4)[y]).astype(np.float32), y)


def trainer(*callbacks, net=None, lr=0.1, **options):
    if net is None:
        cl.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = optim.SGD(net.parameters(), lr=lr)
    callbacks = [callback(optimizer) if not isinstance(callback, Callback) else callback for callback in callbacks]
    options = {"loss": nn.CrossEntropyLoss(), "progress": False, "batch_size": 16, **options}
    return Trainer(net, options.pop("loss"), optimizer, callbacks=callbacks, **options)


def state(net):
    return {name: value.copy() for name, value in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


class Diary(Callback):
    def __init__(self):
        self.entries = []

    def on_fit_start(self, trainer):
        self.entries.append("fit")

    def on_epoch_start(self, trainer):
        self.entries.append(f"epoch {trainer.epoch}")

    def on_step_start(self, trainer, step):
        assert step.loss is None
        self.entries.append(f"{trainer.batch}")

    def on_loss(self, trainer, step):
        assert step.outputs.shape == (len(step.y), 3) and trainer.model[0].weight.grad is None
        self.entries.append("loss")

    def on_gradients(self, trainer, step):
        assert trainer.model[0].weight.grad is not None
        self.entries.append("gradients")

    def on_step(self, trainer, step):
        self.entries.append(f"step {trainer.step}")

    def on_epoch_end(self, trainer, row):
        assert row is trainer.history[-1]
        self.entries.append(f"end {row['epoch']}")

    def on_fit_end(self, trainer):
        self.entries.append("done")


def test_the_order_of_events():
    diary = Diary()
    trainer(diary, batch_size=30).fit(blobs(), epochs=2)
    assert diary.entries == [
        "fit",
        "epoch 0", "0", "loss", "gradients", "step 1", "1", "loss", "gradients", "step 2", "end 1",
        "epoch 1", "0", "loss", "gradients", "step 3", "1", "loss", "gradients", "step 4", "end 2",
        "done",
    ]  # fmt: skip


def test_a_callback_can_stop_within_an_epoch():
    class Enough(Callback):
        def on_step(self, trainer, step):
            if trainer.step == 4:
                trainer.stop("enough")

    t = trainer(Enough())
    assert len(t.fit(blobs(), epochs=5)) == 1 and (t.step, t.epoch, t.batch, t.stopped) == (4, 1, 1, "enough")


# ---- schedules


@pytest.mark.parametrize("per, expected", [("epoch", [0.1, 0.05, 0.025]), ("step", [0.1 / 8, 0.1 / 64, 0.1 / 512])])
def test_schedules_step_per_epoch_or_per_step(per, expected):
    t = trainer(lambda optimizer: LRSchedule(optim.StepLR(optimizer, 1, gamma=0.5), per=per))
    assert t.fit(blobs(), epochs=3)["lr"] == pytest.approx(expected)  # of the epoch's last step, or the next one's


def test_schedules_know_epochs_and_steps_only():
    with pytest.raises(ValueRangeError, match="per must be 'epoch' or 'step', got 'batch'"):
        LRSchedule(None, per="batch")


# ---- early stopping


class Scripted:
    """A loss whose validation values are given: a metric that reads them from a list."""

    def __init__(self, values):
        self.values, self.__name__ = list(values), "scripted_loss"

    def __call__(self, outputs, labels):
        return self.values.pop(0)


def scripted_run(values, **options):
    """Epochs trained when the metric's validation values are ``values``; one batch per pass."""
    interleaved = [v for value in values for v in (0.0, value)]
    t = trainer(EarlyStopping("validation_scripted_loss", **options), metrics=[Scripted(interleaved)], batch_size=100)
    return t, t.fit(blobs(), blobs(), epochs=len(values))


@pytest.mark.parametrize(
    "values, options, epochs",
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, 5),
        ([5, 4, 4, 3, 1], {"patience": 1}, 3),
        ([5, 6, 7, 4, 5, 6, 7, 1], {"patience": 3}, 7),
        ([5, 4.95, 4.9, 4.8], {"patience": 2, "min_delta": 0.15}, 3),
        ([5, 4.95, 4.8, 4.7], {"patience": 2, "min_delta": 0.15}, 4),
        ([5, float("nan"), float("nan"), 1], {"patience": 2}, 3),
        ([float("nan"), 5, 4, 3], {"patience": 2}, 4),
        ([1, 2, 3, 3, 2], {"patience": 2, "mode": "max"}, 5),
    ],
)
def test_early_stopping(values, options, epochs):
    t, history = scripted_run(values, **options)
    assert len(history) == epochs
    assert (t.stopped is not None) == (epochs < len(values) or options.get("mode") == "max")


def test_early_stopping_restores_the_best_weights():
    class Keep(Callback):
        def __init__(self):
            self.states = []

        def on_epoch_end(self, trainer, row):
            self.states.append(state(trainer.model))

    for restore_best in (True, False):
        keep = Keep()
        scripted = Scripted([0, 3, 0, 1, 0, 2, 0, 2])
        stopping = EarlyStopping("validation_scripted_loss", patience=2, restore_best=restore_best)
        t = trainer(keep, stopping, metrics=[scripted], batch_size=100)
        assert len(t.fit(blobs(), blobs(), epochs=9)) == 4
        assert same(state(t.model), keep.states[1 if restore_best else 3])


def test_monitors_are_checked_before_the_first_step():
    with pytest.raises(UnknownNameError, match="unknown monitor 'validation_los': did you mean 'validation_loss'"):
        trainer(EarlyStopping("validation_los")).fit(blobs(), blobs())
    t = trainer(EarlyStopping())
    with pytest.raises(UnknownNameError, match=r"unknown monitor 'validation_loss'.*known: accuracy, loss, lr"):
        t.fit(blobs())
    assert t.step == 0
    t = trainer(EarlyStopping("largest"), metrics=[lambda f, y: f.max(), largest])
    with pytest.raises(ValueRangeError, match="monitor 'largest': its name does not tell whether larger is better: pass mode="):
        t.fit(blobs())


def largest(outputs, labels):
    return outputs.max()


@pytest.mark.parametrize(
    "options", [{"patience": 0}, {"patience": 1.5}, {"min_delta": -1}, {"min_delta": float("nan")}, {"mode": "up"}]
)
def test_early_stopping_refuses(options):
    with pytest.raises(ValueRangeError, match=next(iter(options))):
        EarlyStopping(**options)


# ---- checkpoints


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_last_and_best(tmp_path):
    scripted = Scripted([0, 3, 0, 1, 0, 2])
    t = trainer(Checkpoint(tmp_path, best="validation_scripted_loss"), metrics=[scripted], batch_size=100)
    t.fit(blobs(), blobs(), epochs=3)
    assert names(tmp_path) == ["best.safetensors", "last.safetensors"]
    assert load(tmp_path).training["position"]["epoch"] == 3
    assert load(tmp_path / "best.safetensors").training["position"]["epoch"] == 2
    assert same(load(tmp_path).model, state(t.model))


def test_without_validation_or_without_best_there_is_only_the_last(tmp_path):
    trainer(Checkpoint(tmp_path / "a")).fit(blobs(), epochs=1)
    trainer(Checkpoint(tmp_path / "b", best=None)).fit(blobs(), blobs(), epochs=1)
    assert names(tmp_path / "a") == names(tmp_path / "b") == ["last.safetensors"]
    with pytest.raises(UnknownNameError, match="unknown monitor 'validation_acc': did you mean 'validation_accuracy'"):
        trainer(Checkpoint(tmp_path, best="validation_acc")).fit(blobs(), blobs())


def test_saved_every_few_steps_and_the_last_few_kept(tmp_path):
    positions = []

    class Look(Callback):
        def on_step_start(self, trainer, step):
            if (tmp_path / "last.safetensors").exists():
                position = load(tmp_path).training["position"]
                positions.append((trainer.step, position["step"], position["epoch"], position["batch"]))

    t = trainer(Look(), Checkpoint(tmp_path, best=None, save_every=2, keep_last=2), batch_size=10)  # 4 batches per epoch
    t.fit(blobs(), epochs=2)
    assert positions == [(2, 2, 0, 2), (3, 2, 0, 2), (4, 4, 1, 0), (5, 4, 1, 0), (6, 6, 1, 2), (7, 6, 1, 2)]
    assert names(tmp_path) == ["last.safetensors", "step-00000006.safetensors", "step-00000008.safetensors"]
    assert load(tmp_path / "step-00000006.safetensors").training["position"]["step"] == 6


def test_an_earlier_run_in_the_folder_is_mentioned_before_it_is_replaced(tmp_path):
    trainer(Checkpoint(tmp_path, keep_last=3)).fit(blobs(), epochs=3)
    with pytest.warns(UserWarning, match=r"holds the checkpoints of an earlier run.*resume=True"):
        trainer(Checkpoint(tmp_path, keep_last=2), batch_size=20).fit(blobs(), epochs=2)
    assert names(tmp_path) == ["last.safetensors", "step-00000002.safetensors", "step-00000004.safetensors"]


def test_the_names_of_classes_and_model_are_kept(tmp_path):
    data = arrays(blobs().x, blobs().y, classes=["ash", "elm", "oak"])
    trainer(Checkpoint(tmp_path), model_name="mlp", model_options={"hidden": [8]}).fit(data)
    saved = load(tmp_path)
    assert (saved.name, saved.options, saved.classes) == ("mlp", {"hidden": [8]}, ("ash", "elm", "oak"))


@pytest.mark.parametrize("options", [{"save_every": 0}, {"keep_last": 0}, {"save_every": 2.5}, {"mode": "more"}])
def test_checkpoint_refuses(tmp_path, options):
    with pytest.raises(ValueRangeError, match=next(iter(options))):
        Checkpoint(tmp_path, **options)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    diary = Diary()
    with pytest.raises(CheckpointError, match=r"new cannot be written to \(.+\); give another folder"):
        trainer(diary, Checkpoint(tmp_path / "file" / "new")).fit(blobs(), epochs=1)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(CheckpointError, match=r"run cannot be written to \(it is read-only\)"):
        trainer(diary, Checkpoint(tmp_path / "run")).fit(blobs(), epochs=1)
    assert diary.entries == ["fit", "fit"]


def test_ctrl_c_names_the_checkpoint(tmp_path, capsys):
    class Press(Callback):
        def on_gradients(self, trainer, step):
            if trainer.step == 5:
                raise KeyboardInterrupt

    t = trainer(Press(), Checkpoint(tmp_path), progress=True)
    expected = r"interrupted in epoch 2, after 2 of 3 batches; .*last\.safetensors goes on from step 3: 2 batches since then"
    with pytest.raises(KeyboardInterrupt, match=expected) as stop:
        t.fit(blobs(), epochs=3)
    assert str(stop.value) in capsys.readouterr().out
    assert load(tmp_path).training["position"]["epoch"] == 1
    with pytest.raises(KeyboardInterrupt, match=r"no checkpoint was written \(callbacks=\[Checkpoint\(folder\)\]"):
        trainer(Press()).fit(blobs(), epochs=3)
    with pytest.raises(KeyboardInterrupt, match=r"no checkpoint was written yet \(save_every=N writes them within an epoch"):
        trainer(Press(), Checkpoint(tmp_path / "none"), batch_size=4).fit(blobs(), epochs=3)


def test_a_resumed_run_that_is_done_says_so(tmp_path, capsys):
    trainer(Checkpoint(tmp_path)).fit(blobs(), epochs=2)
    again = trainer(Checkpoint(tmp_path), progress=True)
    assert len(again.fit(blobs(), epochs=1, resume=True)) == 2
    assert "nothing to do: of 1 epochs in all, 2 are done" in capsys.readouterr().out


# ---- NaNStop


def stopped(t, data, epochs=1):
    """The message, after checking that neither parameters nor buffers nor the random state of the model were spoilt."""
    before = state(t.model)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError) as error:
        t.fit(data, epochs=epochs)
    assert same(state(t.model), before)
    assert all(p.grad is None for p in t.model.parameters())
    return str(error.value)


def test_a_bad_input_is_named():
    data = blobs()
    data.x[3, 1] = np.nan
    message = stopped(trainer(NaNStop(), batch_size=40), data)
    assert "the loss is nan in epoch 1, batch 1 (step 1); the optimiser has not used it" in message
    assert "the data: x (40, 4) of this batch has 1 value of 160 NaN or infinite, the first at (" in message


def test_a_bad_parameter_is_named():
    t = trainer(NaNStop())
    bias = t.model[2].bias.data.copy()
    bias[1] = np.inf
    t.model[2].bias.set(bias)
    expected = r"parameter '2\.bias' \(3,\) had 1 value of 3 NaN or infinite before"
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=expected):
        t.fit(blobs())


def test_the_operation_and_the_parameter_where_an_overflow_begins_are_named():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 3))
    net[2].weight.set(net[2].weight.data * np.float32(1e30))
    net[3].weight.set(np.full((3, 8), 2e30))
    message = stopped(trainer(NaNStop(), net=net), blobs())  # although batch norm had moved its running statistics
    assert "Where it began: 3.linear: output 0 (16, 3) has NaN or infinity; all inputs were finite" in message
    assert "Its parameters: 3.weight up to 2e+30, 3.bias up to 0." in message


class Root(nn.Module):
    """y = sqrt(w x), whose derivative at 0 is infinite."""

    def __init__(self):
        super().__init__()
        self.w = cl.Parameter(np.zeros(4, np.float32))

    def forward(self, x):
        return ops.sqrt(self.w * x)


def test_a_gradient_is_found_before_the_optimiser_uses_it():
    net = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 3))
    message = stopped(trainer(NaNStop(), net=net), blobs())
    assert "the gradient of " in message and "has NaN or infinity in epoch 1, batch 1" in message
    assert "Where it began: 1.sqrt: backward gave dx" in message and "it began here" in message


class Trap(nn.Module):
    """Makes an infinity in the one step in which dropout lets the marked element through."""

    def forward(self, x):
        return ops.exp(x * 60.0)


def test_the_batch_is_run_again_with_the_same_dropout():
    x = np.zeros((64, 1), np.float32)
    x[5] = 1.0
    for seed in range(6):
        cl.manual_seed(seed)
        net = nn.Sequential(nn.Dropout(0.5), Trap(), nn.Linear(1, 2))
        t = trainer(NaNStop(), net=net, batch_size=64, lr=0.0)
        after = []

        class Note(Callback):
            def on_loss(self, trainer, step, after=after):
                after[:] = [cl.random.get_state()]

        t.callbacks.insert(0, Note())
        message = stopped(t, arrays(x, np.zeros(64, int)), epochs=40)
        assert "1.exp: output 0 (64, 1) has NaN or infinity; all inputs were finite: it began here" in message
        assert cl.random.get_state() == after[0]


def test_a_healthy_run_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched, plain = trainer(NaNStop()), trainer()
        watched.fit(blobs(), epochs=2)
        plain.fit(blobs(), epochs=2)
    assert same(state(watched.model), state(plain.model))


def test_without_gradients_only_the_loss_is_watched():
    net = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 3))
    expected = r"the loss is nan in epoch 1, batch 2.*\n.*an earlier step made it"
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=expected):
        trainer(NaNStop(gradients=False), net=net).fit(blobs())
