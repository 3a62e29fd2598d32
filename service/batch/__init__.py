"""`patchserve batch`: data sets of any size classified into one Parquet file. Needs the extra `batch`."""
