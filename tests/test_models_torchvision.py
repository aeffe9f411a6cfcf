"""State dicts in torchvision's naming: loaded by name, all or nothing, and the same outputs as PyTorch's."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import cnnlib as cl
from benchmarks.twins import TWINS
from cnnlib import models
from cnnlib.errors import CheckpointError
from cnnlib.models import load_torchvision
from tests.nets import without_weights

NARROW = {
    "alexnet_single": {"width": 0.02, "input_size": 64},
    "vgg13": {"width": 0.02, "input_size": 32},
    "vgg16_bn": {"width": 0.02, "input_size": 32},
    "googlenet_bn": {"width": 0.02, "input_size": 64},
    "resnet34": {"width": 0.02, "input_size": 32},
    "resnet101": {"width": 0.02, "input_size": 32},
}
KEYS = {  # some of each, as torchvision writes them
    "alexnet_single": ["features.0.weight", "features.10.bias", "classifier.1.weight", "classifier.6.bias"],
    "vgg13": ["features.0.weight", "features.22.bias", "classifier.0.weight", "classifier.3.bias", "classifier.6.weight"],
    "vgg16_bn": ["features.1.running_mean", "features.41.num_batches_tracked", "features.40.bias"],
    "googlenet_bn": ["conv1.conv.weight", "conv3.bn.running_var", "inception4e.branch3.1.bn.weight",
                     "inception5b.branch4.1.conv.weight", "aux1.conv.conv.weight", "aux2.fc1.bias", "fc.weight"],
    "resnet34": ["conv1.weight", "bn1.num_batches_tracked", "layer1.0.conv2.weight", "layer2.0.downsample.1.running_mean",
                 "layer3.5.bn2.bias", "fc.bias"],
    "resnet101": ["layer1.0.downsample.0.weight", "layer3.22.conv3.weight", "layer4.2.bn3.running_var"],
}  # fmt: skip


def net(name, **options):
    return models.create(name, num_classes=5, **NARROW[name], **options)


def random_state(model, seed=0):
    rng = np.random.default_rng(seed)
    return {
        key: np.array(7) if value.dtype.kind == "i" else rng.random(value.shape).astype(np.float32)
        for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("name", NARROW)
def test_entries_go_where_their_names_say(name, tmp_path):
    model = net(name)
    state = random_state(model)
    assert set(KEYS[name]) <= set(state)
    save_file(state, tmp_path / "weights.safetensors")
    load_torchvision(model, tmp_path / "weights.safetensors")
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_old_files_without_counters_load():
    model = net("resnet34")
    state = {key: value for key, value in random_state(model).items() if "num_batches" not in key}
    load_torchvision(model, state)
    np.testing.assert_array_equal(model.fc.bias.data, state["fc.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing: layer1.0.conv1.weight"),
        (lambda s: s.update(extra=np.zeros(1)), "unexpected: extra"),
        (lambda s: s.update({"bn1.bias": np.zeros(3)}), r"wrong shape: bn1.bias has shape \(3,\), the model expects \(1,\)"),
        (lambda s: s.update({"bn1.bias": np.array(["x"])}), "bn1.bias must hold real numbers"),
        (lambda s: s.update({"fc.weight": np.zeros((1000, 10)), "fc.bias": np.zeros(1000)}), "tell 1000 classes apart: create"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(change, message):
    model = net("resnet34")
    state, before = random_state(model), model.state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=f"(?s)^load_torchvision: .*{message}"):
        load_torchvision(model, state)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_models_that_compute_something_else_are_refused():
    state = random_state(net("googlenet_bn"))
    with pytest.raises(CheckpointError, match="has no auxiliary heads: create it with auxiliary=True"):
        load_torchvision(net("googlenet_bn", auxiliary=False), state)
    with pytest.raises(CheckpointError, match="that model is googlenet_bn"):
        load_torchvision(models.GoogLeNet(num_classes=5, **NARROW["googlenet_bn"]), state)
    with pytest.raises(CheckpointError, match="create it with stride_on=3"):
        load_torchvision(net("resnet101", stride_on=1), random_state(net("resnet101")))


def test_what_is_no_state_is_refused():
    for state in (None, [1, 2]):
        with pytest.raises(CheckpointError, match="must be a safetensors file, or a dictionary of arrays"):
            load_torchvision(net("resnet34"), state)
    with pytest.raises(CheckpointError, match=r"unexpected: 3"):
        load_torchvision(net("resnet34"), {3: np.zeros(2)})
    torch = pytest.importorskip("torch", reason="PyTorch's tensors")
    for tensor in (torch.zeros(5, requires_grad=True), torch.zeros(5, dtype=torch.bfloat16)):
        with pytest.raises(CheckpointError, match=r"fc\.bias cannot become an array .*: give value\.detach\(\)\.float"):
            load_torchvision(net("resnet34"), {"fc.bias": tensor})


def test_a_file_of_bfloat16_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="writes the file")
    from safetensors.torch import save_file

    save_file({"fc.bias": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"half\.safetensors: has numbers that NumPy does not know .*module\.float"):
        load_torchvision(net("resnet34"), tmp_path / "half.safetensors")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: there is no such file"):
        load_torchvision(net("resnet34"), tmp_path / "weights.safetensors")
    (tmp_path / "resnet.pth").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(CheckpointError, match=r"resnet\.pth: not a safetensors file .* A \.pth file is a pickle"):
        load_torchvision(net("resnet34"), tmp_path / "resnet.pth")


SMALL = {  # without the hundred million weights behind 7×7 maps
    "alexnet_single": ({"side": 2}, {"input_size": 96}),
    "vgg11_bn": ({"side": 1}, {"input_size": 32}),
    "vgg16": ({"side": 1}, {"input_size": 32}),
}


@pytest.mark.parametrize("name", TWINS)
def test_outputs_are_those_of_pytorchs_layers_with_the_same_weights(name, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    without_weights(monkeypatch)  # they are loaded
    torch.manual_seed(0)
    side, small = SMALL.get(name, ({}, {}))
    twin = TWINS[name](torch, num_classes=10, **side).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for key, value in twin.state_dict().items():  # statistics that are not those of a fresh network
            if key.endswith("running_mean"):
                value += torch.from_numpy(rng.normal(0, 0.1, value.shape))
            elif key.endswith("running_var"):
                value *= torch.from_numpy(rng.uniform(0.5, 1.5, value.shape))
    model = models.create(name, num_classes=10, **small).eval()
    load_torchvision(model, twin.state_dict())
    x = rng.normal(size=(1, *model.input_shape)).astype(np.float32)
    with cl.no_grad(), torch.no_grad():
        np.testing.assert_allclose(model(cl.Tensor(x)).data, twin(torch.from_numpy(x)).numpy(), atol=1e-4, rtol=1e-4)


def test_googlenets_heads_are_those_of_pytorchs_layers_in_training():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    twin, model = TWINS["googlenet_bn"](torch, num_classes=10), models.GoogLeNetBN(num_classes=10)
    for module in twin.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for module in model.modules():
        if isinstance(module, cl.nn.Dropout):
            module.eval()
    load_torchvision(model, twin.state_dict())
    x = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with cl.no_grad(), torch.no_grad():
        for ours, theirs in zip(model(cl.Tensor(x)), twin(torch.from_numpy(x)), strict=True):
            np.testing.assert_allclose(ours.data, theirs.numpy(), atol=2e-4, rtol=1e-3)
