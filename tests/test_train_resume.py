"""Resuming: equal to the last bit, nothing twice, and refusals that leave everything as it was."""

import copy
import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.data import Compose, DataLoader, GaussianNoise, RandomFlip, arrays
from cnnlib.errors import CheckpointError, ValueRangeError
from cnnlib.train import Callback, Checkpoint, EarlyStopping, LRSchedule, Trainer, checkpoint, load

EPOCHS = 4


class Halt(Exception):
    pass


class StopAt(Callback):
    """An exception in the middle of things, at a given event and step: the process lives on, its memory is discarded."""

    def __init__(self, event, step):
        setattr(self, event, lambda trainer, *_: self._halt(trainer, step))

    def _halt(self, trainer, step):
        if trainer.step == step:
            raise Halt


def data(n=23):
    rng = np.random.default_rng(0)
    return arrays(rng.random((n, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, n), classes=["ash", "elm", "oak"])


def run(folder, optimizer="SGD", extra=(), net=None, seed=4, batch_size=5, transform=True, schedule=True):
    """A trainer with everything on that has a state. 23 samples are 5 batches of 5, the last of 3."""
    cl.manual_seed(7)
    net = net or nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, 3)
    )
    make = {
        "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
        "Adam": lambda p: optim.Adam(p, lr=0.01),
        "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    }[optimizer]
    opt = make(net.parameters())
    callbacks = [
        EarlyStopping(patience=50, restore_best=True),
        *([LRSchedule(optim.CosineAnnealingLR(opt, 30), per="step")] if schedule else []),
        Checkpoint(folder, save_every=3),
        *extra,
    ]
    augment = Compose([RandomFlip(), GaussianNoise(0.1)]) if transform else None
    return Trainer(net, nn.CrossEntropyLoss(), opt, callbacks=callbacks, batch_size=batch_size, transform=augment, seed=seed,
                   clip_grad_norm=5.0, progress=False)  # fmt: skip


def without_seconds(tree):
    if isinstance(tree, dict):
        return {key: without_seconds(value) for key, value in tree.items() if key != "seconds"}
    return [without_seconds(value) for value in tree] if isinstance(tree, list) else tree


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


def everything(folder, name="last"):
    saved = load(folder / f"{name}.safetensors")
    return without_seconds({"model": saved.model, "optimizer": saved.optimizer, "training": saved.training})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folders = {}

    def folder(optimizer):
        if optimizer not in folders:
            folders[optimizer] = tmp_path_factory.mktemp(optimizer)
            run(folders[optimizer], optimizer).fit(data(), data(9), epochs=EPOCHS)
        return folders[optimizer]

    return folder


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("stops", [
    [("on_step", 1)], [("on_gradients", 3)], [("on_step", 4)], [("on_epoch_end", 5)], [("on_epoch_start", 5)], [("on_loss", 6)],
    [("on_step", 19), ("on_step", 20)], [("on_step_start", 2), ("on_gradients", 7), ("on_epoch_end", 10), ("on_step", 16)],
])  # fmt: skip
def test_an_interrupted_run_ends_as_the_uninterrupted_one(tmp_path, uninterrupted, optimizer, stops):
    for event, step in stops:
        with pytest.raises(Halt):
            run(tmp_path, optimizer, [StopAt(event, step)]).fit(data(), data(9), epochs=EPOCHS, resume=True)
    t = run(tmp_path, optimizer)
    history = t.fit(data(), data(9), epochs=EPOCHS, resume=True)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for name in ("last", "best"):
        assert equal(everything(tmp_path, name), everything(uninterrupted(optimizer), name))


def test_the_averages_of_the_epoch_go_on_where_they_were(tmp_path, uninterrupted):
    with pytest.raises(Halt):
        run(tmp_path, extra=[StopAt("on_step", 4)]).fit(data(), data(9), epochs=1)
    t = run(tmp_path)
    running = []

    class Look(Callback):
        def on_fit_start(self, trainer):
            running.append((trainer.batch, trainer.running["loss"].count, trainer.seconds))

    t.callbacks.insert(0, Look())
    seconds = load(tmp_path).training["position"]["seconds"]
    row = t.fit(data(), data(9), epochs=1, resume=True)[0]
    assert running == [(3, 15, seconds)] and seconds > 0
    assert row["loss"] == load(uninterrupted("SGD")).training["history"][0]["loss"]


def test_a_finished_run_is_left_as_it_is(tmp_path, uninterrupted):
    t = run(tmp_path)
    history = t.fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))
    assert len(history) == EPOCHS and t.step == 20
    assert len(t.fit(data(), data(9), epochs=EPOCHS + 1, resume=uninterrupted("SGD"))) == EPOCHS + 1


