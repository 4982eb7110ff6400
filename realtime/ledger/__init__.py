"""PostgreSQL, the truth: the live rows, closed boards, time travel."""
