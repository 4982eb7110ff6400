"""What a leaderboard is: pure values and laws. No loop, no clock, no I/O."""
