"""The run folder: train into it, load it, evaluate it, ask it for recommendations.

    run.toml          resolved settings and what the run was: origin, verifier key, positions, figures
    metrics.parquet   one row per model version: the simulator's view on held-out ratings
    model/            every model version, and the catalogue
    checkpoint        the ledger's newest signed checkpoint: keep a copy elsewhere
    report.html       written by `liberate.report`
    keys/ ledger/ devices/    the federation

May import settings and everything below; knows nothing of the command line, reports and studies.
"""
