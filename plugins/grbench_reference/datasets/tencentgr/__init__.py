"""The dataset `tencentgr`: the public parquet releases TencentGR-1M and TencentGR-10M."""
