"""What a ledger publishes so that others can check it: checkpoints, tiles, proof files, tables.

May import the ledger, crypto and the ground; nothing here decides what is accepted.
"""
