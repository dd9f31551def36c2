"""Whose copy leaked: rows matched with base copies, recipients ranked by their fingerprints, accusations as evidence.

May import `runs` and everything below it.
"""
