"""Algorithms that do harm, and how a process finds them."""

from pathlib import Path

POISON = Path(__file__).parents[1] / "worker" / "poison"
FINDS_THEM = f"""
import episodes_assets.algorithms
episodes_assets.algorithms.__path__.append({str(POISON)!r})
"""
