"""What local response and local contrast normalisation do to activations: sparsity, and invariance to light.

Two 5×5 convolutions with 16 and 32 maps on the first 20,000 pictures of Fashion-MNIST, 3 epochs; the normalisation follows each
ReLU. Measured on 1,000 test pictures, in the second layer:

    zeros        share of ReLU outputs that are 0
    sparseness   (√n − ‖h‖₁/‖h‖₂) / (√n − 1) of the normalised maps h of a picture: 0 where all are equal, 1 where one is alone
    change       ‖h(x) − h(x/2)‖ / ‖h(x)‖: what half the light does to the normalised maps

Source: lecture: normalisation, "they improve invariance and sparsity"; Jarrett et al. 2009; sparseness after Hoyer 2004.
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting
from examples.labs.response_norm import alexnet_norm

CLAIM = "Local response and contrast normalisation improve invariance and sparsity (lecture: normalisation)."
MINUTES = 2
NORMS = {"none": nn.Identity, "LRN": alexnet_norm, "LCN": lambda: nn.LocalContrastNorm(9)}


def plan(quick):
    if quick:
        return lab.grid(seed=0, norm=list(NORMS), epochs=1, data="fashion_subset", pictures=300)
    return lab.grid(seed=range(3), norm=list(NORMS), epochs=3, data="fashion", pictures=20_000)


def sparseness(h):
    """Hoyer's, per picture: h (N, ...) -> (N,)."""
    h = np.abs(h.reshape(len(h), -1))
    root = h.shape[1] ** 0.5
    return (root - h.sum(1) / np.linalg.norm(h, axis=1)) / (root - 1)


def measure(seed, norm, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = setting.small_convnet(norm=NORMS[norm])
    trainer = setting.fit(net, train, test, seed, epochs)
    net.eval()
    some = test.x[:1000]
    with cl.no_grad():
        relu = net[:6](trainer.eval_transform(some)).numpy()
        h = net[6](cl.Tensor(relu)).numpy()
        dimmed = net[:7](trainer.eval_transform(some * np.float32(0.5))).numpy()
    return {
        "zeros": (relu == 0).mean(),
        "sparseness": sparseness(h).mean(),
        "change": np.linalg.norm(h - dimmed) / np.linalg.norm(h),
        "test": trainer.history["validation_accuracy"][-1],
    }


QUANTITIES = {
    "zeros": "share of zeros",
    "sparseness": "sparseness",
    "change": "change by half the light",
    "test": "test accuracy",
}


def finding(runs):
    rows = [{"": norm, **{what: lab.spread(runs.get(name, norm=norm)) for name, what in QUANTITIES.items()}} for norm in NORMS]
    readings = [
        lab.compared(norm, runs.get(name, norm=norm), runs.get(name, norm="none"), f"raises the {what}", f"lowers the {what}")
        for norm in list(NORMS)[1:]
        for name, what in QUANTITIES.items()
    ]
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3)
    for ax, (name, what) in zip(sheet.subplots(1, len(QUANTITIES)), QUANTITIES.items(), strict=True):
        for i, norm in enumerate(NORMS):
            values = runs.get(name, norm=norm)
            ax.bar(i, sum(values) / len(values), color=CLASSES[i], alpha=0.4)
            ax.plot([i] * len(values), values, "o", color=CLASSES[i], markersize=4)
        ax.set_xticks(range(len(NORMS)), list(NORMS))
        lab.tidy(ax, title=what, as_percent=True, legend=False)
    return sheet
