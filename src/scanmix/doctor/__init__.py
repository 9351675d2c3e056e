"""Before training: is the data fit for it, how long will it take here, and with which settings."""
