"""Proof that somebody contradicted themselves: an author with two entries of one number, a log with two histories.

May import `interface` and what is below it; needs no ledger to be checked.
"""
