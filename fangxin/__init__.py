"""fangxin 放心: locate, export, destroy keys, overwrite, validate, publish.

This package is the door. The rooms lie beside it as the folders `flows`, `checks`, `reports` and `data`,
and are imported as `fangxin.flows`, `fangxin.checks`, `fangxin.reports`, `fangxin.data`.
"""

__version__ = "0.1.0"
