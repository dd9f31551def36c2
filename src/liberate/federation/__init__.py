"""Rounds of learning between participants and a coordinator: the only place where ledger, model and privacy meet.

May import everything below it; nothing below may import it.
"""
