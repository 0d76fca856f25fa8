"""Rules over columns: what they mean, what is refused, and that nothing is ever executed."""

import pyarrow as pa
import pytest

from ptta_core.config import SelectConfig
from ptta_core.expression import ExpressionError, parse

TABLE = pa.table({"motion_px": [1.0, 20.0, 70.0, None], "pairs": [3, 4, 5, 6], "saturated": [False, False, True, False],
                  "timing": ["ones", "twos", "still", None]})  # fmt: skip


def kept(rule: str) -> list[int]:
    """The rows for which every condition holds."""
    holding = [part.holds(TABLE).to_pylist() for part in parse(rule, TABLE.schema)]
    return [row for row in range(TABLE.num_rows) if all(one[row] for one in holding)]


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ("motion_px < 60", [0, 1]),
        ("motion_px < 60 and pairs >= 4", [1]),
        ("5 < motion_px <= 70", [1, 2]),
        ("motion_px < 5 or saturated", [0, 2]),
        ("not saturated", [0, 1, 3]),
        ("not (saturated or motion_px < 5)", [1]),
        ("timing in ['ones', 'twos']", [0, 1]),
        ("timing not in ['ones'] and pairs != 4", [2, 3]),
        ("timing == 'still'", [2]),
        ("pairs / 2 > 1.9", [1, 2, 3]),
        ("-motion_px + 2 * pairs > 0", [0]),
        ("True", [0, 1, 2, 3]),
    ],
)
def test_a_rule_keeps_the_rows_it_says(rule, rows):
    assert kept(rule) == rows


def test_conditions_joined_by_and_are_told_apart():
    parts = parse("motion_px < 60 and (pairs > 3 or saturated) and timing == 'ones'", TABLE.schema)
    assert [part.columns for part in parts] == [("motion_px",), ("pairs", "saturated"), ("timing",)]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("motionpx < 60", r"no column 'motionpx'.*choices: motion_px, pairs, saturated, timing"),
        ("motion_px", "is a double, not a condition"),
        ("timing < 3", "timing is string"),
        ("motion_px <", "is no rule"),
        ("__import__('os').system('true')", "no column|not allowed"),
        ("motion_px.real > 1", "not allowed"),
        ("[x for x in (1,)]", "no column|not allowed"),
        ("(lambda: True)()", "not allowed"),
        ("motion_px ** 99999 > 1", "not allowed"),
        ("timing in motion_px", "no list of values"),
        ("timing in ['ones', 2]", "a text is compared with a text"),
        ("motion_px is None", "not allowed"),
        ("pairs > 1 " + "and pairs > 1 " * 200, "at most 2000"),
    ],
)
def test_what_is_no_rule_is_refused_by_name(rule, says):
    with pytest.raises(ExpressionError, match=says):
        parse(rule, TABLE.schema)


def test_a_recipe_with_a_misspelt_column_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"no column 'text_shar'.*choices: S, duration_s"):
        SelectConfig(rule="text_shar < 0.2")
    assert SelectConfig(rule="text_share < 0.2 and duration_s > 2 and licence == 'CC0'").rule
