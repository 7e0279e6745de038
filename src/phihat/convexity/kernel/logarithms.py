"""The kernel on logarithms of affine values: they confine the domain to half-spaces."""

from phihat.convexity.kernel.facts import normal
from phihat.convexity.kernel.values import Value
from phihat.convexity.program.form import Program

__all__ = ["logged", "positive"]

_STRICT = {
    *("add", "sub", "mul", "div", "neg", "square", "exp", "reduce_sum", "dot_general"),
    *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose"),
    *("add_any", "concatenate", "stack"),
}


def logged(program: Program) -> set[int]:
    """Find what logarithms are taken of, each element of which decides the loss.

    If an element of such a logarithm is undefined, so is all that strict primitives
    make of it, and the loss in the end: none of them drops an element.
    """
    writers = {n: e for e in program.equations for n in e.outputs}
    stack, seen, found = list(program.outputs), set(), set()
    while stack:
        writer = writers.get(stack.pop())
        if writer is None or writer.outputs[0] in seen:
            continue
        seen.add(writer.outputs[0])
        if 0 in program.shapes[writer.outputs[0]]:
            continue
        if writer.primitive == "log":
            found.add(writer.inputs[0])
        elif writer.primitive in _STRICT:
            stack.extend(writer.inputs)
    return found


def positive(value: Value, conditions: list[str]) -> Value:
    """Restrict an affine value to where its logarithm exists, a half-space."""
    if value.constant or all(k.sign > 0 for k in value.knowns):
        return value
    if not all(k.affine and k.total and k.high > 0.0 for k in value.knowns):
        return value
    conditions.append("the argument of a logarithm is > 0")
    knowns = [
        normal(k._replace(low=max(k.low, 0.0), sign=1, total=False))
        for k in value.knowns
    ]
    return Value(value.shape, knowns, value.places, ids=value.ids)
