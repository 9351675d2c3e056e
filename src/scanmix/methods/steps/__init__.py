"""Training steps that several methods share; they take peers, where `blocks/` takes tensors."""
