# %% [markdown]
# # First steps
#
# A federated recommender on MovieLens-100K, from ratings to a traced and verified run, in under a minute.
# Run the cells of this file in an editor or notebook that knows `# %%`, or all at once: `python first_steps.py`.
#
# The ratings are those that `liberate data get ml-100k` fetches; MovieLens is free for research and may not be
# passed on, so each machine gets its own copy.

# %%
import tempfile
from dataclasses import asdict
from pathlib import Path

import liberate

# %% [markdown]
# ## Ratings
# Fetched once, then kept in your data folder under this name.

# %%
liberate.fetch_data("ml-100k")
data = liberate.load_data("ml-100k")
print(f"{data.name}: {len(data.user_ids):,} people, {len(data.item_ids):,} films, {len(data.values):,} ratings")

# %% [markdown]
# ## Train
# Settings are the same as on the command line and in TOML files.
# `plain` trusts the coordinator: the strongest model, and the one to compare private ones with.

# %%
folder = Path(tempfile.mkdtemp()) / "plain"
settings = liberate.configure("data.source=ml-100k", "privacy.mode=plain")
result = liberate.train(settings, folder, progress=print)
print(f"RMSE {result.rmse:.4f} after {result.rounds} rounds; {result.entry_count:,} entries on the ledger")

# %% [markdown]
# ## Was it worth it?
# Every result has its free baselines beside it.

# %%
run = liberate.load_run(folder)
found = liberate.evaluate(run)
print("this run", asdict(found.metrics))
for name, metrics in found.baselines.items():
    print(name, metrics)

# %% [markdown]
# ## Verify
# The verifier key is what you keep outside the folder: with it nobody can swap this ledger for another.
# A simulation is never trusted: its keys follow from the seed.

# %%
audit = liberate.verify(run.ledger_folder, key=result.verifier_key)
print(f"ok: {audit.ok}, trusted: {audit.trusted} ({audit.distrust}), {len(audit.findings)} findings")
assert audit.ok

# %% [markdown]
# ## Trace
# Where did the data of one person go? Each step is proved before it is returned.
# `user:196` is the person's id in the data set; a participant number or a key id do as well.

# %%
trace = liberate.trace(run, "user:196")
print(f"{len(trace.updates)} updates, {trace.proofs} proofs checked, last model: {trace.models[-1].digest.hex()}")

# %% [markdown]
# ## Recommend
# On the person's device, from their ratings and the public model.

# %%
person, items = liberate.recommend(run, "user:196", n=5)
for item in items:
    print(f"{item.rank}. {item.title} ({item.prediction:.2f})")

# %% [markdown]
# ## What would privacy cost?
# The paper's mechanism, asked beforehand: with so few people the noise is larger than the signal.

# %%
private = liberate.configure("data.source=ml-100k", "privacy.mode=local", "privacy.epsilon=8")
plan = liberate.plan_privacy(private)
print(f"epsilon {plan.epsilon_basic:g} in {plan.rounds} rounds, signal to noise {plan.signal_to_noise:.4f}")
print(plan.warning)
