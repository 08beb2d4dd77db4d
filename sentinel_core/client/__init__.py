"""Send prediction events to Sentinel from an application."""
