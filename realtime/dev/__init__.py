"""What `realtime up` and `realtime simulate` need and production does not."""
