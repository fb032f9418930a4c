# SPDX-License-Identifier: MIT
"""The benchmark: see tests/bench."""
