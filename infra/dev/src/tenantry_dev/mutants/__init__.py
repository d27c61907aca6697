"""Breaks the product on purpose, in a copy of the tree, and says which test notices.

    python -m tenantry_dev.mutants [--committed] [T1 T5 ...]

A mutant that survives is a way to break the product that no test guards against. The tree that it is called in is not
touched, so it may be edited meanwhile.
"""

from tenantry_dev.mutants._mutant import Change, Mutant
from tenantry_dev.mutants._table import MUTANTS

__all__ = ["MUTANTS", "Change", "Mutant"]
