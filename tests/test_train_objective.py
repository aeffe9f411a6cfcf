"""Training of models with an objective of their own: what is minimised and measured, whose turn it is, what survives a stop."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.errors import DtypeError, NonFiniteError, ShapeError
from cnnlib.models.objective import ObjectiveModel
from cnnlib.tensor import Parameter, Tensor
from cnnlib.train import AdversarialTrainer, Callback, Checkpoint, NaNStop, ObjectiveTrainer

X = np.random.default_rng(0).normal(3.0, 1.0, (40, 2)).astype(np.float32)


class Centre(ObjectiveModel):
    """Σ (x − c)²: least at the mean of the data, where it is their variance."""

    measures = ("distance",)

    def __init__(self):
        super().__init__()
        self.centre = Parameter(np.zeros(2, np.float32))

    def objective(self, x, y):
        loss = ops.mean(ops.sum((x - self.centre) ** 2, axis=1))
        return loss, {"distance": loss.item() ** 0.5}

    def concern(self, row):
        return "it is far away: wait." if row["distance"] > 2 else None


class Duel(ObjectiveModel):
    """Two players on f = a b: the one makes it small, the other large."""

    measures = ("a", "b")

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.one.weight.set([[1.0]])
        self.other.weight.set([[2.0]])
        self.done = []

    def turns(self, step):
        return ("one", "other")

    def objective(self, x, y, player):
        f = ops.sum(self.one.weight * self.other.weight)
        return (f, {"a": self.one.weight.item()}) if player == "one" else (-f, {"b": self.other.weight.item()})

    def after_turn(self, player):
        self.done.append(player)


def trainer_of(model, *callbacks, kind=ObjectiveTrainer, lr=0.1, **options):
    return kind(model, optim.SGD(model.parameters(), lr=lr), callbacks, progress=False, **options)


def test_the_objective_is_minimised_and_its_measures_are_columns():
    model = Centre()
    with pytest.warns(UserWarning, match="after epoch 1: it is far away: wait."):
        history = trainer_of(model, batch_size=40).fit((X, X), (X, X), epochs=30)
    np.testing.assert_allclose(model.centre.numpy(), X.mean(axis=0), rtol=1e-2)
    assert history[-1]["validation_loss"] == pytest.approx(X.var(axis=0).sum(), rel=1e-2)
    assert history[-1]["validation_distance"] == pytest.approx(history[-1]["validation_loss"] ** 0.5, rel=1e-5)
    assert history.columns() == ["epoch", "loss", "distance", "validation_loss", "validation_distance", "lr", "seconds"]


def test_what_is_measured_is_the_mean_over_samples_not_batches():
    model = Centre()
    uneven = trainer_of(model, lr=0.0, batch_size=32).evaluate((X, X))
    whole = trainer_of(model, lr=0.0, batch_size=40).evaluate((X, X))
    assert uneven["loss"] == pytest.approx(whole["loss"], rel=1e-6)


@pytest.mark.filterwarnings("ignore:after epoch")
def test_a_resumed_run_ends_as_the_whole_one(tmp_path):
    whole, parts = Centre(), Centre()
    trainer_of(whole, batch_size=7).fit((X, X), epochs=3)
    trainer_of(parts, Checkpoint(tmp_path), batch_size=7).fit((X, X), epochs=1)
    again = Centre()
    trainer_of(again, Checkpoint(tmp_path), batch_size=7).fit((X, X), epochs=3, resume=True)
    assert np.array_equal(again.centre.numpy(), whole.centre.numpy()) and not np.array_equal(parts.centre, whole.centre)


def test_players_take_turns_and_move_only_their_own_parameters():
    model = Duel()
    trainer = trainer_of(model, kind=AdversarialTrainer, batch_size=40)
    history = trainer.fit((X, X), epochs=1)
    a = 1.0 - 0.1 * 2.0  # ∂f/∂a = b
    b = 2.0 + 0.1 * a  # the other one answers the new a
    assert model.one.weight.item() == pytest.approx(a) and model.other.weight.item() == pytest.approx(b)
    assert model.done == ["one", "other"] and trainer.step == 1 and trainer.player is None
    assert history[0]["loss"] == pytest.approx(2.0) and history[0]["a"] == 1.0 and history[0]["b"] == 2.0


@pytest.mark.filterwarnings("ignore:invalid value encountered in log")
def test_nanstop_names_the_module_of_the_player_that_broke():
    class Broken(Duel):
        def objective(self, x, y, player):
            if player == "one":
                return super().objective(x, y, player)
            return ops.sum(ops.log(self.other(x[:, :1]) * 0.0 - 1.0)), {"b": 0.0}

    with pytest.raises(NonFiniteError, match="log"):
        trainer_of(Broken(), NaNStop(), kind=AdversarialTrainer).fit((X, X), epochs=1)


def test_paths_begin_at_the_model_whose_objective_runs():
    model = Duel()
    with cl.trace() as t, model.inside():
        model.one(Tensor(X[:, :1]))
    assert [entry.name for entry in t] == ["one.linear"]


def test_models_that_do_not_fit():
    with pytest.raises(DtypeError, match=r"ObjectiveTrainer: Linear has no objective\(x, y\)"):
        trainer_of(nn.Linear(2, 2))

    class Many(Centre):
        def objective(self, x, y):
            return x - self.centre, {}

    with pytest.raises(ShapeError, match=r"Many.objective: the loss must be a Tensor of one number.*got \(40, 2\)"):
        trainer_of(Many(), batch_size=40).fit((X, X), epochs=1)
    with pytest.raises(NotImplementedError, match="ObjectiveModel needs a method objective"):
        ObjectiveModel().objective(None, None)


GENERATIVE = {
    "vae": {"conditional": True},
    "conv_vae": {"likelihood": "gaussian", "hidden": (4, 8)},
    "gan": {"noise": 0.1, "pack": 2, "loss": "wasserstein"},
    "dcgan": {"hidden": (4,), "smoothing": 0.1},
}


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_training_step_leaves_no_float64_on_the_tape(name):
    net = cl.models.create(name, input_shape=(1, 8, 8), latents=3, **GENERATIVE[name])
    x, y = Tensor(np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)), np.array([0, 3, 9, 3])
    players = [(player,) for player in net.turns(0)] if hasattr(net, "turns") else [()]
    for player in players:
        with cl.trace() as t, net.inside():
            net.objective(x, y, *player)[0].backward()
        for entry in t:
            arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
            assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name


PIXELS = np.random.default_rng(1).random((20, 4)).astype(np.float32)
SYSTEMS = {
    "vae": {"latents": 2, "hidden": (6,)},
    "gan": {"latents": 2, "hidden": (6,), "noise": 0.1, "discriminator_steps": 2},
    "rbm": {"hidden": 3, "chains": 5},
    "deep_belief_net": {"sizes": (3, 2), "chains": 5, "epochs_per_layer": 1},
    "deep_autoencoder": {"sizes": (3, 2), "epochs_per_layer": 1},
    "stacked_autoencoder": {"sizes": (3, 2), "num_classes": 2, "epochs_per_layer": 1},
    "denoising_autoencoder": {"sizes": (3,), "noise": "gaussian"},
    "bayes_by_backprop": {"hidden": (3,), "data_size": 20},
    "mc_dropout": {"hidden": (3,), "data_size": 20, "p": 0.3},
    "sgld": {"hidden": (3,), "data_size": 20, "keep": 4, "every": 2},
}


class StopAt(Callback):
    def __init__(self, step):
        self.at = step

    def on_step(self, trainer, step):
        if trainer.step == self.at:
            trainer.stop("enough")


@pytest.mark.filterwarnings("ignore:after epoch")
@pytest.mark.parametrize("stop", [8, 10])  # at the end of an epoch of four steps, where stages change, and within one
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_goes_on_to_the_same_bits(name, stop, tmp_path):
    """Though evaluation draws from the same stream: noise, chains and stages are all in the checkpoint."""
    y = np.arange(20) % 2 if name in ("vae", "stacked_autoencoder") else PIXELS[:, :1]

    def run(*callbacks, resume=None):
        cl.manual_seed(0)
        net = cl.models.create(name, input_shape=(4,), **SYSTEMS[name])
        optimizer = net.optimizer(1e-3) if name == "sgld" else optim.Adam(net.parameters(), lr=1e-2)
        kind = AdversarialTrainer if name == "gan" else ObjectiveTrainer
        trainer = kind(net, optimizer, callbacks, batch_size=5, progress=False)
        trainer.fit((PIXELS, y), (PIXELS[:7], y[:7]), epochs=4, resume=resume)
        rows = [{column: value for column, value in row.items() if "second" not in column} for row in trainer.history]
        return net.state_dict(), rows

    whole, rows = run()
    run(StopAt(stop), Checkpoint(tmp_path, save_every=1))
    parts, again = run(Checkpoint(tmp_path), resume=tmp_path)
    assert rows == again and len(rows) == 4
    assert all(np.array_equal(value, parts[key]) for key, value in whole.items())
