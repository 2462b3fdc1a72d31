"""Wire dialects of the providers, one file each. `registry.parse` is the way in."""
