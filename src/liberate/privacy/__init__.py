"""What may leak: clipping, the integer grid, noise, and what a run costs a person.

Sees arrays and numbers only; never imports the ledger, the model or the federation.
numba and the keystream live in `noise`, dp_accounting in `accounting`.
"""
