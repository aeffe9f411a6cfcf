"""Module and containers: names, the state, modes, hooks; initial weights."""

import copy

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Parameter, Tensor, nn
from cnnlib.errors import CheckpointError, CnnlibError, DtypeError, ValueRangeError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.heads = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2, bias=False)])
        self.scale = Parameter(np.ones(2, np.float32))
        self.note = "not a parameter"

    def forward(self, x):
        h = self.features(x)
        return sum(head(h) for head in self.heads) * self.scale


NAMES = [
    "scale",
    "features.0.weight",
    "features.0.bias",
    "features.1.weight",
    "features.1.bias",
    "heads.0.weight",
    "heads.0.bias",
    "heads.1.weight",
]
BUFFERS = ["features.1.running_mean", "features.1.running_var", "features.1.num_batches_tracked"]


@pytest.fixture
def net():
    cl.manual_seed(0)
    return Net()


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


# ---- names


def test_parameters_and_buffers_are_named_by_path_in_a_stable_order(net):
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == BUFFERS
    assert list(net.state_dict()) == NAMES + BUFFERS


def test_a_parameter_knows_its_path_without_anyone_asking_for_it(net):
    (net(ones(5, 4)) ** 2).sum().backward()
    assert net.features[0].weight.name == "features.0.weight"


def test_looking_at_a_part_does_not_rename_the_parameters_of_the_whole(net):
    net(ones(5, 4))
    list(net.features.parameters())
    assert net.features[0].weight.name == "features.0.weight"


def test_named_modules_come_each_once_with_the_module_itself_first(net):
    assert [name for name, _ in net.named_modules()] == [
        "",
        "features",
        "features.0",
        "features.1",
        "heads",
        "heads.0",
        "heads.1",
    ]
    assert list(net.children()) == [net.features, net.heads]


