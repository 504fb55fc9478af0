"""HTTP server that encrypts and decrypts values for Temporal's UI and command line."""
