"""The JSON API below /v1, its document, and the page that shows it."""
