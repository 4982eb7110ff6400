"""What clients may ask: HTTP routes, the socket session, the documents."""
