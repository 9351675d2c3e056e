"""`scanmix doctor`: problems of the data before training, the time training will take, and settings that suit."""
