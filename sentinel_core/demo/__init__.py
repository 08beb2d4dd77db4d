"""A small shop that does not exist: metrics for `sentinel up --demo`, with a past that joins its present."""
