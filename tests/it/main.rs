//! Scenarios from outside: a real broker on port 0, driven over real sockets.
