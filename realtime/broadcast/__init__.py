"""The way out of a change: announcement, reading, diff, frame, delivery; ranks; pages of boards."""
