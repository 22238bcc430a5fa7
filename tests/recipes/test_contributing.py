"""The recipe that docs/contributing.md shows."""

import json
import re

import pytest
from conftest import PROJECT


@pytest.mark.in_turn
def test_the_recipe_of_the_page_runs(run_python, tmp_path):
    page = (PROJECT / "docs/contributing.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "linear_fashion.py").write_text(recipe, encoding="utf-8")
    process = run_python("linear_fashion.py", "--preset", "test", "--out", "run", check=0, PYTHONPATH=str(PROJECT))
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert result["recipe"] == "linear_fashion"
    assert result["metrics"]["top1"] > 0.6
