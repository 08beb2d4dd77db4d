"""Models in production: how what they predict moves against its own past. Pure: no store, no network."""
