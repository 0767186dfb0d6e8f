"""TODO: cases."""

from tests.hostile.cases import Case

CASES: tuple[Case, ...] = ()
