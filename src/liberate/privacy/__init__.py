"""What may leak: clipping, the integer grid, noise, and what a run costs a person.

Sees arrays and numbers only; never imports the ledger, the model or the federation.
The keystream lives in `noise`, compiled loops in the samplers and `clipping`, dp_accounting in `accounting`.
"""
