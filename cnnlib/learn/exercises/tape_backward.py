"""The tape: the right order, and adding up

Nobody derives the gradient of a modern network on paper. The network is written down as it runs, operation by operation, on a
*tape*, and the gradient is a walk back along it. This is all of automatic differentiation:

    1. order     put the operations in an order in which everything comes after what it is made of   (topological order)
    2. forward   compute each value
    3. backward  in the opposite order hand each node's adjoint ȳ = ∂J/∂y to its inputs, times the local derivative, and
                 *add* it to what is there: a value that was used twice gets two messages (the multivariate chain rule)

    y = a + b        ā += ȳ              b̄ += ȳ
    y = a b          ā += ȳ b            b̄ += ȳ a
    y = tanh a       ā += ȳ (1 − y²)

Why the opposite order? A node may speak only when everyone that used it has spoken to it; before, its adjoint is not complete.

A tape is a tuple of nodes, and a node is a tuple: ("leaf",), ("add", i, j), ("mul", i, j) or ("tanh", i), where i and j are
numbers of nodes. The nodes are *not* sorted: node 0 may be made of node 5. A worked one, for y = x·x + x at x = 3:

    node      0: ("add", 2, 1)      1: ("leaf",)      2: ("mul", 1, 1)              order 1, 2, 0
    value     12                    3                 9
    adjoint   1                     1 + 3 + 3 = 7     1                             dy/dx = 2x + 1 = 7

Write ``tape_backward(tape, leaves, root, dy)``. leaves (K,) holds a number for each leaf, and 0 for all other nodes; root is
the number of the node that is differentiated, dy its adjoint. Return the values of all K nodes and the adjoints of all K nodes:
0 for those that the root is not made of.

You may return a dict of named steps after the two, and will be told the first wrong one: ``first`` and ``second`` (K,), the
local derivative of each node by its first and its second input (0 where there is none), and ``uses`` (K,), how often a node is
an input of another.

Source: lecture: backpropagation, automatic differentiation; Griewank & Walther, "Evaluating Derivatives", 2008, chapter 3.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Intermediates, Mutant, Numerical


def topological_order(tape):
    order = []
    for _ in tape:  # wave after wave: all whose inputs are there
        order += [k for k, (_, *inputs) in enumerate(tape) if k not in order and all(i in order for i in inputs)]
    return order


def tape_backward(tape, leaves, root, dy):
    values = np.array(leaves)
    adjoints = np.zeros(len(tape))
    adjoints[root] = dy
    order = topological_order(tape)
    for k in order:
        operation, *inputs = tape[k]
        given = [values[i] for i in inputs]
        if operation == "add":
            values[k] = given[0] + given[1]
        elif operation == "mul":
            values[k] = given[0] * given[1]
        elif operation == "tanh":
            values[k] = np.tanh(given[0])
    for k in reversed(order):
        operation, *inputs = tape[k]
        given = [values[i] for i in inputs]
        if operation == "add":
            local = [1.0, 1.0]
        elif operation == "mul":
            local = [given[1], given[0]]
        elif operation == "tanh":
            local = [1.0 - values[k] ** 2]
        else:
            local = []
        for i, derivative in zip(inputs, local):
            adjoints[i] += adjoints[k] * derivative
    return values, adjoints


STARTER = '''import numpy as np


def topological_order(tape):
    """The numbers of all nodes, every node after its inputs."""
    ...


def tape_backward(tape, leaves, root, dy):
    values = np.array(leaves)
    adjoints = np.zeros(len(tape))
    order = topological_order(tape)
    for k in order:
        operation, *inputs = tape[k]
        ...  # values[k]
    ...  # who gets dy?
    for k in reversed(order):
        operation, *inputs = tape[k]
        ...  # hand adjoints[k] on to the inputs
    return values, adjoints
'''


def shuffled(rng, tape, root):
    """The tape with other numbers for its nodes, and the root's new number."""
    new = [int(i) for i in rng.permutation(len(tape))]
    nodes = {new[k]: (operation, *(new[i] for i in inputs)) for k, (operation, *inputs) in enumerate(tape)}
    return tuple(nodes[k] for k in range(len(tape))), new[root]


