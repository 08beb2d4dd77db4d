"""What an incident owes to whom, and its delivery."""
