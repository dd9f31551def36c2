"""What is written: records, entries, sets of numbers, and the codes by which an entry is refused.

A device needs this room and no other of the ledger. May import `crypto` only.
"""
