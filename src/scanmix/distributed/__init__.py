"""Where training is computed: devices, processes, gradients, derived randomness, and the losses of an epoch."""