def random_tape(rng, leaves, operations):
    tape = [("leaf",)] * leaves
    for _ in range(operations):
        kind = ("add", "mul", "tanh")[rng.integers(3)]
        tape.append((kind, *(int(i) for i in rng.integers(0, len(tape), 1 if kind == "tanh" else 2))))
    return tape


def cases(rng):
    def case(tape, root, *features, dy=None, shuffle=True):
        tape, root = shuffled(rng, tape, root) if shuffle else (tuple(tape), root)
        leaves = np.array([rng.uniform(0.5, 1.5) * rng.choice([-1.0, 1.0]) if node == ("leaf",) else 0.0 for node in tape])
        return Case((tape, leaves, root, float(rng.uniform(0.5, 2.0)) if dy is None else dy), features)

    square = [("leaf",), ("mul", 0, 0)]
    # the short way 0 → 4 and the long way 0 → 1 → 2 → 3 → 4 end in the same node; 0 may speak last only
    two_ways = [("leaf",), ("tanh", 0), ("mul", 1, 1), ("tanh", 2), ("mul", 3, 1), ("add", 4, 1), ("mul", 5, 0)]
    diamond = [("leaf",), ("tanh", 0), ("tanh", 1), ("mul", 1, 1), ("add", 2, 3)]
    aside = [("leaf",), ("leaf",), ("mul", 0, 1), ("tanh", 2), ("mul", 3, 3), ("add", 2, 0)]
    return [
        case([("leaf",), ("leaf",), ("add", 0, 1), ("mul", 2, 1)], 3, "in order", shuffle=False),
        case(square, 1, "a node used twice by one operation"),
        case(two_ways, 6, "paths of different length"),
        case(aside, 3, "nodes that the root is not made of"),
        case(diamond, 4, "a diamond"),
        case(random_tape(rng, 2, 14), 15, "16 nodes"),
        case([("leaf",), ("tanh", 0), ("tanh", 1), ("tanh", 2), ("tanh", 3)], 4, "a chain"),
    ]


def _root_value(tape, leaves, root, dy):
    """The root's value where leaves[k] is added to node k, whatever it is: its derivative by leaves is all adjoints."""

    def value(k):
        operation, *inputs = tape[k]
        a = [value(i) for i in inputs]
        made = {"leaf": lambda: 0.0, "add": lambda: a[0] + a[1], "mul": lambda: a[0] * a[1], "tanh": lambda: np.tanh(a[0])}
        return made[operation]() + leaves[k]

    return np.asarray(value(root))


def _intermediates(tape, leaves, root, dy):
    values, _ = tape_backward(tape, leaves, root, dy)
    first, second, uses = np.zeros((3, len(tape)))
    for k, (operation, *inputs) in enumerate(tape):
        np.add.at(uses, inputs, 1.0)
        if operation == "tanh":
            first[k] = 1.0 - values[k] ** 2
        elif operation != "leaf":
            first[k], second[k] = (1.0, 1.0) if operation == "add" else (values[inputs[1]], values[inputs[0]])
    return {"first": first, "second": second, "uses": uses}


def _walked(order=None, collect=lambda old, new: old + new, local=None, seed=None, pairs=list, only=None, handed=None):
    """The outputs of a walk back with mistakes in it. ``order``: the order in which nodes speak."""

    def outputs(tape, leaves, root, dy):
        values, _ = tape_backward(tape, leaves, root, dy)
        adjoints = np.zeros(len(tape))
        adjoints[root] = dy if seed is None else seed
        for k in reversed(topological_order(tape)) if order is None else order(tape, root):
            operation, *inputs = tape[k]
            a = [values[i] for i in inputs]
            slopes = {"leaf": [], "add": [1.0, 1.0], "mul": a[::-1], "tanh": [1.0 - values[k] ** 2]}
            slopes |= {} if local is None else local(a)
            for i, slope in pairs(zip(inputs, slopes[operation])):
                new = (adjoints[k] if handed is None else handed(dy)) * slope
                adjoints[i] = collect(adjoints[i], new) if only in (None, operation) else adjoints[i] + new
        return values, adjoints

    return outputs


