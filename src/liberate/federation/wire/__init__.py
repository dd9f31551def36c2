"""What travels between coordinator and participants, and the transport that carries it.

Both sides import this room; it knows neither of them.
"""
