"""Incidents: one episode of something wrong, from opening to closing, with its timeline."""
