"""Answers about a ledger, each proved: where data went, who shaped a model, whose copy leaked.

May import `runs` and everything below it.
"""
