"""Interfaces to other libraries: scikit-learn's estimators, cleanlab, PyTorch and Hugging Face data sets."""