def test_from_a_given_file(tmp_path, uninterrupted):
    best = uninterrupted("SGD") / "best.safetensors"
    epoch = load(best).training["position"]["epoch"]
    run(tmp_path).fit(data(), data(9), epochs=EPOCHS, resume=best)
    if epoch < EPOCHS:
        assert equal(everything(tmp_path), everything(uninterrupted("SGD")))


def test_early_stopping_stays_stopped(tmp_path):
    def stopping(**options):
        cl.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        callbacks = [EarlyStopping("loss", min_delta=100.0, **options), Checkpoint(tmp_path)]
        return Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), callbacks=callbacks, progress=False)

    assert len(stopping(patience=2).fit(data(), epochs=9)) == 3
    assert len(stopping(patience=2).fit(data(), epochs=9, resume=True)) == 3
    assert len(stopping(patience=4).fit(data(), epochs=9, resume=True)) == 5


@pytest.mark.parametrize("after", [2, 3, 4])
def test_the_best_so_far_is_remembered(tmp_path, after):
    values = [3.0, 1.0, 2.0, 2.0]

    def scripted_loss(outputs, labels):
        return values[trainers[-1].epoch] if not trainers[-1].model.training else 0.0

    def scripted():
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        monitor = "validation_scripted_loss"
        callbacks = [EarlyStopping(monitor, patience=9, restore_best=True), Checkpoint(tmp_path, best=monitor)]
        trainers.append(Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1), [scripted_loss], callbacks,
                                progress=False))  # fmt: skip
        return trainers[-1]

    trainers = []
    scripted().fit(data(), data(), epochs=after)
    t = scripted()
    t.fit(data(), data(), epochs=4, resume=True)
    best = load(tmp_path / "best.safetensors")
    assert best.training["position"]["epoch"] == 2
    assert equal(t.model.state_dict(), best.model) and not equal(load(tmp_path).model, best.model)


def test_resume_true_starts_when_there_is_nothing_yet(tmp_path):
    assert len(run(tmp_path / "new").fit(data(), data(9), epochs=1, resume=True)) == 1
    t = run(tmp_path)
    t.callbacks = []
    with pytest.raises(ValueRangeError, match=r"resume=True needs a Checkpoint\(folder\)"):
        t.fit(data(), epochs=1, resume=True)
    with pytest.raises(CheckpointError, match="nowhere: there is no such checkpoint"):
        t.fit(data(), epochs=1, resume=tmp_path / "nowhere")


# ---- refusals


def snapshot(t):
    parts = {type(c).__name__: c.state_dict() for c in t.callbacks}
    state = {"model": t.model.state_dict(), "optimizer": t.optimizer.state_dict(), "callbacks": parts,
             "history": list(t.history), "random": cl.random.get_state(), "position": [t.epoch, t.batch, t.step]}  # fmt: skip
    return copy.deepcopy(state)


def refused(t, path, match, train=None):
    before = snapshot(t)
    with pytest.raises(CheckpointError, match=match) as error:
        t.fit(train or data(), data(9), epochs=EPOCHS, resume=path)
    assert equal(snapshot(t), before)
    return str(error.value)


