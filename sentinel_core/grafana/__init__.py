"""Everything shipped for Grafana and Prometheus: dashboards, rules, provisioning, and the command that starts it."""
