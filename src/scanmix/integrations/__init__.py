"""Other libraries: the scikit-learn estimator, and data and results of cleanlab and Hugging Face."""
