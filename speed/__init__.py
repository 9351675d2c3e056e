"""How fast scanmix is: every number beside a baseline that was measured in the same run. `make bench`."""
