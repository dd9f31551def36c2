"""What is learned: the statistic a device computes, the solve that turns a sum into a model, ranking, metrics.

Sees arrays and numbers; imports only the ground (errors, arrays, randomness, timing).
Never imports crypto, ledger or privacy: no key and no record is known here.
"""