def test_a_shared_parameter_is_counted_once():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert [name for name, _ in tied.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    tied(ones(1, 3)).sum().backward()
    assert tied[0].weight.grad is tied[1].weight.grad


def test_a_shared_module_is_counted_once():
    layer = nn.Linear(3, 3)
    assert len(list(nn.Sequential(layer, nn.Flatten(), layer).parameters())) == 2


def test_a_module_that_knows_its_parent_does_not_loop_forever(net):
    net.features.parent = net
    assert len(list(net.parameters())) == len(NAMES)


# ---- attributes


def test_forgetting_super_init_is_explained():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

    with pytest.raises(AttributeError, match=r"Forgot\.__init__ must call super\(\).__init__\(\) before it assigns 'layer'"):
        Forgot()


def test_forgetting_super_init_without_attributes_is_explained_at_the_first_use():
    class Forgot(nn.Module):
        def __init__(self):
            pass

        def forward(self, x):
            return x

    for use in (lambda m: m(ones(1)), lambda m: list(m.parameters()), lambda m: m.state_dict(), repr):
        with pytest.raises((AttributeError, CnnlibError), match=r"super\(\).__init__\(\)"):
            use(Forgot())


def test_a_missing_forward_is_explained():
    with pytest.raises(NotImplementedError, match=r"Net needs a method forward\(self, \.\.\.\)"):
        type("Net", (nn.Module,), {})()(ones(1))


def test_a_replaced_attribute_leaves_nothing_behind(net):
    net.scale = Parameter(np.zeros(5, np.float32))
    net.heads = nn.Linear(3, 2)
    net.features = None
    assert [name for name, _ in net.named_parameters()] == ["scale", "heads.weight", "heads.bias"]
    net.scale = nn.Flatten()
    assert "scale" not in net.state_dict() and "scale" in dict(net.named_modules())
    del net.heads
    assert list(net.state_dict()) == []
    with pytest.raises(AttributeError):
        net.heads  # noqa: B018


def test_a_parameter_that_replaces_another_is_the_one_that_is_used_and_saved():
    layer = nn.Linear(2, 2)
    layer.weight = Parameter(np.full((2, 2), 3.0, np.float32))
    layer.bias.set(np.zeros(2))
    np.testing.assert_array_equal(layer(ones(1, 2)).data, [[6.0, 6.0]])
    assert set(layer.state_dict()) == {"weight", "bias"} and (layer.state_dict()["weight"] == 3.0).all()
    assert layer.weight.name == "weight"


def test_assigning_to_a_buffer_keeps_it_in_the_state_or_is_refused():
    layer = nn.BatchNorm1d(2)
    try:
        layer.running_mean = np.array([5.0, 6.0], np.float32)
    except (AttributeError, CnnlibError):
        return
    np.testing.assert_array_equal(layer.state_dict()["running_mean"], [5.0, 6.0])


def test_set_buffer_wants_a_registered_name():
    with pytest.raises(AttributeError, match="BatchNorm1d has no buffer 'mean': register_buffer first"):
        nn.BatchNorm1d(2).set_buffer("mean", np.zeros(2))


# ---- containers


def test_sequential_runs_in_order_and_can_be_indexed_sliced_and_iterated():
    net = nn.Sequential(nn.Linear(4, 3), nn.Flatten(), nn.Linear(3, 2))
    assert len(net) == 3 and net[-1] is list(net)[2] and net[0] is net[0]
    part = net[1:]
    assert isinstance(part, nn.Sequential) and list(part) == [net[1], net[2]]
    x = ones(2, 4)
    np.testing.assert_array_equal(part(net[0](x)).data, net(x).data)
    with pytest.raises(IndexError):
        net[3]


def test_slicing_leaves_the_names_of_the_whole_alone(net):
    before = [name for name, _ in net.named_parameters()]
    list(net.features[1:].parameters())
    with cl.trace() as t:
        net(ones(3, 4))
    assert [name for name, _ in net.named_parameters()] == before
    assert [e.name for e in t][:2] == ["features.0.linear", "features.1.batch_norm"]


@pytest.mark.parametrize("wrong", [nn.Linear, np.tanh, None, [nn.Flatten()]], ids=["class", "function", "None", "list"])
def test_containers_want_modules(wrong):
    with pytest.raises(TypeError, match=r"Sequential: argument 1 must be a Module"):
        nn.Sequential(nn.Flatten(), wrong)
    with pytest.raises(TypeError, match="ModuleList: expected a Module"):
        nn.ModuleList([wrong])


def test_modulelist_grows_and_its_parameters_belong_to_the_model(net):
    net.heads.append(nn.Linear(3, 2))
    assert len(net.heads) == 3 and "heads.2.bias" in net.state_dict()
    assert net.heads[-1] is net.heads[2]


def test_a_plain_list_does_not_hide_parameters_silently_in_a_modulelist(net):
    assert len(list(nn.ModuleList(iter([nn.Linear(2, 2)])).parameters())) == 2


def test_the_repr_shows_the_tree(net):
    text = repr(net)
    assert text.startswith("Net(\n  (features): Sequential(\n    (0): Linear(4, 3)\n    (1): BatchNorm1d(3)\n  )")
    assert "    (1): Linear(3, 2, bias=False)\n" in text


# ---- the state


def test_the_state_is_a_copy(net):
    state = net.state_dict()
    for array in state.values():
        array[...] = 77
    assert not any((array == 77).all() for array in net.state_dict().values())
    state = net.state_dict()
    net(ones(5, 4))
    np.testing.assert_array_equal(state["features.1.running_mean"], 0.0)
    assert state["features.1.num_batches_tracked"] == 0


def test_a_loaded_state_is_a_copy_too(net):
    state = {name: np.full_like(array, 3) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    for array in state.values():
        array[...] = 77
    assert all((array == 3).all() for array in net.state_dict().values())


def test_loading_brings_back_everything(net):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    net(Tensor(x))
    state, expected = net.state_dict(), net.eval()(Tensor(x)).data
    other = Net().eval()
    assert not np.array_equal(other(Tensor(x)).data, expected)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(Tensor(x)).data, expected)
    assert other.features[1].num_batches_tracked == 1


def test_loading_keeps_the_models_dtype(net):
    net.load_state_dict({name: array.astype(np.float64) for name, array in net.state_dict().items()})
    assert net.scale.dtype == np.float32 and net.features[1].num_batches_tracked.dtype == np.int64


def values(net):
    return {name: array.copy() for name, array in net.state_dict().items()}


def test_a_state_that_does_not_fit_lists_every_difference_and_changes_nothing(net):
    state = {name: np.full_like(array, 9) for name, array in net.state_dict().items()}
    del state["scale"], state["heads.0.bias"]
    state["extra"] = np.zeros(1)
    state["heads.1.weight"] = np.zeros((3, 2), np.float32)
    before = values(net)
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(state)
    lines = str(caught.value).splitlines()
    assert lines[0] == "load_state_dict: the state does not fit Net."
    assert lines[1:] == [
        "  missing: scale, heads.0.bias",
        "  unexpected: extra",
        "  wrong shape: heads.1.weight has shape (3, 2), the model expects (2, 3)",
    ]
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("bad", [["a", "b"], [None, None], [1j, 2j], [object(), 1.0]], ids="text None complex object".split())
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_values_that_are_no_real_numbers_are_refused_and_change_nothing(net, bad):
    state = {name: np.full_like(array, 9) for name, array in net.state_dict().items()}
    state["heads.0.bias"] = np.array(bad)
    before = values(net)
    with pytest.raises((CnnlibError, ValueError, TypeError)):
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("state", ["runs/first", None, np.ones(3)])
def test_what_is_no_state_is_refused(net, state):
    with pytest.raises(DtypeError, match="load_state_dict: state must be a dict of arrays, as state_dict"):
        net.load_state_dict(state)


def test_without_strict_only_wrong_shapes_are_refused(net):
    net.load_state_dict({"scale": np.full(2, 5.0), "extra": np.zeros(3)}, strict=False)
    np.testing.assert_array_equal(net.scale.data, 5.0)
    with pytest.raises(CheckpointError, match=r"wrong shape: scale has shape \(1,\)"):
        net.load_state_dict({"scale": np.full(1, 5.0)}, strict=False)


def test_loading_between_forward_and_backward_is_noticed(net):
    y = net(ones(5, 4)).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(cl.errors.GraphError, match="load_state_dict"):
        y.backward()


def test_a_copy_of_a_model_is_independent_and_whole(net):
    twin = copy.deepcopy(net)
    twin.scale.set(np.zeros(2))
    twin(ones(5, 4))
    assert (net.scale.data == 1).all() and net.features[1].num_batches_tracked == 0
    assert dict(twin.named_parameters())["scale"] is twin.scale
    assert [n for n, _ in twin.named_parameters()] == NAMES


# ---- modes and types


def test_train_and_eval_reach_every_module_and_return_the_model(net):
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_evaluation_does_not_move_the_running_statistics(net):
    net.eval()
    before = values(net)
    net(ones(5, 4))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_running_statistics_move_once_per_forward_and_are_replaced_not_written(net):
    mean = net.features[1].running_mean
    net(ones(5, 4))
    np.testing.assert_array_equal(mean, 0.0)
    assert net.features[1].num_batches_tracked == 1


def test_zero_grad(net):
    net(Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64")], ids=repr)
def test_a_model_can_be_cast_and_then_runs_in_that_type(net, dtype):
    assert net.to(dtype) is net
    assert {p.dtype for p in net.parameters()} == {np.dtype("float64")}
    assert net.features[1].running_mean.dtype == np.float64 and net.features[1].num_batches_tracked.dtype == np.int64
    y = net(Tensor(np.ones((5, 4))))
    y.sum().backward()
    assert y.dtype == np.float64 and net.features[1].running_mean.dtype == np.float64
    assert net.scale.grad.dtype == np.float64


def test_casting_makes_an_older_graph_stale(net):
    y = net(ones(5, 4)).sum()
    net.to("float64")
    with pytest.raises(cl.errors.GraphError):
        y.backward()


@pytest.mark.parametrize("target", ["gpu", "float16", "int64", "cuda:0", int])
def test_a_model_cannot_go_just_anywhere(net, target):
    before = values(net)
    with pytest.raises(CnnlibError, match=r"to: expected 'cpu', 'cuda', '?float32'? or '?float64'?, got"):
        net.to(target)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ---- hooks


def test_a_forward_hook_sees_module_inputs_and_output_until_removed(net):
    seen = []
    remove = net.features.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs, output)))
    x = ones(5, 4)
    net(x)
    assert len(seen) == 1
    module, inputs, output = seen[0]
    assert module is net.features and inputs == (x,) and output.shape == (5, 3)
    remove()
    net(x)
    assert len(seen) == 1


