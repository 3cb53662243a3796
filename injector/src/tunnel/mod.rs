//! The tunnel between a developer machine and the relay: HTTP/2 turned round.
