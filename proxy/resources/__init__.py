"""The resources floor: one outside thing a module (upstream, valve, model, metrics, log)."""
