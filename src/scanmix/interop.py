"""Other libraries' data and results, under the name that programs import: see `scanmix.integrations.conversions`."""

from scanmix.integrations.conversions import (
    cross_validated,
    datalab_columns,
    from_dataset,
    from_hugging_face,
    to_dataset,
)  # fmt: skip

__all__ = ["cross_validated", "datalab_columns", "from_dataset", "from_hugging_face", "to_dataset"]
