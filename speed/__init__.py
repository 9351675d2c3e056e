"""How fast scanmix is: every number beside a yardstick that was measured in the same run. `make bench`."""
