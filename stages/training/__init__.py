"""Training of a network: batches, callbacks, devices and processes."""
