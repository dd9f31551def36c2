"""Bytes, signatures, Merkle trees, signed notes and sealing.

Knows neither the ledger's records nor models; may import errors, arrays, randomness and timing only.
"""
