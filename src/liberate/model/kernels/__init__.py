"""The numerical loops, compiled by numba; each has a plain twin in tests/reference.

May import nothing but arrays, compilation and units.
"""