def _breadth_first(tape, root):
    order = [root]
    for k in order:
        order += [i for i in dict.fromkeys(tape[k][1:]) if i not in order]
    return order


def _depth_first(tape, starts, at_first_sight=False):
    """The order in which nodes are first seen; or that in which they are left for good, backwards, which is right."""
    seen, left = [], []

    def visit(k):
        if k not in seen:
            seen.append(k)
            for i in tape[k][1:]:
                visit(i)
            left.append(k)

    for k in starts:
        visit(k)
    return seen if at_first_sight else left[::-1]


def _from_root(tape, root):
    return _depth_first(tape, [root])


def _from_all(tape, root):
    return _depth_first(tape, range(len(tape)))


def _by_number(tape, leaves, root, dy):
    """Forward by the nodes' numbers: inputs may not be there yet."""
    values = np.array(leaves)
    for k, (operation, *inputs) in enumerate(tape):
        a = [values[i] for i in inputs]
        if operation != "leaf":
            values[k] = np.tanh(a[0]) if operation == "tanh" else a[0] + a[1] if operation == "add" else a[0] * a[1]
    return values, tape_backward(tape, leaves, root, dy)[1]


_BREADTH_FIRST = """breadth = [root]
    for k in breadth:
        breadth += [i for i in tape[k][1:] if i not in breadth]
    for k in breadth:"""

_AT_FIRST_SIGHT = """seen, stack = [], [root]
    while stack:
        k = stack.pop()
        if k not in seen:
            seen.append(k)
            stack += reversed(tape[k][1:])
    for k in seen:"""

