"""The specification's worker pools by use case. A preset says what a pool does not say itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PresetName = Literal["development", "production-low-traffic", "production-high-traffic"]

PRESETS: Mapping[PresetName, Mapping[str, int | bool]] = {
    "development": {"min_workers": 1, "max_workers": 5, "default_workers": 2, "auto_scale": False},
    "production-low-traffic": {
        "min_workers": 5,
        "max_workers": 20,
        "default_workers": 10,
        "scale_up_threshold": 50,
        "scale_down_threshold": 5,
        "auto_scale": True,
    },
    "production-high-traffic": {
        "min_workers": 10,
        "max_workers": 50,
        "default_workers": 20,
        "scale_up_threshold": 100,
        "scale_down_threshold": 10,
        "scale_up_step": 5,
        "scale_down_step": 2,
        "auto_scale": True,
    },
}
