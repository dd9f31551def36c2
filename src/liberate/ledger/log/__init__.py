"""The log in SQLite: entries, tree, indexes and state in one transaction a block.

May import `evidence`, `interface`, `rules` and `format`. Nothing outside `runs` names SQLite.
"""
