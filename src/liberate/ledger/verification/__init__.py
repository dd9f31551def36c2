"""Everything again from bytes and keys: verify, replay, resume, back up.

May import `log` and what is below it.
"""
