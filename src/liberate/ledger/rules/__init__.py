"""What an entry does to the state, or why it is refused: pure functions of state and entry.

May import `format` only; the same code runs in every replica.
"""
