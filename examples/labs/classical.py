"""Methods that are not deep, from scikit-learn, beside two of our networks: accuracy and time on the same pictures.

A decision tree, a support vector machine with Gaussian kernel, naive Bayes and a mixture of Gaussians per class, on 10,000
training pictures of Fashion-MNIST as 784 numbers, other ones for each seed; MLP 784-128-10 and LeNet-5, 10 epochs of Adam on
the same. The mixtures (10 Gaussians per class with diagonal covariance) work on the first 50 principal components. Tested on
all test pictures.

Source: lecture: neurons, "many non-deep methods can often perform comparably".
"""

import time

import numpy as np

import cnnlib as cl
from cnnlib import models
from examples.labs import lab, setting

CLAIM = "Many methods that are not deep often perform comparably (lecture: neurons)."
MINUTES = 1
OURS = ["MLP", "LeNet-5"]
METHODS = ["naive Bayes", "decision tree", "mixture", "kernel SVM", *OURS]


def plan(quick):
    if quick:
        return lab.grid(seed=0, method=METHODS, data="fashion_subset", pictures=500)
    return lab.grid(seed=range(3), method=METHODS, data="fashion", pictures=10_000)


class Mixture:
    """Classes as mixtures of Gaussians: the class with the largest log p(class) + log p(x | class)."""

    def __init__(self, components, seed):
        from sklearn.decomposition import PCA

        self.pca, self.components, self.seed = PCA(50, random_state=seed), components, seed

    def fit(self, x, y):
        from sklearn.mixture import GaussianMixture

        z = self.pca.fit_transform(x)
        parts = [z[y == c] for c in np.unique(y)]
        self.prior = np.log([len(part) / len(z) for part in parts])
        self.mixtures = [
            GaussianMixture(self.components, covariance_type="diag", reg_covar=1e-3, random_state=self.seed).fit(part)
            for part in parts
        ]

    def predict(self, x):
        z = self.pca.transform(x)
        return (np.stack([m.score_samples(z) for m in self.mixtures], axis=1) + self.prior).argmax(axis=1)


def theirs(method, seed):
    from sklearn.naive_bayes import GaussianNB
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "naive Bayes": lambda: GaussianNB(var_smoothing=1e-2),
        "decision tree": lambda: DecisionTreeClassifier(random_state=seed),
        "mixture": lambda: Mixture(10, seed),
        "kernel SVM": lambda: SVC(C=10.0),
    }[method]()


def measure(seed, method, data, pictures):
    """The first 10,000 pictures, the second, the third: the seed says which."""
    cl.manual_seed(seed)
    train, test = setting.load(data)
    train = train[seed * pictures : (seed + 1) * pictures]
    flat, flat_test = train.x.reshape(len(train), -1), test.x.reshape(len(test), -1)
    if method in OURS:
        net = models.MLP() if method == "MLP" else models.LeNet5(input_size=28)
        started = time.perf_counter()
        trainer = setting.fit(net, train, None, seed, epochs=10)
        learnt = time.perf_counter()
        answers = trainer.predict(test.x).argmax(axis=1)
    else:
        model = theirs(method, seed)
        started = time.perf_counter()
        model.fit(flat, train.y)
        learnt = time.perf_counter()
        answers = model.predict(flat_test)
    finished = time.perf_counter()
    return {"test": (answers == test.y).mean(), "learning": learnt - started, "answering": finished - learnt}


def finding(runs):
    rows, means = [], {}
    for method in METHODS:
        some = runs.where(method=method)
        means[method] = sum(some.get("test")) / len(some)
        rows.append({
            "method": method, "test accuracy": lab.spread(some.get("test")),
            "seconds to learn": lab.spread(some.get("learning"), lab.number),
            "seconds to answer": lab.spread(some.get("answering"), lab.number),
        })  # fmt: skip
    ours, other = max(OURS, key=means.get), max(set(METHODS) - set(OURS), key=means.get)
    reading = lab.compared(f"{ours}, against {other}, the best of the others,", runs.get("test", method=ours),
                           runs.get("test", method=other), "is ahead", "is behind")  # fmt: skip
    time = {m: sum(runs.get("learning", method=m) + runs.get("answering", method=m)) for m in METHODS}
    return rows, f"{reading} {max(time, key=time.get)} takes longest, {min(time, key=time.get)} is quickest."


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(6, 3.6)
    ax = sheet.subplots()
    for method in METHODS:
        some = runs.where(method=method)
        seconds = [a + b for a, b in zip(some.get("learning"), some.get("answering"), strict=True)]
        ax.plot(seconds, some.get("test"), "o", color=CLASSES[0] if method in OURS else CLASSES[1])
        ax.annotate(method, (seconds[0], some.get("test")[0]), xytext=(6, 4), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    ax.margins(x=0.25, y=0.1)
    lab.tidy(ax, "seconds to learn and to answer", "", "test accuracy; blue: ours", as_percent=True, legend=False)
    return sheet
