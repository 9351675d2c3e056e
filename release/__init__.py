"""What is done to publish ScanMix: build and check what is uploaded, the container, the pictures of the docs."""
