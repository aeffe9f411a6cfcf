"""The one table of operation cases: gradient checks, backend comparisons, error messages and exercises all read it."""

from tests.cases import activation, conv, dropout, elementwise, embedding, linear, loss, norm, pool, recurrent, reduce, shape

_families = (linear, conv, pool, norm, activation, dropout, loss, recurrent, embedding, elementwise, reduce, shape)

CASES = [case for family in _families for case in family.CASES]
ERRORS = [case for family in _families for case in family.ERRORS]