def test_removing_one_of_two_equal_hooks_removes_just_one(net):
    seen = []
    hook = lambda *_: seen.append(1)  # noqa: E731
    remove, _ = net.register_forward_hook(hook), net.register_forward_hook(hook)
    remove()
    net(ones(5, 4))
    assert len(seen) == 1


def test_removing_twice_is_harmless(net):
    hook = lambda *_: None  # noqa: E731
    remove, _ = net.register_forward_hook(hook), net.register_forward_hook(hook)
    remove()
    remove()
    assert len(net._forward_hooks) == 1


def test_a_hook_may_remove_itself_while_hooks_run(net):
    seen = []

    def once(*_):
        seen.append("once")
        removes[0]()

    removes = [net.register_forward_hook(once), net.register_forward_hook(lambda *_: seen.append("always"))]
    net(ones(5, 4))
    net(ones(5, 4))
    assert seen == ["once", "always", "always"]


def test_a_plain_list_of_layers_warns_that_they_will_not_learn():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(2, 2)]

    with pytest.warns(UserWarning, match="Net.layers is a plain list: .* Use nn.ModuleList"):
        Net()


@pytest.mark.parametrize(
    "settings", [{"groups": 0}, {"in_channels": -1}, {"out_channels": 0}, {"in_channels": 2.0}, {"out_channels": True}], ids=str
)
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
def test_numbers_of_channels_and_groups_must_be_positive(layer, settings):
    with pytest.raises(ValueRangeError, match=rf"{layer.__name__}: {next(iter(settings))} must be a whole number >= 1, got"):
        layer(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, **settings})


def test_a_signal_layer_takes_tuples_of_one_as_in_pytorch():
    assert nn.Conv1d(1, 4, (3,), (2,))(np.ones((1, 1, 9), np.float32)).shape == (1, 4, 4)
