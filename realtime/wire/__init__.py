"""What goes over a socket: messages, frames, the handshake, the connection."""
