"""Image files: reading their bytes, also from inside tar and parquet files, and decoding them."""
