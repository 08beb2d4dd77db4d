"""Each step from an open to a closed incident, as a pure function."""
