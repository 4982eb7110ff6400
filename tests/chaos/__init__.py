"""Real processes, killed, stopped and cut off at random moments, and what became of every score that was sent.

`python -m tests.chaos --rounds 50` prints the table; a short form is part of the tests.
"""
