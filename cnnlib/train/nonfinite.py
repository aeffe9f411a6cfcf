"""Finding where a NaN or an infinity began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlib import random
from cnnlib.backends import xp_of
from cnnlib.errors import NonFiniteError
from cnnlib.nn.module import Module
from cnnlib.op import check_finite

if TYPE_CHECKING:
    from cnnlib.train.trainer import Step, Trainer

Buffers = list[tuple[Module, str, Any]]


def buffers(model: Module) -> Buffers:
    """The buffers of now, to go back to: (module, name, array)."""
    return [(module, name, getattr(module, name)) for module in model.modules() for name in module._buffers]


def gradient(model: Module) -> str | None:
    """The first parameter whose gradient has NaN or infinity."""
    return next((name for name, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)), None)


def parameter(model: Module) -> str | None:
    """The first parameter that has NaN or infinity, and how many."""
    bad = ((name, p.data) for name, p in model.named_parameters() if not _finite(p.data))
    return next((f"parameter {name!r} {array.shape} has {_count(array)}" for name, array in bad), None)


def cause(trainer: Trainer, step: Step, before: Buffers) -> str:
    """One sentence: a parameter, a buffer or an input that was bad already, or else the operation that made it.

    Leaves the model's buffers as they were in ``before``, the random state as it is, and no gradients.
    """
    for module, name, array in before:
        module.set_buffer(name, array)
    found = _in_model(trainer.model) or _in_batch(step) or _in_operation(trainer, step)
    for module, name, array in before:
        module.set_buffer(name, array)
    trainer.model.zero_grad()
    return found


def _in_model(model: Module) -> str | None:
    for kind, named in (("parameter", ((n, p.data) for n, p in model.named_parameters())), ("buffer", model.named_buffers())):
        for name, array in named:
            if not _finite(array):
                return f"{kind} {name!r} {array.shape} had {_count(array)} before this batch: an earlier step made it."
    return None


def _in_batch(step: Step) -> str | None:
    for name, array in (("x", step.x.data), ("y", step.y)):
        if not _finite(array):
            return f"the data: {name} {array.shape} of this batch has {_count(array)}, the first at {_first(array)}."
    return None


def _in_operation(trainer: Trainer, step: Step) -> str:
    after = random.get_state()
    random.set_state(step.random_state)
    trainer.model.zero_grad()
    try:
        with check_finite():
            trainer._forward(step.x, step.y)[1].backward()
    except NonFiniteError as error:
        return f"{error}{_sizes(trainer.model, str(error))}"
    finally:
        random.set_state(after)
    if name := gradient(trainer.model):
        return f"the gradient of parameter {name!r}: a sum of finite adjoints that overflowed."
    return "not found: when the batch was run again, everything was finite."


def _sizes(model: Module, message: str) -> str:
    """How large the parameters of the module at the start of the message are: an overflow shows there."""
    modules = [(path, module) for path, module in model.named_modules() if path and message.startswith(f"{path}.")]
    if not modules:
        return ""
    path, module = max(modules, key=lambda found: len(found[0]))
    own = [f"{path}.{name} up to {_largest(p.data):.3g}" for name, p in module._parameters.items()]
    return f" Its parameters: {', '.join(own)}." if own else ""


def _finite(array: Any) -> bool:
    return array.dtype.kind != "f" or bool(xp_of(array).isfinite(array).all())


def _largest(array: Any) -> float:
    return float(abs(array).max())


def _count(array: Any) -> str:
    bad = int((~xp_of(array).isfinite(array)).sum())
    return f"{bad} value{'s' if bad > 1 else ''} of {array.size} NaN or infinite"


def _first(array: Any) -> tuple[int, ...]:
    return tuple(int(axis[0]) for axis in xp_of(array).nonzero(~xp_of(array).isfinite(array)))
