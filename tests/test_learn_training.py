"""A learner's function at work: in a real network, and against the clock."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest

import cnnlib
from cnnlib.errors import DeviceError, LearnerError, UnknownNameError, ValueRangeError
from cnnlib.learn import fast as fast_module
from cnnlib.learn import process, training
from cnnlib.learn.exercise import exercises, find, reference, solution_text
from cnnlib.learn.fast import fast, measure, next_step, timed_function
from cnnlib.learn.loops import LOOPS, Loop
from cnnlib.learn.networks import NETWORKS, network
from cnnlib.learn.training import Training, fitted, train

TRAINED = [e for e in exercises() if e.train]
TIMED = [e for e in exercises() if e.fast]


def losses(name, kernels, steps=3, batch=4):
    run = Training(name, batch, kernels)
    return [run.step() for _ in range(steps)], run


def replacements(exercise):
    functions = tuple(reference(exercise).values())
    return dict(exercise.train.kernels(functions if len(functions) > 1 else functions[0]))


@pytest.mark.parametrize("exercise", TRAINED, ids=lambda e: e.name)
def test_a_right_function_gives_the_librarys_own_curve_and_is_really_used(exercise):
    called = set()

    def noted(name, function):
        return lambda *args: (called.add(name), function(*args))[1]

    kernels = replacements(exercise)
    yours, _ = losses(exercise.train.model, {n: noted(n, f) for n, f in kernels.items()})
    library, _ = losses(exercise.train.model, dict.fromkeys(kernels))
    assert called == set(kernels)
    assert yours == pytest.approx(library, rel=1e-4)


def moved(value):
    """Every float one place further on."""
    if isinstance(value, tuple | list):
        return tuple(map(moved, value))
    array = np.asarray(value)
    return np.roll(array, 1) if array.dtype.kind == "f" and array.ndim else value


@pytest.mark.parametrize("exercise", TRAINED, ids=lambda e: e.name)
def test_wrong_numbers_give_another_curve(exercise):
    functions = tuple(lambda *args, f=f: moved(f(*args)) for f in reference(exercise).values())
    kernels = dict(exercise.train.kernels(functions if len(functions) > 1 else functions[0]))
    yours, _ = losses(exercise.train.model, kernels, batch=8)
    library, _ = losses(exercise.train.model, dict.fromkeys(kernels), batch=8)
    assert yours != pytest.approx(library, rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_something_in_a_few_steps(name):
    run = Training(name, 32, {})
    values = [run.step() for _ in range(60)]
    assert np.mean(values[-10:]) < 0.95 * np.mean(values[:10])


LOOPED = [e for e in exercises() if e.name in LOOPS]


@pytest.mark.parametrize("exercise", LOOPED, ids=lambda e: e.name)
def test_every_loop_learns_and_uses_what_it_is_given(exercise):
    def values(steps):
        cnnlib.manual_seed(0)
        called = set()

        def noted(name, function):
            return lambda *args: (called.add(name), function(*args))[1]

        functions = [noted(name, function) for name, function in reference(exercise).items()]
        found = [float(v) for v in itertools.islice(LOOPS[exercise.name].run(*functions), steps)]
        assert called
        return found

    steps = LOOPS[exercise.name].steps
    first = values(steps)
    assert np.isfinite(first).all() and first[:5] == values(5)
    assert np.mean(first[-steps // 4 :]) < 0.9 * np.mean(first[: steps // 8 + 1])


def test_names_of_loops_are_names_of_exercises():
    if len(exercises()) >= 38:
        assert {e.name for e in LOOPED} == set(LOOPS)


@pytest.mark.parametrize("exercise", LOOPED[:1], ids=lambda e: e.name)
def test_a_loop_gives_the_same_curve_with_a_right_function(exercise, tmp_path):
    plan, *steps, result = train(exercise, file_with(tmp_path, exercise))
    yours, library = ([e["value"] for e in steps if e["who"] == who] for who in ("yours", "library"))
    assert yours == library and len(yours) == plan["steps"] and plan["measured"] == LOOPS[exercise.name].measured
    assert result["accuracy"] == {} and result["milliseconds"].keys() == {"yours", "reference"}


def test_a_slow_function_makes_fewer_turns_in_a_loop(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])

    def run(function):
        while True:
            clock[0] += 5.0
            yield 1.0

    watch = training.StopWatch([len])
    assert training._steps_of(Loop("", "loss", 200, run), watch, budget=30.0) == 6
    assert training._steps_of(Loop("", "loss", 4, run), watch, budget=30.0) == 4
    assert training._steps_of(Loop("", "loss", 200, run), watch, budget=1.0) == training.FEWEST_STEPS


def test_a_wrong_function_gives_another_curve():
    right, _ = losses("mlp", {"tanh_backward": None})
    wrong, _ = losses("mlp", {"tanh_backward": lambda dy, y: dy})
    assert right[0] == pytest.approx(wrong[0]) and right[2] != pytest.approx(wrong[2], rel=1e-3)


def test_the_clock_counts_the_replaced_kernels_only():
    _, run = losses("mlp", {})
    assert run.milliseconds == 0.0
    _, run = losses("mlp", {"tanh_backward": None})
    assert run.milliseconds > 0.0


def test_accuracy_is_of_data_that_was_not_trained_on():
    net = network("mlp")
    assert net.accuracy() < 0.5
    assert not {row.tobytes() for row in net.x} & {row.tobytes() for row in net.x_test}


def test_an_unknown_network_is_refused():
    with pytest.raises(UnknownNameError, match="unknown network of cnnlib learn 'lenet': did you mean 'lenet5'"):
        network("lenet")


def test_what_a_function_returns_is_made_to_fit():
    args = (np.zeros(2, np.float32), 3)
    turned = np.zeros((2, 3)).T
    y, count, nothing = fitted((turned, np.arange(2), None), args)
    assert y.dtype == np.float32 and y.flags.c_contiguous and y.shape == (3, 2)
    assert count.dtype.kind == "i" and nothing is None
    assert fitted(np.float64(2.0), args).shape == () and fitted([[1.0]], args).dtype == np.float32


@pytest.mark.parametrize(
    "per_sample, expected",
    [(1e-5, (32, 200)), (30 / 3200, (32, 100)), (0.1, (1, 200)), (1.0, (1, 30)), (1000.0, (1, training.FEWEST_STEPS))],
)
def test_slow_functions_get_small_batches_and_few_steps(monkeypatch, per_sample, expected):
    monkeypatch.setattr(training, "_seconds", lambda name, batch, kernels: per_sample * batch)
    assert training._plan("mlp", {}, 30.0) == expected


# ---- in a process of its own


@pytest.fixture
def exercise(monkeypatch):
    """The first that can be trained."""
    return TRAINED[0]


def file_with(tmp_path, exercise, code=""):
    path = tmp_path / f"{exercise.number:02d} größe.py"
    path.write_text(solution_text(exercise) + "\n" + code, encoding="utf-8")
    return path


def test_a_training_says_what_it_plans_does_and_found(exercise, tmp_path):
    noise = "print('{\"event\": \"result\"}', flush=True)\nimport os; os.write(1, b'noise')\n"
    (tmp_path / "numpy.py").write_text("raise SystemExit")  # a learner's file of that name is not ours
    happened = list(train(exercise, file_with(tmp_path, exercise, noise), budget=0.2))
    plan, *steps, result = happened
    assert plan["event"] == "plan" and all(name in plan["what"] for name in replacements(exercise))
    for who in ("yours", "library"):
        mine = [e for e in steps if e["who"] == who]
        assert [e["step"] for e in mine] == list(range(plan["steps"])) and all(math.isfinite(e["value"]) for e in mine)
    assert result["accuracy"].keys() == {"yours", "library"}
    assert {"yours", "reference"} <= result["milliseconds"].keys() and min(result["milliseconds"].values()) > 0


def test_the_mark_that_some_editors_put_in_front_does_no_harm(exercise, tmp_path):
    path = file_with(tmp_path, exercise)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(process.learners_functions(exercise, path)) == len(exercise.function_names)


FAILURES = {
    "raises": ("raise ValueError('no\\nway')", r"ValueError: no way, in line \d+ of \d\d größe\.py"),
    "leaves": ("raise SystemExit(0)", "SystemExit: 0, in line"),
    "ends": ("import os; os._exit(7)", "ended by itself, with exit code 7"),
    "hangs": ("while True: pass", "was not done after 1 s: it was stopped"),
}


@pytest.mark.parametrize("code, message", FAILURES.values(), ids=FAILURES)
def test_a_function_that_fails_at_work_is_a_message(exercise, tmp_path, monkeypatch, code, message):
    monkeypatch.setattr(training, "OVERHEAD", 1.0 if "while" in code else 60.0)
    with pytest.raises(LearnerError, match=message):
        list(train(exercise, file_with(tmp_path, exercise, code), budget=0.2 if "while" not in code else 0.0))


def test_leaving_the_loop_ends_the_process(exercise, tmp_path, monkeypatch):
    started = []
    popen = process.subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])
    happening = train(exercise, file_with(tmp_path, exercise), budget=5.0)
    next(happening)
    happening.close()
    assert started[0].poll() is not None


def test_an_exercise_without_a_network_is_refused(tmp_path):
    without = dataclasses.replace(find(8), train=None, name="xor_mlp")
    with pytest.raises(ValueRangeError, match=r"exercise 8, xor_mlp, has nothing to train; those that have: "):
        train(without, tmp_path)


# ---- now make it fast


def test_where_there_is_no_kernel_the_textbook_is_what_counts():
    clipping = find("gradient_clipping")
    assert "there is no kernel to beat" in next_step(clipping, {"yours": 1.0, "textbook": 1.0})
    assert "Loops over samples" in next_step(clipping, {"yours": 100.0, "textbook": 1.0})


@pytest.mark.parametrize("exercise", TIMED, ids=lambda e: e.name)
def test_what_is_timed_can_be_called_with_what_it_is_given(exercise):
    args = fast_module._float32(exercise.fast.arguments(np.random.default_rng(0)))
    assert not [a for a in args if isinstance(a, np.ndarray) and a.dtype == np.float64]
    assert reference(exercise)[timed_function(exercise, args)](*args) is not None
    fast_module._kernels(exercise.fast, "reference", args)()


def test_arguments_that_no_function_takes_are_refused():
    with pytest.raises(ValueRangeError, match="none of its functions takes the 9 arguments"):
        timed_function(find(8), (0,) * 9)


def test_contenders_take_turns_and_the_median_counts_without_the_first(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(fast_module.time, "perf_counter", lambda: clock[0])
    durations = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([1.0, 1.0, 1.0, 1.0])}

    def contender(name):
        def call():
            calls.append(name)
            clock[0] += next(durations[name])

        return call

    assert measure({n: contender(n) for n in "ab"}, rounds=3, share=100.0) == {"a": 2.0, "b": 1.0}
    assert "".join(calls) == "abababab"


def test_what_takes_longer_than_its_share_is_measured_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(fast_module.time, "perf_counter", lambda: clock[0])
    calls = []

    def slow():
        calls.append(1)
        clock[0] += 7.0

    assert measure({"yours": slow}, rounds=5, share=4.0) == {"yours": 7.0} and len(calls) == 1


def test_the_next_step_follows_from_the_ratios():
    exercise = find(8)
    advice = [
        next_step(exercise, {"yours": y, "textbook": 1.0, "cpu": c})
        for y, c in ((100.0, 0.1), (5.0, 0.1), (1.0, 0.1), (0.05, 0.1))
    ]
    for words, text in zip(
        ("Loops over samples", "Most loops are gone", "10.0 times faster", "faster than the cpu kernel"), advice
    ):
        assert words in text
    assert "no compiled backend runs here" in next_step(exercise, {"yours": 1.0, "textbook": 1.0})


BUILT = [
    ({"yours, built": 0.5, "cpu": 0.1}, "2 times faster than before. The library's kernel is 5.0 times faster still"),
    ({"yours, built": 0.1, "cpu": 0.5}, "10 times faster than before.$"),
    ({"cpu": 0.1}, "What is missing to build it stands above"),
]


@pytest.mark.parametrize("others, words", BUILT)
def test_what_is_built_is_compared_with_what_it_was(others, words):
    fast = fast_module.Fast(lambda rng: (), "max_pool2d_forward", build=lambda text: ("yours, built", len))
    exercise = dataclasses.replace(find(8), fast=fast)
    assert re.search(words, next_step(exercise, {"yours": 1.0, "textbook": 0.7, **others}))


def built(text):
    return "yours, built", lambda x, *geometry: x


def not_built(text):
    raise DeviceError("there is no compiler here.")


@pytest.mark.parametrize(
    "build, names, notes", [(built, ["yours, built"], []), (not_built, [], ["there is no compiler here."])]
)
def test_what_cannot_be_built_is_noted_and_the_rest_is_timed(tmp_path, monkeypatch, build, names, notes):
    (tmp_path / "x.py").write_text("def softmax_cross_entropy(x, *geometry): return x")
    case = (np.ones((1, 1, 4, 4)), (2, 2), (2, 2), (0, 0, 0, 0))
    exercise = dataclasses.replace(find(8), fast=fast_module.Fast(lambda rng: case, "max_pool2d_forward", build=build))
    monkeypatch.setattr(fast_module, "find", lambda name: exercise)
    monkeypatch.setattr(fast_module, "timed_function", lambda exercise, args: exercise.function_names[0])
    monkeypatch.setattr(fast_module, "reference", lambda exercise: {exercise.function_names[0]: lambda *args: None})
    sent = []
    fast_module.work({"exercise": "x", "path": str(tmp_path / "x.py")}, sent.append)
    assert sent[0]["notes"] == notes and [n for n in sent[0]["seconds"] if n.startswith("yours,")] == names
    assert {"yours", "textbook"} <= sent[0]["seconds"].keys()


@pytest.mark.parametrize("exercise", TIMED[:1], ids=lambda e: e.name)
def test_fast_times_the_learners_function_the_textbook_and_the_backends(exercise, tmp_path, monkeypatch):
    seconds = fast(exercise, file_with(tmp_path, exercise)).seconds
    assert {"yours", "textbook"} <= seconds.keys() and min(seconds.values()) > 0
    with pytest.raises(LearnerError, match="ZeroDivisionError"):
        fast(exercise, file_with(tmp_path, exercise, "1 / 0"))


@pytest.mark.parametrize("exercise", TIMED[:1], ids=lambda e: e.name)
def test_what_takes_for_ever_is_stopped_and_told_why(exercise, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_module, "LIMIT", 1.0)
    with pytest.raises(
        LearnerError, match=r"benchmark size your function was not done after 1 s: .* Keep only the short loops"
    ):
        fast(exercise, file_with(tmp_path, exercise, "while True: pass"))


def test_an_exercise_that_is_not_timed_is_refused(tmp_path):
    with pytest.raises(ValueRangeError, match="is not timed; those that are:"):
        fast(dataclasses.replace(find(8), fast=None), tmp_path)
