"""A participant's side: check a round, compute, protect, sign, answer once.

Knows the coordinator by messages only, and of the ledger its format and proofs only.
"""
