"""The process: assembly, readiness, serving, draining, supervision, worker, and which figures it shows."""
