"""Ratings from files and public data sets, item features, and what is held out.

May import nothing but the ground (arrays, errors, files); knows no model, no key and no ledger.
"""