EXERCISE = Exercise(
    number=10,
    name="tape_backward",
    topic="lecture: backpropagation, automatic differentiation",
    function=tape_backward,
    uses=(topological_order,),
    outputs=("values", "adjoints"),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(forward=_root_value, wrt={"adjoints": 1}, upstream=3),
    intermediates=Intermediates(
        compute=_intermediates,
        formulas={
            "first": "∂node/∂its first input: 1 for add, the other factor for mul, 1 − y² for tanh",
            "second": "∂node/∂its second input: 1 for add, the other factor for mul",
            "uses": "how often the node is an input of another: twice by mul(i, i)",
        },
    ),
    hints=(
        "Order first: go through the nodes again and again, and each time append those whose inputs are all in the list "
        "already, until the list holds every node.",
        "Backward: adjoints starts as zeros with dy at the root. In the opposite order every node adds its adjoint, times the "
        "local derivative, to its inputs; a node that the root is not made of has 0 to give away, so it needs no special case.",
        'For "mul": i, j = inputs; adjoints[i] += adjoints[k] * values[j]; adjoints[j] += adjoints[k] * values[i]. With i = '
        'j both lines add, and x·x gets 2x. For "tanh": adjoints[i] += adjoints[k] * (1 - values[k] ** 2).',
    ),
    question="Forward mode goes along with the computation and carries ∂node/∂x for one input x; reverse mode is what you "
    "wrote. A loss has a million weights. How many passes does each need?",
    answer="Forward mode one pass per input, a million; reverse mode one pass per output, and a loss is one number: one. The "
    "price is memory: all values must be kept until the walk back, so the activations of a large network need more room than "
    "its weights. A walk by recursion works, too, but Python gives up after about 1,000 calls; an RNN over 2,000 letters has "
    "a deeper tape.",
    link="cnnlib/tape.py",
    explanations=(
        *(
            Explanation(
                "overwrites",
                "you overwrite an adjoint where you must add: a node that was used twice gets two messages, both count (+=).",
                _walked(order, collect=lambda old, new: new),
            )
            for order in (_from_root, _from_all)
        ),
        *(
            Explanation(
                f"overwrites in {operation}",
                f"your {operation} overwrites the adjoints of its inputs: they may hold a message already, so add (+=), as you "
                "do elsewhere.",
                _walked(order, collect=lambda old, new: new, only=operation),
            )
            for operation in ("add", "mul", "tanh")
            for order in (None, _from_all)
        ),
        Explanation(
            "values by number",
            "you compute the values by the nodes' numbers, but they are not sorted: node 0 may be made of node 5, so go "
            "through them in your topological order.",
            _by_number,
        ),
        Explanation(
            "first message",
            "you keep only the first message that reaches a node: all of them add up.",
            _walked(collect=lambda old, new: old or new),
        ),
        Explanation(
            "numbers as order",
            "you go back by the nodes' numbers, but they are not sorted: use your topological order, reversed.",
            _walked(lambda tape, root: range(len(tape) - 1, -1, -1)),
        ),
        Explanation(
            "forwards",
            "you hand adjoints on in the order of the forward pass: when a node speaks, nobody has spoken to it yet, so go "
            "backwards.",
            _walked(lambda tape, root: topological_order(tape)),
        ),
        Explanation(
            "breadth first",
            "you visit nodes by their distance from the root, so a node that is reached on a short and on a long path speaks "
            "before the long one has arrived: it must wait for everyone that used it.",
            _walked(_breadth_first),
        ),
        Explanation(
            "at first sight",
            "your depth-first walk lets a node speak when it is first seen: it must wait for everyone that used it, so "
            "append a node after its inputs, and go through the list backwards.",
            _walked(lambda tape, root: _depth_first(tape, [root], at_first_sight=True)),
        ),
        Explanation(
            "no slope",
            "your tanh hands its adjoint on unchanged: multiply with its slope 1 − y².",
            _walked(local=lambda a: {"tanh": [1.0]}),
        ),
        Explanation(
            "own factor",
            "your product sends back the factor itself: for y = a b the derivative by a is b, the *other* one.",
            _walked(local=lambda a: {"mul": a}),
        ),
        Explanation(
            "second factor",
            "your product sends its own second factor to b: for y = a b the derivative by b is a, the *other* one.",
            _walked(local=lambda a: {"mul": [a[-1], a[-1]]}),
        ),
        Explanation(
            "first factor",
            "your product sends its own first factor to a: for y = a b the derivative by a is b, the *other* one.",
            _walked(local=lambda a: {"mul": [a[0], a[0]]}),
        ),
        Explanation(
            "square once",
            "your product counts x·x once: with both inputs the same node, two messages go there, ȳ x each.",
            _walked(pairs=lambda pairs: dict(pairs).items()),
        ),
        Explanation(
            "tanh of the value",
            "your tanh has a wrong slope: it is 1 − y² of the node's own value y = tanh a, not of its input.",
            _walked(local=lambda a: {"tanh": [1.0 - a[0] ** 2]}),
        ),
        Explanation(
            "sum shared",
            "your sum divides its adjoint between its inputs: each of them gets all of it, ∂(a + b)/∂a = 1.",
            _walked(local=lambda a: {"add": [0.5, 0.5]}),
        ),
        Explanation(
            "seed",
            "you start the walk with 1 at the root: it starts with dy, the adjoint that the root was given.",
            _walked(seed=1.0),
        ),
        Explanation(
            "one step",
            "your adjoints stop after one step: a node must hand on its own adjoint, not dy.",
            _walked(handed=lambda dy: dy),
        ),
    ),
    mutants=(
        Mutant("for k in order:", "for k in range(len(tape)):", says="values by number"),
        Mutant("[given[1], given[0]]", "[given[1], given[1]]", says="second factor"),
        Mutant("[given[1], given[0]]", "[given[0], given[0]]", says="first factor"),
        Mutant("adjoints[i] += adjoints[k] * derivative", "adjoints[i] = adjoints[k] * derivative", says="overwrites"),
        Mutant(
            "adjoints[i] += adjoints[k] * derivative",
            "adjoints[i] = adjoints[i] or adjoints[k] * derivative",
            says="first message",
        ),
        Mutant("for k in reversed(order):", "for k in range(len(tape) - 1, -1, -1):", says="numbers as order"),
        Mutant("for k in reversed(order):", "for k in order:", says="forwards"),
        Mutant("for k in reversed(order):", _BREADTH_FIRST, says="breadth first"),
        Mutant("for k in reversed(order):", _AT_FIRST_SIGHT, says="at first sight"),
        Mutant("[1.0 - values[k] ** 2]", "[1.0]", says="no slope"),
        Mutant("local = [given[1], given[0]]", "local = [given[0], given[1]]", says="own factor"),
        Mutant(
            "for i, derivative in zip(inputs, local):",
            "for i, derivative in dict(zip(inputs, local)).items():",
            says="square once",
        ),
        Mutant("1.0 - values[k] ** 2", "1.0 - given[0] ** 2", says="tanh of the value"),
        Mutant("local = [1.0, 1.0]", "local = [0.5, 0.5]", says="sum shared"),
        Mutant("adjoints[k] * derivative", "dy * derivative", says="one step"),
        Mutant("adjoints[root] = dy", "adjoints[root] = 1.0", says="seed"),
        Mutant("values = np.array(leaves)", "values = leaves", says="mutated"),
    ),
    equivalent={
        "tape_backward: tape -> leaves #2": "only its length counts",
    },
    alternatives=(
        '''import math

import numpy as np


def tape_backward(tape, leaves, root, dy):
    """Depth first: a node comes after its inputs."""
    order, seen = [], set()

    def visit(k):
        if k not in seen:
            seen.add(k)
            for i in tape[k][1:]:
                visit(i)
            order.append(k)

    for k in range(len(tape)):
        visit(k)
    values = [float(v) for v in leaves]
    send = {}
    for k in order:
        match tape[k]:
            case ("add", i, j):
                values[k] = values[i] + values[j]
                send[k] = [(i, 1.0), (j, 1.0)]
            case ("mul", i, j):
                values[k] = values[i] * values[j]
                send[k] = [(i, values[j]), (j, values[i])]
            case ("tanh", i):
                values[k] = math.tanh(values[i])
                send[k] = [(i, 1 - values[k] ** 2)]
    adjoints = [0.0] * len(tape)
    adjoints[root] = dy
    for k in order[::-1]:
        for i, slope in send.get(k, []):
            adjoints[i] += slope * adjoints[k]
    return np.array(values), np.array(adjoints)
''',
        '''import numpy as np


def tape_backward(tape, leaves, root, dy):
    """Nobody is sorted: a node speaks when all who use it have spoken (Kahn)."""
    K = len(tape)
    values = np.array(leaves, dtype=float)
    known = [node[0] == "leaf" for node in tape]
    while not all(known):
        for k, (kind, *at) in enumerate(tape):
            if not known[k] and all(known[i] for i in at):
                a = values[at]
                values[k] = {"add": np.sum, "mul": np.prod, "tanh": lambda a: np.tanh(a[0])}[kind](a)
                known[k] = True
    waiting = np.zeros(K, dtype=int)
    for node in tape:
        for i in node[1:]:
            waiting[i] += 1
    adjoints = np.zeros(K)
    adjoints[root] = dy
    ready = [k for k in range(K) if waiting[k] == 0]
    while ready:
        k = ready.pop()
        kind, *at = tape[k]
        for position, i in enumerate(at):
            slope = {"add": 1.0, "mul": values[at[1 - position]] if kind == "mul" else 0.0, "tanh": 1 - values[k] ** 2}[kind]
            adjoints[i] += slope * adjoints[k]
            waiting[i] -= 1
            if waiting[i] == 0:
                ready.append(i)
    return values, adjoints
''',
    ),
)
