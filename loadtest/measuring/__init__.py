"""How loadtest/compare, loadtest/curves and loadtest/variants measure, and loadtest/train trains."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADTEST = ROOT / "loadtest"
TOOLS = ROOT / ".tools"
