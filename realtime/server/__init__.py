"""The process: assembly, serving, draining, supervision, worker, metrics."""
