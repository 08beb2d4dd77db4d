"""Who may do what: keys, users, sessions, and the audit of every change."""
