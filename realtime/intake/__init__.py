"""The way in of a score: admission, batch, record, acknowledge; import of a history."""
