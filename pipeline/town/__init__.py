"""The embedded world: seeded, procedural, metric, continuous streets -> Surface."""
