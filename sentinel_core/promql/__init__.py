"""PromQL over numpy: text -> tree -> values of every series at every step, and those as JSON. No store, no network."""
