"""The dataset `tencentgr_synthetic`: synthetic data in the layout of TencentGR."""
