"""The coordinator's side: open a round, collect, add up, solve, close.

Knows participants by messages only, and never opens a device.
"""
