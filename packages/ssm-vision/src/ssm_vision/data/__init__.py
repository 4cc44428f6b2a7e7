"""Image data sets, one file each. Every `build` returns an `ssm_core.DataBundle` of
(images (b, c, y, x) float32, labels (b,) int64) batches, or raises `DataError` in one line."""