def test_another_model_is_refused_with_the_differences(tmp_path, uninterrupted):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 3))
    message = refused(run(tmp_path, net=net), uninterrupted("SGD"), "of another model")
    assert "0.weight has shape (3, 1, 3, 3), the model expects (4, 1, 3, 3)" in message
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    message = refused(run(tmp_path, net=net), uninterrupted("SGD"), "of another model")
    assert "unexpected: 0.bias, 0.weight, 1.num_batches_tracked" in message
    assert "1.weight has shape (3,), the model expects (3, 36)" in message


def test_another_optimiser_is_refused(tmp_path, uninterrupted):
    refused(run(tmp_path, "Adam"), uninterrupted("SGD"), "was trained with SGD, now the optimiser is Adam")


def test_a_failure_half_way_undoes_the_rest(tmp_path, uninterrupted):
    t = run(tmp_path)
    t.fit(data(), data(9), epochs=1)

    load_state_dict, calls = t.optimizer.load_state_dict, []

    def fail_once(state):  # the optimiser comes last
        calls.append(state)
        if len(calls) == 1:
            raise KeyError("velocity")
        load_state_dict(state)

    t.optimizer.load_state_dict = fail_once
    refused(t, uninterrupted("SGD"), "does not fit SGD as it is set up now: 'velocity'")
    assert len(calls) == 2


def test_other_classes_are_refused(tmp_path, uninterrupted):
    other = arrays(data().x, data().y, classes=["ash", "oak", "elm"])
    refused(run(tmp_path), uninterrupted("SGD"), "was trained on classes ash, elm, oak; these data have ash, oak, elm", other)


def test_a_model_without_training_is_refused(tmp_path):
    t = run(tmp_path)
    checkpoint.save(tmp_path / "only", t.model)
    refused(t, tmp_path / "only", "holds a model but no training to resume")


def test_a_damaged_checkpoint_is_refused(tmp_path, uninterrupted):
    content = (uninterrupted("SGD") / "last.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    refused(run(tmp_path), tmp_path / "half", "half: cannot be read: it is truncated")


def test_other_batches_are_refused_within_an_epoch_and_reported_at_its_end(tmp_path, uninterrupted):
    with pytest.raises(Halt):
        run(tmp_path, extra=[StopAt("on_step", 4)]).fit(data(), data(9), epochs=1)
    for options, match in (
        ({"batch_size": 6}, "within an epoch.*batch_size was 5, now 6"),
        ({"seed": 5}, "seed was 4, now 5"),
        ({"transform": False}, r"transform was Compose.*, now None"),
    ):
        refused(run(tmp_path, **options), tmp_path, match)
    refused(run(tmp_path), tmp_path, "samples was 23, now 22", arrays(data(22).x, data(22).y, data().classes))
    in_order = DataLoader(data(), 5, shuffle=False, seed=4)
    refused(run(tmp_path, transform=False), tmp_path, "shuffle was True, now False", in_order)
    with pytest.warns(UserWarning, match="batch_size was 5, now 6: the run will differ"):
        run(tmp_path, batch_size=6).fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))


def test_other_callbacks_are_reported(tmp_path, uninterrupted):
    with pytest.warns(UserWarning, match="LRSchedule took part then and is missing now"):
        run(tmp_path, schedule=False).fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))
    with pytest.warns(UserWarning, match="EarlyStopping 2 is new and starts afresh"):
        run(tmp_path, extra=[EarlyStopping("loss")]).fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))


def test_another_backend_or_precision_is_reported(tmp_path, uninterrupted, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path).fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))
    now = checkpoint.environment(run(tmp_path).model)
    monkeypatch.setattr(checkpoint, "environment", lambda model: {**now, "backend": "other", "instruction set": "avx9"})
    with pytest.warns(UserWarning, match=r"backend was \w+, now other; instruction set was \w+, now avx9: .* not be equal"):
        run(tmp_path).fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))
    monkeypatch.undo()
    t = run(tmp_path)
    t.model.to("float64")
    with pytest.warns(UserWarning, match="dtype was float32, now float64"):
        t.fit(data(), data(9), epochs=EPOCHS, resume=uninterrupted("SGD"))
