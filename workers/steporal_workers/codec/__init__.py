"""HTTP for Temporal's UI and command: what encrypts and decrypts values."""
