"""The parquet release of TencentGR-1M and -10M."""
